"""Runs of migrations on every store: filled, resumed, followed, derived, and paid for once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
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
from tests.contract.test_qdrant_contract import prefix
from tests.migrate.following import Follower

import samespace
from samespace import Document, Index, Parent, field, open_store
from samespace.documents import VersionedRow
from samespace.errors import (
    AuthenticationFailed,
    BackendUnavailable,
    EmbeddingError,
    InvalidInput,
    MigrationError,
    SpaceMismatch,
)
from samespace.guard import CANARY_TEXTS, SlotState
from samespace.migrate import MigrationPlan, MigrationReport, MigrationRun, open_slot, plan
from samespace.migrate.reading import Rows
from samespace.protocols import Matrix, Vector
from samespace.space import EmbeddingSpace, derive
from samespace.testing.backends import UNLIKE, V3, DistortingBackend, LyingBackend, TaskBackend

__all__ = ["prefix", "raw"]  # fixtures
STORES: dict[str, Callable[[pytest.FixtureRequest], Place]] = {
    "PostgreSQL": postgres_place,
    "Qdrant local": qdrant_place,
    "Elasticsearch": elasticsearch_place,
}
SHORT = EmbeddingSpace(model=V3.model, dimensions=32, task=V3.task)
ROWS = [Document(row.id, row.text, {"n": n % 2}) for n, row in enumerate(documents(60))]
WORDS = sum(len(row.text.split()) for row in ROWS)


@pytest.fixture(params=STORES)
def place(request: pytest.FixtureRequest) -> Place:
    return STORES[request.param](request)


@pytest.fixture
def one(request: pytest.FixtureRequest) -> Place:
    """For what does not depend on the store."""
    return postgres_place(request)


def new() -> TaskBackend:
    return TaskBackend(UNLIKE, seed=5)


def seeded(place: Place, rows: Sequence[Document] = ROWS) -> None:
    with place.open(TaskBackend()) as store:
        store.upsert(rows)


def planned(place: Place, backend: Any, **asked: Any) -> MigrationPlan:
    with place.open() as store:
        return plan(store, backend, **asked)


def ran(
    place: Place, backend: Any, made: MigrationPlan | None = None, **options: Any
) -> MigrationReport:
    made = made or planned(place, backend)
    with place.open() as store:
        return MigrationRun(store, backend, made, **options).run()


def vectors(place: Place, space: EmbeddingSpace) -> dict[str, tuple[str, Vector]]:
    """What each row with a vector in a slot has: its text and the vector."""
    with place.open() as store:
        rows, cursor = store.filled(space, limit=1000)
        assert cursor is None
    return {row.document.id: (row.document.text, vector_of(row)) for row in rows}


def vector_of(row: VersionedRow) -> Vector:
    """That which a row was read with."""
    assert row.vector is not None
    return row.vector


def check_filled(place: Place, backend: TaskBackend, rows: Sequence[Document] = ROWS) -> None:
    """Every row has the vector of its text, and no other row has one."""
    found = vectors(place, backend.space)
    assert {id: text for id, (text, _) in found.items()} == {row.id: row.text for row in rows}
    expected = backend.embed_documents([row.text for row in rows])
    for row, vector in zip(rows, expected, strict=True):
        np.testing.assert_allclose(found[row.id][1], vector, atol=1e-5)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_run_fills_every_row_and_pays_for_each_text_once(place: Place, is_async: bool) -> None:
    seeded(place)
    backend = new()
    if is_async:
        made = planned(place, backend)
        store = getattr(samespace, f"Async{place.kind}")(
            place.source, collection=place.collection, space=V3, **place.options
        )
        report = MigrationRun(store, awaitable(backend), made, batch_size=7).run()
    else:
        report = ran(place, backend, batch_size=7)
    assert report.complete
    assert (report.filled, report.embedded, report.tokens) == (len(ROWS), len(ROWS), WORDS)
    assert sorted(backend.documents) == sorted(row.text for row in ROWS)
    check_filled(place, new())
    with place.open() as store:
        slots = {slot.space: slot for slot in store.info().slots}
    assert slots[UNLIKE].state == SlotState.FILLING
    assert slots[UNLIKE].has_canary
    assert slots[UNLIKE].provenance["backend"] in {"TaskBackend", "Awaitable"}
    assert slots[V3].pending == 0


def test_a_run_says_how_far_it_is_after_each_batch(one: Place) -> None:
    seeded(one)
    told: list[int] = []
    ran(one, new(), batch_size=20, on_progress=lambda report: told.append(report.filled))
    assert told[:4] == [0, 20, 40, 60]
    assert set(told) == {0, 20, 40, 60}


def test_running_again_does_what_is_left(place: Place) -> None:
    seeded(place)
    made = planned(place, new())
    first = ran(place, new(), made, budget_tokens=WORDS // 2, batch_size=5)
    assert first.stopped == "budget"
    assert not first.complete
    assert 0 < first.tokens <= WORDS // 2
    second = ran(place, new(), made)
    assert (second.complete, first.filled + second.filled) == (True, len(ROWS))
    assert first.tokens + second.tokens == WORDS
    third = ran(place, new(), made)
    assert (third.complete, third.filled, third.tokens) == (True, 0, 0)
    check_filled(place, new())


def test_a_run_begins_again_once_its_slot_is_open(one: Place) -> None:
    seeded(one)
    made = planned(one, new())
    assert ran(one, new(), made).complete
    with one.open(TaskBackend()) as store:
        open_slot(store, made, force=True)
        store.upsert([Document("late", "written with the old model")])
    late = ran(one, new(), made)
    assert (late.complete, late.filled) == (True, 1)
    check_filled(one, new(), [*ROWS, Document("late", "written with the old model")])


def test_workers_share_the_rows_and_pay_for_nothing_twice(place: Place) -> None:
    seeded(place)
    made = planned(place, new())
    reports = [ran(place, new(), made, worker=(part, 3), batch_size=4) for part in range(3)]
    assert sum(report.filled for report in reports) == len(ROWS)
    assert all(0 < report.filled < len(ROWS) for report in reports)
    assert sum(report.tokens for report in reports) == WORDS, reports
    check_filled(place, new())


class Shortening(TaskBackend):
    """The model whose vectors :data:`V3`'s are cut from; must not be asked."""

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        made = TaskBackend().embed_documents(texts)
        self._noted(texts)
        self.documents += texts
        return derive(made, stored=V3, offered=SHORT)

    def embed_queries(self, texts: Sequence[str]) -> Matrix:
        self._noted(texts)
        return derive(TaskBackend().embed_queries(texts), stored=V3, offered=SHORT)


def test_what_follows_from_stored_vectors_is_derived_without_a_call(place: Place) -> None:
    seeded(place)
    backend = Shortening(SHORT)
    report = ran(place, backend)
    assert report.complete
    assert (report.filled, report.tokens, report.embedded) == (len(ROWS), 0, 0)
    assert report.collections[0].slots[0].derived == len(ROWS)
    assert backend.documents == []
    assert backend.canaries == 0
    check_filled(place, Shortening(SHORT))
    with place.open() as store:
        store.mark(SHORT, SlotState.READY)
    with place.open(Shortening(SHORT)) as store:  # whose canary is that of the source, shortened
        store.upsert([Document("more", "another text")])
        assert store.search(ROWS[3].text)[0].document.id == ROWS[3].id


def test_only_rows_of_the_plan_are_filled(place: Place) -> None:
    seeded(place)
    made = planned(place, new(), where=field("n") == 1)
    report = ran(place, new(), made)
    assert report.complete
    check_filled(place, new(), [row for row in ROWS if row.metadata["n"] == 1])


def test_what_cannot_be_embedded_is_named_once_and_does_not_stop_the_others(place: Place) -> None:
    seeded(place)
    with place.open(TaskBackend()) as store:
        store.upsert_vectors([Document("blank", " ")], [None], space=V3)

    class Refusing(TaskBackend):
        def embed_documents(self, texts: Sequence[str]) -> Matrix:
            bad = [place for place, text in enumerate(texts) if text == ROWS[7].text]
            if bad:
                raise EmbeddingError("too odd", indices=bad)
            return super().embed_documents(texts)

    report = ran(place, Refusing(UNLIKE, seed=5))
    slot = report.collections[0].slots[0]
    assert (slot.filled, slot.refused) == (len(ROWS) - 1, 2)
    assert dict(slot.named) == {ROWS[7].id: "too odd", "blank": "there is nothing to embed"}
    assert report.complete
    assert f"'{ROWS[7].id}': too odd" in "\n".join(report.lines())


def test_a_follower_keeps_both_slots_fresh_whoever_writes(place: Place) -> None:
    seeded(place)
    made = planned(place, new())
    with (
        place.open(TaskBackend()) as old,
        Follower(old, new(), made, interval=0.01) as follower,
    ):
        follower.wait_until_idle()
        old.upsert([Document("old", "written by the old one"), replace(ROWS[0], text="anew")])
        old.delete(ids=[ROWS[1].id])
        young = old.in_space(UNLIKE, backend=new())  # a folder of Qdrant's serves one client
        young.upsert([Document("young", "written by the new one"), replace(ROWS[2], text="b")])
        report = follower.wait_until_idle()
    expected = [
        replace(ROWS[0], text="anew"), replace(ROWS[2], text="b"), *ROWS[3:],
        Document("old", "written by the old one"), Document("young", "written by the new one"),
    ]  # fmt: skip
    for backend in (TaskBackend(), new()):
        check_filled(place, backend, expected)
    old_slot = next(slot for slot in report.collections[0].slots if slot.space == V3)
    assert old_slot.filled == 2
    assert report.complete


def test_without_the_old_backend_a_follower_keeps_the_new_slot_alone(one: Place) -> None:
    seeded(one)
    made = planned(one, new())
    with one.open() as store, Follower(store, new(), made, interval=0.01) as follower:
        with one.open(TaskBackend()) as old:
            old.upsert([Document("old", "written by the old one")])
        follower.wait_until_idle()
    check_filled(one, new(), [*ROWS, Document("old", "written by the old one")])
    assert [slot.space for slot in follower.run.report.collections[0].slots] == [UNLIKE]


class TogetherBackend(TaskBackend):
    """Embeds chunks in sight of one another: each depends on all texts of its document."""

    def embed_chunks(self, documents: Sequence[Sequence[str]]) -> list[Matrix]:
        made = []
        for chunks in documents:
            whole = " ".join(chunks)
            made.append(self.embed_documents([f"{chunk} {whole}" for chunk in chunks]))
        self._usage = self._usage._replace(tokens=sum(len(c.split()) for d in documents for c in d))
        return made


def test_chunks_of_a_document_are_embedded_together_also_when_one_changes(place: Place) -> None:
    chunks = {
        f"{parent}-{part}": Document(
            f"{parent}-{part}", f"part {part} of document {parent}", parent=Parent(parent, part)
        )
        for parent in ("a", "b", "c")
        for part in range(5)
    }
    seeded(place, [*chunks.values(), Document("alone", "a row of no document")])
    backend = TogetherBackend(UNLIKE, seed=5)
    made = planned(place, backend)
    first = ran(place, backend, made, late_chunking=True, batch_size=3)
    assert first.complete
    assert first.embedded == 16
    with place.open(TaskBackend()) as store:
        store.upsert([replace(chunks["b-2"], text="another part")])
        store.delete(ids=["b-4"])
    second = ran(place, backend, made, batch_size=3)
    assert (second.complete, second.embedded, second.filled) == (True, 4, 4)
    chunks["b-2"] = replace(chunks["b-2"], text="another part")
    del chunks["b-4"]
    found = vectors(place, UNLIKE)
    for parent in ("a", "b", "c"):
        rows = [row for row in chunks.values() if row.id.startswith(parent)]
        expected = TogetherBackend(UNLIKE, seed=5).embed_chunks([[row.text for row in rows]])[0]
        for row, vector in zip(rows, expected, strict=True):
            np.testing.assert_allclose(found[row.id][1], vector, atol=1e-5)
    with pytest.raises(InvalidInput, match="begun with late chunking"):
        ran(place, backend, made, late_chunking=False)


def test_overlapping_chunks_are_refused_by_name(one: Place) -> None:
    rows = [
        Document("a-0", "the first ten", parent=Parent("a", 0, (0, 10))),
        Document("a-1", "ten that follow", parent=Parent("a", 1, (8, 18))),
        Document("b-0", "whole", parent=Parent("b", 0, (0, 5))),
    ]
    seeded(one, rows)
    report = ran(one, TogetherBackend(UNLIKE, seed=5), late_chunking=True)
    slot = report.collections[0].slots[0]
    assert (slot.filled, slot.refused) == (1, 2)
    assert "chunks 'a-0' and 'a-1' of its document overlap" in dict(slot.named)["a-0"]


def test_a_backend_that_embeds_otherwise_than_the_slot_was_begun_is_refused(one: Place) -> None:
    seeded(one)
    made = planned(one, new())
    ran(one, new(), made, budget_tokens=WORDS // 2, batch_size=5)
    with pytest.raises(SpaceMismatch):
        ran(one, LyingBackend(UNLIKE), made)
    assert len(vectors(one, UNLIKE)) < len(ROWS)


def test_a_collection_that_is_not_as_planned_is_refused_before_anything_is_written(
    one: Place,
) -> None:
    seeded(one)
    made = planned(one, new())
    with one.open() as store:
        store.add_slot(SHORT)
        store.mark(SHORT, SlotState.READY)
        store.drop_slot(V3)
    with one.open(Shortening(SHORT)) as store, pytest.raises(MigrationError, match="not what was"):
        MigrationRun(store, new(), made).run()
    with one.open(Shortening(SHORT)) as store:
        assert [slot.space for slot in store.info().slots] == [SHORT]


@pytest.mark.parametrize(
    "options",
    [
        {"worker": (1, 1)},
        {"worker": 3},
        {"interval": 0},
        {"batch_size": 0},
        {"budget_tokens": -1},
    ],
)
def test_options_that_cannot_be_are_refused(one: Place, options: dict[str, Any]) -> None:
    seeded(one, ROWS[:2])
    made = planned(one, new())
    with one.open() as store, pytest.raises(InvalidInput):
        MigrationRun(store, new(), made, **options)
    with one.open() as store, pytest.raises(SpaceMismatch, match="the plan moves"):
        MigrationRun(store, TaskBackend(SHORT), made)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(monkeypatch, capsys)


def test_the_command_runs_a_plan_of_several_collections_and_resumes(
    call: Caller, tmp_path: Path
) -> None:
    address, file = f"qdrant:{tmp_path / 'points'}", str(tmp_path / "plan.json")
    for name in ("one", "two"):
        with open_store(address, collection=name, backend="hashing@64") as store:
            store.upsert(ROWS)
    names = ("-c", "one", "-c", "two")
    at = ("--store", address, "--backend", "hashing@32")
    code, _, said = call("migrate", "plan", *at, *names, "--out", file)
    assert code == 0, said
    code, shown, said = call("migrate", "run", *at, "--plan", file, "--worker", "0/2", "--json")
    assert code == 0, said
    first = orjson.loads(shown)
    assert [each["name"] for each in first["collections"]] == ["one", "two"]
    done = [each["slots"][0]["filled"] for each in first["collections"]]
    assert all(0 < count < len(ROWS) for count in done)
    code, shown, said = call("migrate", "run", *at, "--plan", file)
    assert code == 0, said
    assert "complete: every row that can be embedded has a vector of its text" in shown
    for name in ("one", "two"):
        with open_store(address, collection=name, backend="hashing@64") as store:
            slots = {slot.space.dimensions: slot for slot in store.info().slots}
        assert (slots[32].pending, slots[32].state) == (0, SlotState.FILLING)
    code, _, said = call("migrate", "run", *at, "--plan", file, "--worker", "2/2")
    assert code == 2
    assert "write I/N" in said


class Hooked(TaskBackend):
    """Calls ``hook`` with the number of a call and its texts, before it embeds rows."""

    hook: Callable[[int, Sequence[str]], object] = staticmethod(lambda number, texts: None)

    def __init__(self, space: EmbeddingSpace = UNLIKE) -> None:
        super().__init__(space, seed=5)
        self.calls = 0
        self.lock = threading.Lock()

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        if not set(texts) <= set(CANARY_TEXTS):
            with self.lock:
                self.calls += 1
                number = self.calls
            self.hook(number, texts)
        with self.lock:
            return super().embed_documents(texts)


def away_at(*numbers: int) -> Callable[[int, Sequence[str]], None]:
    def hook(number: int, texts: Sequence[str]) -> None:
        if number in numbers:
            raise BackendUnavailable("away for a moment")

    return hook


def state_of(report: MigrationReport) -> tuple[str, bool, bool, bool]:
    return report.stopped, report.complete, report.idle, report.following


class Noting(Follower):
    """Keeps what troubles were reported."""

    def _note(self, report: MigrationReport) -> None:
        self.troubles: set[str] = getattr(self, "troubles", set()) | {report.trouble}
        super()._note(report)


def test_a_follower_waits_out_what_is_passing_from_the_first_fill_on(one: Place) -> None:
    seeded(one, ROWS[:20])
    backend = Hooked()
    backend.hook = away_at(2, 7)
    made = planned(one, backend)
    with (
        one.open(TaskBackend()) as old,
        Noting(old, backend, made, interval=0.01, batch_size=5) as follower,
    ):
        follower.wait_until_idle()
        old.upsert([Document("one", "written meanwhile")])
        follower.wait_until_idle()
        old.upsert([Document("two", "another, written meanwhile")])
        report = follower.wait_until_idle()
    assert backend.calls == 8
    assert (report.complete, report.filled, report.trouble) == (True, 22, "")
    assert follower.troubles == {"", "away for a moment"}


def test_a_run_that_does_not_follow_ends_with_what_is_passing(one: Place) -> None:
    seeded(one)
    backend = Hooked()
    backend.hook = away_at(2)
    with one.open() as store:
        run = MigrationRun(store, backend, planned(one, backend), batch_size=20)
        with pytest.raises(BackendUnavailable):
            run.run()
    assert state_of(run.report) == ("error", False, False, False)
    assert run.report.lines()[-1] == "ended by an error; run again to go on where this ended"


def test_one_batch_that_fails_throws_away_none_that_others_paid_for(one: Place) -> None:
    class AtOnce(Hooked):
        calls_at_once = 8

    seeded(one)
    backend, others, failing = AtOnce(), threading.Event(), threading.Event()

    def hook(number: int, texts: Sequence[str]) -> None:
        if number == 1:
            assert others.wait(60)
            failing.set()
            raise BackendUnavailable("away for a moment")
        others.set()
        failing.wait(60)

    backend.hook = hook
    made = planned(one, backend)
    with pytest.raises(BackendUnavailable):
        ran(one, backend, made, batch_size=5)
    second = ran(one, backend, made, batch_size=5)
    assert second.complete
    assert sorted(backend.documents) == sorted(row.text for row in ROWS)


def followed(one: Place, backend: Hooked, rows: int, **options: Any) -> Follower:
    """What a follower is that has ended, after so many rows were written while it was idle."""
    seeded(one, ROWS[:3])
    with one.open(TaskBackend()) as store, one.open(TaskBackend()) as old:
        follower = Follower(store, backend, planned(one, backend), interval=0.05, **options)
        with suppress(AuthenticationFailed), follower:
            follower.wait_until_idle()
            old.upsert([Document(f"new-{n:02}", f"a text, number {n}") for n in range(rows)])
            follower._running.result(timeout=20)
    return follower


def test_a_follower_that_is_stopped_amid_a_sweep_is_not_complete(one: Place) -> None:
    def stop(number: int, texts: Sequence[str]) -> None:
        if number > 1:
            follower.run.stop()

    seeded(one, ROWS[:3])
    backend = Hooked()
    backend.hook = stop
    with one.open(TaskBackend()) as store, one.open(TaskBackend()) as old:
        follower = Follower(store, backend, planned(one, backend), interval=0.05, batch_size=4)
        with follower:
            follower.wait_until_idle()
            old.upsert([Document(f"new-{n:02}", f"a text, number {n}") for n in range(30)])
            follower._running.result(timeout=20)
        assert store.pending(UNLIKE, limit=1)[0]
    assert state_of(follower.run.report) == ("asked", False, False, False)
    assert "stopped; run again" in follower.run.report.lines()[-1]


def test_a_follower_that_an_error_ends_is_not_complete(one: Place) -> None:
    def refuse(number: int, texts: Sequence[str]) -> None:
        if number > 1:
            raise AuthenticationFailed("the key is wrong")

    backend = Hooked()
    backend.hook = refuse
    report = followed(one, backend, 1).run.report
    assert state_of(report) == ("error", False, False, False)
    assert "ended by an error" in report.lines()[-1]


def test_a_follower_that_has_spent_its_budget_is_not_complete(one: Place) -> None:
    report = followed(one, Hooked(), 50, budget_tokens=100, batch_size=10).run.report
    assert state_of(report) == ("budget", False, False, False)
    assert "the budget is spent" in report.lines()[-1]


def test_a_follower_that_is_stopped_while_it_waits_is_not_complete(one: Place) -> None:
    seeded(one, ROWS[:3])
    backend = Hooked()
    backend.hook = away_at(*range(2, 100))
    with one.open(TaskBackend()) as store, one.open(TaskBackend()) as old:
        follower = Follower(store, backend, planned(one, backend), interval=0.3)
        with follower:
            follower.wait_until_idle()
            old.upsert([Document("new", "a text that comes later")])
            with follower._changed:
                assert follower._changed.wait_for(lambda: follower._report.trouble, 20)
    assert state_of(follower.run.report) == ("asked", False, False, False)
    assert "stopped; run again" in follower.run.report.lines()[-1]


def test_a_worker_speaks_of_its_own_part_alone(one: Place) -> None:
    seeded(one)
    report = ran(one, new(), worker=(0, 2))
    assert (report.complete, report.filled < len(ROWS)) == (True, True)
    assert "every row of part 0 of 2 that can be embedded" in report.lines()[-1]
    assert report.to_dict()["worker"] == [0, 2]


def test_a_follower_does_not_hurry_for_rows_that_it_cannot_fill(one: Place) -> None:
    class Together(Shortening):
        def embed_chunks(self, documents: Sequence[Sequence[str]]) -> list[Matrix]:
            return [self.embed_documents(chunks) for chunks in documents]

    seeded(one, ROWS[:3])
    with one.open(TaskBackend()) as store:
        store.upsert_vectors(
            [Document("empty", "without a vector to derive from")], [None], space=V3
        )
    backend = Together(SHORT)
    made = planned(one, backend)
    swept = threading.Event()
    with one.open() as store, ThreadPoolExecutor(1) as thread:
        run = MigrationRun(
            store, backend, made, late_chunking=True, follow=True, interval=3600,
            on_progress=lambda report: swept.set() if report.sweeps else None,
        )  # fmt: skip
        running = thread.submit(run.run)
        assert swept.wait(60)
        run.stop()
        report = running.result()
    assert (report.complete, report.filled, report.sweeps) == (False, 3, 1)


def test_rows_that_others_write_meanwhile_are_looked_at_again_though_none_was_filled(
    one: Place,
) -> None:
    seeded(one)
    with one.open(TaskBackend()) as old:
        backend = Hooked()
        changed = [replace(row, text=f"{row.text} anew") for row in ROWS]
        backend.hook = lambda number, texts: number == 1 and old.upsert(changed)
        report = ran(one, backend)
    slot = report.collections[0].slots[0]
    assert (report.complete, slot.filled, slot.changed) == (True, len(ROWS), len(ROWS))
    check_filled(one, new(), changed)


def test_a_backend_is_proved_by_a_canary_that_was_derived_before_it_fills_what_is_left(
    one: Place,
) -> None:
    seeded(one)
    with one.open(TaskBackend()) as store:
        store.upsert_vectors(
            [Document("empty", "without a vector to derive from")], [None], space=V3
        )
    with pytest.raises(SpaceMismatch):
        ran(one, LyingBackend(SHORT), planned(one, Shortening(SHORT)))
    assert "empty" not in vectors(one, SHORT)
    assert ran(one, Shortening(SHORT)).complete
    assert "empty" in vectors(one, SHORT)


def test_of_runs_that_begin_together_one_that_embeds_otherwise_is_refused(one: Place) -> None:
    class Late(LyingBackend):
        """Makes its canary while another run adds the slot and fills it."""

        def embed_documents(self, texts: Sequence[str]) -> Matrix:
            if not reports:
                reports.append(ran(one, new(), made, budget_tokens=WORDS // 2, batch_size=5))
            return super().embed_documents(texts)

    seeded(one)
    made = planned(one, new())
    reports: list[MigrationReport] = []
    with pytest.raises(SpaceMismatch):
        ran(one, Late(UNLIKE), made)
    assert len(vectors(one, UNLIKE)) == reports[0].filled < len(ROWS)


def test_of_runs_that_begin_together_the_second_chunks_as_the_first(one: Place) -> None:
    class Late(TogetherBackend):
        def embed_documents(self, texts: Sequence[str]) -> Matrix:
            if not reports:
                reports.append(None)
                backend = TogetherBackend(UNLIKE, seed=5)
                ran(one, backend, made, late_chunking=True, budget_tokens=1)
            return super().embed_documents(texts)

    chunks = [Document(f"a-{n}", f"part {n}", parent=Parent("a", n)) for n in range(3)]
    seeded(one, chunks)
    made = planned(one, TogetherBackend(UNLIKE, seed=5))
    reports: list[None] = []
    assert ran(one, Late(UNLIKE, seed=5), made).complete
    expected = TogetherBackend(UNLIKE, seed=5).embed_chunks([[row.text for row in chunks]])[0]
    found = vectors(one, UNLIKE)
    for row, vector in zip(chunks, expected, strict=True):
        np.testing.assert_allclose(found[row.id][1], vector, atol=1e-5)


def test_a_backend_is_asked_for_the_canary_once_where_it_began_the_slot(one: Place) -> None:
    seeded(one)
    backend, again = new(), new()
    made = planned(one, new())
    ran(one, backend, made, budget_tokens=WORDS // 2, batch_size=5)
    ran(one, again, made)
    assert (backend.canaries, again.canaries) == (6, 3)  # documents and queries; documents


def test_the_index_is_built_once_the_rows_of_the_plan_are_filled(one: Place) -> None:
    seeded(one)
    made = planned(one, new(), where=field("n") == 1)
    with one.open(index=Index(build="immediate")) as store:
        half = MigrationRun(store, new(), made, worker=(0, 2)).run()
        rest = MigrationRun(store, new(), made, worker=(1, 2)).run()
    assert half.filled + rest.filled == len(ROWS) // 2
    assert not half.collections[0].indexed
    assert rest.collections[0].indexed
    check_filled(one, new(), [row for row in ROWS if row.metadata["n"] == 1])


def test_a_stop_amid_a_look_begins_no_index(one: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    others: list[MigrationReport] = []
    pending = Rows.pending

    async def and_stop(self: Rows, *args: Any, **options: Any) -> Any:
        if run.report.following and not others:
            others.append(run.report)
            others.append(await asyncio.to_thread(ran, one, new(), made, worker=(1, 2)))
            run.stop()
        return await pending(self, *args, **options)

    monkeypatch.setattr(Rows, "pending", and_stop)
    seeded(one)
    made = planned(one, new())
    with one.open(index=Index(build="immediate")) as store:
        run = MigrationRun(store, new(), made, worker=(0, 2), follow=True)
        report = run.run()
    assert (report.stopped, others[1].complete) == ("asked", True)
    assert not report.collections[0].indexed


def test_a_budget_is_refused_where_the_handles_backend_does_not_say_what_it_costs(
    one: Place,
) -> None:
    seeded(one, ROWS[:3])
    made = planned(one, new())
    with one.open(DistortingBackend(TaskBackend())) as store:
        run = MigrationRun(store, new(), made, follow=True, budget_tokens=300)
        with pytest.raises(
            InvalidInput, match="DistortingBackend does not say what its calls cost"
        ):
            run.run()
    with one.open() as store:
        assert [slot.space for slot in store.info().slots] == [V3]
