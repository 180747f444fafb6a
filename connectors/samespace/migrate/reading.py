"""A collection's rows as a migration reads and writes them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from samespace.documents import CollectionInfo, FillReport, VersionedRow
from samespace.errors import MigrationError, SpaceMismatch, excerpt
from samespace.filters import Filter, field, matches
from samespace.guard import Canary
from samespace.ingest.target import IDS, Target
from samespace.migrate.plan import MigrationPlan, PlannedCollection, check_holds, check_store
from samespace.protocols import FollowsChanges, Matrix, Shard
from samespace.space import EmbeddingSpace


class Rows(Target):
    """The rows of one collection, in whichever slot is asked for."""

    async def planned_info(self, plan: MigrationPlan, planned: PlannedCollection) -> CollectionInfo:
        """What a collection says of itself, to a plan that is not finished there.

        :class:`MigrationError` if it is not what was planned, :class:`Finished` if the plan is finished.
        """
        info = await self.info_of(planned)
        if plan.is_finished(planned, info):
            raise Finished.of(planned)
        check_holds(planned, info, opened=True)
        return info

    async def info_of(self, planned: PlannedCollection) -> CollectionInfo:
        """What a collection says of itself, also where the slot of the handle's space has been dropped.

        :class:`MigrationError` for one in another kind of store than was planned.
        """
        check_store(planned, self._store)
        try:
            return await self.info()
        except SpaceMismatch as refusal:
            target = Rows(self._store.in_space(planned.target.space), self._worker)
            with suppress(SpaceMismatch):
                return await target.info()
            raise refusal from None

    async def count(self, where: Filter | None) -> int:
        """How many rows pass."""
        return int(await self._call(self._store.count, where))

    async def sample(
        self, space: EmbeddingSpace, size: int, where: Filter | None
    ) -> list[VersionedRow]:
        """So many rows with a vector in a slot, drawn without replacement."""
        found: list[VersionedRow] = await self._call(
            self._store.sample, space, size=size, where=where
        )
        return found

    async def pending(
        self,
        space: EmbeddingSpace,
        *,
        limit: int,
        after: str | None,
        shard: Shard | None = None,
        where: Filter | None = None,
        with_vectors_of: EmbeddingSpace | None = None,
    ) -> tuple[list[VersionedRow], str | None]:
        """The next rows without a vector, and where to go on; None at the end."""
        found: tuple[list[VersionedRow], str | None] = await self._call(
            self._store.pending,
            space,
            limit=limit,
            after=after,
            shard=shard,
            where=where,
            with_vectors_of=with_vectors_of,
        )
        return found

    async def stale(
        self, space: EmbeddingSpace, *, limit: int, since: str | None
    ) -> tuple[list[VersionedRow], str | None]:
        """The next rows whose text changed behind their vector, and where to go on; None at the end."""
        found: tuple[list[VersionedRow], str | None] = await self._call(
            self._store.stale, space, since=since, limit=limit
        )
        return found

    async def position(self) -> str | None:
        """Where the store's log of changes is now; None of a store without one."""
        if not isinstance(self._store, FollowsChanges):
            return None
        found: str = await self._call(self._store.position)
        return found

    async def changed(
        self, space: EmbeddingSpace, *, limit: int, since: str
    ) -> tuple[list[VersionedRow], str]:
        """The next rows to fill that were written since a position, and the position after them.

        With fewer than ``limit`` of them there are no more.
        """
        found: tuple[list[VersionedRow], str] = await self._call(
            self._store.changed, space, since=since, limit=limit
        )
        return found

    async def of_parents(
        self, space: EmbeddingSpace, parents: Sequence[str]
    ) -> tuple[list[VersionedRow], list[VersionedRow]]:
        """The rows of documents: those with a vector in a slot, and those without one.

        A row that is filled between is among both, as it was then: were these read the other way about,
        it would be among neither, and nobody would look for it again.
        """
        where = field.parent.in_(parents)
        pending = await self._all(self._store.pending, space, where)
        filled = await self._all(self._store.filled, space, where)
        later = {row.place: row for row in filled}
        return filled, [later.get(row.place, row) for row in pending]

    async def _all(self, method: Any, space: EmbeddingSpace, where: Filter) -> list[VersionedRow]:
        found: list[VersionedRow] = []
        after: str | None = None
        while True:
            rows, after = await self._call(method, space, limit=IDS, after=after, where=where)
            found += rows
            if after is None:
                return found

    async def filled_of(self, space: EmbeddingSpace, ids: Sequence[str]) -> list[VersionedRow]:
        """Those of some rows that have a vector in a slot."""
        return await self._of(self._store.filled, space, ids)

    async def pending_of(self, space: EmbeddingSpace, ids: Sequence[str]) -> list[VersionedRow]:
        """Those of some rows that have none."""
        return await self._of(self._store.pending, space, ids)

    async def _of(
        self, method: Any, space: EmbeddingSpace, ids: Sequence[str]
    ) -> list[VersionedRow]:
        found: list[VersionedRow] = []
        for start in range(0, len(ids), IDS):
            where = field.id.in_(ids[start : start + IDS])
            found += await self._all(method, space, where)
        return found

    async def again(self, space: EmbeddingSpace, ids: Sequence[str]) -> list[VersionedRow]:
        """Some rows as they are now, for filling a slot."""
        where = field.id.in_(ids)
        filled = await self._all(self._store.filled, space, where)
        found = {row.place: row for row in filled}
        # Last: of a vector without a source both say that it is theirs.
        pending = await self._all(self._store.pending, space, where)
        return list((found | {row.place: row for row in pending}).values())

    async def with_vouched(
        self, source: EmbeddingSpace, rows: Sequence[VersionedRow]
    ) -> list[VersionedRow]:
        """Rows with the vector that they have in another slot, where that is known to be of their text.

        What is stale there is asked after the rows were read and before their vectors are: a vector that
        is written between is of the text that was read, or the row is no longer what it was.
        """
        if not rows or not await self._keeps_sources(source):
            return list(rows)
        behind = await self._behind(source)
        held = await self.again(source, [row.document.id for row in rows])
        fresh = {
            (row.place, row.document.embedded_text): row.vector
            for row in held
            if row.place not in behind
        }
        return [
            replace(row, vector=fresh.get((row.place, row.document.embedded_text))) for row in rows
        ]

    async def of_their_text(
        self, space: EmbeddingSpace, rows: Sequence[VersionedRow]
    ) -> list[VersionedRow]:
        """Those of some rows, as they were read before this, whose vector in a slot is of their text."""
        behind = await self._behind(space) if rows else set()
        return [row for row in rows if row.place not in behind]

    async def _behind(self, space: EmbeddingSpace) -> set[tuple[str, str, str]]:
        """The places of rows whose text changed behind their vector; takes a look at all rows."""
        return {row.place async for page in self.stale_rows(space) for row in page}

    async def _keeps_sources(self, space: EmbeddingSpace) -> bool:
        """Whether a slot says of each vector what text it is of; one that others made does not."""
        slots = (await self.info()).slots
        return any(slot.space == space and slot.name == space.id for slot in slots)

    async def count_pending(self, space: EmbeddingSpace, where: Filter) -> int:
        """Rows that pass and have no vector in a slot."""
        found, after = 0, None
        while True:
            rows, after = await self.pending(space, limit=IDS, after=after, where=where)
            found += len(rows)
            if after is None:
                return found

    async def has_pending_text(self, space: EmbeddingSpace, where: Filter | None) -> bool:
        """Whether a row that passes has a text, and no vector in a slot."""
        after: str | None = None
        while True:
            rows, after = await self.pending(space, limit=IDS, after=after, where=where)
            if any(row.document.embedded_text.strip() for row in rows):
                return True
            if after is None:
                return False

    async def count_stale(self, space: EmbeddingSpace, where: Filter | None) -> int:
        """Rows that pass and whose text changed behind their vector."""
        return sum([len(passing(rows, where)) async for rows in self.stale_rows(space)])

    async def fill(
        self, space: EmbeddingSpace, rows: Sequence[VersionedRow], vectors: Matrix
    ) -> FillReport:
        """Write vectors into rows that still are what was read."""
        done: FillReport = await self._call(self._store.fill, space, rows, vectors)
        return done

    async def add_slot(
        self, space: EmbeddingSpace, canary: Canary | None, provenance: dict[str, str]
    ) -> None:
        """Add an empty slot that says how it is going to be filled."""
        await self._call(self._store.add_slot, space, canary=canary, provenance=provenance)

    async def build_index(self, space: EmbeddingSpace) -> None:
        """Build a slot's index, or wait until it is built."""
        await self._call(self._store.build_index, space)


class Finished(MigrationError):
    """A plan is finished in a collection."""

    @classmethod
    def of(cls, planned: PlannedCollection) -> Finished:
        """That of a planned collection."""
        return cls(
            f"this plan is finished in collection {excerpt(planned.name)}: its slot of "
            f"{planned.source.space} is dropped, so that nothing is left to move from or compare with; "
            f"applications go on with {planned.target.space}, and samespace audit looks at its vectors"
        )


def passing(rows: Sequence[VersionedRow], where: Filter | None) -> Sequence[VersionedRow]:
    """The rows that a filter lets pass."""
    return rows if where is None else [row for row in rows if _passes(row, where)]


def _passes(row: VersionedRow, where: Filter) -> bool:
    each = row.document
    parent = each.parent.id if each.parent else None
    return matches(where, id=each.id, metadata=each.metadata, parent=parent)
