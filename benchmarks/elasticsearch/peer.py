"""What the contestants beside ours have in common: an index made by hand, so that all are alike."""

from __future__ import annotations

from typing import Any, ClassVar

from elasticsearch import Elasticsearch

from benchmarks.serving import EF_CONSTRUCTION, Loader, M
from benchmarks.workload import Workload

SECONDS = 300.0


class Peer(Loader):
    """Its vectors are indexed as ours are; text and metadata are mapped as it maps them itself."""

    index: ClassVar[str]
    field: ClassVar[str]
    """The field of the vectors."""
    mapping: ClassVar[dict[str, Any]] = {}
    """What else it maps before it writes."""

    def __init__(self, address: str, given: Workload) -> None:
        super().__init__(address, given)
        self.lists = given.vectors.tolist()
        self.client = Elasticsearch(address, request_timeout=SECONDS)

    def create(self) -> None:
        self.client.indices.delete(index=self.index, ignore_unavailable=True)
        graph = {"m": M, "ef_construction": EF_CONSTRUCTION} if self.kind == "hnsw" else {}
        vectors = {
            "type": "dense_vector",
            "dims": self.given.vectors.shape[1],
            "index": True,
            "similarity": "dot_product",
            "index_options": {"type": self.kind, **graph},
        }
        properties = {**self.mapping.get("properties", {}), self.field: vectors}
        self.client.indices.create(
            index=self.index, mappings={**self.mapping, "properties": properties}
        )

    def finish(self) -> None:
        """One refresh, at the end, as ours does."""
        self.client.indices.refresh(index=self.index)

    def count(self) -> int:
        return int(self.client.count(index=self.index)["count"])

    def drop(self) -> None:
        self.client.indices.delete(index=self.index)
