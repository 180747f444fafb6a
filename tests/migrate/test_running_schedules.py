"""Whatever comes between two steps of a run, or of the end of a migration, nothing goes wrong.

Runs, opening, finishing and aborting are the product's; the stores are in memory, of three kinds.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from tests.migrate.machine import FEW, Running, explore
from tests.migrate.memory_rows import (
    NEW,
    OLD,
    DocumentRows,
    Inserting,
    MemoryRows,
    PointRows,
    SourceFirst,
    TableRows,
)
from tests.migrate.running import broken_by
from tests.migrate.schedules import Schedule

OWN, ADOPTED = {OLD: True, NEW: True}, {OLD: False, NEW: True}
FILLED: Schedule = (
    ("put", "a", "x", OLD),
    ("put", "b", "x", OLD),
    ("put", "c", "x", OLD),
    ("start", 0, 1),
    ("turn", 60),
)
"""A run has filled three rows, in two batches, and follows."""
LAST_TURN = 40
"""By then a run with pauses has done all there is to do, and looked again."""
Make = Callable[[], MemoryRows]


@pytest.fixture(params=[TableRows, DocumentRows, PointRows])
def kind(request: pytest.FixtureRequest) -> type[MemoryRows]:
    found: type[MemoryRows] = request.param
    return found


@pytest.fixture(params=[OWN, ADOPTED], ids=["own", "adopted"])
def make(request: pytest.FixtureRequest, kind: type[MemoryRows]) -> Make:
    """An empty collection, whose old slot says of its vectors what they are of, or does not."""
    return lambda: kind(request.param)


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(settings(FEW, max_examples=8), id="few"),
        pytest.param(
            settings(FEW, max_examples=300),
            id="many",
            marks=[pytest.mark.soak, pytest.mark.timeout(3600)],
        ),
    ],
)
def test_no_schedule_breaks_what_must_hold(make: Make, how: settings) -> None:
    explore(make, how, kind=Running)


def ended_at(turns: int, how: str) -> Schedule:
    """A run ends in the middle of filling rows again, while their text returns."""
    return (
        *FILLED,
        ("edit", "a", "y", OLD),
        ("edit", "b", "y", OLD),
        ("turn", turns),
        (how, 0),
        ("edit", "a", "x", OLD),
        ("delete", "b"),
        ("put", "b", "x", OLD),
    )


@pytest.mark.parametrize("how", ["kill", "cancel"])
def test_a_run_may_end_at_any_of_its_steps(kind: type[MemoryRows], how: str) -> None:
    for turns in range(LAST_TURN):
        assert broken_by(kind(ADOPTED), ended_at(turns, how)) is None, turns


def changed_at(turns: int) -> Schedule:
    """Rows that were written with either model change and go while a run follows."""
    return (
        *FILLED,
        ("put", "a", "x", NEW),
        ("put", "b", "y", OLD),
        ("turn", turns),
        ("edit", "a", "y", OLD),
        ("delete", "b"),
    )


def test_rows_may_change_between_any_steps_of_a_run(kind: type[MemoryRows]) -> None:
    for turns in range(LAST_TURN):
        assert broken_by(kind(ADOPTED), changed_at(turns)) is None, turns


@pytest.mark.parametrize(
    ("wrong", "schedule_at"),
    [
        (Inserting, changed_at),
        (SourceFirst, lambda turns: ended_at(turns, "kill")),
    ],
)
def test_a_run_over_a_wrong_fill_is_found(
    wrong: type[MemoryRows], schedule_at: Callable[[int], Schedule]
) -> None:
    assert any(broken_by(wrong(ADOPTED), schedule_at(turns)) for turns in range(LAST_TURN))


def test_a_run_that_begins_once_the_slot_is_open_goes_on(make: Make) -> None:
    schedule = (*FILLED, ("stop", 0), ("open_slot", ()), ("put", "a", "y", OLD))
    assert broken_by(make(), schedule) is None
