"""Hypothesis as the scheduler: it makes up schedules, runs them, and shortens what goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.migrate.memory_rows import NEW, OLD
from tests.migrate.schedules import FILLERS, Broken, Rows, Step, World

KEYS = st.sampled_from("ab")
TEXTS = st.sampled_from("xyz")
MODELS = st.sampled_from((OLD, NEW))
FILLER = st.integers(0, FILLERS - 1)
NOTE = "schedule: "
"""What a note of a fault begins with, before the schedule that led to it."""
FEW = settings(
    max_examples=25,
    stateful_step_count=50,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # schedules are made short without it, and better,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
)


def has_rows(machine: Migration) -> bool:
    """Whether there is something to change."""
    return bool(machine.world.wanted)


def has_work(machine: Migration) -> bool:
    """Whether a filler holds something."""
    return any(machine.world.held)


def has_halves(machine: Migration) -> bool:
    """Whether somebody is between two requests."""
    return bool(machine.world.halves)


class Migration(RuleBasedStateMachine):
    """One schedule in the making; what does not hold says after which."""

    make: ClassVar[Callable[[], Rows]]
    made: ClassVar[Callable[[list[Step]], object]] = staticmethod(lambda _: None)
    """Told each schedule once it is over."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(type(self).make())
        self.schedule: list[Step] = []
        self.is_broken = False

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

    @rule(key=KEYS, text=TEXTS, model=MODELS)
    def put(self, key: str, text: str, model: str) -> None:
        self.take("put", key, text, model)

    @precondition(has_rows)
    @rule(key=KEYS, text=TEXTS, model=MODELS)
    def edit(self, key: str, text: str, model: str) -> None:
        self.take("edit", key, text, model)

    @precondition(has_rows)
    @rule(key=KEYS, text=TEXTS, model=MODELS)
    def edit_text(self, key: str, text: str, model: str) -> None:
        self.take("edit_text", key, text, model)

    @precondition(has_halves)
    @rule(key=KEYS)
    def edit_vector(self, key: str) -> None:
        self.take("edit_vector", key)

    @precondition(has_rows)
    @rule(key=KEYS, text=TEXTS)
    def edit_only(self, key: str, text: str) -> None:
        self.take("edit_only", key, text)

    @precondition(has_rows)
    @rule(key=KEYS)
    def annotate(self, key: str) -> None:
        self.take("annotate", key)

    @precondition(has_rows)
    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        self.take("delete", key)

    @precondition(has_rows)
    @rule(filler=FILLER, slot=MODELS, what=st.sampled_from(("pending", "stale")))
    def read(self, filler: int, slot: str, what: str) -> None:
        self.take("read", filler, slot, what)

    @precondition(has_work)
    @rule(filler=FILLER)
    def advance(self, filler: int) -> None:
        self.take("advance", filler)

    @precondition(has_work)
    @rule(filler=FILLER)
    def complete(self, filler: int) -> None:
        self.take("complete", filler)

    @precondition(has_work)
    @rule(filler=FILLER)
    def crash(self, filler: int) -> None:
        self.take("crash", filler)

    @rule(name=st.sampled_from(("begin", "open", "finish", "abort", "settle")))
    def migrate(self, name: str) -> None:
        self.take(name)

    def teardown(self) -> None:
        """Once all writers have stopped and the fillers find nothing to do, all is right."""
        if self.is_broken:
            return
        type(self).made(list(self.schedule))
        self.take("settle")
        self._hold(self.world.check_settled)


def explore(
    make: Callable[[], Rows],
    how: settings = FEW,
    *,
    made: Callable[[list[Step]], object] = lambda _: None,
) -> None:
    """Run schedules until one breaks what must hold: :class:`Broken` has a short one as a note."""
    machine = type(
        "Machine", (Migration,), {"make": staticmethod(make), "made": staticmethod(made)}
    )
    run_state_machine_as_test(machine, settings=how)
