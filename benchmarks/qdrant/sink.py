"""A Qdrant, over REST and gRPC, that keeps nothing but what its collections were created with."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

import grpc
import orjson
from qdrant_client import grpc as messages

from benchmarks import sink

VERSION = "1.19.0"
STORED = {"operation_id": 0, "status": "completed"}


def answer(method: str, path: str, body: bytes) -> sink.Reply:  # noqa: ARG001
    """Over REST: as if all that was sent were kept, and all that is asked for were not there."""
    if path == "/":
        return HTTPStatus.OK, orjson.dumps({"title": "qdrant", "version": VERSION})
    action = path.partition("?")[0].rpartition("/")[2]
    results = {"points": STORED, "exists": {"exists": False}, "count": {"count": 0}}
    result = results.get(action, True)
    return HTTPStatus.OK, orjson.dumps({"result": result, "status": "ok", "time": 0.0})


class Collections:
    """Over gRPC: made, described and deleted."""

    def __init__(self) -> None:
        self.known: dict[str, bytes] = {}

    def create(self, request: bytes, context: Any) -> bytes:  # noqa: ARG002
        made = messages.CreateCollection.FromString(request)
        info = messages.CollectionInfo(
            status=messages.CollectionStatus.Green,
            optimizer_status=messages.OptimizerStatus(ok=True),
            config=messages.CollectionConfig(
                params=messages.CollectionParams(vectors_config=made.vectors_config),
                hnsw_config=messages.HnswConfigDiff(m=16, ef_construct=100, full_scan_threshold=1),
                optimizer_config=messages.OptimizersConfigDiff(
                    deleted_threshold=0.2,
                    vacuum_min_vector_number=1000,
                    default_segment_number=0,
                    flush_interval_sec=5,
                ),
                wal_config=messages.WalConfigDiff(wal_capacity_mb=32, wal_segments_ahead=0),
                metadata=made.metadata,
            ),
        )
        self.known[made.collection_name] = _bytes(messages.GetCollectionInfoResponse(result=info))
        return _bytes(messages.CollectionOperationResponse(result=True))

    def delete(self, request: bytes, context: Any) -> bytes:  # noqa: ARG002
        name = messages.DeleteCollection.FromString(request).collection_name
        was_there = self.known.pop(name, None) is not None
        return _bytes(messages.CollectionOperationResponse(result=was_there))

    def get(self, request: bytes, context: Any) -> bytes:
        name = messages.GetCollectionInfoRequest.FromString(request).collection_name
        if name not in self.known:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Collection `{name}` doesn't exist!")
        return self.known[name]


def handlers() -> list[Any]:
    """Over gRPC; points are not even read."""
    collections = Collections()
    done = messages.UpdateResult(operation_id=0, status=messages.UpdateStatus.Completed)
    stored = _bytes(messages.PointsOperationResponse(result=done))
    version = _bytes(messages.HealthCheckReply(version=VERSION))
    services = {
        "qdrant.Qdrant": {"HealthCheck": lambda *_: version},
        "qdrant.Points": {"Upsert": lambda *_: stored, "CreateFieldIndex": lambda *_: stored},
        "qdrant.Collections": {
            "Create": collections.create,
            "Delete": collections.delete,
            "Get": collections.get,
        },
    }
    return [
        grpc.method_handlers_generic_handler(
            service,
            {name: grpc.unary_unary_rpc_method_handler(answer) for name, answer in methods.items()},
        )
        for service, methods in services.items()
    ]


def _bytes(message: Any) -> bytes:
    encoded: bytes = message.SerializeToString()
    return encoded


if __name__ == "__main__":
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers(handlers())
    grpc_port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    rest_port = sink.start(answer, "content-type: application/json\r\n")
    sink.until_stdin_ends(f"http://127.0.0.1:{rest_port},{grpc_port}")
