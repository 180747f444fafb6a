"""What the contestants beside ours have in common: an index made by hand, so that all are alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from elasticsearch import Elasticsearch

from benchmarks.serving import Answer, rate
from benchmarks.workload import Workload

SECONDS = 300.0


class Peer(ABC):
    """Its vectors are indexed as ours are; text and metadata are mapped as it maps them itself."""

    index: ClassVar[str]
    field: ClassVar[str]
    """The field of the vectors."""
    mapping: ClassVar[dict[str, Any]] = {}
    """What else it maps before it writes."""

    def __init__(self, url: str, given: Workload) -> None:
        self.url = url
        self.given = given
        self.rows = len(given.ids)
        self.lists = given.vectors.tolist()
        self.client = Elasticsearch(url, request_timeout=SECONDS)

    @abstractmethod
    def write(self) -> None:
        """Send all rows, once."""

    def encode(self) -> Answer:
        """Write where nothing is kept."""
        self._create("flat")
        return rate(self._write, self.rows)

    def flat(self) -> Answer:
        """Write without a graph over the vectors."""
        return self._loaded("flat")

    def hnsw(self) -> Answer:
        """Write with the graph built inside the clock."""
        return self._loaded("hnsw", m=16, ef_construction=64)

    def _loaded(self, kind: str, **options: int) -> Answer:
        self._create(kind, **options)
        answer = rate(self._write, self.rows)
        if self.client.count(index=self.index)["count"] != self.rows:
            raise RuntimeError("rows are missing")
        self.client.indices.delete(index=self.index)
        return answer

    def _create(self, kind: str, **options: int) -> None:
        self.client.indices.delete(index=self.index, ignore_unavailable=True)
        vectors = {
            "type": "dense_vector",
            "dims": self.given.vectors.shape[1],
            "index": True,
            "similarity": "dot_product",
            "index_options": {"type": kind, **options},
        }
        properties = {**self.mapping.get("properties", {}), self.field: vectors}
        self.client.indices.create(
            index=self.index, mappings={**self.mapping, "properties": properties}
        )

    def _write(self) -> None:
        """As ours does: one refresh, at the end."""
        self.write()
        self.client.indices.refresh(index=self.index)
