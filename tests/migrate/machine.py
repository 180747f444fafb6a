"""Hypothesis as the scheduler: it makes up schedules, runs them, and shortens what goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    rule,
    run_state_machine_as_test,
)
from tests.migrate.memory_rows import NEW, OLD
from tests.migrate.running import RunningWorld
from tests.migrate.schedules import FILLERS, Broken, Rows, Step, World

KEYS = st.sampled_from("ab")
TEXTS = st.sampled_from("xyz")
MODELS = st.sampled_from((OLD, NEW))
FILLER = st.integers(0, FILLERS - 1)
NOTE = "schedule: "
"""What a note of a fault begins with, before the schedule that led to it."""
FEW = settings(
    max_examples=25,
    stateful_step_count=12,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # schedules are made short without it, and better,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)


class Scheduling(RuleBasedStateMachine):
    """One schedule in the making; what does not hold says after which."""

    make: ClassVar[Callable[[], Rows]]
    made: ClassVar[Callable[[list[Step]], object]] = staticmethod(lambda _: None)
    """Told each schedule once it is over."""

    def __init__(self) -> None:
        super().__init__()
        self.world = self.made_of(type(self).make())
        self.schedule: list[Step] = []
        self.is_broken = False

    def made_of(self, rows: Any) -> World:
        """The world that the schedule is of."""
        return World(rows)

    def take(self, *step: Any) -> None:
        """Do a step, and look at what must hold."""
        self.schedule.append(step)
        self._hold(self.world.take, step)
        self._hold(self.world.check)

    def _hold(self, act: Callable[..., object], *arguments: object) -> None:
        try:
            act(*arguments)
        except Broken as fault:
            self.is_broken = True
            fault.add_note(f"{NOTE}{self.schedule}")
            raise

    def teardown(self) -> None:
        """Once all writers have stopped and the fillers find nothing to do, all is right."""
        if self.is_broken:
            return
        type(self).made(list(self.schedule))
        self.take("settle")
        self._hold(self.world.check_settled)


CHANGE = st.tuples(st.sampled_from(("put", "edit", "edit_text")), KEYS, TEXTS, MODELS)
WRITE = st.one_of(
    *[CHANGE] * 3,  # as often as all the others
    st.tuples(st.just("edit_only"), KEYS, TEXTS),
    st.tuples(st.sampled_from(("edit_vector", "annotate", "delete")), KEYS),
)
READ = st.tuples(st.just("read"), FILLER, MODELS, st.sampled_from(("pending", "stale")))
FILL = st.tuples(st.sampled_from(("advance", "advance", "advance", "complete", "crash")), FILLER)


class Migration(Scheduling):
    """Fillers step by step, and a migration that does what it does at once."""

    @rule(steps=st.lists(st.one_of(WRITE, READ, READ, FILL, FILL, FILL), min_size=5, max_size=25))
    def work(self, steps: list[Step]) -> None:
        for step in steps:
            self.take(*step)

    @rule(name=st.sampled_from(("begin", "open", "finish", "abort", "abandon", "settle")))
    def migrate(self, name: str) -> None:
        self.take(name)


PLACE = st.integers(0, 1)
TURN = st.tuples(st.just("turn"), st.integers(1, 12))
START = st.tuples(st.just("start"), PLACE, st.integers(0, 3))
STOP = st.tuples(st.sampled_from(("kill", "cancel", "stop")), PLACE)


def meanwhile(model: str) -> st.SearchStrategy[list[Step]]:
    """What may come between the steps of an end: writers of the slot that stays, and runs."""
    writing = (
        st.tuples(st.just("put"), KEYS, TEXTS, st.just(model)),
        st.tuples(st.sampled_from(("annotate", "delete")), KEYS),
    )
    return st.lists(st.one_of(TURN, *writing), max_size=5)


class Running(Scheduling):
    """Runs of the product, turn by turn, and its ways to end a migration."""

    world: RunningWorld

    def made_of(self, rows: Any) -> RunningWorld:
        return RunningWorld(rows)

    @rule(steps=st.lists(st.one_of(WRITE, TURN, TURN, TURN, START, STOP), max_size=12))
    def work(self, steps: list[Step]) -> None:
        for step in steps:
            self.take(*step)

    @rule(steps=meanwhile(NEW))
    def open_slot(self, steps: list[Step]) -> None:
        self.take("open_slot", steps)

    @rule(steps=meanwhile(NEW))
    def finish_slot(self, steps: list[Step]) -> None:
        self.take("finish_slot", steps)

    @rule(steps=meanwhile(OLD))
    def abort_slot(self, steps: list[Step]) -> None:
        self.take("abort_slot", steps)

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            self.world.close()


def explore(
    make: Callable[[], Rows],
    how: settings = FEW,
    *,
    kind: type[Scheduling] = Migration,
    made: Callable[[list[Step]], object] = lambda _: None,
) -> None:
    """Run schedules until one breaks what must hold: :class:`Broken` has a short one as a note."""
    told = {"make": staticmethod(make), "made": staticmethod(made)}
    machine = type("Machine", (kind,), told)
    run_state_machine_as_test(machine, settings=how)
