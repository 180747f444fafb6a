"""samespace: vectors made elsewhere, through ``upsert_vectors``."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal

from benchmarks.serving import Answer, rate, serve
from benchmarks.workload import Workload
from samespace import Document, ElasticsearchStore, EmbeddingSpace, Index
from samespace.errors import CollectionNotFound


class Ours:
    """The public interface; the index is of the kind that every contestant has."""

    def __init__(self, url: str, given: Workload) -> None:
        self.url = url
        self.given = given
        self.rows = len(given.ids)
        self.space = EmbeddingSpace(model="benchmark", dimensions=given.vectors.shape[1])
        parts = zip(given.ids, given.texts, given.metadata, strict=True)
        self.documents = [Document(id, text, metadata) for id, text, metadata in parts]

    def encode(self) -> Answer:
        """Upsert where nothing is kept."""
        with self._empty("flat") as store:
            return rate(lambda: self._upsert(store), self.rows)

    def flat(self) -> Answer:
        """Upsert without a graph over the vectors."""
        return self._loaded("flat")

    def hnsw(self) -> Answer:
        """Upsert with the graph built inside the clock."""
        return self._loaded("hnsw")

    def _loaded(self, kind: Literal["flat", "hnsw"]) -> Answer:
        with self._empty(kind) as store:
            answer = rate(lambda: self._upsert(store), self.rows)
            if store.count() != self.rows:
                raise RuntimeError("rows are missing")
            store.drop()
            return answer

    def _empty(self, kind: Literal["flat", "hnsw"]) -> ElasticsearchStore:
        store = ElasticsearchStore(
            self.url, collection="ours", space=self.space, index=Index(kind=kind)
        )
        with suppress(CollectionNotFound):
            store.drop()
        store.create()
        return store

    def _upsert(self, store: ElasticsearchStore) -> None:
        report = store.upsert_vectors(self.documents, self.given.vectors, space=self.space)
        if report.written != self.rows:
            raise RuntimeError(f"{report.written} of {self.rows} rows were written")


if __name__ == "__main__":
    serve(Ours)
