"""Running a migration: the target's slot is added, filled and kept fresh, whoever writes."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from samespace.audit.remaking import check_can_embed_chunks, is_late
from samespace.documents import CollectionInfo, SlotInfo
from samespace.embedding import (
    close_async,
    make_canary_async,
    provenance_of,
    require_any,
    uncached,
)
from samespace.errors import (
    BackendUnavailable,
    InvalidInput,
    RateLimited,
    StoreUnavailable,
    excerpt,
)
from samespace.filters import Filter, of_json
from samespace.guard import Canary
from samespace.ingest.arguments import check_count
from samespace.ingest.embedder import Embedder
from samespace.ingest.pipeline import LATE
from samespace.ingest.running import served
from samespace.ingest.target import AnyStore
from samespace.ingest.worker import GRACE, Left, in_a_thread
from samespace.migrate.filling import Share, SlotFilling
from samespace.migrate.flow import InFlight
from samespace.migrate.making import ByModel, Derived, Making, Unsourced
from samespace.migrate.pacing import Away, Budget, BudgetSpent
from samespace.migrate.plan import MigrationPlan, PlannedCollection
from samespace.migrate.progress import CollectionProgress, MigrationReport, Stopped
from samespace.migrate.reading import Finished, Rows
from samespace.migrate.tallying import Tally
from samespace.protocols import AnyBackend, Shard, TakesCallsAtOnce
from samespace.space import EmbeddingSpace, derive

BATCH_SIZE: Final = 200
MOST_IN_BATCH: Final = 2_000
MOST_AT_ONCE: Final = 16
SWEEPS: Final = 20
"""How often a run that does not follow looks again at rows that others write meanwhile."""
NEARLY: Final = 0.99
"""The share of rows with a vector from which on an index is worth building."""
_PASSING: Final = (StoreUnavailable, BackendUnavailable, RateLimited)


class MigrationRun:
    """Fills the target's slot in a plan's collections, and with ``follow`` keeps all their slots fresh.

    ``stores`` is a handle on each collection, opened as the plan's were; ``backend`` is the target's. Any
    number of runs may work on a collection at once, and any may be killed: an empty slot is the list of
    what is to be done, so that running again resumes. ``worker=(i, n)`` takes the i-th of n parts of the
    rows, so that several pay for nothing twice. Each write is on condition that the row still is what
    was read. Rows are derived where the plan says so and their vector in the source's slot is of their
    text; else they are embedded. The index is built once the slot is filled.

    With ``follow`` the run then goes on until :meth:`stop`: every ``interval`` seconds, and at once while
    there is something to do, it looks for rows that are pending or stale, in the target's slot and, where
    the handle has a backend, in that backend's. What is passing (a store or a backend that cannot be
    reached) is waited out, from the beginning on. ``budget_tokens`` ends the run before the first batch
    that may go beyond it, for which batches are embedded one after the other. ``late_chunking`` says
    whether chunks of one document are embedded in sight of one another; unless said, as in the source's
    slot, and in a slot that is there as it was begun. ``on_progress`` is called with the report so far,
    in the job's thread.

    A collection that the plan is finished in is left alone, and the report says so.

    :class:`MigrationError` for a collection that is not what was planned, :class:`SpaceMismatch` for a
    backend that embeds otherwise than what filled the slot. :class:`InvalidInput` for what cannot be.
    """

    def __init__(
        self,
        stores: AnyStore | Iterable[AnyStore],
        backend: AnyBackend,
        plan: MigrationPlan,
        *,
        worker: Shard = (0, 1),
        follow: bool = False,
        interval: float = 2.0,
        budget_tokens: int | None = None,
        batch_size: int = BATCH_SIZE,
        late_chunking: bool | None = None,
        on_progress: Callable[[MigrationReport], object] | None = None,
    ) -> None:
        found = require_any(backend)
        if found is None:
            raise InvalidInput("there is no backend to fill with: pass one of the target's space")
        pairs = _planned_for(stores, plan)
        for _, planned in pairs:
            planned.check_target(found.space)
        _check_interval(interval)
        Budget(budget_tokens, found)
        self._asked = _Asked(
            pairs=pairs,
            backend=found,
            plan=plan,
            worker=_checked_worker(worker),
            follow=follow,
            interval=interval,
            budget_tokens=budget_tokens,
            batch_size=check_count(batch_size, what="batch_size", most=MOST_IN_BATCH),
            late_chunking=late_chunking,
        )
        self._on_progress = on_progress
        self._report = MigrationReport(worker=self._asked.worker)
        self._stopping = False
        self._wake: Callable[[], object] | None = None

    @property
    def report(self) -> MigrationReport:
        """What has been done so far; also while it is running, and after an error."""
        return self._report

    def run(self) -> MigrationReport:
        """Run in a loop and a thread of its own; an async store and backend are closed in the end."""
        closing = self._asked.pairs[0][0].is_async
        return served(lambda _: self._run(closing=closing))

    async def run_async(self) -> MigrationReport:
        """:meth:`run` in the caller's loop; it closes nothing."""
        return await self._run(closing=False)

    def stop(self) -> None:
        """End after the batches under way; from any thread, and a signal's handler."""
        self._stopping = True
        if self._wake is not None:
            self._wake()

    async def _run(self, *, closing: bool) -> MigrationReport:
        loop, wake = asyncio.get_running_loop(), asyncio.Event()
        self._wake = lambda: loop.call_soon_threadsafe(wake.set)
        with ExitStack() as threads:
            run = _Run(self._asked, threads, wake, lambda: self._stopping, self._tell)
            try:
                await run.go()
            except (asyncio.CancelledError, Left):
                run.tell_end("asked")
                raise
            except Exception:
                run.tell_end("error")
                raise
            finally:
                self._wake = None
                await run.end(closing=closing)
        return self._report

    def _tell(self, report: MigrationReport) -> None:
        self._report = report
        if self._on_progress is not None:
            self._on_progress(report)


def run(
    stores: AnyStore | Iterable[AnyStore], backend: AnyBackend, plan: MigrationPlan, **options: Any
) -> MigrationReport:
    """What a :class:`MigrationRun` with these options does."""
    return MigrationRun(stores, backend, plan, **options).run()


def _planned_for(
    stores: AnyStore | Iterable[AnyStore], plan: MigrationPlan
) -> list[tuple[AnyStore, PlannedCollection]]:
    """Each handle with what was planned for its collection; :class:`InvalidInput` for one that was not."""
    listed: list[AnyStore] = list(stores) if isinstance(stores, Iterable) else [stores]
    if not listed:
        raise InvalidInput("there is no collection to migrate; pass at least one store")
    return [(store, plan.of(store.collection)) for store in listed]


def _check_interval(interval: Any) -> None:
    is_number = isinstance(interval, int | float) and not isinstance(interval, bool)
    if not is_number or not 0 < interval <= 3600:
        raise InvalidInput(
            f"interval is {excerpt(interval)}; pass seconds, more than 0, at most 3,600"
        )


def _checked_worker(worker: object) -> Shard:
    if isinstance(worker, Sequence) and len(worker) == 2:
        place, count = worker
        if type(place) is int and type(count) is int and 0 <= place < count:
            return place, count
    raise InvalidInput(
        f"worker is {excerpt(worker)}; pass (i, n), two whole numbers with 0 <= i < n"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    pairs: list[tuple[AnyStore, PlannedCollection]]
    backend: AnyBackend
    plan: MigrationPlan
    worker: Shard
    follow: bool
    interval: float
    budget_tokens: int | None
    batch_size: int
    late_chunking: bool | None


def _calls_at_once(backend: AnyBackend) -> int:
    if not isinstance(backend, TakesCallsAtOnce):
        return 1
    return max(1, min(backend.calls_at_once, MOST_AT_ONCE))


class _Run:
    """One run: its threads, its collections, and how far it is."""

    def __init__(
        self,
        asked: _Asked,
        threads: ExitStack,
        wake: asyncio.Event,
        is_stopping: Callable[[], bool],
        tell: Callable[[MigrationReport], object],
    ) -> None:
        self.asked, self._threads, self._wake = asked, threads, wake
        self.is_stopping, self._tell_of = is_stopping, tell
        self._writing = threads.enter_context(in_a_thread("write"))
        self._embedders: list[Embedder] = []
        self.in_flight = InFlight(self.calls_of(asked.backend) + 1)
        self.embedder = self.embedder_of(asked.backend)
        self._collections = [
            _Collection(self, Rows(store, self._writing), store, planned)
            for store, planned in asked.pairs
        ]
        self._state = MigrationReport(worker=asked.worker)
        self._is_cut = False
        self._postponed: Exception | None = None

    def embedder_of(self, backend: AnyBackend) -> Embedder:
        """What embeds by a backend, as many batches beside one another as it takes."""
        workers = [
            self._threads.enter_context(in_a_thread("embed", grace=GRACE))
            for _ in range(self.calls_of(backend))
        ]
        budget = self.budget_of(backend)  # a call that is refused may have been paid for
        self._embedders.append(Embedder(backend, workers, check_again=budget.check))
        return self._embedders[-1]

    def calls_of(self, backend: AnyBackend) -> int:
        """How many batches are embedded beside one another; with a budget each is waited for."""
        return 1 if self.asked.budget_tokens is not None else _calls_at_once(backend)

    def budget_of(self, backend: AnyBackend) -> Budget:
        """What is left for a backend's calls: of one budget, by its own count of tokens."""
        return Budget(self.asked.budget_tokens, backend, lambda: self.spent)

    @property
    def spent(self) -> int:
        """Tokens."""
        return sum(each.spent for each in self._embedders)

    def report(self) -> MigrationReport:
        """What has been done so far."""
        return replace(
            self._state,
            collections=tuple(each.progress for each in self._collections),
            tokens=self.spent,
            embedded=sum(each.embedded for each in self._collections),
        )

    def tell(self, **changes: Any) -> None:
        """Report, with what has changed in how the run stands."""
        self._state = replace(self._state, **changes)
        self._tell_of(self.report())

    def tell_batch(self) -> None:
        """Report a batch that was written: what was waited out is over, and there was something to do."""
        self.tell(trouble="", idle=False, complete=False)

    def tell_end(self, stopped: Stopped) -> None:
        """Report that the run ends before all is filled."""
        self.tell(stopped=stopped, complete=False, idle=False, following=False)

    def is_cut(self) -> bool:
        """Whether to look no further; a look that has heard so was none at everything."""
        self._is_cut = self._is_cut or self.is_stopping()
        return self._is_cut

    def postpone(self, error: Exception) -> None:
        """Tell what kept a slot from being filled, or raise it, once the others were looked at."""
        if not isinstance(self._postponed, BudgetSpent):
            self._postponed = error

    async def go(self) -> None:
        """Fill, then follow."""
        try:
            await self._all()
        except BudgetSpent:
            await self.in_flight.drain()
            self.tell_end("budget")
        except Exception:
            await self.in_flight.settle()  # what was paid for is written
            raise
        else:
            if self.is_stopping() and not self._state.complete:
                self.tell_end("asked")
            else:
                self.tell(following=False)

    async def _all(self) -> None:
        if not self.asked.follow:
            await self._begin()
            await self._fill()
            return
        for step in (self._begin, self._fill):
            await self._waited_out(step)
        self.tell(following=not self.is_stopping())
        while not self.is_stopping():
            if not await self._waited_out(self._sweep):
                await self._wait(self.asked.interval)

    async def _waited_out(self, step: Callable[[], Awaitable[bool]]) -> bool:
        """What a step returns, begun again as often as what is passing keeps it from ending."""
        away = Away(self.asked.interval)
        while not self.is_stopping():
            try:
                return await step()
            except _PASSING as error:
                await self.in_flight.settle()
                self.tell(trouble=str(error), idle=False, complete=False)
                await self._wait(away.longer())
        return False

    async def _begin(self) -> bool:
        """Begin where the plan is not finished; :class:`Finished` if it is in all of its collections."""
        begun = [await each.begin() for each in self._collections]
        finished = [refusal for refusal in begun if refusal is not None]
        if len(finished) == len(self.asked.plan.collections):
            raise finished[0]
        self.tell()
        return True

    async def _fill(self) -> bool:
        """Fill the targets' slots; a follower knows that all is done once it has looked at every slot."""
        filled = [await each.fill() for each in self._collections]
        complete = all(filled) and not self.asked.follow
        self.tell(complete=complete, idle=complete, trouble="")
        return complete

    async def _sweep(self) -> bool:
        """One look at every slot that is kept; whether rows were filled."""
        began, self._is_cut, self._postponed = time.monotonic(), False, None
        looks = [await each.sweep() for each in self._collections]
        if self._is_cut:
            self.tell(idle=False, complete=False)
            return False
        if isinstance(self._postponed, BudgetSpent):
            raise self._postponed
        idle = self._postponed is None and not any(found for found, _ in looks)
        self.tell(
            sweeps=self._state.sweeps + 1,
            sweep_seconds=time.monotonic() - began,
            idle=idle,
            complete=idle,
            trouble=str(self._postponed or ""),
        )
        return any(done for _, done in looks)

    async def _wait(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            return

    async def end(self, *, closing: bool) -> None:
        """End what is under way; close what is async and was used in this loop."""
        await self.in_flight.end()
        if closing:
            for each in self._collections:
                await each.close()
            await close_async(self.asked.backend)


class _Collection:
    """One collection: its target's slot, and beside it the slot that the handle's backend embeds for."""

    def __init__(self, run: _Run, rows: Rows, store: AnyStore, planned: PlannedCollection) -> None:
        self._run, self._rows, self._store, self._planned = run, rows, store, planned
        self._slots: list[SlotFilling] = []
        self._away = Away(run.asked.interval)
        """While what the handle's slot takes is out of reach."""
        self._indexed = self._finished = False

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
        space, tally = self._planned.target.space, Tally()
        unsourced = self._unsourced(own, tally)
        budget = self._run.budget_of(self._run.asked.backend)
        fillings = [self._filling(space, way, budget, late=together, unsourced=unsourced)]
        if own is not None and self._store.backend is not None:
            slot, model = own
            budget = self._run.budget_of(self._store.backend)
            late = is_late(slot.provenance)
            fillings.append(self._filling(slot.space, model, budget, late=late, tally=tally))
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
        is_remade = own is not None and own[0].space == source and _is_unsourced(own[0])
        is_kept = is_sourced or is_remade
        return Derived(source, target, None if late else model, is_kept=is_kept)

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

    def _unsourced(self, own: tuple[SlotInfo, ByModel] | None, tally: Tally) -> Unsourced | None:
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
            tally=tally,
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
        return SlotFilling(
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
            **provenance_of(backend),
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
            except (BudgetSpent, *_PASSING) as error:
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
        if not found and not self._indexed and not self._run.is_cut():
            await self._index()
        return found, done

    def _note_away(self) -> None:
        if self._away.error is None:
            self._away.end()
        else:
            self._run.postpone(self._away.error)

    async def _index(self) -> None:
        """Build the target's index, unless others have yet to fill much of it."""
        info = await self._rows.info()
        slot = self._target(info)
        if slot is None or not info.index.is_due(info.rows):
            return
        if await self._is_nearly_full(info, slot):
            await self._rows.build_index(slot.space)
            self._indexed = True
            self._run.tell()

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
