"""One slot of one collection, filled and kept fresh."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from samespace.audit.remaking import Remade
from samespace.documents import Document, FillReport, VersionedRow
from samespace.filters import Filter
from samespace.ingest.target import IDS
from samespace.migrate.fingerprints import fingerprint_of
from samespace.migrate.flow import InFlight
from samespace.migrate.making import Affordable, Making, Place, Unsourced, paired, refused_of
from samespace.migrate.pacing import Budget, Pace
from samespace.migrate.progress import SlotProgress
from samespace.migrate.reading import Rows, passing
from samespace.migrate.tallying import BEHIND, Look, Tally
from samespace.protocols import Shard, Vector
from samespace.space import EmbeddingSpace
from samespace.vectors import stack

Pair = tuple[VersionedRow, Vector]
UNREACHABLE: Final = (
    "another row has the same id, so that neither can be written alone; give it another"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Which rows a run takes, and how many at once."""

    worker: Shard
    where: Filter | None
    batch_size: int
    together: bool
    """Whether chunks of one document are embedded in sight of one another."""

    @property
    def shard(self) -> Shard | None:
        """What the store may sort out; a document's chunks stay together."""
        return None if self.together or self.worker == (0, 1) else self.worker

    def has(self, document: Document) -> bool:
        """Whether a row is this worker's, by the hash of its id or of its document's."""
        place, count = self.worker
        if count == 1:
            return True
        unit = document.parent.id if self.together and document.parent else document.id
        return fingerprint_of(unit) % count == place


class SlotFilling:
    """Fills a slot: what is pending, then what is stale, each write on condition of what was read."""

    def __init__(
        self,
        rows: Rows,
        space: EmbeddingSpace,
        making: Making,
        share: Share,
        *,
        in_flight: InFlight,
        budget: Budget,
        is_stopping: Callable[[], bool],
        tell: Callable[[], object],
        unsourced: Unsourced | None = None,
        tally: Tally | None = None,
    ) -> None:
        """``tell`` is called after each batch that was written; ``tally`` is what others count in, too."""
        self._rows, self._space, self._making, self._share = rows, space, making, share
        self._unsourced = unsourced
        self._in_flight, self._budget = in_flight, budget
        self._is_stopping, self._tell = is_stopping, tell
        self._pace = Pace()
        self._tally, self._look = tally or Tally(), Look()
        self._is_unfinished = False
        """Whether this sweep left rows that need not be changed again to be filled."""
        self._position: str | None = None
        """Up to where the store's log of changes was looked at."""
        self._embedded = 0

    @property
    def embedded(self) -> int:
        """Texts."""
        return self._embedded + (self._unsourced.embedded if self._unsourced else 0)

    @property
    def progress(self) -> SlotProgress:
        """What was done so far."""
        return self._tally.progress(self._space)

    @property
    def moved(self) -> int:
        """Rows that the last sweep could not fill since others had written them since the one before."""
        return self._look.moved

    async def sweep(self) -> tuple[int, int]:
        """One look at all rows: how many there were to fill, and how many were filled.

        Where the store has a log of changes, one look at what was written since the last one.
        """
        self._look, self._is_unfinished = self._look.next(), False
        await self._look_at_unsourced()
        if self._position is not None:
            await self._changed(self._position)
        else:
            await self._look_at_all()
        await self._look_beyond()
        self._tally.left = self._look.left
        return self._look.found, self._look.settled

    async def _look_at_all(self) -> None:
        begun = None if self._making.derives_from else await self._rows.position()
        # A worker's part of a log is what Share.has, so what goes before it is parted alike.
        await self._pending(self._share.shard if begun is None else None)
        await self._in_flight.drain()
        await self._stale()
        await self._in_flight.drain()
        if not self._is_stopping() and not self._is_unfinished:
            self._position = begun

    async def _look_beyond(self) -> None:
        """Fill what no row shows by itself to be filled: nothing where each is embedded alone."""

    async def _changed(self, position: str) -> None:
        limit = self._share.batch_size
        while not self._is_stopping():
            rows, position = await self._rows.changed(self._space, limit=limit, since=position)
            await self._take(passing(rows, self._share.where), are_pending=False)
            await self._in_flight.drain()
            if not self._is_unfinished:
                self._position = position
            if len(rows) < limit:
                return

    async def _look_at_unsourced(self) -> None:
        if self._unsourced is not None and not self._is_stopping():
            found, settled = await self._unsourced.look_again()
            self._look.found += found
            self._look.settled += settled

    async def _pending(self, shard: Shard | None) -> None:
        after: str | None = None
        while not self._is_stopping():
            rows, after = await self._rows.pending(
                self._space,
                limit=self._share.batch_size,
                after=after,
                shard=shard,
                where=self._share.where,
                with_vectors_of=self._making.derives_from,
            )
            await self._take(rows, are_pending=True, are_own=shard is not None)
            if after is None:
                return

    async def _stale(self) -> None:
        since, limit = None, self._share.batch_size
        source = self._making.derives_from
        while not self._is_stopping():
            # To ask what is stale in the source takes a look at all its rows.
            most = limit if source is None else max(limit, IDS)
            rows, since = await self._rows.stale(self._space, limit=most, since=since)
            rows = [
                row for row in passing(rows, self._share.where) if self._share.has(row.document)
            ]
            if source is not None:
                rows = await self._rows.with_vouched(source, rows)
            for start in range(0, len(rows), limit):
                if self._is_stopping():
                    return
                await self._take(rows[start : start + limit], are_pending=False)
            if since is None:
                return

    async def _take(
        self, rows: Sequence[VersionedRow], *, are_pending: bool, are_own: bool = False
    ) -> None:
        """Fill those that are this run's, and that there is hope for."""
        own = rows if are_own else [row for row in rows if self._share.has(row.document)]
        taken = await self._wanted(own)
        if not taken:
            return
        if self._budget.is_limited:
            await self._in_flight.drain()
        await asyncio.sleep(self._pace.pause())
        await self._in_flight.add(self._fill(taken, are_pending=are_pending))

    async def _fill(self, rows: Sequence[VersionedRow], *, are_pending: bool) -> None:
        """Fill rows that have nothing to do with one another."""
        del are_pending
        await self._each(rows)

    async def _affordable(
        self, rows: Sequence[VersionedRow]
    ) -> AsyncIterator[Sequence[VersionedRow]]:
        """Part after part, each no dearer than what is left by then; first what costs nothing."""
        rows = sorted(rows, key=self._making.asks_for)
        while rows:
            most = await self._fitting(rows)
            yield rows[:most]
            rows = rows[most:]

    async def _fitting(self, rows: Sequence[VersionedRow], beside: Sequence[int] = ()) -> int:
        """How many, where for each so many tokens are paid elsewhere."""
        return await self._budget.fitting([self._paid(row) for row in rows], beside)

    def _paid(self, row: VersionedRow) -> str | None:
        """The text that is embedded for a row; None where its vector is derived."""
        return row.document.embedded_text if self._making.asks_for(row) else None

    async def _wanted(self, rows: Sequence[VersionedRow]) -> list[VersionedRow]:
        reachable = [row for row in rows if self._is_reachable(row)]
        refused = [row for row in reachable if self._tally.has_refused(row)]
        again = await self._anew(refused) if refused else set[str]()
        # What no model is asked for may have got a vector to derive from since.
        asked_for = [row for row in refused if self._making.asks_for(row)]
        hopeless = {row.place for row in asked_for if row.document.id not in again}
        return [row for row in reachable if row.place not in hopeless]

    def _is_reachable(self, row: VersionedRow) -> bool:
        if row.key:
            self._tally.note_unreachable(row.key, UNREACHABLE)
        return not row.key

    async def _anew(self, refused: Sequence[VersionedRow]) -> set[str]:
        """The ids of refused rows that there is hope for again, though their text is the same."""
        del refused
        return set()

    async def _each(self, rows: Sequence[VersionedRow]) -> None:
        self._look.found += len(rows)
        left = await self._after_unsourced(rows, self._fitting)
        async for part in self._affordable(left):
            await self._part(part)

    async def _part(self, rows: Sequence[VersionedRow]) -> None:
        made = await self._making.make(rows, {})
        self._look.found -= len(refused_of(rows, made))
        await self._note(made, rows)
        pairs = paired(rows, made)
        done = await self._write(pairs)
        self._look.settled += done.filled
        if done.changed:
            self._look.note_changed([row for row, _ in pairs], done.changed)
        # Who changed a row that is embedded alone has left it in the store's log.
        self._is_unfinished |= bool(done.changed) and self._unsourced is not None

    async def _after_unsourced(
        self, rows: Sequence[VersionedRow], affordable: Affordable
    ) -> Sequence[VersionedRow]:
        if self._unsourced is None:
            return rows
        found = await self._unsourced.first(rows, affordable)
        self._is_unfinished |= len(found) < len(rows)
        return found

    async def _note(
        self, made: Remade, rows: Sequence[VersionedRow], taken: Collection[str] = ()
    ) -> None:
        """``taken`` are ids of a document's chunks that this sweep counts among what it found."""
        self._embedded += made.embedded
        refused = refused_of(rows, made)
        self._look.found -= len({row.document.id for row, _ in refused}.intersection(taken))
        behind = await self._behind([row for row, _ in refused])
        for row, reason in refused:
            self._tally.refuse(row, BEHIND + reason if row.place in behind else reason)
        for row, _ in paired(rows, made):
            self._tally.accept(row)

    async def _behind(self, refused: Sequence[VersionedRow]) -> set[Place]:
        """Where those of these are that have a vector in the slot, which then is of another text."""
        ids = [row.document.id for row in refused if not self._tally.has_refused(row)]
        return {row.place for row in await self._rows.filled_of(self._space, ids)}

    async def _write(self, pairs: Sequence[Pair]) -> FillReport:
        """Rows with their vectors, if they still are as they had been read."""
        if not pairs:
            return FillReport(filled=0, changed=0)
        vectors: list[Vector] = [vector for _, vector in pairs]
        matrix = np.asarray(stack(vectors, self._space.dimensions), np.float32)
        began = time.monotonic()
        done = await self._rows.fill(self._space, [row for row, _ in pairs], matrix)
        self._pace.note(time.monotonic() - began, len(pairs))
        if self._unsourced is not None:
            tell = self._unsourced.doubt if done.changed else self._unsourced.settle
            tell(row for row, _ in pairs)
        self._tally.filled += done.filled
        self._tally.changed += done.changed
        derived = sum(not self._making.asks_for(row) for row, _ in pairs)
        self._tally.derived += min(done.filled, derived)
        self._tell()
        return done
