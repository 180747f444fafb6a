"""A store as a job uses it: sync or async, each sync call in the thread of a worker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from typing import Any, Final, TypeVar

from samespace.documents import (
    CollectionInfo,
    Document,
    Metadata,
    Rejected,
    VersionedRow,
    WriteReport,
)
from samespace.errors import CollectionNotFound, InvalidInput
from samespace.filters import Filter, everything, field
from samespace.ingest.worker import GRACE, Worker
from samespace.protocols import AsyncVectorStore, Vector, VectorStore
from samespace.space import EmbeddingSpace

T = TypeVar("T")
AnyStore = VectorStore | AsyncVectorStore
IDS: Final = 1000
"""How many ids are asked for at once."""
MOST_IDS: Final = 10_000
"""How many ids a filter may name; of a document with more chunks the old ones are looked for."""


class Target:
    """One stage's way to the store."""

    def __init__(self, store: AnyStore, worker: Worker) -> None:
        self._store: Any = store
        self._worker = worker
        self.is_open = False

    async def _call(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        call = partial(method, *arguments, **options)
        self.is_open = True
        try:
            return await call() if self._store.is_async else await self._worker.do(call)
        except InvalidInput:  # among others that of a handle which belongs to another loop
            self.is_open = False
            raise

    async def with_vectors(self, ids: Sequence[str]) -> dict[str, Document] | None:
        """The rows of these ids that have a vector; None where there is no collection."""
        found: list[Document] = []
        try:
            for part in _parts(ids):
                found += await self._call(self._store.get, part, with_vectors=True)
        except CollectionNotFound:
            return None
        return {document.id: document for document in found if document.vector is not None}

    async def info(self) -> CollectionInfo:
        """What the collection says of itself."""
        found: CollectionInfo = await self._call(self._store.info)
        return found

    async def provenance(self) -> Mapping[str, str] | None:
        """What the collection says of how its vectors are made; None where there is none."""
        try:
            return (await self.info()).provenance
        except CollectionNotFound:
            return None

    async def create(self, provenance: Mapping[str, str]) -> None:
        """Create the collection, saying how its vectors are made."""
        await self._call(self._store.create, provenance=provenance)

    async def prove(self) -> None:
        """Have the guard look at the backend."""
        await self._call(self._store.prove)

    async def write(self, rows: Sequence[tuple[Document, Vector]]) -> WriteReport:
        """Store documents with their vectors."""
        if not rows:
            return WriteReport()
        documents, vectors = zip(*rows, strict=True)
        report: WriteReport = await self._call(
            self._store.upsert_vectors,
            documents,
            list(vectors),
            space=self._store.space,
            on_error="report",
        )
        return report

    async def change(self, metadata: Mapping[str, Metadata]) -> WriteReport:
        """Give documents other metadata; what the store has no place for is rejected alone."""
        if not metadata:
            return WriteReport()
        try:
            return WriteReport(written=await self._call(self._store.update_metadata, metadata))
        except InvalidInput as error:
            if len(metadata) == 1:
                return WriteReport(rejected=(Rejected(next(iter(metadata)), error),))
        report = WriteReport()
        for id, each in metadata.items():
            report += await self.change({id: each})
        return report

    async def delete_others(self, parents: Sequence[str], ids: Sequence[str]) -> int:
        """Delete the chunks of documents beside those with these ids."""
        if not parents:
            return 0
        if len(ids) <= MOST_IDS:
            return await self.delete(where=field.parent.in_(parents) & ~field.id.in_(ids))
        kept, deleted = frozenset(ids), 0
        async for rows in self.scan(field.parent.in_(parents)):
            others = [row.id for row in rows if row.id not in kept]
            deleted += await self.delete(ids=others, where=everything) if others else 0
        return deleted

    async def delete(self, *, where: Filter, ids: Sequence[str] | None = None) -> int:
        """How many rows were deleted; none where there is no collection."""
        try:
            return int(await self._call(self._store.delete, ids=ids, where=where))
        except CollectionNotFound:
            return 0

    async def scan(self, where: Filter) -> AsyncIterator[list[Document]]:
        """All rows that pass, in lists."""
        try:
            rows = self._store.scan(where=where)
            while part := await self._next(rows):
                yield part
        except CollectionNotFound:
            return

    async def stale_rows(self, space: EmbeddingSpace) -> AsyncIterator[list[VersionedRow]]:
        """All rows of a slot whose text is no longer what their vector was made from, in lists."""
        since: str | None = None
        while True:
            rows, since = await self._call(self._store.stale, space, since=since, limit=IDS)
            yield rows
            if since is None:
                return

    async def _next(self, rows: AsyncIterator[Document] | Iterator[Document]) -> list[Document]:
        if isinstance(rows, Iterator):
            return await self._worker.do(lambda: list(islice(rows, IDS)))
        part = []
        async for row in rows:
            part.append(row)
            if len(part) == IDS:
                break
        return part

    @asynccontextmanager
    async def bulk(self, *, resumed: bool) -> AsyncIterator[None]:
        """All writes within it are parts of one; an index is not waited for by who is cancelled."""
        if self._store.is_async:
            async with self._store.bulk(resumed=resumed):
                yield
            return
        bulk = self._store.bulk(resumed=resumed)
        bulk.__enter__()
        try:
            yield
        except BaseException as error:
            bulk.__exit__(type(error), error, error.__traceback__)
            raise
        await self._worker.do(lambda: bulk.__exit__(None, None, None), grace=GRACE)

    async def close(self) -> None:
        """Close an async store in the loop that it was used in."""
        await self._store.close()


def _parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + IDS] for start in range(0, len(ids), IDS))


def unique(values: Iterable[str]) -> list[str]:
    """Each value once, in order."""
    return list(dict.fromkeys(values))
