"""Running a migration: the target's slot is added, filled and kept fresh, whoever writes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Final

from samespace.embedding import (
    close_async,
    require_any,
)
from samespace.errors import (
    InvalidInput,
    excerpt,
)
from samespace.ingest.arguments import check_count
from samespace.ingest.embedder import Embedder
from samespace.ingest.running import served
from samespace.ingest.target import AnyStore
from samespace.ingest.worker import GRACE, Left, in_a_thread
from samespace.migrate.collection import PASSING, CollectionRun
from samespace.migrate.flow import InFlight
from samespace.migrate.pacing import Away, Budget, BudgetSpent
from samespace.migrate.plan import MigrationPlan, PlannedCollection
from samespace.migrate.progress import MigrationReport, Stopped
from samespace.migrate.reading import Rows
from samespace.protocols import AnyBackend, Shard, TakesCallsAtOnce

BATCH_SIZE: Final = 200
MOST_IN_BATCH: Final = 2_000
MOST_AT_ONCE: Final = 16


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
            run = Run(self._asked, threads, wake, lambda: self._stopping, self._tell)
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


class Run:
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
            CollectionRun(self, Rows(store, self._writing), store, planned)
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

    def rows_beside(self, store: AnyStore) -> Rows:
        """A collection's rows for what takes long, in a thread of its own, which may be left behind."""
        return Rows(store, self._threads.enter_context(in_a_thread("index", grace=GRACE)))

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
        self.tell(following=False)
        for each in self._collections:
            await each.end()

    async def _waited_out(self, step: Callable[[], Awaitable[bool]]) -> bool:
        """What a step returns, begun again as often as what is passing keeps it from ending."""
        away = Away(self.asked.interval)
        while not self.is_stopping():
            try:
                return await step()
            except PASSING as error:
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
            complete=idle and not any(each.is_building for each in self._collections),
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
        for each in self._collections:
            await each.cut()
        if closing:
            for each in self._collections:
                await each.close()
            await close_async(self.asked.backend)
