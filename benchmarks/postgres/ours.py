"""samespace: vectors made elsewhere, through ``upsert_vectors`` and ``search_vector``."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg

from benchmarks.ingesting import Paced, run_job
from benchmarks.migrating import beside
from benchmarks.serving import Answer, latencies, rate, serve
from benchmarks.workload import BUCKETS, Workload, nearest
from samespace import Document, EmbeddingBackend, EmbeddingSpace, Index, PgVectorStore, field

LIMIT = 10


class Ours:
    """The public interface, with its defaults."""

    def __init__(self, conninfo: str, given: Workload) -> None:
        self.conninfo = conninfo
        self.given = given
        self.rows = len(given.ids)
        dimensions = given.vectors.shape[1]
        self.space = EmbeddingSpace(model="benchmark", dimensions=dimensions)
        self.second = EmbeddingSpace(model="benchmark-2", dimensions=dimensions)
        parts = zip(given.ids, given.texts, given.metadata, strict=True)
        self.documents = [Document(id, text, metadata) for id, text, metadata in parts]

    def open(
        self, *, build: str = "auto", backend: EmbeddingBackend | None = None
    ) -> PgVectorStore:
        index = Index(build=build)  # type: ignore[arg-type]
        space = self.space if backend is None else None
        return PgVectorStore(
            self.conninfo, collection="ours", backend=backend, space=space, index=index
        )

    def empty(self) -> None:
        """A collection without rows."""
        with self.open() as store:
            store.create()
            store.drop()
            store.create()

    def load(self) -> Answer:
        """Upsert without an index over the vectors."""
        self.empty()
        with self.open(build="manual") as store:
            return rate(lambda: self._upsert(store), self.rows)

    def load_and_index(self) -> Answer:
        """Upsert with the index built at its end."""
        self.empty()
        with self.open() as store:
            answer = rate(lambda: self._upsert(store), self.rows)
            if not store.info().index_built:
                raise RuntimeError("the index was not built")
            return answer

    def job(self) -> Answer:
        """Embed and write, without an index over the vectors."""
        self.empty()
        backend = Paced(self.space, self.given.vectors)
        with self.open(build="manual", backend=backend) as store:
            return run_job(store, self.documents, backend.pace)

    def _upsert(self, store: PgVectorStore) -> None:
        report = store.upsert_vectors(self.documents, self.given.vectors, space=self.space)
        if report.written != self.rows:
            raise RuntimeError(f"{report.written} of {self.rows} rows were written")

    def search(self) -> Answer:
        """The ten nearest rows, with text and metadata."""
        with self.open() as store:
            return latencies(
                lambda query: store.search_vector(query, space=self.space, limit=LIMIT),
                list(self.given.queries),
            )

    def recall(self) -> Answer:
        """How many of the true ten nearest a default search finds."""
        with self.open() as store:
            found = [
                len(self._places(store, query) & nearest(self.given.vectors, query, LIMIT))
                for query in self.given.queries
            ]
        return {"recall": sum(found) / (LIMIT * len(found))}

    def _places(self, store: PgVectorStore, query: object, where: object = None) -> set[int]:
        hits = store.search_vector(query, space=self.space, limit=LIMIT, where=where)  # type: ignore[arg-type]
        return {int(hit.document.text.split(":")[0].split()[1]) for hit in hits}

    def filtered(self) -> Answer:
        """Hits and recall under a filter that one row in a hundred passes."""
        with self.open() as store:
            counts, recalls = zip(*self._filtered(store), strict=True)
        return {"fewest": min(counts), "recall": sum(recalls) / len(recalls)}

    def _filtered(self, store: PgVectorStore) -> Iterator[tuple[int, float]]:
        for n, query in enumerate(self.given.queries):
            bucket = n % BUCKETS
            found = self._places(store, query, field("bucket") == bucket)
            among = range(bucket, self.rows, BUCKETS)
            true = {among[place] for place in nearest(self.given.vectors[among], query, LIMIT)}
            yield len(found), len(found & true) / LIMIT

    def search_filtered(self) -> Answer:
        """Latency of the same."""
        with self.open() as store:
            numbered = list(enumerate(self.given.queries))
            return latencies(
                lambda item: store.search_vector(
                    item[1],
                    space=self.space,
                    limit=LIMIT,
                    where=field("bucket") == item[0] % BUCKETS,
                ),
                numbered,
            )

    def beside(self) -> Answer:
        """Search while a migration runs."""
        self.load_and_index()
        with self.open() as store:
            return beside(store, self.given)

    def fill(self) -> Answer:
        """Read what is pending and fill a second slot, the first one's index in place."""
        with self.open() as store:
            if any(slot.space == self.second for slot in store.info().slots):
                store.drop_slot(self.second)
            with psycopg.connect(self.conninfo, autocommit=True) as connection:
                connection.execute("VACUUM ours")
            store.add_slot(self.second)
            answer = rate(lambda: self._fill(store), self.rows)
            store.drop_slot(self.second)
            return answer

    def _fill(self, store: PgVectorStore) -> None:
        filled, after = 0, None
        while True:
            rows, after = store.pending(self.second, limit=1000, after=after)
            vectors = self.given.vectors[: len(rows)]
            filled += store.fill(self.second, rows, vectors).filled
            if after is None:
                break
        if filled != self.rows:
            raise RuntimeError(f"{filled} of {self.rows} rows were filled")


if __name__ == "__main__":
    serve(Ours)
