"""Schedules on the product's own runs and ends of migrations, over rows in memory.

The runs are tasks of a loop that turns when a schedule says so, and whose clock goes by turns: a
schedule decides where a writer, a kill or a cancellation comes between two steps of a run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, TypeVarTuple

from tests.migrate.evidence import passing
from tests.migrate.memory_rows import NEW, OLD, MemoryRows
from tests.migrate.memory_store import (
    NAME,
    SPACES,
    Collection,
    MemoryStore,
    SymbolBackend,
)
from tests.migrate.schedules import Broken, Schedule, Step, World

from samespace.errors import MigrationError, SpaceMismatch
from samespace.migrate import (
    MigrationPlan,
    MigrationRun,
    PlannedCollection,
    PlannedSlot,
    abort,
    finish,
    open_slot,
)
from samespace.migrate.estimating import Estimate, Figure

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
TICK: Final = 0.5
"""Seconds of the loop's clock from one turn to the next."""
MANY: Final = 5_000
"""Turns in which a run must have done what it has to do."""
NOBODY_KNOWS: Final = Figure(value=None, basis="unknown", source="not asked")
ESTIMATE: Final = Estimate(
    **dict.fromkeys(
        ("texts", "tokens", "cost", "seconds", "disk_bytes", "memory_bytes"), NOBODY_KNOWS
    )
)
PLAN: Final = MigrationPlan(
    version="0",
    use="search",
    target={},
    collections=(
        PlannedCollection(
            name=NAME,
            store="memory",
            path="embed",
            reason="another model",
            source=PlannedSlot(name=OLD, space=SPACES[OLD]),
            target=PlannedSlot(name=NEW, space=SPACES[NEW]),
            target_state="absent",
            layout=None,
            where=None,
            rows=0,
            pending=0,
            stale=None,
            estimate=ESTIMATE,
        ),
    ),
    estimate=ESTIMATE,
    warnings=(),
)


class LogicalLoop(asyncio.SelectorEventLoop):
    """A loop that turns when it is told to, by a clock that goes on by a tick each turn."""

    def __init__(self) -> None:
        super().__init__()
        self._ticks = 0

    def time(self) -> float:
        """Seconds."""
        return self._ticks * TICK

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """What is for a thread is done at once: how many turns that takes is not for threads to say."""
        del executor
        done: asyncio.Future[T] = self.create_future()
        done.set_result(func(*args))
        return done

    def turn(self) -> None:
        """Run what is ready."""
        self._ticks += 1
        self.call_soon(self.stop)
        self.run_forever()


@dataclass(frozen=True, slots=True)
class Job:
    """A run, the handle that it has, and its task."""

    run: MigrationRun
    store: MemoryStore
    task: asyncio.Task[Any]


@dataclass
class RunningWorld(World):
    """A world whose fillers are runs that follow, and whose migration is ended by the product."""

    rows: MemoryRows
    jobs: dict[int, Job] = field(default_factory=dict)
    dead: list[Job] = field(default_factory=list)

    def __post_init__(self) -> None:
        if NEW in self.rows.slots:
            self.rows.drop_slot(NEW)
        self.collection = Collection(self.rows)
        self.loop = LogicalLoop()

    def close(self) -> None:
        """End all that is left."""
        tasks = [job.task for job in (*self.dead, *self.jobs.values())]
        for task in tasks:
            task.cancel()
        while not all(task.done() for task in tasks):
            self.loop.turn()
        self.loop.close()

    # Runs

    def start(self, place: int, pauses: int) -> None:
        """A run that follows, on a handle that is so slow."""
        if place in self.jobs or OLD not in self.rows.slots:
            return
        store = MemoryStore(self.collection, pauses=pauses)
        handle: Any = store  # of a store's protocol it has what migrations ask for
        run = MigrationRun(
            handle, SymbolBackend(NEW), PLAN, follow=True, interval=4 * TICK, batch_size=2
        )
        self.jobs[place] = Job(run, store, self.loop.create_task(run.run_async()))

    def turn(self, turns: int) -> None:
        """Let all runs go on for a while."""
        for _ in range(turns):
            self.loop.turn()
        for place, job in list(self.jobs.items()):
            if job.task.done():
                self._ended(place)

    def kill(self, place: int) -> None:
        """The run's requests get no answer any more, as those of a process that is gone."""
        if place in self.jobs:
            self.jobs[place].store.is_dead = True
            self.dead.append(self.jobs.pop(place))

    def cancel(self, place: int) -> None:
        """Cancel a run where it is, and wait until it has ended."""
        if place in self.jobs:
            self.jobs[place].task.cancel()
            self._turn_until(lambda: place not in self.jobs, "a run that was cancelled goes on")

    def stop(self, place: int) -> None:
        """Ask a run to end, and wait until it has."""
        if place in self.jobs:
            self.jobs[place].run.stop()
            self._turn_until(lambda: place not in self.jobs, "a run that was stopped goes on")

    def _ended(self, place: int) -> None:
        """A run whose slot was dropped ends with the refusal; nothing else ends it by itself."""
        task = self.jobs.pop(place).task
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, SpaceMismatch | MigrationError):
            raise Broken(f"a run ended with {error!r}")

    def _turn_until(self, is_over: Callable[[], bool], fault: str) -> None:
        for _ in range(MANY):
            if is_over():
                return
            self.turn(1)
        raise Broken(fault)

    # The end

    def open_slot(self, meanwhile: Sequence[Step] = ()) -> None:
        """Open the new slot, while others take steps."""
        if NEW in self.rows.slots:
            evidence = passing(PLAN, slot=self._slot_id())
            self._end(lambda store: open_slot(store, PLAN, evidence), meanwhile)

    def _slot_id(self) -> str:
        slot = self.collection.record.require(SPACES[NEW], collection=NAME)
        return slot.provenance.get("slot", "")

    def finish_slot(self, meanwhile: Sequence[Step] = ()) -> None:
        """Drop the old slot; who writes it must have stopped, unless the server has transactions."""
        if {OLD, NEW} <= self.rows.slots.keys():
            self._end(lambda store: finish(store, PLAN), meanwhile)

    def abort_slot(self, meanwhile: Sequence[Step] = ()) -> None:
        """Drop the new slot; who writes it must have stopped, unless the server has transactions."""
        if NEW in self.rows.slots:
            self._end(lambda store: abort(store, PLAN), meanwhile)

    def _end(self, end: Callable[[Any], object], meanwhile: Sequence[Step]) -> None:
        steps = list(meanwhile)
        with ThreadPoolExecutor(1) as apart:  # two loops in one thread are one too many

            def take_next() -> None:
                if steps:
                    apart.submit(self.take, steps.pop(0)).result()

            slot = OLD if OLD in self.rows.slots else NEW
            try:
                end(MemoryStore(self.collection, slot, between=take_next))
            except (MigrationError, SpaceMismatch):
                return

    def check(self) -> None:
        """As ever; and nobody's only vector was dropped."""
        super().check()
        if self.collection.lost:
            raise Broken(f"the only vectors of {sorted(self.collection.lost)} are gone")

    def settle(self) -> None:
        """All writers end what they have begun, and a run goes on until nothing is left to do."""
        for key in list(self.halves):
            self.edit_vector(key)
        self.stop(0)
        self.start(0, 0)
        if OLD in self.rows.slots:
            self._turn_until(self._is_settled, "a run does not do what there is to do")
        else:
            super().settle()

    def _is_settled(self) -> bool:
        return NEW in self.rows.slots and not any(map(self._to_do, self.rows.slots))


def broken_by(rows: MemoryRows, schedule: Schedule) -> Broken | None:
    """:func:`~tests.migrate.schedules.broken` of a world of runs."""
    world = RunningWorld(rows)
    with closing(world):
        try:
            world.run([*schedule, ("settle",)])
            world.check_settled()
        except Broken as fault:
            return fault
    return None
