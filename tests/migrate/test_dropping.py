"""Slots are dropped by the plan that they are of, where that is of, and what is given up is said."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from tests.audit.poisoning import documents
from tests.contract.ingesting import Place, postgres_place, qdrant_place
from tests.migrate.evidence import passing
from tests.migrate.following import Follower

from samespace import Document, field
from samespace.errors import MigrationError
from samespace.guard import SlotState
from samespace.migrate import (
    MigrationPlan,
    abort,
    expose,
    finish,
    open_slot,
    plan,
    run,
    status,
    verify,
)
from samespace.protocols import VectorStore
from samespace.testing.backends import UNLIKE, V3, TaskBackend

ROWS = documents(20)


def new() -> TaskBackend:
    return TaskBackend(UNLIKE, seed=5)


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    return postgres_place(request)


@pytest.fixture
def old(place: Place) -> Iterator[VectorStore]:
    """A handle of the space that is moved from."""
    with place.open(TaskBackend()) as store:
        store.upsert([Document(row.id, row.text, {"lang": "en"}) for row in ROWS])
        yield store


@pytest.fixture
def second(place: Place) -> Iterator[VectorStore]:
    """A handle on another collection there."""
    with replace(place, collection="second").open(TaskBackend()) as store:
        store.upsert(ROWS)
        yield store


def opened(store: VectorStore) -> MigrationPlan:
    """The plan of a migration whose slot is ready."""
    made = plan(store, new())
    assert run(store, new(), made).complete
    open_slot(store, made, passing(made, store))
    return made


def of_some(store: VectorStore) -> MigrationPlan:
    """Another plan to the same space."""
    return plan(store, new(), where=field("lang") == "en")


# Whose a slot is


def test_a_plan_is_of_one_kind_of_store(old: VectorStore, request: pytest.FixtureRequest) -> None:
    opened(old)
    with qdrant_place(request).open(TaskBackend()) as elsewhere:
        elsewhere.upsert(ROWS)
        wrong = plan(elsewhere, new())
    works: list[Callable[[], object]] = [
        lambda: run(old, new(), wrong),
        lambda: verify(old, new(), wrong),
        lambda: open_slot(old, wrong, force=True),
        lambda: finish(old, wrong, of_another_plan=True),
        lambda: abort(old, wrong, force=True),
        lambda: status(old, wrong),
    ]
    for work in works:
        with pytest.raises(MigrationError, match=r"in qdrant, and this store is pgvector.*--store"):
            work()
    assert len(old.info().slots) == 2


def test_a_plan_finishes_what_it_has_opened_itself(old: VectorStore) -> None:
    other = plan(old, new(), where=field("lang") == "en")
    made = opened(old)
    with pytest.raises(MigrationError, match=r"by plan .*--of-another-plan"):
        finish(old, other)
    assert len(old.info().slots) == 2
    finish(old, made)
    for each in (made, other):
        with pytest.raises(MigrationError, match="this plan is finished"):
            run(old, new(), each)


def test_what_another_plan_has_opened_is_finished_by_who_says_so(old: VectorStore) -> None:
    other = plan(old, new(), where=field("lang") == "en")
    opened(old)
    assert finish(old, other, of_another_plan=True)[0].changed


def test_what_somebody_marked_ready_is_opened_by_the_plan_before_it_is_finished(
    old: VectorStore,
) -> None:
    made = plan(old, new())
    old.add_slot(UNLIKE, canary=None)
    run(old, new(), made)
    old.mark(UNLIKE, SlotState.READY)
    with pytest.raises(MigrationError, match=r"by no plan.*migrate open"):
        finish(old, made)
    open_slot(old, made, force=True)
    assert finish(old, made)[0].changed


def test_to_abort_another_plan_s_slot_gives_no_vector_up(old: VectorStore) -> None:
    opened(old)
    other = of_some(old)
    other = replace(other, collections=(replace(other.collections[0], target_state="filling"),))
    old.in_space(UNLIKE, backend=new()).upsert([Document("only", "by the new model alone")])
    with pytest.raises(MigrationError, match=r"by plan .*--of-another-plan"):
        abort(old, other, force=True)
    with pytest.raises(MigrationError, match=r"1 row has no vector.*--force"):
        abort(old, other, of_another_plan=True)
    asked: list[str] = []

    def refuse(question: str) -> bool:
        asked.append(question)
        return False

    assert not abort(old, other, force=True, of_another_plan=True, confirm=refuse)
    [change] = abort(old, other, force=True, of_another_plan=True)
    assert "1 row has no vector" in asked[0]
    assert "1 row has no vector" in change.said


# Which slot it is


def test_a_slot_that_somebody_added_is_told_from_the_one_that_was_verified(
    old: VectorStore,
) -> None:
    made = plan(old, new())
    old.add_slot(UNLIKE, canary=None)
    run(old, new(), made)
    seen = passing(made, old)
    assert seen.collections[0].slot
    abort(old, made)
    old.add_slot(UNLIKE, canary=None)
    rows, _ = old.pending(UNLIKE, limit=100)
    old.fill(UNLIKE, rows, TaskBackend(UNLIKE, seed=9).embed_documents(["x"] * len(rows)))
    with pytest.raises(MigrationError, match="another slot"):
        open_slot(old, made, seen)
    old.mark(UNLIKE, SlotState.FILLING, provenance={"slot": ""})
    with pytest.raises(MigrationError, match=r"nothing tells.*migrate abort"):
        open_slot(old, made, passing(made, old))


# What others have built


BUILT = {
    "column norm": "ALTER TABLE {t} ADD norm float8 GENERATED ALWAYS AS (vector_norm({c})) STORED",
    "trigger mine": """CREATE FUNCTION {s}.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER mine BEFORE UPDATE OF {c} ON {t} FOR EACH ROW EXECUTE FUNCTION {s}.f()""",
    "g()": "CREATE FUNCTION {s}.g() RETURNS bigint BEGIN ATOMIC SELECT count({c}) FROM {t}; END",
    "policy p": "CREATE POLICY p ON {t} USING ({c} IS NOT NULL)",
    "rule r": "CREATE RULE r AS ON DELETE TO {t} WHERE OLD.{c} IS NULL DO INSTEAD NOTHING",
    "rule d on view": """CREATE VIEW {s}.few AS SELECT id FROM {t};
        CREATE RULE d AS ON DELETE TO {s}.few DO INSTEAD DELETE FROM {t} WHERE {c} IS NULL""",
    "publication {s}": "CREATE PUBLICATION {s} FOR TABLE {t} (id, {c})",
}
HARMLESS = """CREATE INDEX ON {t} ((vector_norm({c}))); CREATE INDEX ON {t} (id) WHERE {c} IS NOT NULL;
    ALTER TABLE {t} ADD CHECK (vector_dims({c}) > 1 OR id = ''); CREATE VIEW {s}.ids AS SELECT id FROM {t}"""


def test_what_others_built_on_a_later_collection_keeps_the_slots_of_all(
    place: Place, second: VectorStore, old: VectorStore
) -> None:
    stores = [old, second]
    made = plan(stores, new())
    run(stores, new(), made)
    open_slot(stores, made, passing(made, *stores))
    schema = place.options["schema"]
    slot = next(slot for slot in second.info().slots if slot.space == V3)
    names = {"s": schema, "t": f'{schema}."second"', "c": f'"{slot.name}"'}
    with psycopg.connect(place.source, autocommit=True) as owner:
        owner.execute(HARMLESS.format(**names).encode())
        for built in BUILT.values():
            owner.execute(built.format(**names).encode())
        try:
            with pytest.raises(
                MigrationError, match="collection 'second', so nothing was"
            ) as refusal:
                finish(stores, made)
        finally:
            owner.execute(SQL("DROP PUBLICATION {}").format(Identifier(schema)))
        assert all(what.format(**names) in str(refusal.value) for what in BUILT), refusal.value
        assert [len(store.info().slots) for store in stores] == [2, 2]
        owner.execute(
            "ALTER TABLE {t} DROP norm; DROP TRIGGER mine ON {t}; DROP FUNCTION {s}.g();"
            "DROP POLICY p ON {t}; DROP RULE r ON {t}; DROP RULE d ON {s}.few".format(
                **names
            ).encode()
        )
    assert [each.changed for each in finish(stores, made)] == [True, True]


# What is exposed, and opened again


def test_a_view_takes_both_slots(old: VectorStore) -> None:
    made = plan(old, new())
    assert expose(old, made)[0].changes
    with pytest.raises(MigrationError, match="no slot of .* yet; fill one: samespace migrate run"):
        expose(old, made, schema="app")
    run(old, new(), made)
    open_slot(old, made, passing(made, old))
    assert expose(old, made, schema="app")[0].statements
    seen = passing(made, old)
    finish(old, made)
    with pytest.raises(MigrationError, match="this plan is finished"):
        expose(old, made, schema="app")
    assert expose(old, made)[0].changes
    for force in (False, True):
        [again] = open_slot(old, made, seen, force=force)
        assert (again.changed, again.said.endswith("the plan is finished here")) == (False, True)


# What is finished in part


@pytest.fixture
def half(old: VectorStore, second: VectorStore) -> MigrationPlan:
    """Finished in the first of two collections; in the second an old writer has added a row since."""
    stores = [old, second]
    made = plan(stores, new())
    run(stores, new(), made)
    open_slot(stores, made, passing(made, *stores))
    old.in_space(UNLIKE).drop_slot(V3, keeps=UNLIKE)
    second.upsert([Document("late", "by the old model alone")])
    return made


def test_what_is_finished_in_part_is_run_verified_and_finished(
    half: MigrationPlan, old: VectorStore, second: VectorStore
) -> None:
    made, stores = half, [old, second]
    with pytest.raises(MigrationError, match="1 row has no vector"):
        finish(stores, made)
    assert run(old, new(), made).lines()[0].endswith("so there was nothing to do")
    done = run(stores, new(), made)
    assert (done.complete, [each.finished for each in done.collections]) == (True, [True, False])
    seen = verify(stores, new(), made, repetitions=1)
    assert (seen.passed, [each.name for each in seen.collections]) == (True, ["second"])
    said = [each.said for each in open_slot(stores, made, seen)]
    assert [each.endswith("finished here") for each in said] == [True, False]
    assert [each.changed for each in finish(stores, made)] == [False, True]
    with pytest.raises(MigrationError, match="this plan is finished"):
        run(stores, new(), made)
    with pytest.raises(MigrationError, match="this plan is finished"):
        verify(stores, new(), made)


def test_what_is_left_of_a_plan_is_followed(
    half: MigrationPlan, old: VectorStore, second: VectorStore
) -> None:
    with Follower([old, second], new(), half, interval=0.01) as follower:
        follower.wait_until_idle()
    assert second.pending(UNLIKE, limit=5)[0] == []


def test_what_another_plan_has_finished_in_part_is_gone_on_with_by_either(
    old: VectorStore, second: VectorStore
) -> None:
    stores = [old, second]
    made = plan(stores, new())
    run(stores, new(), made)
    other = plan(stores, new(), where=field("lang") == "en")
    open_slot(stores, made, passing(made, *stores))
    assert finish([old], other, of_another_plan=True)[0].changed
    second.upsert([Document("late", "by the old model alone", {"lang": "en"})])
    for each in (other, made):
        done = run(stores, new(), each)
        assert [part.finished for part in done.collections] == [True, False]
        assert [part.name for part in verify(stores, new(), each).collections] == ["second"]
    assert [each.changed for each in finish(stores, made)] == [False, True]


# What comes next


def test_what_a_plan_of_some_rows_has_filled_is_gone_on_with_by_one_of_all(
    old: VectorStore,
) -> None:
    some = of_some(old)
    run(old, new(), some)
    assert "migrate verify" in status(old, some).collections[0].next
    old.upsert([Document("beyond", "in another language", {"lang": "de"})])
    found = status(old, some).collections[0]
    words, command = found.next.split(": ")
    assert (found.beyond, words) == (1, "a plan without --where")
    assert shlex.split(command)[-4:] == ["--backend", "SPEC", "--out", "FILE"]
