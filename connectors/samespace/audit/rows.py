"""A collection's rows as an audit reads and a repair writes them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from samespace.documents import CollectionInfo, Document, FillReport, SlotInfo, VersionedRow
from samespace.filters import Filter, field
from samespace.ingest.target import IDS, AnyStore, Target
from samespace.ingest.worker import Worker
from samespace.protocols import Matrix
from samespace.space import EmbeddingSpace


class Rows(Target):
    """The rows of one collection, and its slot of the handle's space."""

    def __init__(self, store: AnyStore, worker: Worker) -> None:
        super().__init__(store, worker)
        self.space: EmbeddingSpace = store.space
        self.canary_threshold: float = store.canary_threshold
        self.twins: dict[str, str] = {}
        """Rows with another row's id, by what the store calls them, which is their id here."""
        self.shared: dict[str, set[str]] = {}
        """Ids that several rows were seen to have, each with what the store calls these rows."""
        self.names_natives = False
        """Whether the store was seen to call rows otherwise than by their ids, which several may have."""

    async def filled(self, limit: int, after: str | None) -> tuple[list[Document], str | None]:
        """The next rows with a vector, and where to go on; None at the end."""
        rows, cursor = await self._call(self._store.filled, self.space, limit=limit, after=after)
        self.see(rows)
        return [self._named(row) for row in rows], cursor

    async def sample(self, size: int, where: Filter | None = None) -> list[Document]:
        """So many rows with a vector, drawn without replacement."""
        rows = await self._call(self._store.sample, self.space, size=size, where=where)
        self.see(rows)
        return [self._named(row) for row in rows]

    def see(self, rows: Iterable[VersionedRow]) -> None:
        """Notice which of these rows have one id."""
        seen: dict[str, set[str]] = {}
        for row in rows:
            if row.native_id:
                self.names_natives = True
                seen.setdefault(row.document.id, set()).add(row.native_id)
        for id, natives in seen.items():
            if len(natives) > 1:
                self.shared.setdefault(id, set()).update(natives)

    def called(self, id: str) -> tuple[str, ...]:
        """What the store calls the rows that were seen to have this id, in order; empty of a row alone."""
        return tuple(sorted(self.shared.get(id, ()), key=lambda each: (len(each), each)))

    def _named(self, row: VersionedRow) -> Document:
        """A row with its vector, under an id that no other has."""
        if not row.key:
            return replace(row.document, vector=row.vector)
        self.twins[row.key] = row.document.id
        return replace(row.document, id=row.key, vector=row.vector)

    async def of(self, ids: Sequence[str]) -> list[VersionedRow]:
        """Those of these rows that have a vector."""
        return await self._paged(self._store.filled, ids)

    async def pending_of(self, ids: Sequence[str]) -> list[VersionedRow]:
        """Those of these rows that have none."""
        return await self._paged(self._store.pending, ids)

    async def _paged(self, method: Callable[..., Any], ids: Sequence[str]) -> list[VersionedRow]:
        found: list[VersionedRow] = []
        for start in range(0, len(ids), IDS):
            where, after = field.id.in_(ids[start : start + IDS]), None
            while True:
                rows, after = await self._call(
                    method, self.space, limit=IDS + 1, after=after, where=where
                )
                found += rows
                if after is None:
                    break
        return found

    async def pending(self) -> AsyncIterator[list[str]]:
        """The ids of rows without a vector, in lists."""
        after: str | None = None
        while True:
            rows, after = await self._call(self._store.pending, self.space, limit=IDS, after=after)
            if rows:
                yield [self._named(row).id for row in rows]
            if after is None:
                return

    async def count_filled(self, info: CollectionInfo, slot: SlotInfo) -> int:
        """How many rows have a vector.

        In a slot of ours a vector that does not say what it was made from is pending too, and not without.
        """
        filled = info.rows - slot.pending
        if not slot.pending or slot.name != self.space.id:
            return filled
        after: str | None = None
        while True:
            rows, after = await self._call(
                self._store.pending, self.space, limit=IDS, after=after, with_vectors_of=self.space
            )
            filled += sum(row.vector is not None for row in rows)
            if after is None:
                return filled

    async def present(self, ids: Sequence[str]) -> set[str]:
        """Those of these ids that are there, with or without a vector."""
        found: set[str] = set()
        for start in range(0, len(ids), IDS):
            rows = await self._call(self._store.get, ids[start : start + IDS])
            found |= {row.id for row in rows}
        return found

    async def chunks_of(self, parents: Iterable[str]) -> dict[str, list[Document]]:
        """The chunks of each document, in their order, with the vectors that they have."""
        found: dict[str, list[Document]] = {parent: [] for parent in parents}
        if found:
            where = field.parent.in_(list(found))
            rows = self._store.scan(where=where, with_vectors=True)
            while part := await self._next(rows):
                for row in part:
                    if row.parent is not None:
                        found[row.parent.id].append(row)
        return {parent: sorted(rows, key=chunk_order) for parent, rows in found.items()}

    async def stale(self) -> set[str]:
        """The ids of all rows whose text is no longer what their vector was made from."""
        return {row.document.id async for rows in self.stale_rows(self.space) for row in rows}

    async def count_stale(self, space: EmbeddingSpace) -> int:
        """How many rows of a slot these are."""
        return sum([len(rows) async for rows in self.stale_rows(space)])

    async def fill(self, rows: Sequence[VersionedRow], vectors: Matrix) -> FillReport:
        """Write vectors into rows that still are what was read."""
        done: FillReport = await self._call(self._store.fill, self.space, rows, vectors)
        return done

    def slot(self, info: CollectionInfo) -> SlotInfo:
        """The handle's slot."""
        return next(slot for slot in info.slots if slot.space == self.space)


def may_be_unit(slot: SlotInfo) -> bool:
    """Whether a slot may have brought vectors to unit norm: one of ours keeps what their norm was."""
    return slot.name != slot.space.id


def chunk_order(row: Document) -> tuple[int, str]:
    """What chunks of one document are sorted by."""
    ordinal = row.parent.ordinal if row.parent else None
    return (-1 if ordinal is None else ordinal, row.id)
