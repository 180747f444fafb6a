"""What tests of ingestion jobs share: stores, sources, backends and what is stored in the end."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import samespace
from samespace import Document, IngestJob, IngestReport, VectorStore
from samespace.protocols import AnyBackend, Matrix, ReportsUsage, SupportsLateChunking, Usage
from samespace.testing.backends import V3, AwaitableBackend, TaskBackend

NAME = "ingested"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job writes to: the names of a sync and an async class, and what both are opened with."""

    kind: str
    source: str
    options: Mapping[str, Any]
    is_async: bool = False
    collection: str = NAME

    def open(self, backend: AnyBackend | None = None, **more: Any) -> VectorStore:
        """A sync handle."""
        space = {"space": V3} if backend is None else {"backend": backend}
        store: VectorStore = getattr(samespace, self.kind)(
            self.source, collection=self.collection, **space, **self.options, **more
        )
        return store

    def job(
        self, backend: AnyBackend, source: Any, **asked: Any
    ) -> AbstractContextManager[IngestJob]:
        """A job on a handle of its own, sync or async."""
        if not self.is_async:
            return _OnStore(self.open(backend), source, asked)
        store = getattr(samespace, f"Async{self.kind}")(
            self.source,
            collection=self.collection,
            backend=awaitable(backend),
            **self.options,
        )
        return nullcontext(IngestJob(store, source, **asked))  # which closes it

    def run(self, backend: AnyBackend, source: Any, **asked: Any) -> IngestReport:
        """What a whole run reports."""
        with self.job(backend, source, **asked) as job:
            return job.run()

    def stored(self) -> dict[str, tuple[Document, tuple[float, ...]]]:
        """All rows with their vectors, rounded as far as stores differ."""
        with self.open() as store:
            rows = list(store.scan(with_vectors=True))
        assert len({row.id for row in rows}) == len(rows)
        return {row.id: (row, rounded(row.vector)) for row in rows}

    def without(self, *, embedding: Sequence[Document]) -> None:
        """Delete what is there and store these documents, as a plain upsert does."""
        with self.open(TaskBackend()) as store:
            store.create()
            store.delete(where=samespace.everything)
            store.upsert(embedding)


class _OnStore(AbstractContextManager[IngestJob]):
    def __init__(self, store: VectorStore, source: Any, asked: Mapping[str, Any]) -> None:
        self._store = store
        self._job = IngestJob(store, source, **asked)

    def __enter__(self) -> IngestJob:
        return self._job

    def __exit__(self, *error: object) -> None:
        self._store.close()


class Awaitable(AwaitableBackend):
    """An awaitable backend that says what its last call cost."""

    def __init__(self, backend: Any) -> None:
        super().__init__(backend)
        self._own = backend

    def usage(self) -> Usage:
        return self._own.usage() if isinstance(self._own, ReportsUsage) else Usage(0)


class AwaitableChunks(Awaitable):
    """One that embeds chunks together too."""

    async def embed_chunks(self, documents: Sequence[Sequence[str]]) -> list[Matrix]:
        found: list[Matrix] = self._own.embed_chunks(documents)
        return found


def awaitable(backend: Any) -> Awaitable:
    """A backend with async methods."""
    return (AwaitableChunks if isinstance(backend, SupportsLateChunking) else Awaitable)(backend)


def rounded(vector: Any) -> tuple[float, ...]:
    assert vector is not None
    return tuple(np.round(np.asarray(vector, np.float64), 3) + 0.0)


def postgres_place(request: pytest.FixtureRequest, *, is_async: bool = False) -> Place:
    schema = request.getfixturevalue("schema")
    options = {"schema": schema, "registry": f"{schema}_registry"}
    return Place("PgVectorStore", request.getfixturevalue("postgres"), options, is_async)


def qdrant_place(request: pytest.FixtureRequest, *, is_async: bool = False) -> Place:
    request.getfixturevalue("qdrant_local")
    folder = request.getfixturevalue("tmp_path") / "qdrant"
    return Place("QdrantStore", str(folder), {}, is_async)


def qdrant_server_place(
    request: pytest.FixtureRequest, *, grpc: bool = False, is_async: bool = False
) -> Place:
    """Over REST or gRPC."""
    url, prefix = request.getfixturevalue("qdrant"), request.getfixturevalue("prefix")
    options = {"grpc_port": request.getfixturevalue("qdrant_grpc")} if grpc else {}
    return Place("QdrantStore", url, options, is_async, f"{prefix}{NAME}")


def elasticsearch_place(request: pytest.FixtureRequest, *, is_async: bool = False) -> Place:
    raw = request.getfixturevalue("raw")
    return Place("ElasticsearchStore", raw.url, {}, is_async, raw.named(NAME))


PLACES: dict[str, Callable[[pytest.FixtureRequest], Place]] = {
    "PostgreSQL": postgres_place,
    "PostgreSQL, async": lambda request: postgres_place(request, is_async=True),
    "Qdrant local": qdrant_place,
    "Qdrant local, async": lambda request: qdrant_place(request, is_async=True),
    "Qdrant REST": qdrant_server_place,
    "Qdrant gRPC, async": lambda request: qdrant_server_place(request, grpc=True, is_async=True),
    "Elasticsearch": elasticsearch_place,
    "Elasticsearch, async": lambda request: elasticsearch_place(request, is_async=True),
}


def made(count: int, *, start: int = 0, **metadata: Any) -> list[Document]:
    """Documents whose texts and ids follow from their numbers."""
    return [
        Document(f"d{n}", f"text number {n} of many", {"n": n, **metadata})
        for n in range(start, start + count)
    ]


class Bars:
    """Cuts after each bar."""

    def __repr__(self) -> str:
        return "Bars()"

    def spans(self, text: str) -> list[tuple[int, int]]:
        ends = [match.end() for match in re.finditer(r"\|", text)]
        ends += [len(text)] if not ends or ends[-1] != len(text) else []
        return list(zip([0, *ends[:-1]], ends, strict=True))


class ChunkBackend(TaskBackend):
    """Embeds a chunk by all of its document, so that a wrong context shows in the vector."""

    def __init__(self) -> None:
        super().__init__()
        self.together: list[list[str]] = []

    def embed_chunks(self, documents: Sequence[Sequence[str]]) -> list[Matrix]:
        self.together += [list(chunks) for chunks in documents]
        found = []
        for chunks in documents:
            whole = "".join(chunks)
            found.append(super().embed_documents([f"{chunk} {chunk} {whole}" for chunk in chunks]))
            del self.documents[-len(chunks) :]
        return found


class Interrupted(Exception):
    """Ends a source."""


@dataclass
class Ending:
    """A source that fails once it has given so many documents; it counts what was pulled."""

    documents: Sequence[Document]
    after: int
    pulled: int = field(default=0)

    def __iter__(self) -> Iterator[Document]:
        for document in self.documents[: self.after]:
            self.pulled += 1
            yield document
        raise Interrupted


def folder_of(path: Path, texts: Mapping[str, str]) -> Path:
    """A folder with these files."""
    for name, text in texts.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path
