"""Points in the forms that Qdrant's client sends: without a Python float for each component."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import orjson
from qdrant_client import grpc, models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

from samespace.protocols import Vector
from samespace.stores.qdrant import wire
from samespace.stores.qdrant.requests import Point, PointId, Read, Search, Spelt, plain

_NUMPY: Final = orjson.OPT_SERIALIZE_NUMPY


# REST


def json_points(points: Iterable[Point], mode: models.UpdateMode | None) -> bytes:
    """The body of an upsert."""
    listed = [
        {"id": point.id, "payload": point.payload, "vector": _contiguous(point.vectors)}
        for point in points
    ]
    more = {} if mode is None else {"update_mode": mode.value}
    option = _NUMPY | orjson.OPT_PASSTHROUGH_DATACLASS  # or orjson would write Spelt by itself
    return orjson.dumps({"points": listed, **more}, _fragment, option=option)


def _fragment(value: Spelt) -> orjson.Fragment:
    return orjson.Fragment(value.json)


def json_vectors(points: Sequence[Point], condition: models.Filter) -> bytes:
    """The body of an update of vectors."""
    listed = [{"id": point.id, "vector": _contiguous(point.vectors)} for point in points]
    body = {"points": listed, "update_filter": _plain(condition)}
    return orjson.dumps(body, option=_NUMPY)


def json_searches(searches: Sequence[Search]) -> bytes:
    """The body of a batch of queries."""
    listed = [
        {
            "query": np.ascontiguousarray(search.vector),
            "using": search.slot,
            "limit": search.limit,
            "filter": _plain(search.condition),
            "params": _plain(search.params),
            "with_payload": True,
            "with_vector": [search.slot] if search.with_vectors else False,
        }
        for search in searches
    ]
    return orjson.dumps({"searches": listed}, option=_NUMPY)


def json_ids(ids: Sequence[PointId], read: Read) -> bytes:
    """The body of a request for points by id."""
    return orjson.dumps({"ids": list(ids), **_json_read(read)})


def json_scroll(condition: models.Filter, limit: int, start: PointId | None, read: Read) -> bytes:
    """The body of a request for the next points."""
    where = {"filter": _plain(condition), "limit": limit, "offset": start}
    return orjson.dumps({**where, **_json_read(read)})


def _json_read(read: Read) -> dict[str, Any]:
    wanted = True if read.keys is None else list(read.keys)
    return {"with_payload": wanted, "with_vector": list(read.vectors) or False}


def _contiguous(vectors: Mapping[str, Vector]) -> dict[str, Vector]:
    return {name: np.ascontiguousarray(vector) for name, vector in vectors.items()}


def _plain(part: models.Filter | models.SearchParams) -> dict[str, Any]:
    """A model as JSON has it; what is None is left out."""
    return part.model_dump(mode="json", exclude_none=True)


def point_of_json(found: Mapping[str, Any]) -> Point:
    """A point as an answer has it; of its vectors the dense ones."""
    return _point(found["id"], found.get("payload"), found.get("vector"), found.get("score", 0.0))


# Local mode


def local_points(points: Iterable[Point]) -> list[models.PointStruct]:
    """Points as the client's models."""
    return [
        models.PointStruct(id=point.id, payload=plain(point.payload), vector=_lists(point.vectors))
        for point in points
    ]


def local_vectors(points: Sequence[Point]) -> list[models.PointVectors]:
    """Points' vectors as the client's models."""
    return [models.PointVectors(id=point.id, vector=_lists(point.vectors)) for point in points]


def local_searches(searches: Sequence[Search]) -> list[models.QueryRequest]:
    """Queries as the client's models."""
    return [
        models.QueryRequest(
            query=search.vector.tolist(),
            using=search.slot,
            limit=search.limit,
            filter=search.condition,
            with_payload=True,
            with_vector=[search.slot] if search.with_vectors else False,
        )
        for search in searches
    ]


def _lists(vectors: Mapping[str, Vector]) -> Any:
    return {name: vector.tolist() for name, vector in vectors.items()}


def point_of(record: models.Record | models.ScoredPoint) -> Point:
    """A point as the client's models have it; of its vectors the dense ones."""
    return _point(record.id, record.payload, record.vector, getattr(record, "score", 0.0))


def _point(id: Any, payload: dict[str, Any] | None, found: Any, score: float) -> Point:
    vectors = found if isinstance(found, dict) else {} if found is None else {"": found}
    dense = {
        name: np.asarray(vector, np.float32)
        for name, vector in vectors.items()
        if isinstance(vector, list) and vector and not isinstance(vector[0], list)
    }
    return Point(id=id, payload=payload or {}, vectors=dense, score=score)


# gRPC


def message_upsert(
    points: Iterable[Point], mode: models.UpdateMode | None, collection: str
) -> grpc.HealthCheckRequest:
    """An upsert as a message that has no fields, so that what it is made from need not be read.

    Messages keep fields that they do not know as they came, and write them so. The client's stub
    calls ``grpc.UpsertPoints.SerializeToString``, which is that of all messages.
    """
    known: Any = None if mode is None else RestToGrpc.convert_update_mode(mode)
    head = grpc.UpsertPoints(collection_name=collection, wait=True, update_mode=known)
    parts = (head.SerializeToString(), *wire.points(points))
    message: grpc.HealthCheckRequest = grpc.HealthCheckRequest.FromString(b"".join(parts))
    return message


def message_vectors(points: Sequence[Point]) -> list[grpc.PointVectors]:
    """Points' vectors as messages."""
    return [
        grpc.PointVectors(id=_message_id(point.id), vectors=_message_vectors(point.vectors))
        for point in points
    ]


def message_searches(searches: Sequence[Search], collection: str) -> list[grpc.QueryPoints]:
    """Queries as messages."""
    return [
        grpc.QueryPoints(
            collection_name=collection,
            query=grpc.Query(nearest=grpc.VectorInput(dense=_dense(search.vector))),
            using=search.slot,
            limit=search.limit,
            filter=message_filter(search.condition),
            params=RestToGrpc.convert_search_params(search.params),
            with_payload=grpc.WithPayloadSelector(enable=True),
            with_vectors=message_selector([search.slot] if search.with_vectors else []),
        )
        for search in searches
    ]


def message_filter(condition: models.Filter) -> grpc.Filter:
    """A filter as a message."""
    return RestToGrpc.convert_filter(condition)


def message_keys(keys: Sequence[str] | None) -> grpc.WithPayloadSelector:
    """Which keys of the payload an answer is to have."""
    if keys is None:
        return grpc.WithPayloadSelector(enable=True)
    return grpc.WithPayloadSelector(include=grpc.PayloadIncludeSelector(fields=keys))


def message_selector(names: Sequence[str]) -> grpc.WithVectorsSelector:
    """Which vectors an answer is to have."""
    if not names:
        return grpc.WithVectorsSelector(enable=False)
    return grpc.WithVectorsSelector(include=grpc.VectorsSelector(names=names))


def message_ids(ids: Sequence[PointId]) -> list[grpc.PointId]:
    """Ids as messages."""
    return [_message_id(id) for id in ids]


def _message_id(id: PointId) -> grpc.PointId:
    return grpc.PointId(num=id) if isinstance(id, int) else grpc.PointId(uuid=id)


def _message_vectors(vectors: Mapping[str, Vector]) -> grpc.Vectors:
    named = {name: grpc.Vector(dense=_dense(vector)) for name, vector in vectors.items()}
    return grpc.Vectors(vectors=grpc.NamedVectors(vectors=named))


def _dense(vector: Vector) -> grpc.DenseVector:
    """A vector, by the bytes that a message of it has."""
    message: grpc.DenseVector = grpc.DenseVector.FromString(wire.dense(vector))
    return message


def point_of_message(message: Any) -> Point:
    """A point as a message has it; of its vectors the dense ones."""
    return Point(
        id=id_of_message(message.id),
        payload=GrpcToRest.convert_payload(message.payload),
        vectors=_vectors_of_message(message.vectors) if message.HasField("vectors") else {},
        score=getattr(message, "score", 0.0),
    )


def id_of_message(message: grpc.PointId) -> PointId:
    """An id as a message has it."""
    id: PointId = message.num if message.HasField("num") else message.uuid
    return id


def _vectors_of_message(message: grpc.VectorsOutput) -> dict[str, Vector]:
    named = {"": message.vector} if message.HasField("vector") else dict(message.vectors.vectors)
    found = {name: _floats(vector) for name, vector in named.items()}
    return {name: vector for name, vector in found.items() if vector is not None}


def _floats(message: grpc.VectorOutput) -> Vector | None:
    """The components from the bytes of the message; None if it is of another kind."""
    if message.HasField("dense"):
        data = message.dense.SerializeToString()
        count = len(message.dense.data)
        return np.frombuffer(data, "<f4", count, len(data) - 4 * count).astype(np.float32)
    if message.WhichOneof("vector") is None and not message.HasField("indices"):
        return np.asarray(message.data, np.float32)  # servers before 1.16
    return None
