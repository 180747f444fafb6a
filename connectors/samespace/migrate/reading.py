"""What a migration reads of a collection before anything is changed."""

from __future__ import annotations

from collections.abc import Sequence

from samespace.documents import VersionedRow
from samespace.filters import Filter, matches
from samespace.ingest.target import IDS, Target
from samespace.space import EmbeddingSpace


class Rows(Target):
    """The rows of one collection, as a plan and a dry run look at them."""

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

    async def count_pending(self, space: EmbeddingSpace, where: Filter) -> int:
        """Rows that pass and have no vector in a slot."""
        found, after = 0, None
        while True:
            rows, after = await self._call(
                self._store.pending, space, limit=IDS, after=after, where=where
            )
            found += len(rows)
            if after is None:
                return found

    async def count_stale(self, space: EmbeddingSpace, where: Filter | None) -> int:
        """Rows that pass and whose text changed behind their vector."""
        return sum([_passing(rows, where) async for rows in self.stale_rows(space)])


def _passing(rows: Sequence[VersionedRow], where: Filter | None) -> int:
    if where is None:
        return len(rows)
    documents = [row.document for row in rows]
    return sum(
        matches(
            where,
            id=each.id,
            metadata=each.metadata,
            parent=each.parent.id if each.parent else None,
        )
        for each in documents
    )
