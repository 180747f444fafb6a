"""The end of migrations on every store: opened, finished, aborted, and refused where rows would lose."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from qdrant_client import QdrantClient, models
from tests.audit.poisoning import documents
from tests.cli.running import Caller
from tests.contract.ingesting import (
    Place,
    awaitable,
    elasticsearch_place,
    postgres_place,
    qdrant_place,
)
from tests.contract.test_elasticsearch_contract import raw
from tests.contract.test_qdrant_contract import Harness as QdrantHarness
from tests.contract.test_qdrant_contract import memory, prefix
from tests.migrate.evidence import passing
from tests.migrate.following import Follower
from tests.places import STORES as FOREIGN
from tests.places import Place as ForeignPlace
from tests.places import Table, opened_place
from tests.servers.qdrant import QdrantServer

from samespace import AsyncPgVectorStore, Document, HashingBackend, field, open_store
from samespace.embedding import make_canary
from samespace.errors import InvalidInput, MigrationError, SpaceMismatch
from samespace.guard import SlotState
from samespace.migrate import (
    Check,
    MigrationPlan,
    MigrationReport,
    MigrationRun,
    RunNote,
    RunNotes,
    SlotChange,
    Verification,
    abort,
    expose,
    finish,
    open_slot,
    plan,
    run,
    status,
    verify,
)
from samespace.migrate.verification import REQUIRED
from samespace.protocols import ExposesSlots, VectorStore
from samespace.testing.backends import UNLIKE, V3, TaskBackend

__all__ = ["memory", "prefix", "raw"]  # fixtures
STORES: dict[str, Callable[[pytest.FixtureRequest], Place]] = {
    "PostgreSQL": postgres_place,
    "Qdrant local": qdrant_place,
    "Elasticsearch": elasticsearch_place,
}
ROWS = documents(20)


def failing(made: MigrationPlan, *stores: VectorStore) -> Verification:
    right = passing(made, *stores)
    checks = (Check(name="pending", passed=False, sentence="one is"),)
    collections = tuple(replace(each, checks=checks) for each in right.collections)
    return replace(right, collections=collections)


@pytest.fixture(params=STORES)
def place(request: pytest.FixtureRequest) -> Place:
    return STORES[request.param](request)


@pytest.fixture
def one(request: pytest.FixtureRequest) -> Place:
    """For what does not depend on the store."""
    return postgres_place(request)


def new() -> TaskBackend:
    return TaskBackend(UNLIKE, seed=5)


@pytest.fixture
def old(place: Place) -> Iterator[VectorStore]:
    """A handle of the space that is moved from."""
    with place.open(TaskBackend()) as store:
        store.upsert(ROWS)
        yield store


def moved(store: VectorStore) -> MigrationPlan:
    """The plan of a migration whose slot is filled."""
    made = plan(store, new())
    assert run(store, new(), made).complete
    return made


def said(changes: tuple[SlotChange, ...]) -> list[tuple[bool, str]]:
    return [(each.changed, each.said) for each in changes]


def test_a_migration_is_opened_used_by_both_and_finished(old: VectorStore) -> None:
    made = moved(old)
    assert [each.stage for each in status(old, made).collections] == ["filling"]
    [opened] = open_slot(old, made, passing(made, old))
    assert opened.changed
    assert said(open_slot(old, made, passing(made, old))) == [
        (False, f"the slot of {UNLIKE} is ready already")
    ]
    found = status(old, made).collections[0]
    assert (found.stage, found.rows) == ("open", len(ROWS))
    assert [(each.part, each.pending, each.stale, each.opened) for each in found.slots] == [
        ("source", 0, 0, ""),
        ("target", 0, 0, f"verified {passing(made, old).hash[:12]}"),
    ]
    other = old.in_space(UNLIKE, backend=new())
    assert old.search(ROWS[3].text)[0].document.id == ROWS[3].id
    assert other.search(ROWS[3].text)[0].document.id == ROWS[3].id
    asked: list[str] = []

    def agreeing(question: str) -> bool:
        asked.append(question)
        return True

    [finished] = finish(old, made, confirm=agreeing)
    assert (finished.space, finished.changed) == (V3, True)
    assert finished.left
    assert f"{len(ROWS)} rows" in asked[0]
    for refused in (lambda: old.search("anything"), lambda: old.upsert([Document("x", "text")])):
        with pytest.raises(SpaceMismatch):
            refused()
    assert other.search(ROWS[3].text)[0].document.id == ROWS[3].id
    assert status(old, made).collections[0].stage == "finished"
    assert said(finish(old, made)) == [(False, f"there is no slot of {V3} any more")]
    with pytest.raises(MigrationError, match="to go back to"):
        abort(old, made)


def test_rows_without_words_keep_nothing_closed(one: Place) -> None:
    with one.open(TaskBackend()) as store:
        store.upsert(ROWS)
        store.upsert_vectors([Document("blank", " ")], [None], space=V3)
        made = moved(store)
        [opened] = open_slot(store, made, passing(made, store))
        assert opened.said.endswith(f"(verified {passing(made, store).hash[:12]})")


def test_what_a_follower_fills_in_time_is_waited_for(one: Place) -> None:
    with one.open(TaskBackend()) as store:
        store.upsert(ROWS)
        made = moved(store)
        store.upsert([Document("late", "written just before")])
        with pytest.raises(MigrationError, match="1 row"):
            open_slot(store, made, passing(made, store), patience=0.0)
        with Follower(store, new(), made, interval=0.01):
            assert open_slot(store, made, passing(made, store), patience=3600)[0].changed


def test_what_was_opened_is_taken_back_by_dropping_the_new_slot(old: VectorStore) -> None:
    made = moved(old)
    open_slot(old, made, passing(made, old))
    [dropped] = abort(old, made)
    assert (dropped.space, dropped.changed) == (UNLIKE, True)
    assert [slot.space for slot in old.info().slots] == [V3]
    assert old.search(ROWS[3].text)[0].document.id == ROWS[3].id
    assert said(abort(old, made)) == [
        (False, f"there is no slot of {UNLIKE}, so there is nothing to drop")
    ]
    assert [each.stage for each in status(old, made).collections] == ["planned"]


def test_a_row_that_only_the_old_slot_has_keeps_it(old: VectorStore) -> None:
    made = moved(old)
    open_slot(old, made, passing(made, old))
    old.upsert([Document("late", "written by who knows nothing of the new model")])
    with pytest.raises(MigrationError, match=r"1 row has no vector.*samespace migrate run"):
        finish(old, made)
    assert len(old.info().slots) == 2
    assert run(old, new(), made).complete
    assert finish(old, made)[0].changed


def test_a_row_that_only_the_new_slot_has_is_not_given_up(old: VectorStore) -> None:
    made = moved(old)
    open_slot(old, made, passing(made, old))
    with old.in_space(UNLIKE, backend=new()) as other:
        other.upsert([Document("late", "written by the new model")])
    with pytest.raises(MigrationError, match=r"1 row has no vector.*--force"):
        abort(old, made)
    assert len(old.info().slots) == 2

    def stop_when_idle(report: MigrationReport) -> None:
        if report.sweeps and report.idle:
            job.stop()

    job = MigrationRun(old, new(), made, follow=True, on_progress=stop_when_idle)
    job.run()
    assert abort(old, made)[0].changed
    assert old.pending(V3, limit=10) == ([], None)


def test_a_text_that_was_changed_by_a_new_writer_alone_is_not_given_up(
    memory: QdrantClient,
) -> None:
    harness = QdrantHarness(memory)
    with harness.open("moved", backend=TaskBackend()) as old:
        old.upsert(ROWS)
        made = moved(old)
        open_slot(old, made, passing(made, old))
    harness.set_text("moved", ROWS[0].id, "another text")
    with harness.open("moved", backend=TaskBackend()) as old:
        assert [slot.stale for slot in status(old, made).collections[0].slots] == [1, 1]
        with pytest.raises(MigrationError, match="1 row has one of an earlier text"):
            finish(old, made)
        rows, _ = old.stale(UNLIKE, limit=10)
        old.fill(UNLIKE, rows, new().embed_documents(["another text"]))
        assert [slot.stale for slot in status(old, made).collections[0].slots] == [1, 0]
        with pytest.raises(MigrationError, match="1 row has one of an earlier text"):
            abort(old, made)
        assert finish(old, made, confirm=lambda _: False) == ()
        assert abort(old, made, force=True)[0].changed


def test_what_is_written_while_somebody_is_asked_is_seen(old: VectorStore) -> None:
    made = moved(old)
    open_slot(old, made, passing(made, old))

    def writing(_question: str) -> bool:
        old.upsert([Document("late", "written meanwhile")])
        return True

    with pytest.raises(MigrationError, match="1 row"):
        finish(old, made, confirm=writing)
    assert finish_is_declined(old, made)


def finish_is_declined(store: VectorStore, made: MigrationPlan) -> bool:
    rows, _ = store.pending(UNLIKE, limit=10)
    store.fill(UNLIKE, rows, new().embed_documents([row.document.text for row in rows]))
    declined = finish(store, made, confirm=lambda _: False) == ()
    return declined and len(store.info().slots) == 2


def test_nothing_is_opened_without_evidence_or_with_rows_pending(old: VectorStore) -> None:
    made = plan(old, new())
    with pytest.raises(MigrationError, match="samespace migrate run"):
        open_slot(old, made, passing(made, old))
    moved(old)
    right = passing(made, old)
    with pytest.raises(InvalidInput, match="samespace migrate verify"):
        open_slot(old, made)
    for wrong, what in (
        (failing(made, old), "not passed"),
        (replace(right, plan="another"), "another"),
        (replace(right, collections=()), "has not looked at"),
    ):
        with pytest.raises(MigrationError, match=what):
            open_slot(old, made, wrong)
    old.upsert([Document("late", "written since")])
    with pytest.raises(MigrationError, match=r"1 row.*pending|1 row.*no vector"):
        open_slot(old, made, right)
    with pytest.raises(MigrationError, match="is not ready"):
        finish(old, made)
    assert old.info().slots[1].state == SlotState.FILLING
    [opened] = open_slot(old, made, right, force=True)
    assert opened.changed
    assert old.info().slots[1].provenance["opened"] == "forced"


def test_a_collection_that_is_not_what_was_planned_is_left_alone(one: Place) -> None:
    with one.open(TaskBackend()) as store:
        store.upsert(ROWS)
        made = moved(store)
        other = replace(made.collections[0], layout={"id": "key"})
        wrong = replace(made, collections=(other,))
        for act in (open_slot, abort):
            with pytest.raises(MigrationError, match="not what was planned"):
                act(store, wrong, force=True)
        store.mark(UNLIKE, SlotState.READY)
        with pytest.raises(MigrationError, match="not what was planned"):
            finish(store, wrong)
        assert len(store.info().slots) == 2


def test_a_slot_that_was_there_before_the_plan_is_not_the_plans_to_drop(one: Place) -> None:
    with one.open(TaskBackend()) as store:
        store.upsert(ROWS)
        moved(store)
        store.mark(UNLIKE, SlotState.READY)
        made = plan(store, new())
        assert said(open_slot(store, made, force=True)) == [
            (False, f"the slot of {UNLIKE} is ready already")
        ]
        with pytest.raises(MigrationError, match="before this plan"):
            abort(store, made, force=True)
        assert len(store.info().slots) == 2


def test_a_collection_that_is_in_the_space_already_has_nothing_to_drop(one: Place) -> None:
    with one.open(TaskBackend()) as store:
        store.upsert(ROWS)
        same = plan(store, TaskBackend())
        assert [each.changed for each in finish(store, same)] == [False]
        assert expose(store, same)[0].lines() == ["ingested: nothing changes"]
        assert len(store.info().slots) == 1


def test_all_collections_are_looked_at_before_the_first_is_changed(
    one: Place, postgres: str
) -> None:
    with one.open(TaskBackend()) as first, _second(one, postgres) as second:
        for store in (first, second):
            store.upsert(ROWS)
        stores = [first, second]
        made = plan(stores, new())
        run(stores, new(), made)
        second.upsert([Document("late", "written since")])
        with pytest.raises(MigrationError, match="second"):
            open_slot(stores, made, passing(made, *stores))
        assert first.info().slots[1].state == SlotState.FILLING
        open_slot(stores, made, force=True)
        with pytest.raises(MigrationError, match="second"):
            finish(stores, made)
        assert len(first.info().slots) == 2
        with pytest.raises(InvalidInput, match="once only"):
            finish(iter(stores), made)


def _second(place: Place, conninfo: str) -> VectorStore:
    store: VectorStore = replace(place, source=conninfo, collection="second").open(TaskBackend())
    return store


def test_async_handles_are_closed_in_the_end(one: Place) -> None:
    with one.open(TaskBackend()) as store:
        store.upsert(ROWS)
        made = moved(store)
        evidence = passing(made, store)

    def handle() -> Any:
        return AsyncPgVectorStore(
            one.source, collection=one.collection, backend=awaitable(TaskBackend()), **one.options
        )

    assert open_slot(handle(), made, evidence)[0].changed
    assert status(handle(), made).collections[0].stage == "open"
    assert finish(handle(), made)[0].changed


def test_applications_are_told_the_slots_names(old: VectorStore) -> None:
    made = plan(old, new())
    [found] = expose(old, made)
    assert (found.changes[0].before, found.changes[0].after) == (str(V3), str(UNLIKE))
    assert all(V3.id in each.before and UNLIKE.id in each.after for each in found.changes[1:])
    assert len(found.changes) > 1
    with pytest.raises(InvalidInput, match="--schema"):
        expose(old, made, role="somebody")
    if isinstance(old, ExposesSlots):
        with pytest.raises(MigrationError, match="no slot of .* yet; fill one"):
            expose(old, made, schema="other")
    else:
        with pytest.raises(InvalidInput, match="PostgreSQL"):
            expose(old, made, schema="other")


# What evidence is of


def test_evidence_opens_the_slot_that_it_has_seen_and_no_other(one: Place) -> None:
    with one.open(TaskBackend()) as store:
        store.upsert(ROWS)
        made = moved(store)
        found = verify(store, new(), made, repetitions=1)
        assert found.passed
        assert Verification.from_dict(found.to_dict()).collections[0].slot
        abort(store, made)
        store.add_slot(UNLIKE, canary=make_canary(new()))
        rows, _ = store.pending(UNLIKE, limit=100)
        store.fill(UNLIKE, rows, TaskBackend(UNLIKE, seed=9).embed_documents(["x"] * len(rows)))
        with pytest.raises(MigrationError, match=r"another slot.*samespace migrate verify"):
            open_slot(store, made, found)
        abort(store, made)
        run(store, new(), made)
        with pytest.raises(MigrationError, match="another slot"):
            open_slot(store, made, found)
        assert open_slot(store, made, verify(store, new(), made, repetitions=1))[0].changed


def test_evidence_of_some_rows_does_not_open_a_slot_for_all(one: Place) -> None:
    with one.open(TaskBackend()) as store:
        store.upsert(
            [Document(row.id, row.text, {"n": n, "lang": "en"}) for n, row in enumerate(ROWS)]
        )
        moved(store)
        some, all_of_them = (
            plan(store, new(), where=where) for where in (field("n") == 0, field("lang") == "en")
        )
        found = verify(store, new(), some, repetitions=1)
        assert found.passed
        with pytest.raises(MigrationError, match=r"19 rows of 20.*without it.*--force"):
            open_slot(store, some, found)
        assert open_slot(store, all_of_them, verify(store, new(), all_of_them, repetitions=1))


def test_evidence_without_a_check_that_is_required_has_not_passed(one: Place) -> None:
    with one.open(TaskBackend()) as store:
        store.upsert(ROWS)
        made = moved(store)
        right = passing(made, store)
        for left in range(len(REQUIRED)):
            checks = tuple(right.collections[0].check(name) for name in REQUIRED[:left])
            wrong = replace(right, collections=(replace(right.collections[0], checks=checks),))
            read = Verification.from_dict(wrong.to_dict())
            assert [each.name for each in read.failures] == list(REQUIRED[left:])
            with pytest.raises(MigrationError, match="not passed"):
                open_slot(store, made, read)


def test_rows_that_are_written_all_the_time_and_filled_by_nobody_are_pending(one: Place) -> None:
    written = SQL("UPDATE {}.{} SET text = text || ' more' WHERE id IN ('d1', 'd2')").format(
        Identifier(one.options["schema"]), Identifier(one.collection)
    )
    with one.open(TaskBackend()) as store, psycopg.connect(one.source, autocommit=True) as writer:
        store.upsert(ROWS)
        made = moved(store)
        writer.execute(written)

        def write(*_: object) -> None:
            writer.execute(written)

        found = verify(store, new(), made, repetitions=1, patience=0, on_progress=write)
        assert [each.name for each in found.failures] == ["pending"]
        assert found.collections[0].check("pending").figures["missing"] == 2


def test_stale_rows_keep_a_slot_closed(memory: QdrantClient) -> None:
    harness, texts = QdrantHarness(memory), iter(f"text {n}" for n in range(1000))
    with harness.open("moved", backend=TaskBackend()) as old:
        old.upsert(ROWS)
        made = moved(old)

        def write(*_: object) -> None:
            harness.set_text("moved", ROWS[0].id, next(texts))

        write()
        found = verify(old, new(), made, repetitions=1, on_progress=write)
        assert [each.name for each in found.failures] == ["stale"]
        with pytest.raises(MigrationError, match="1 row .* has a vector of an earlier text"):
            open_slot(old, made, passing(made, old))
        with Follower(old, new(), made, interval=0.01):
            assert open_slot(old, made, passing(made, old), patience=3600)[0].changed


# What others have built on a slot


def refusal(end: Callable[[], object]) -> str:
    with pytest.raises(MigrationError, match=r"views use .*run: DROP") as told:
        end()
    return str(told.value)


def test_views_of_a_later_collection_keep_the_slots_of_all(one: Place, postgres: str) -> None:
    schema = one.options["schema"]
    with one.open(TaskBackend()) as first, _second(one, postgres) as second:
        for store in (first, second):
            store.upsert(ROWS)
        stores = [first, second]
        made = plan(stores, new())
        run(stores, new(), made)
        open_slot(stores, made, passing(made, *stores))
        with psycopg.connect(one.source, autocommit=True) as owner:
            for what, name, of in (
                ("VIEW", 're"port', "second"),
                ("MATERIALIZED VIEW", "kept", 're"port'),
            ):
                owner.execute(
                    SQL("CREATE {} {} AS SELECT * FROM {}").format(
                        SQL(what), Identifier(schema, name),
                        Identifier(schema, of),
                    )
                )  # fmt: skip
            said = [refusal(partial(end, stores, made)) for end in (abort, finish)]
            assert [len(store.info().slots) for store in stores] == [2, 2]
            assert all("'second'" in each for each in said)
            owner.execute(said[1].rpartition("run: ")[2].encode())
        assert [each.changed for each in finish(stores, made)] == [True, True]


def test_the_view_for_an_application_is_dropped_by_what_was_printed(one: Place) -> None:
    beside = f'{one.options["schema"]} V 3%"x'
    with one.open(TaskBackend()) as store:
        store.upsert(ROWS)
        made = moved(store)
        open_slot(store, made, passing(made, store))
        [exposed] = expose(store, made, schema=beside)
        with psycopg.connect(one.source, autocommit=True) as owner:
            for statement in exposed.statements:
                owner.execute(statement.encode())
            said = [refusal(partial(abort, store, made, force=each)) for each in (False, True)]
            [undo] = [line for line in "\n".join(exposed.lines()).split("\n") if "abort" in line]
            assert all(each.endswith(undo.partition("abort: ")[2]) for each in said)
            owner.execute(undo.partition("abort: ")[2].encode())
            assert abort(store, made)[0].changed
            owner.execute(SQL("DROP SCHEMA {}").format(Identifier(beside)))


# How it stands


def test_what_comes_next_is_said_of_a_slot_that_is_filled_dropped_or_alone(one: Place) -> None:
    with one.open(TaskBackend()) as store:
        store.upsert(ROWS)
        made = moved(store)
        assert status(store, made).collections[0].next.startswith("samespace migrate verify")
        store.upsert([Document("late", "written since")])
        assert status(store, made).collections[0].next.startswith("samespace migrate run")
        note = RunNote(
            plan=made.hash, worker=(0, 1), host="h", pid=1, began_at=0.0, noted_at=1.0,
            complete=True, ended=True,
        )  # fmt: skip
        abort(store, made)
        assert "dropped since (migrate abort)" in status(store, made, runs=[note]).lines()[-1]
        assert "dropped since" not in status(store, made).lines()[-1]
        run(store, new(), made)
        open_slot(store, made, force=True)
        finish(store, made)
        with pytest.raises(MigrationError, match="this plan is finished"):
            verify(store, new(), made)
        with pytest.raises(MigrationError, match="this plan is finished"):
            run(store, new(), made)


# The command


@pytest.fixture(params=FOREIGN)
def foreign(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ForeignPlace]:
    with opened_place(request.param, request, tmp_path) as place:
        yield place


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(monkeypatch, capsys)


def unversioned(place: ForeignPlace) -> object:
    """A table but for where its rows lie; elsewhere a filled row keeps a key or a field, which is said."""
    if not isinstance(place, Table):
        return None
    dump: Any = place.dump()
    return {
        name: [*parts, [row for row, _xmin, _ctid in rows]] for name, (*parts, rows) in dump.items()
    }


def test_the_commands_end_the_migration_of_an_adopted_collection(
    foreign: ForeignPlace, call: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, target = HashingBackend(64), HashingBackend(128)
    rows = [Document(str(n), row.text, {"lang": "en"}) for n, row in enumerate(ROWS)]
    foreign.make(rows, backend.embed_documents([row.text for row in rows]))
    at, out = ("--store", foreign.address), tmp_path / "plan.json"
    named = ("--collection", foreign.name)
    assert call("adopt", *at, *named, "--backend", "hashing@64", "--yes")[0] == 0
    before = unversioned(foreign)
    assert (
        call("migrate", "plan", *at, *named, "--backend", "hashing@128", "--out", str(out))[0] == 0
    )

    def migrate(command: str, *more: str) -> tuple[int, str, str]:
        return call("migrate", command, "--plan", str(out), *at, *more)

    def fill() -> None:
        with open_store(foreign.address, collection=foreign.name, backend=backend) as store:
            made = MigrationPlan.from_dict(orjson.loads(out.read_bytes()))
            assert run(store, target, made).complete

    fill()
    code, shown, _ = migrate("status")
    assert (code, shown.count("filling")) == (0, 2)
    assert migrate("abort", "--yes")[0] == 0
    assert unversioned(foreign) == before
    fill()
    code, _, told = migrate("open")
    assert (code, "samespace migrate verify" in told) == (2, True)
    evidence = str(tmp_path / "verification.json")
    assert migrate("open", "--verification", evidence)[0] == 2
    code, _, told = migrate(
        "verify", "--backend", "hashing@128", "--out", evidence, "--repetitions", "1"
    )
    assert code == 0, told
    code, shown, told = migrate("open", "--verification", evidence, "--json")
    assert code == 0, told
    assert orjson.loads(shown)[0]["changed"] is True
    code, shown, _ = migrate("expose")
    assert (code, target.space.id in shown) == (0, True)
    code, shown, told = migrate("expose", "--schema", "moved")
    if isinstance(foreign, Table):
        assert code == 0, told
        with psycopg.connect(foreign.conninfo) as connection:
            connection.execute(shown.encode())
            seen = connection.execute('SELECT vector_dims(v) FROM moved."Chunks 100%" LIMIT 1')
            assert seen.fetchone() == (128,)
    else:
        assert (code, "PostgreSQL" in told) == (2, True)
    monkeypatch.setattr(sys, "stdin", StringIO())
    code, _, told = migrate("finish")
    assert (code, "pass --yes" in told) == (2, True)
    code, shown, told = migrate("finish", "--yes")
    assert code == 0, told
    assert "is dropped" in shown
    code, shown, _ = migrate("status", "--json")
    assert orjson.loads(shown)["collections"][0]["stage"] == "finished"
    assert call("search", "x", *at, *named, "--backend", "hashing@64")[0] == 3
    assert call("search", "x", *at, *named, "--backend", "hashing@128")[0] == 0


def test_rows_without_a_text_are_given_up_by_those_who_say_so(
    request: pytest.FixtureRequest, call: Caller, tmp_path: Path
) -> None:
    backend, target = HashingBackend(64), HashingBackend(128)
    rows = [Document(str(n), row.text, {"lang": "en"}) for n, row in enumerate(ROWS)]
    vectors = backend.embed_documents([row.text for row in rows])
    with opened_place("PostgreSQL", request, tmp_path) as place:
        place.make([*rows[:-2], *(replace(row, text="") for row in rows[-2:])], vectors)
        at = ("--store", place.address, "--collection", place.name)
        assert call("adopt", *at, "--backend", "hashing@64", "--yes")[0] == 0
        with open_store(place.address, collection=place.name, backend=backend) as store:
            made = plan(store, target)
            run(store, target, made)
            [found] = verify(store, target, made, repetitions=1).collections
            assert "--give-up-textless" in found.check("pending").sentence
            open_slot(store, made, force=True)
            with pytest.raises(MigrationError, match="2 rows have .*18.*19.*--give-up-textless"):
                finish(store, made)
            store.upsert([Document("99", "written since", {"lang": "en"})])
            with pytest.raises(MigrationError, match="1 row has no vector"):
                finish(store, made, give_up_textless=True)
            run(store, target, made)
            [finished] = finish(store, made, give_up_textless=True)
            assert finished.said.endswith("with the vectors of 2 rows without text")


def test_going_back_to_a_slot_of_others_says_what_is_not_known(
    foreign: ForeignPlace, call: Caller
) -> None:
    backend, target = HashingBackend(64), HashingBackend(128)
    asked: list[str] = []

    def agreeing(question: str) -> bool:
        asked.append(question)
        return True

    rows = [Document(str(n), row.text, {"lang": "en"}) for n, row in enumerate(ROWS)]
    foreign.make(rows, backend.embed_documents([row.text for row in rows]))
    at = ("--store", foreign.address, "--collection", foreign.name)
    assert call("adopt", *at, "--backend", "hashing@64", "--yes")[0] == 0
    with open_store(foreign.address, collection=foreign.name, backend=backend) as store:
        made = plan(store, target)
        run(store, target, made)
        [dropped] = abort(store, made, confirm=agreeing)
    is_unknown = not isinstance(foreign, Table)
    assert ["not known there" in each for each in (dropped.said, *asked)] == [is_unknown] * 2


def test_the_commands_end_migrations_of_several_collections_in_a_folder(
    call: Caller, tmp_path: Path
) -> None:
    at, out = ("--store", f"qdrant:{tmp_path / 'points'}"), tmp_path / "plan.json"
    for name in ("one", "two"):
        with open_store(at[1], collection=name, backend="hashing@64") as store:
            store.upsert(ROWS)
    both = ("-c", "one", "-c", "two", "--backend", "hashing@32", "--out", str(out))
    assert call("migrate", "plan", *at, *both)[0] == 0
    planned = ("--plan", str(out), *at)
    assert call("migrate", "run", *planned, "--backend", "hashing@32")[0] == 0
    code, shown, _ = call("migrate", "status", *planned, "--json")
    [noted] = orjson.loads(shown)["runs"]
    assert (noted["filled"], noted["complete"], noted["alive"]) == (40, True, False)
    assert call("migrate", "open", *planned, "--force")[0] == 0
    made = MigrationPlan.from_dict(orjson.loads(out.read_bytes()))
    with RunNotes(out, made.hash, worker=(1, 2)):
        code, shown, told = call("migrate", "finish", *planned, "--yes", "--json")
    assert (code, told.count("part 1 of 2: filling")) == (0, 1), told
    assert [(each["collection"], each["changed"]) for each in orjson.loads(shown)] == [
        ("one", True),
        ("two", True),
    ]
    code, shown, _ = call("migrate", "finish", *planned)  # nobody is asked of nothing
    assert (code, shown.count("no slot of")) == (0, 2)


@pytest.mark.usefixtures("qdrant", "qdrant_grpc")
def test_an_unnamed_vector_is_dropped_by_the_command_over_grpc(
    qdrant_server: QdrantServer,
    prefix: str,
    call: Caller,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at, out, name = (
        ("--store", qdrant_server.url.replace("http", "qdrant", 1)),
        tmp_path / "p.json",
        f"{prefix}n",
    )
    backend = HashingBackend(64)
    with closing(QdrantClient(qdrant_server.url, check_compatibility=False)) as client:
        size = models.VectorParams(size=64, distance=models.Distance.COSINE)
        client.create_collection(name, vectors_config=size)
        vectors = backend.embed_documents([row.text for row in ROWS])
        points = [
            models.PointStruct(id=n, payload={"body": row.text}, vector=vector.tolist())
            for n, (row, vector) in enumerate(zip(ROWS, vectors, strict=True))
        ]
        client.upsert(name, points)
    named = ("--collection", name)
    assert call("adopt", *at, *named, "--backend", "hashing@64", "--yes")[0] == 0
    assert (
        call("migrate", "plan", *at, *named, "--backend", "hashing@32", "--out", str(out))[0] == 0
    )
    with open_store(at[1], collection=name, backend=backend) as store:
        made = MigrationPlan.from_dict(orjson.loads(out.read_bytes()))
        assert run(store, HashingBackend(32), made).complete
    planned = ("--plan", str(out), *at)
    assert call("migrate", "open", *planned, "--force")[0] == 0
    code, _, told = call("migrate", "finish", *planned, "--yes")
    assert (code, "QDRANT_GRPC_PORT" in told) == (2, True)
    monkeypatch.setenv("QDRANT_GRPC_PORT", str(qdrant_server.grpc_port))
    code, _, told = call("migrate", "finish", *planned, "--yes")
    assert code == 0, told
    code, shown, _ = call("search", ROWS[3].text, *at, *named, "--backend", "hashing@32", "--json")
    assert orjson.loads(shown)[0]["id"] == "3"
