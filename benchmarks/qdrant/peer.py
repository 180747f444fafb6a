"""What the contestants beside ours have in common: a collection whose vectors are kept as ours."""

from __future__ import annotations

import time
from typing import ClassVar

from qdrant_client import QdrantClient, models

from benchmarks.serving import EF_CONSTRUCTION, Kind, Loader, M
from benchmarks.workload import Workload

SECONDS = 300
POLL_SECONDS = 0.02
VECTOR = "vector"
INDEXED_AT_ONCE = models.OptimizersConfigDiff(indexing_threshold=1)
"""Of any size, as ours with ``build="immediate"``: a graph is built where there may be one."""


class Peer(Loader):
    """Its collection is made by hand, with our index over the vectors and none over the payload."""

    collection: ClassVar[str]
    vector: ClassVar[str] = VECTOR
    prefer_grpc: ClassVar[bool] = False

    def __init__(self, address: str, given: Workload) -> None:
        super().__init__(address, given)
        self.lists = given.vectors.tolist()
        self.client = connected(address, prefer_grpc=self.prefer_grpc)

    def create(self) -> None:
        self.client.delete_collection(self.collection)
        self.client.create_collection(
            self.collection,
            vectors_config={
                self.vector: models.VectorParams(
                    size=self.given.vectors.shape[1],
                    distance=models.Distance.COSINE,
                    hnsw_config=graph(self.kind),
                )
            },
            optimizers_config=INDEXED_AT_ONCE,
        )

    def finish(self) -> None:
        if self.kind == "hnsw":
            wait_until_indexed(self.address, self.collection)

    def count(self) -> int:
        return self.client.count(self.collection, exact=True).count

    def drop(self) -> None:
        self.client.delete_collection(self.collection)


def graph(kind: Kind) -> models.HnswConfigDiff:
    """The graph of ours; none where ``m`` is 0."""
    if kind == "flat":
        return models.HnswConfigDiff(m=0)
    return models.HnswConfigDiff(m=M, ef_construct=EF_CONSTRUCTION)


def rest_of(address: str) -> str:
    """The URL of an address, behind which is the port of gRPC."""
    return address.partition(",")[0]


def grpc_port_of(address: str) -> int:
    """The port of gRPC."""
    return int(address.partition(",")[2])


def connected(address: str, *, prefer_grpc: bool) -> QdrantClient:
    """The official client."""
    return QdrantClient(
        url=rest_of(address),
        grpc_port=grpc_port_of(address),
        prefer_grpc=prefer_grpc,
        timeout=SECONDS,
    )


def wait_until_indexed(address: str, collection: str) -> None:
    """Return once the server has built what it builds by itself: green alone may be too early."""
    client = connected(address, prefer_grpc=False)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        info = client.get_collection(collection)
        if info.status is models.CollectionStatus.GREEN and info.indexed_vectors_count:
            return
        time.sleep(POLL_SECONDS)
    raise RuntimeError(f"no index after {SECONDS} s")
