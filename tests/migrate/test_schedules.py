"""Whatever the order in which writers, fillers and a migration take their steps, nothing goes wrong.

The stores are in memory, of three kinds (:mod:`tests.migrate.memory_rows`). Schedules come from
hypothesis, and as all those of a few steps on one row; fillers that are wrong on purpose are found.
"""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Callable, Sequence

import pytest
from hypothesis import settings
from tests.migrate.corpus import (
    CHANGED,
    CORPUS,
    DELETED,
    GIVEN,
    LEFT,
    MIGRATING,
    RETURNED,
    SAID,
    UNFINISHED,
    steps,
)
from tests.migrate.machine import FEW, NOTE, explore
from tests.migrate.memory_rows import (
    NEW,
    OLD,
    DocumentRows,
    Inserting,
    MemoryRows,
    PointRows,
    SourceFirst,
    Symbol,
    TableRows,
    Unconditional,
    VectorFirst,
)
from tests.migrate.schedules import Broken, Schedule, Step, World, broken, shortened, shortest

SOAK = [pytest.mark.soak, pytest.mark.timeout(3600)]
EVERYBODY = [*steps((OLD, NEW), 2, (OLD, NEW)), *MIGRATING]
OLD_WRITERS = steps((OLD,), 2, (NEW,))
"""An application that is not touched, and two fillers of the new slot."""
OWN, ADOPTED = {OLD: True, NEW: True}, {OLD: False, NEW: True}

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
        pytest.param(FEW, id="few"),
        pytest.param(settings(FEW, max_examples=3_000), id="many", marks=SOAK),
    ],
)
def test_no_schedule_breaks_what_must_hold(make: Make, how: settings) -> None:
    explore(make, how)


@pytest.mark.parametrize("longest", [3, pytest.param(6, marks=SOAK)])
def test_no_schedule_of_a_few_steps_breaks_what_must_hold(make: Make, longest: int) -> None:
    assert shortest(make, EVERYBODY, longest=longest) is None


@pytest.mark.parametrize("longest", [6, pytest.param(11, marks=SOAK)])
def test_no_schedule_of_old_writers_alone_breaks_what_must_hold(
    kind: type[MemoryRows], longest: int
) -> None:
    assert shortest(lambda: kind(ADOPTED), OLD_WRITERS, longest=longest) is None


@pytest.mark.parametrize("schedule", CORPUS.values(), ids=CORPUS)
def test_the_corpus_breaks_nothing(make: Make, schedule: Schedule) -> None:
    assert broken(make(), schedule) is None


WRONG = [
    pytest.param(Unconditional, CHANGED, steps((OLD, NEW), 1, (OLD,)), id="unconditional"),
    pytest.param(Inserting, DELETED, OLD_WRITERS, id="inserting"),
    pytest.param(SourceFirst, SAID, OLD_WRITERS, id="source first"),
    pytest.param(VectorFirst, RETURNED, OLD_WRITERS, id="vector first"),
]


@pytest.mark.parametrize(("wrong", "known", "tried"), WRONG)
def test_a_wrong_filler_is_found_by_its_shortest_schedule(
    wrong: type[MemoryRows],
    known: Schedule,
    tried: Sequence[Step],
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = shortest(lambda: wrong(ADOPTED), tried, longest=len(known))
    assert found is not None
    with capsys.disabled():
        print(f"\n{wrong.__name__}: {list(found)}")  # noqa: T201  as a reader wants it
    assert broken(wrong(ADOPTED), found)
    assert broken(wrong(ADOPTED), known)


@pytest.mark.parametrize("wrong", [Unconditional, Inserting, pytest.param(SourceFirst, marks=SOAK)])
def test_hypothesis_finds_a_wrong_filler_and_no_step_of_what_is_left_can_be_spared(
    wrong: type[MemoryRows],
) -> None:
    with pytest.raises(Broken) as caught:
        explore(lambda: wrong(ADOPTED), settings(FEW, max_examples=1000))
    (note,) = (note for note in caught.value.__notes__ if note.startswith(NOTE))
    short = shortened(lambda: wrong(ADOPTED), literal_eval(note.removeprefix(NOTE)))
    assert broken(wrong(ADOPTED), short)
    assert len(short) <= 7


def test_a_finish_that_does_not_look_is_found(make: Make) -> None:
    assert "only vectors" in str(broken(make(), UNFINISHED))


def test_a_source_cannot_show_a_text_that_returns_after_a_vector_in_place(
    kind: type[MemoryRows],
) -> None:
    world = World(kind(ADOPTED))
    world.run(GIVEN)
    shown = world.rows.fresh(NEW)
    assert shown == ({} if world.rows.empties else {"a": Symbol(NEW, "y")})


def test_a_slot_without_sources_cannot_show_what_the_other_model_has_left_in_it(
    kind: type[MemoryRows],
) -> None:
    world = World(kind(ADOPTED))
    world.run(LEFT)
    shown = world.rows.fresh(OLD)
    assert shown == ({} if world.rows.empties else {"a": Symbol(OLD, "x")})
