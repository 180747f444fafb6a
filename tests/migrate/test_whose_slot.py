"""A plan drops a slot only where it is known to be the one that was planned with, on every store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.audit.poisoning import documents
from tests.contract.ingesting import Place, elasticsearch_place, postgres_place, qdrant_place
from tests.contract.test_elasticsearch_contract import raw
from tests.migrate.evidence import passing

from samespace.errors import MigrationError
from samespace.migrate import MigrationPlan, abort, finish, open_slot, plan, run, status
from samespace.protocols import VectorStore
from samespace.testing.backends import UNLIKE, V3, TaskBackend

__all__ = ["raw"]
ROWS = documents(20)
PLACES: dict[str, Callable[[pytest.FixtureRequest], Place]] = {
    "PostgreSQL": postgres_place,
    "Qdrant": qdrant_place,
    "Elasticsearch": elasticsearch_place,
}


def new() -> TaskBackend:
    return TaskBackend(UNLIKE, seed=5)


def opened(store: VectorStore, backend: TaskBackend) -> MigrationPlan:
    """The plan of a migration whose slot is ready."""
    made = plan(store, backend)
    assert run(store, backend, made).complete
    open_slot(store, made, passing(made, store))
    return made


def of_before(made: MigrationPlan) -> MigrationPlan:
    """The plan as one was when slots were not told apart."""

    def forgot(side: Any) -> Any:
        return replace(side, slot=None)

    return replace(
        made,
        collections=tuple(
            replace(each, source=forgot(each.source), target=forgot(each.target))
            for each in made.collections
        ),
    )


@pytest.fixture(params=list(PLACES))
def place(request: pytest.FixtureRequest) -> Place:
    return PLACES[request.param](request)


@pytest.fixture
def old(place: Place) -> Iterator[VectorStore]:
    """A handle of the space that is moved from."""
    with place.open(TaskBackend()) as store:
        store.upsert(ROWS)
        yield store


def check_kept(store: VectorStore, made: MigrationPlan) -> None:
    """A finished plan drops neither slot."""
    assert status(store, made).collections[0].stage == "finished"
    with pytest.raises(MigrationError, match="this plan is finished"):
        run(store, new(), made)
    for end in (finish, abort):
        with pytest.raises(MigrationError, match=r"not known to be the one .*--of-another-plan"):
            end(store, made)
    assert len(store.info().slots) == 2


def test_a_finished_plan_leaves_the_way_back_alone(old: VectorStore) -> None:
    made = opened(old, new())
    finish(old, made)
    moved = old.in_space(UNLIKE, backend=new())
    back = plan(moved, TaskBackend())
    assert run(moved, TaskBackend(), back).complete
    check_kept(moved, made)
    open_slot(moved, back, passing(back, moved))
    check_kept(moved, made)
    assert finish(moved, back)[0].changed
    assert [slot.space for slot in old.info().slots] == [V3]


def test_a_slot_that_was_ready_is_told_from_another_one(old: VectorStore) -> None:
    first = opened(old, new())
    late = plan(old, new())
    assert late.collections[0].target_state == "ready"
    forgetful = of_before(late)
    abort(old, first)
    opened(old, new())
    for made in (late, forgetful):
        with pytest.raises(MigrationError, match=r"by plan .*--of-another-plan"):
            finish(old, made)
    assert len(old.info().slots) == 2
    assert finish(old, plan(old, new()))[0].changed


def test_a_plan_of_before_asks_where_the_source_may_be_of_a_way_back(old: VectorStore) -> None:
    finish(old, opened(old, new()))
    moved = old.in_space(UNLIKE, backend=new())
    back = of_before(plan(moved, TaskBackend()))
    assert run(moved, TaskBackend(), back).complete
    open_slot(moved, back, passing(back, moved))
    with pytest.raises(MigrationError, match=r"not known to be the one .*--of-another-plan"):
        finish(moved, back)
    assert finish(moved, back, of_another_plan=True)[0].changed
