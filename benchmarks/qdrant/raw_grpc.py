"""The client by hand, over gRPC: the same points."""

from __future__ import annotations

from benchmarks.qdrant.raw import Raw
from benchmarks.serving import serve


class RawGrpc(Raw):
    """The client makes messages of the lists."""

    collection = "by_hand_grpc"
    prefer_grpc = True


if __name__ == "__main__":
    serve(RawGrpc)
