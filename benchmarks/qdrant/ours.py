"""samespace: vectors made elsewhere, through ``upsert_vectors`` over gRPC."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal

from benchmarks.ingesting import Paced, run_job
from benchmarks.migrating import beside
from benchmarks.qdrant.peer import grpc_port_of, rest_of, wait_until_indexed
from benchmarks.serving import Answer, Loader, serve
from benchmarks.workload import Workload
from samespace import Document, EmbeddingBackend, EmbeddingSpace, Index, QdrantStore
from samespace.errors import CollectionNotFound


class Ours(Loader):
    """The public interface; the index is of the kind that every contestant has."""

    build: Literal["immediate", "auto"] = "immediate"

    def __init__(self, address: str, given: Workload) -> None:
        super().__init__(address, given)
        self.space = EmbeddingSpace(model="benchmark", dimensions=given.vectors.shape[1])
        parts = zip(given.ids, given.texts, given.metadata, strict=True)
        self.documents = [Document(id, text, metadata) for id, text, metadata in parts]

    def open(self, backend: EmbeddingBackend | None = None) -> QdrantStore:
        return QdrantStore(
            rest_of(self.address),
            collection="ours",
            backend=backend,
            space=self.space if backend is None else None,
            index=Index(kind=self.kind, build=self.build),
            grpc_port=grpc_port_of(self.address),
        )

    def create(self) -> None:
        self.store = self.open()
        with suppress(CollectionNotFound):
            self.store.drop()
        self.store.create()

    def write(self) -> None:
        report = self.store.upsert_vectors(self.documents, self.given.vectors, space=self.space)
        if report.written != self.rows:
            raise RuntimeError(f"{report.written} of {self.rows} rows were written")

    def finish(self) -> None:
        if self.kind == "hnsw":
            wait_until_indexed(self.address, "ours")

    def count(self) -> int:
        return self.store.count()

    def drop(self) -> None:
        self.store.drop()

    def beside(self) -> Answer:
        """Search while a migration runs, where the server does not rebuild graphs for each write."""
        self.build = "auto"
        self._loaded("hnsw")
        with self.open() as store:
            answer = beside(store, self.given)
        self.drop()
        self.build = "immediate"
        return answer

    def job(self) -> Answer:
        """Embed and write, without a graph over the vectors."""
        self.kind = "flat"
        self.create()
        backend = Paced(self.space, self.given.vectors)
        with self.open(backend=backend) as store:
            answer = run_job(store, self.documents, backend.pace)
        self.drop()
        return answer


if __name__ == "__main__":
    serve(Ours)
