"""One collection of a migration: its target's slot, and the slot that its handle's backend embeds for."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from samespace.audit.remaking import check_can_embed_chunks, is_late
from samespace.documents import CollectionInfo, SlotInfo
from samespace.embedding import close_async, make_canary_async, provenance_of_async, uncached
from samespace.errors import BackendUnavailable, InvalidInput, RateLimited, StoreUnavailable
from samespace.filters import Filter, of_json
from samespace.guard import Canary
from samespace.ingest.embedder import Embedder
from samespace.ingest.pipeline import LATE
from samespace.ingest.target import AnyStore
from samespace.migrate.deriving import Derived
from samespace.migrate.filling import Share, SlotFilling
from samespace.migrate.late_chunking import LateChunking
from samespace.migrate.making import ByModel, Making, Unsourced
from samespace.migrate.pacing import Away, Budget, BudgetSpent
from samespace.migrate.plan import PlannedCollection
from samespace.migrate.progress import CollectionProgress
from samespace.migrate.reading import Finished, Rows
from samespace.migrate.tallying import Tally
from samespace.protocols import AnyBackend
from samespace.space import EmbeddingSpace, derive

if TYPE_CHECKING:
    from samespace.migrate.running import Run

SWEEPS: Final = 20
"""How often a run that does not follow looks again at rows that others write meanwhile."""
NEARLY: Final = 0.99
"""The share of rows with a vector from which on an index is worth building."""
PASSING: Final = (StoreUnavailable, BackendUnavailable, RateLimited)
"""What is waited out."""


class CollectionRun:
    """One collection: its target's slot, and beside it the slot that the handle's backend embeds for."""

    def __init__(self, run: Run, rows: Rows, store: AnyStore, planned: PlannedCollection) -> None:
        self._run, self._rows, self._store, self._planned = run, rows, store, planned
        self._slots: list[SlotFilling] = []
        self._tally = Tally()
        """Of the handle's slot."""
        self._away = Away(run.asked.interval)
        """While what the handle's slot takes is out of reach."""
        self._indexed = self._finished = False
        self._build: asyncio.Task[None] | None = None
        """Of the target's index, beside the sweeps of a follower."""
        self._unbuilt = Away(run.asked.interval)
        """While it is not to be built."""
        self._beside: Rows | None = None
        """What that goes by."""

    @property
    def progress(self) -> CollectionProgress:
        """What was done so far."""
        return CollectionProgress(
            name=self._planned.name,
            target=self._planned.target.space,
            slots=tuple(slot.progress for slot in self._slots),
            indexed=self._indexed,
            finished=self._finished,
        )

    @property
    def is_building(self) -> bool:
        """Whether the target's index is being built beside the sweeps."""
        return self._build is not None

    @property
    def embedded(self) -> int:
        """Texts."""
        return sum(slot.embedded for slot in self._slots)

    @property
    def _where(self) -> Filter | None:
        where = self._planned.where
        return None if where is None else of_json(where)

    async def begin(self) -> Finished | None:
        """Add the target's slot, or see that it is what was planned; once. What is finished is left alone."""
        if self._slots:
            return None
        try:
            await self._begin(await self._rows.planned_info(self._run.asked.plan, self._planned))
        except Finished as refusal:
            self._finished = True
            return refusal
        return None

    async def _begin(self, info: CollectionInfo) -> None:
        late = self._is_late(info)
        self._kept(info)  # refused before anything is written
        made: Canary | None = None
        if self._target(info) is None:
            made = await self._add(info, late=late)
            info = await self._rows.info()  # another run may have added it first, and otherwise
            late = self._is_late(info)
        model = self._of_the_target(info, made)
        own = self._of_the_handle(info)
        way = self._way(model, info, own, late=late)
        self._slots += self._fillings(way, own, late=late)

    def _of_the_target(self, info: CollectionInfo, made: Canary | None) -> ByModel:
        """The target's backend, proved by the slot unless the canary there is the one that it made."""
        target = self._target(info)
        is_own = target is not None and made is not None and made.equals(target.canary)
        run = self._run
        return self._by_model(run.asked.backend, run.embedder, info, None if is_own else target)

    def _fillings(
        self, way: Making, own: tuple[SlotInfo, ByModel] | None, *, late: bool
    ) -> list[SlotFilling]:
        together = late and self._planned.path != "derive"
        space, unsourced = self._planned.target.space, self._unsourced(own)
        budget = self._run.budget_of(self._run.asked.backend)
        fillings = [self._filling(space, way, budget, late=together, unsourced=unsourced)]
        if own is not None and self._store.backend is not None:
            slot, model = own
            budget = self._run.budget_of(self._store.backend)
            late = is_late(slot.provenance)
            fillings.append(self._filling(slot.space, model, budget, late=late, tally=self._tally))
        return fillings

    def _source(self, info: CollectionInfo) -> SlotInfo | None:
        return _slot_of(info, self._planned.source.space)

    def _target(self, info: CollectionInfo) -> SlotInfo | None:
        return _slot_of(info, self._planned.target.space)

    def _by_model(
        self, backend: AnyBackend, embedder: Embedder, info: CollectionInfo, slot: SlotInfo | None
    ) -> ByModel:
        least = self._store.canary_threshold
        calls = self._run.calls_of(backend)
        return ByModel(uncached(backend), embedder, info, slot, threshold=least, calls=calls)

    def _way(
        self,
        model: ByModel,
        info: CollectionInfo,
        own: tuple[SlotInfo, ByModel] | None,
        *,
        late: bool,
    ) -> Making:
        if self._planned.path != "derive":
            return model
        source, target = self._planned.source.space, self._planned.target.space
        slot = self._source(info)
        is_sourced = slot is None or slot.name == slot.space.id
        kept = own[0] if own is not None and own[0].space == source else None
        is_kept = is_sourced or (kept is not None and _is_unsourced(kept))
        tally = self._tally if kept is not None else Tally()
        return Derived(source, target, None if late else model, is_kept=is_kept, tally=tally)

    def _of_the_handle(self, info: CollectionInfo) -> tuple[SlotInfo, ByModel] | None:
        """The slot that is kept fresh beside the target's, and what embeds for it."""
        kept = self._kept(info)
        if kept is None:
            return None
        slot, backend = kept
        return slot, self._by_model(backend, self._run.embedder_of(backend), info, slot)

    def _kept(self, info: CollectionInfo) -> tuple[SlotInfo, AnyBackend] | None:
        """The slot that the handle's own backend embeds for, where that is to be kept fresh.

        :class:`InvalidInput` for a backend that cannot do what this takes.
        """
        backend = self._store.backend
        if not self._run.asked.follow or backend is None:
            return None
        slot = _slot_of(info, backend.space)
        if slot is None or slot.space == self._planned.target.space:
            return None
        if is_late(slot.provenance):
            check_can_embed_chunks(backend, info.name)
        self._run.budget_of(backend)
        return slot, backend

    def _unsourced(self, own: tuple[SlotInfo, ByModel] | None) -> Unsourced | None:
        """The handle's slot, where others made it and each of its vectors is of one text alone."""
        backend = self._store.backend
        if own is None or backend is None or not _is_unsourced(own[0]):
            return None
        slot, model = own
        source, target = self._planned.source.space, self._planned.target.space
        budget = self._run.budget_of(backend)
        return Unsourced(
            self._rows,
            slot.space,
            model,
            target,
            source=source,
            budget=budget,
            tally=self._tally,
            away=self._away,
        )

    def _filling(
        self,
        space: EmbeddingSpace,
        making: Making,
        budget: Budget,
        *,
        late: bool,
        unsourced: Unsourced | None = None,
        tally: Tally | None = None,
    ) -> SlotFilling:
        asked = self._run.asked
        share = Share(
            worker=asked.worker,
            where=self._where,
            batch_size=asked.batch_size,
            together=late,
        )
        kind = LateChunking if late else SlotFilling
        return kind(
            self._rows,
            space,
            making,
            share,
            in_flight=self._run.in_flight,
            budget=budget,
            is_stopping=self._run.is_cut,
            tell=self._run.tell_batch,
            unsourced=unsourced,
            tally=tally,
        )

    def _is_late(self, info: CollectionInfo) -> bool:
        """Whether chunks of one document are embedded together."""
        asked = self._run.asked.late_chunking
        source, target = self._source(info), self._target(info)
        if target is not None:
            late = is_late(target.provenance)
            if asked is not None and asked != late:
                raise InvalidInput(
                    f"the slot of {target.space} was begun {'with' if late else 'without'} late chunking; "
                    "leave late_chunking out, or drop the slot and begin again: samespace migrate abort "
                    "--plan PLAN.json"
                )
        else:
            late = asked if asked is not None else source is not None and is_late(source.provenance)
        if late and self._planned.path != "derive":
            check_can_embed_chunks(self._run.asked.backend, info.name)
        return late

    async def _add(self, info: CollectionInfo, *, late: bool) -> Canary | None:
        """Add the target's slot; the canary that the backend made for it, None where it was derived."""
        backend, target = self._run.asked.backend, self._planned.target.space
        is_derived = self._planned.path == "derive"
        derived = _derived_canary(self._source(info), target) if is_derived else None
        provenance = {
            **await provenance_of_async(backend),
            **(LATE if late else {}),
            "plan": self._run.asked.plan.hash[:12],
            "slot": secrets.token_hex(8),
        }
        if derived is not None:
            provenance["derived_from"] = self._planned.source.space.id
        made = None if derived is not None else await make_canary_async(backend)
        await self._rows.add_slot(target, derived or made, provenance)
        return made

    async def fill(self) -> bool:
        """Fill the target's slot and have it indexed; whether nothing is left."""
        if self._finished:
            return True
        target, derives = self._slots[0], self._planned.path == "derive"
        found = 1
        for _ in range(SWEEPS):
            # What keeps the handle's slot from being filled is met again by the first sweep.
            derives = derives and None not in await self._look_at_the_handles()
            found, done = await _look(target)
            self._run.tell()
            if self._run.is_stopping():
                return False
            if not done:
                break
        await self._index()
        return not found

    async def _look_at_the_handles(self) -> list[tuple[int, int] | None]:
        """One look at what the target may be derived from, where the handle has a backend for it."""
        self._away.try_again()
        return [await self._unless_away(slot) for slot in self._slots[1:]]

    async def _unless_away(self, slot: SlotFilling) -> tuple[int, int] | None:
        """One look at a slot of the handle; None where what it takes is out of reach."""
        if self._away.error is None:
            try:
                return await slot.sweep()
            except (BudgetSpent, *PASSING) as error:
                await self._run.in_flight.settle()
                self._away.note(error)
        return None

    async def sweep(self) -> tuple[int, int]:
        """One look at every slot: rows that there were to fill, and those filled."""
        if self._finished:
            return 0, 0
        # What the target may be derived from comes first, but may be out of reach for long.
        handles = await self._look_at_the_handles()
        looks = [*(each or (0, 0) for each in handles), await self._slots[0].sweep()]
        self._note_away()
        found, done = (sum(counts) for counts in zip(*looks, strict=True))
        await self._note_built()
        if not found and not self._run.is_cut():
            await self._index()
        return found, done

    def _note_away(self) -> None:
        if self._away.error is None:
            self._away.end()
        else:
            self._run.postpone(self._away.error)

    async def _index(self) -> None:
        """Build the target's index, unless others have yet to fill much of it; a follower goes on beside."""
        if self._indexed or self.is_building:
            return
        self._unbuilt.try_again()
        if self._unbuilt.error is not None:
            self._run.postpone(self._unbuilt.error)
            return
        info = await self._rows.info()
        slot = self._target(info)
        if slot is None or not info.index.is_due(info.rows):
            return
        if not await self._is_nearly_full(info, slot):
            return
        self._beside = self._beside or self._run.rows_beside(self._store)
        build = self._built(self._beside, slot.space)
        if self._run.asked.follow:
            self._build = asyncio.create_task(build)
        else:
            await build

    async def _built(self, rows: Rows, space: EmbeddingSpace) -> None:
        await rows.build_index(space)
        self._indexed = True
        self._run.tell()

    async def _note_built(self) -> None:
        """Take up how a build has ended; one that failed for something passing is begun again in a while."""
        if self._build is None or not self._build.done():
            return
        build, self._build = self._build, None
        try:
            await build
        except PASSING as error:
            self._unbuilt.note(error)

    async def end(self) -> None:
        """Wait for the build that is under way, if there is one; what kept it from ending is told."""
        if self._build is not None:
            await asyncio.wait([self._build])
            await self._note_built()
        if self._unbuilt.error is not None:
            self._run.tell(trouble=str(self._unbuilt.error))

    async def cut(self) -> None:
        """Wait for no build any more."""
        if self._build is not None:
            self._build.cancel()
            await asyncio.wait([self._build])

    async def _is_nearly_full(self, info: CollectionInfo, slot: SlotInfo) -> bool:
        """Whether the target's slot has so many of the plan's rows that an index is due."""
        where = self._where
        if where is None:
            return slot.pending <= (1 - NEARLY) * info.rows
        rows = await self._rows.count(where)
        most = (1 - NEARLY) * rows
        return info.index.is_due(rows) and await self._count_pending(where, most=most) <= most

    async def _count_pending(self, where: Filter, *, most: float) -> int:
        """Rows that pass and have no vector in the target's slot; more than ``most`` is not counted."""
        space, limit = self._planned.target.space, self._run.asked.batch_size
        found, after = 0, None
        while found <= most:
            rows, after = await self._rows.pending(space, limit=limit, after=after, where=where)
            found += len(rows)
            if after is None:
                break
        return found

    async def close(self) -> None:
        """Close the store, and the backend that it has."""
        if self._rows.is_open and self._store.is_async:
            await self._rows.close()
            if self._store.backend is not None:
                await close_async(self._store.backend)


async def _look(slot: SlotFilling) -> tuple[int, int]:
    """One look at a slot: rows that there were to fill, and those filled or changed meanwhile."""
    found, filled = await slot.sweep()
    return found, filled + slot.moved


def _is_unsourced(slot: SlotInfo) -> bool:
    """Whether others made a slot, in which nothing says what text a vector is of."""
    return slot.name != slot.space.id and not is_late(slot.provenance)


def _slot_of(info: CollectionInfo, space: EmbeddingSpace) -> SlotInfo | None:
    return next((slot for slot in info.slots if slot.space == space), None)


def _derived_canary(source: SlotInfo | None, target: EmbeddingSpace) -> Canary | None:
    """What the source's canary is in the target's space, where it has one."""
    if source is None or source.canary is None:
        return None

    def shortened(vectors: Any) -> Any:
        made = derive(vectors.astype(np.float32), stored=source.space, offered=target)
        return made.astype(np.float16)

    canary = source.canary
    return Canary(shortened(canary.documents), shortened(canary.queries))
