"""All rows of a slot: which lack a vector, and which have one of an earlier text.

Others may be writing, and a follower be a little behind them, so what was found is looked at again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from samespace.documents import VersionedRow
from samespace.filters import Filter
from samespace.ingest.target import IDS
from samespace.migrate.asking import Slot
from samespace.migrate.evidence import NAMED, Named, Pending, Stale
from samespace.migrate.reading import Rows, passing

MOST_AGAIN: Final = 1_000
"""How many rows are looked at again; of more, nobody is just a little behind."""
LOOKS: Final = 5
"""How often at most, while others write them."""
PAUSE: Final = 0.5
"""Seconds between two such looks."""


@dataclass(slots=True)
class _Seen:
    """Rows, and of the first of them the ids, and a trace of the text."""

    count: int = 0
    texts: dict[str, int] = field(default_factory=dict)
    ids: set[str] = field(default_factory=set)

    def add(self, row: VersionedRow) -> None:
        """One more."""
        self.count += 1
        if len(self.texts) < MOST_AGAIN:
            self.texts[_key(row)] = hash(row.document.embedded_text)
            self.ids.add(row.document.id)

    @property
    def can_settle(self) -> bool:
        """Whether these may be what a follower has not come to yet."""
        return 0 < self.count == len(self.texts)

    def keep(self, before: _Seen) -> bool:
        """Only those that were there before; whether one of them has another text since then."""
        kept = {id: text for id, text in self.texts.items() if id in before.texts}
        self.texts, self.count = kept, len(kept)
        return any(before.texts[id] != text for id, text in kept.items())

    @property
    def named(self) -> Named:
        """How many, and the first of them."""
        return Named(self.count, list(self.texts)[:NAMED])


class Sweeping:
    """Looks at all rows, and again at those that were not as they must be."""

    def __init__(self, rows: Rows, source: Slot, target: Slot, where: Filter | None) -> None:
        self._rows, self._source, self._target, self._where = rows, source, target, where
        self._missing, self._textless, self._stale = _Seen(), _Seen(), _Seen()
        self._blank = 0
        self._settled = {"pending": 0, "stale": 0}

    @property
    def pending(self) -> Pending:
        """Rows without a vector, as they were seen last."""
        return Pending(
            missing=self._missing.named,
            textless=self._textless.named,
            blank=self._blank,
            settled=self._settled["pending"],
        )

    @property
    def stale(self) -> Stale:
        """Rows with a vector of an earlier text, as they were seen last."""
        return Stale(self._stale.named, settled=self._settled["stale"])

    async def look_for_pending(self) -> None:
        """A whole sweep."""
        after: str | None = None
        while True:
            rows, after = await self._rows.pending(
                self._target.space, limit=IDS, after=after, where=self._where
            )
            await self._sort(rows)
            if after is None:
                return

    async def _sort(self, rows: Sequence[VersionedRow]) -> None:
        blank = [row for row in rows if not row.document.embedded_text.strip()]
        filled = await self._source.of([row.document.id for row in blank])
        textless = {row.document.id for row in filled}
        for row in rows:
            if row.document.embedded_text.strip():
                self._missing.add(row)
            elif row.document.id in textless:
                self._textless.add(row)
            else:
                self._blank += 1

    async def look_for_stale(self) -> None:
        """A whole sweep."""
        async for rows in self._rows.stale_rows(self._target.space):
            for row in passing(rows, self._where):
                self._stale.add(row)

    async def look_again(self) -> None:
        """At those that were found, if they are few: they may have been written, and filled, meanwhile."""
        missing, stale = self._missing.count, self._stale.count
        await _settle(self._missing, self._still_missing)
        await _settle(self._stale, self._still_stale)
        self._settled["pending"] = missing - self._missing.count
        self._settled["stale"] = stale - self._stale.count

    async def _still_missing(self, before: _Seen) -> _Seen:
        found = _Seen()
        for row in await self._target.pending_of(sorted(before.ids)):
            found.add(row)
        return found

    async def _still_stale(self, before: _Seen) -> _Seen:
        found = _Seen()
        async for rows in self._rows.stale_rows(self._target.space):
            for row in rows:
                if _key(row) in before.texts:
                    found.add(row)
        return found


async def _settle(seen: _Seen, look: Callable[[_Seen], Awaitable[_Seen]]) -> None:
    """Leave those that no look finds fresh; of one that is written again and again one look tells little."""
    for _ in range(LOOKS if seen.can_settle else 0):
        found = await look(seen)
        is_written = found.keep(seen)
        seen.texts, seen.count = found.texts, found.count
        if not is_written:
            return
        await asyncio.sleep(PAUSE)


def _key(row: VersionedRow) -> str:
    return row.key or row.document.id
