"""All rows of a slot: which lack a vector, and which have one of an earlier text.

Others may be writing, and a follower be a little behind them, so what was found is looked at again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from samespace.documents import VersionedRow
from samespace.filters import Filter
from samespace.ingest.target import IDS
from samespace.migrate.asking import Slot
from samespace.migrate.evidence import NAMED, Named, Pending, Stale
from samespace.migrate.reading import Rows, passing

MOST_AGAIN: Final = 1_000
"""How many rows are looked at again; of more, nobody is just a little behind."""
PATIENCE: Final = 5.0
"""Seconds that a follower is given for what is not as it must be: its interval, a sweep and more."""
PAUSE: Final = 0.5
"""Seconds between two such looks."""
_Place = tuple[str, str, str]
_Lack = Literal["missing", "textless", "blank"]


@dataclass(slots=True)
class _Seen:
    """Rows, and where the first of them are."""

    count: int = 0
    places: set[_Place] = field(default_factory=set)

    def add(self, row: VersionedRow) -> None:
        """One more."""
        self.count += 1
        if len(self.places) < MOST_AGAIN:
            self.places.add(row.place)

    @property
    def can_settle(self) -> bool:
        """Whether these may be what a follower has not come to yet."""
        return 0 < self.count == len(self.places)

    @property
    def named(self) -> Named:
        """How many, and the first of them."""
        return Named(self.count, [key or id for id, _, key in sorted(self.places)[:NAMED]])


class Sweeping:
    """Looks at all rows, and again at those that were not as they must be."""

    def __init__(self, rows: Rows, source: Slot, target: Slot, where: Filter | None) -> None:
        self._rows, self._source, self._target, self._where = rows, source, target, where
        self._pending: dict[_Lack, _Seen] = {kind: _Seen() for kind in get_args(_Lack)}
        self._stale = _Seen()
        self._settled = {"pending": 0, "stale": 0}

    @property
    def pending(self) -> Pending:
        """Rows without a vector, as they were seen last."""
        return Pending(
            missing=self._pending["missing"].named,
            textless=self._pending["textless"].named,
            blank=self._pending["blank"].count,
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
        textless = {row.place for row in filled}
        for row in rows:
            kind: _Lack = "textless" if row.place in textless else "blank"
            self._pending["missing" if row.document.embedded_text.strip() else kind].add(row)

    async def look_for_stale(self) -> None:
        """A whole sweep."""
        async for rows in self._rows.stale_rows(self._target.space):
            for row in passing(rows, self._where):
                self._stale.add(row)

    async def look_again(self, patience: float) -> None:
        """At those that were found, if they are few: they may be written, and filled, within some seconds.

        Rows without a text wait for nobody, so that one look is enough.
        """
        pending, stale = self._all_pending, self._stale.count
        until = asyncio.get_running_loop().time() + patience
        await self._look_at_pending()
        await _settle(lambda: self._pending["missing"], self._look_at_pending, until)
        await _settle(lambda: self._stale, self._look_at_stale, until)
        self._settled["pending"] = pending - self._all_pending
        self._settled["stale"] = stale - self._stale.count

    @property
    def _all_pending(self) -> int:
        return sum(seen.count for seen in self._pending.values())

    async def _look_at_pending(self) -> None:
        """What they are now: one may have lost its text or got one, or be none of the plan's any more."""
        before = {kind: seen for kind, seen in self._pending.items() if seen.can_settle}
        self._pending |= {kind: _Seen() for kind in before}
        places = {place for seen in before.values() for place in seen.places}
        ids = sorted({id for id, _, _ in places})
        rows = passing(await self._target.pending_of(ids), self._where) if ids else []
        await self._sort([row for row in rows if row.place in places])

    async def _look_at_stale(self) -> None:
        before, self._stale = self._stale, _Seen()
        async for rows in self._rows.stale_rows(self._target.space):
            for row in passing(rows, self._where):
                if row.place in before.places:
                    self._stale.add(row)


async def _settle(
    seen: Callable[[], _Seen], look: Callable[[], Awaitable[None]], until: float
) -> None:
    """Look, after a pause, until nothing is left or it is late."""
    clock = asyncio.get_running_loop().time
    is_late = False
    while seen().can_settle and not is_late:
        is_late = until - clock() <= PAUSE
        await asyncio.sleep(max(0.0, min(PAUSE, until - clock())))
        await look()
