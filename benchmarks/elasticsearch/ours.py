"""samespace: vectors made elsewhere, through ``upsert_vectors``."""

from __future__ import annotations

from contextlib import suppress

from benchmarks.serving import Loader, serve
from benchmarks.workload import Workload
from samespace import Document, ElasticsearchStore, EmbeddingSpace, Index
from samespace.errors import CollectionNotFound


class Ours(Loader):
    """The public interface; the index is of the kind that every contestant has."""

    def __init__(self, address: str, given: Workload) -> None:
        super().__init__(address, given)
        self.space = EmbeddingSpace(model="benchmark", dimensions=given.vectors.shape[1])
        parts = zip(given.ids, given.texts, given.metadata, strict=True)
        self.documents = [Document(id, text, metadata) for id, text, metadata in parts]

    def create(self) -> None:
        self.store = ElasticsearchStore(
            self.address, collection="ours", space=self.space, index=Index(kind=self.kind)
        )
        with suppress(CollectionNotFound):
            self.store.drop()
        self.store.create()

    def write(self) -> None:
        report = self.store.upsert_vectors(self.documents, self.given.vectors, space=self.space)
        if report.written != self.rows:
            raise RuntimeError(f"{report.written} of {self.rows} rows were written")

    def finish(self) -> None:
        """It has refreshed the index already."""

    def count(self) -> int:
        return self.store.count()

    def drop(self) -> None:
        self.store.drop()


if __name__ == "__main__":
    serve(Ours)
