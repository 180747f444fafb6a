"""A slot is filled whole, whatever happens between what is read and what is written."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psycopg
import pytest
from psycopg import sql
from tests.contract.ingesting import Place, elasticsearch_place, postgres_place
from tests.contract.test_elasticsearch_contract import raw
from tests.migrate.following import Follower
from tests.migrate.test_running import (
    ROWS,
    SHORT,
    Shortening,
    TogetherBackend,
    new,
    planned,
    ran,
    seeded,
    vectors,
)

from samespace import Document, Parent, field
from samespace.audit.rows import chunk_order
from samespace.documents import FillReport
from samespace.errors import BackendUnavailable, EmbeddingError
from samespace.guard import CANARY_TEXTS
from samespace.migrate import MigrationReport, MigrationRun
from samespace.migrate.archive import VectorArchive
from samespace.migrate.archiving import ArchivingBackend
from samespace.migrate.reading import Rows
from samespace.protocols import Matrix
from samespace.space import EmbeddingSpace, derive
from samespace.testing.backends import UNLIKE, V3, TaskBackend

__all__ = ["raw"]  # fixture


@pytest.fixture
def one(request: pytest.FixtureRequest) -> Place:
    """For what does not depend on the store."""
    return postgres_place(request)


@pytest.fixture
def logged(request: pytest.FixtureRequest) -> Place:
    """A store with a log of changes."""
    return elasticsearch_place(request)


class Meanwhile(TogetherBackend):
    """Somebody writes between what was read and what is written: ``then``, with the texts, once."""

    then: Callable[[Sequence[str]], object] | None = None

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        made = super().embed_documents(texts)
        then, asked = self.then, [text for text in texts if text not in CANARY_TEXTS]
        if then is not None and asked:
            self.then = None
            then(asked)
        return made


def chunks(parent: str, count: int) -> list[Document]:
    return [
        Document(f"{parent}-{n}", f"part {n} of document {parent}", parent=Parent(parent, n))
        for n in range(count)
    ]


def pending(place: Place, space: Any = UNLIKE) -> list[str]:
    with place.open() as store:
        return [row.document.id for row in store.pending(space, limit=1000)[0]]


def test_a_chunk_whose_sibling_is_deleted_meanwhile_is_filled_by_a_later_sweep(
    logged: Place,
) -> None:
    seeded(logged, chunks("a", 4))
    backend = Meanwhile(UNLIKE, seed=5)
    made = planned(logged, backend)
    with (
        logged.open(TaskBackend()) as writer,
        logged.open() as store,
        Follower(store, backend, made, late_chunking=True, interval=0.1) as follower,
    ):
        follower.wait_until_idle()
        backend.then = lambda _: writer.delete(ids=["a-3"])
        writer.upsert([Document("a-1", "a part that was changed", parent=Parent("a", 1))])
        assert follower.wait_until_idle().complete
        assert pending(logged) == []


def test_a_sibling_that_cannot_be_embedded_does_not_count_as_a_row_that_was_taken(
    one: Place,
) -> None:
    seeded(one, [*chunks("a", 1), Document("b", "a row of no document")])

    class Hot(TogetherBackend):
        def embed_chunks(self, documents: Sequence[Sequence[str]]) -> list[Matrix]:
            made = super().embed_chunks(documents)
            writer.upsert([replace(chunks("a", 1)[0], text=f"changed {len(self.documents)} times")])
            return made

    with one.open(TaskBackend()) as writer, one.open() as store:
        blank = Document("a-1", " ", parent=Parent("a", 1))
        writer.upsert_vectors([blank], [None], space=V3)
        backend = Hot(UNLIKE, seed=5)
        report = MigrationRun(store, backend, planned(one, backend), late_chunking=True).run()
    assert not report.complete
    assert [(slot.left, slot.refused) for slot in report.collections[0].slots] == [(1, 1)]
    assert pending(one) == ["a-0", "a-1"]


def test_each_row_is_one_workers_also_when_it_changes_meanwhile(logged: Place) -> None:
    seeded(logged)
    backend = Meanwhile(UNLIKE, seed=5)
    made = planned(logged, backend)
    texts = {row.text: row for row in ROWS}
    with logged.open(TaskBackend()) as writer:
        backend.then = lambda asked: writer.upsert(
            [replace(texts[text], text=f"{text} anew") for text in asked]
        )
        reports = [
            ran(logged, each, made, worker=(place, 2), batch_size=4)
            for place, each in ((1, new()), (0, backend))
        ]
    assert pending(logged) == []
    assert sum(report.filled for report in reports) == len(ROWS)
    assert all(vectors(logged, UNLIKE)[row.id] is not None for row in ROWS)


def test_a_budget_holds_for_whole_documents(one: Place) -> None:
    seeded(one, [*chunks("a", 60), *chunks("b", 2)])
    backend = TogetherBackend(UNLIKE, seed=5)
    report = ran(one, backend, late_chunking=True, batch_size=2, budget_tokens=20)
    assert (report.stopped, report.tokens, backend.documents) == ("budget", 0, [])


def test_a_budget_ends_nothing_that_it_is_enough_for(one: Place) -> None:
    seeded(one, [Document(f"r{n}", "the very same text") for n in range(60)])
    report = ran(one, new(), budget_tokens=30)
    assert (report.stopped, report.complete, report.tokens) == ("", True, 4)


def test_a_budget_takes_the_part_of_a_batch_that_it_is_enough_for(one: Place) -> None:
    seeded(
        one,
        [Document(f"r{n}", " ".join(f"{n}{letter}" for letter in "abcdefgh")) for n in range(9)],
    )
    report = ran(one, new(), budget_tokens=50)
    assert (report.stopped, 16 <= report.tokens <= 50) == ("budget", True)
    assert report.filled == report.embedded == report.tokens // 8


def test_a_document_that_was_refused_is_embedded_once_its_chunks_allow_it(one: Place) -> None:
    spans = ((0, 10), (8, 18), (18, 28))
    rows = [replace(each, parent=Parent("a", n, spans[n])) for n, each in enumerate(chunks("a", 3))]
    seeded(one, rows)
    backend = TogetherBackend(UNLIKE, seed=5)
    made = planned(one, backend)
    with one.open() as store, Follower(store, backend, made, late_chunking=True) as follower:
        report = follower.wait_until_idle()
        assert [slot.refused for slot in report.collections[0].slots] == [3]
        with one.open(TaskBackend()) as writer:
            writer.delete(ids=["a-1"])
        report = follower.wait_until_idle()
    assert (report.filled, pending(one)) == (2, [])
    assert report.collections[0].slots[0].named[0][0] == "a-1"


def test_a_document_that_is_refused_over_several_batches_leaves_nothing_to_do(one: Place) -> None:
    parts = enumerate(chunks("a", 5))
    seeded(one, [replace(each, parent=Parent("a", n, (n * 8, n * 8 + 10))) for n, each in parts])
    report = ran(one, TogetherBackend(UNLIKE, seed=5), late_chunking=True, batch_size=3)
    slot = report.collections[0].slots[0]
    assert (report.complete, slot.refused, slot.left) == (True, 5, 0)


class Reluctant(TaskBackend):
    """Refuses what is too long, and counts how often it is asked for that."""

    refused = 0

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        bad = [place for place, text in enumerate(texts) if "too long" in text]
        self.refused += len(bad)
        if bad:
            raise EmbeddingError("it is too long", indices=bad)
        return super().embed_documents(texts)


def change_in_place(place: Place, text: str, rows: int = 1) -> None:
    """What another application does that looks at no vector: change the texts of rows."""
    address = f"{place.source}/{place.collection}"
    found = httpx.get(f"{address}/_search?size={rows}", timeout=30).json()["hits"]["hits"]
    for number, hit in enumerate(found):
        changed = {"doc": {"text": f"{text} {number}" if number else text}}
        answer = httpx.post(
            f"{address}/_update/{hit['_id']}?refresh=true", json=changed, timeout=30
        )
        answer.raise_for_status()


def test_a_row_that_keeps_the_vector_of_an_earlier_text_is_named_as_such(logged: Place) -> None:
    seeded(logged, ROWS[:4])
    backend = Reluctant(UNLIKE, seed=5)
    ran(logged, backend)
    made = planned(logged, backend)
    with logged.open() as store, Follower(store, backend, made, interval=0.1) as follower:
        follower.wait_until_idle()
        change_in_place(logged, "a text that is too long")
        slot = follower.wait_until_idle().collections[0].slots[0]
        assert [row.document.id for row in store.stale(UNLIKE, limit=9)[0]] == [slot.named[0][0]]
    assert slot.named[0][1].startswith("its vector is of an earlier text")
    assert (slot.refused, slot.left, backend.refused) == (1, 0, 1)


def test_of_documents_only_the_chunks_that_the_plan_lets_pass_are_written(one: Place) -> None:
    rows = [replace(each, metadata={"n": n % 2}) for n, each in enumerate(chunks("a", 6))]
    seeded(one, rows)
    backend = TogetherBackend(UNLIKE, seed=5)
    made = planned(one, backend, where=field("n") == 1)
    report = ran(one, backend, made, late_chunking=True)
    assert (report.complete, report.filled, report.embedded) == (True, 3, 6)
    expected = TogetherBackend(UNLIKE, seed=5).embed_chunks([[row.text for row in rows]])[0]
    found = vectors(one, UNLIKE)
    assert sorted(found) == ["a-1", "a-3", "a-5"]
    np.testing.assert_allclose(found["a-3"][1], expected[3], atol=1e-5)


class Late(TaskBackend):
    """Embeds each chunk as if it were alone."""

    def embed_chunks(self, documents: Sequence[Sequence[str]]) -> list[Matrix]:
        return [self.embed_documents(texts) for texts in documents]


class LateShortening(Shortening):
    """As :class:`Late`."""

    def embed_chunks(self, documents: Sequence[Sequence[str]]) -> list[Matrix]:
        return [self.embed_documents(texts) for texts in documents]


CHANGED = "another text that was put in its place"


def check_derived(place: Place) -> None:
    """The row that was changed has what follows from the source's vector of its new text."""
    (found,) = [vector for text, vector in vectors(place, SHORT).values() if text == CHANGED]
    expected = derive(TaskBackend().embed_documents([CHANGED]), stored=V3, offered=SHORT)[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_follower_that_may_not_embed_derives_what_was_changed_in_place(logged: Place) -> None:
    seeded(logged, ROWS[:4])
    backend = LateShortening(SHORT)
    made = planned(logged, backend)
    ran(logged, backend, made, late_chunking=True)
    change_in_place(logged, CHANGED)
    with logged.open(Late()) as store, Follower(store, backend, made, interval=0.1) as follower:
        assert follower.wait_until_idle().complete
        assert [store.stale(space, limit=9)[0] for space in (SHORT, V3)] == [[], []]
    assert backend.documents == []
    check_derived(logged)


def test_what_was_changed_in_place_is_derived_once_the_source_is_fresh(logged: Place) -> None:
    seeded(logged, ROWS[:4])
    backend = Shortening(SHORT)
    made = planned(logged, backend)
    ran(logged, backend, made)
    change_in_place(logged, CHANGED)
    with logged.open() as store:
        rows = store.stale(V3, limit=9)[0]
        store.fill(V3, rows, TaskBackend().embed_documents([CHANGED]))
    report = ran(logged, backend, made)
    assert (report.complete, report.filled, report.tokens) == (True, 1, 0)
    assert backend.documents == []
    check_derived(logged)


def test_a_vector_of_an_earlier_text_is_not_derived_from(logged: Place) -> None:
    seeded(logged, ROWS[:4])
    backend = Shortening(SHORT)
    made = planned(logged, backend)
    ran(logged, backend, made)
    change_in_place(logged, CHANGED)
    report = ran(logged, backend, made)
    assert (report.complete, report.filled) == (True, 1)
    assert [text for text in backend.documents if text not in CANARY_TEXTS] == [CHANGED]
    check_derived(logged)


class Stopping(TogetherBackend):
    """Asks the run to end with the second call, and counts the calls that come after it."""

    run: MigrationRun
    calls = 0

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        self.calls += texts[0] not in CANARY_TEXTS
        if self.calls == 2:
            self.run.stop()
        return super().embed_documents(texts)


class StoppingShortening(Stopping):
    """As :class:`Stopping`, for vectors that others are cut from."""

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        super().embed_documents(texts)
        return derive(TaskBackend().embed_documents(texts), stored=V3, offered=SHORT)

    def embed_queries(self, texts: Sequence[str]) -> Matrix:
        return derive(TaskBackend().embed_queries(texts), stored=V3, offered=SHORT)


def stopped(place: Place, backend: Stopping, **options: Any) -> MigrationReport:
    made = planned(place, backend)
    with place.open() as store:
        backend.run = MigrationRun(store, backend, made, **options)
        return backend.run.run()


def test_a_stop_is_heard_between_documents(one: Place) -> None:
    seeded(one, [row for n in range(9) for row in chunks(f"d{n}", 1)])
    backend = Stopping(UNLIKE, seed=5)
    report = stopped(one, backend, late_chunking=True)
    assert (report.stopped, report.filled, backend.calls) == ("asked", 2, 2)
    assert report.collections[0].slots[0].left == 7


def test_a_stop_is_heard_amid_what_may_be_derived(logged: Place) -> None:
    seeded(logged, ROWS[:9])
    ran(logged, Shortening(SHORT))
    change_in_place(logged, CHANGED, rows=9)
    backend = StoppingShortening(SHORT)
    report = stopped(logged, backend, batch_size=1)
    assert (report.stopped, backend.calls <= 3) == ("asked", True)


def test_a_row_that_others_change_all_the_time_keeps_no_follower_from_the_log(
    logged: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hot(TaskBackend):
        calls = 0

        def embed_documents(self, texts: Sequence[str]) -> Matrix:
            made = super().embed_documents(texts)
            self.calls += not set(texts) <= set(CANARY_TEXTS)
            if 0 < self.calls < 5:
                writer.upsert([replace(ROWS[0], text=f"changed {self.calls} times")])
            return made

    async def counted(self: Rows, *args: Any, **options: Any) -> Any:
        looks.append(args)
        return await pending_of(self, *args, **options)

    looks: list[Any] = []
    pending_of = Rows.pending
    monkeypatch.setattr(Rows, "pending", counted)
    seeded(logged, ROWS[:4])
    backend = Hot(UNLIKE, seed=5)
    made = planned(logged, backend)
    with (
        logged.open(TaskBackend()) as writer,
        logged.open() as store,
        Follower(store, backend, made, interval=0.1) as follower,
    ):
        assert follower.wait_until_idle().complete
    assert (len(looks), backend.calls, pending(logged)) == (1, 5, [])


def hold(place: Place, id: str) -> None:
    """Have the server write one row no more, and say nothing of it."""
    schema, table = sql.Identifier(place.options["schema"]), sql.Identifier(place.collection)
    with psycopg.connect(place.source, autocommit=True) as connection:
        connection.execute(
            sql.SQL(
                "CREATE FUNCTION {0}.hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "IF old.id = {2} THEN RETURN NULL; END IF; RETURN new; END $$; "
                "CREATE TRIGGER hold BEFORE UPDATE ON {0}.{1} FOR EACH ROW EXECUTE FUNCTION {0}.hold()"
            ).format(schema, table, sql.Literal(id))
        )


def test_a_row_that_cannot_be_written_is_paid_for_but_once_more(one: Place) -> None:
    seeded(one, ROWS[:5])
    made = planned(one, new())
    ran(one, new(), made, budget_tokens=1)
    hold(one, ROWS[3].id)
    backend = new()
    report = ran(one, backend, made)
    assert (report.complete, report.filled) == (False, 4)
    assert backend.documents.count(ROWS[3].text) == 2


def test_a_follower_does_not_hurry_for_a_row_that_cannot_be_written(one: Place) -> None:
    seeded(one, ROWS[:5])
    backend = new()
    made = planned(one, backend)
    ran(one, new(), made, budget_tokens=1)
    hold(one, ROWS[3].id)
    with one.open() as store, Follower(store, backend, made, interval=3600) as follower:
        with follower._changed:
            assert follower._changed.wait_for(lambda: follower._report.sweeps, 60)
        assert not follower._running.done()
    assert (follower.run.report.sweeps, follower.run.report.idle) == (1, False)
    assert backend.documents.count(ROWS[3].text) == 3


def test_a_row_is_refused_no_more_once_its_text_can_be_embedded(one: Place) -> None:
    seeded(one, [*ROWS[:2], Document("bad", "a text that is too long")])
    backend = Reluctant(UNLIKE, seed=5)
    made = planned(one, backend)
    with one.open(TaskBackend()) as store, Follower(store, backend, made, interval=0.1) as follower:
        assert follower.wait_until_idle().collections[0].slots[0].refused == 1
        store.upsert([Document("bad", "another that is too long")])
        slot = follower.wait_until_idle().collections[0].slots[0]
        assert (slot.refused, len(slot.named), backend.refused) == (1, 1, 2)
        store.upsert([Document("bad", "one that is short")])
        report = follower.wait_until_idle()
    slot = report.collections[0].slots[0]
    assert (report.complete, slot.refused, slot.named) == (True, 0, ())


def test_a_budget_holds_for_documents_whose_chunks_read_the_same(one: Place) -> None:
    same = [replace(each, text="the same text in each") for each in chunks("a", 10)]
    seeded(one, same)
    backend = TogetherBackend(UNLIKE, seed=5)
    made = planned(one, backend)
    report = ran(one, backend, made, late_chunking=True, budget_tokens=49)
    assert (report.stopped, report.tokens, backend.documents) == ("budget", 0, [])
    report = ran(one, backend, made, budget_tokens=50 * 6)
    assert (report.stopped, report.filled, report.tokens) == ("", 10, 50)


def test_a_document_that_is_stale_over_several_batches_is_paid_for_once(logged: Place) -> None:
    seeded(logged, chunks("a", 6))
    made = planned(logged, TogetherBackend(UNLIKE, seed=5))
    ran(logged, TogetherBackend(UNLIKE, seed=5), made, late_chunking=True)
    change_in_place(logged, CHANGED, rows=6)
    backend = TogetherBackend(UNLIKE, seed=5)
    report = ran(logged, backend, made, batch_size=2, budget_tokens=10_000)
    assert (report.complete, report.filled, report.embedded) == (True, 6, 6)


@pytest.mark.parametrize("late", [False, True])
def test_a_budget_takes_nothing_for_what_is_kept_at_full_size(
    one: Place, tmp_path: Path, late: bool
) -> None:
    seeded(one, [*chunks("a", 5), *chunks("b", 5)])
    with VectorArchive(tmp_path / "kept", UNLIKE) as archive:
        backend = ArchivingBackend(TogetherBackend(UNLIKE, seed=5), archive, UNLIKE)
        made = planned(one, backend)
        paid = ran(one, backend, made, late_chunking=late).tokens
        with one.open() as store:
            store.drop_slot(UNLIKE)
        report = ran(one, backend, made, late_chunking=late, budget_tokens=1)
    assert (paid, report.tokens, report.stopped) == (50, 0, "")
    assert (report.complete, report.filled) == (True, 10)


def test_a_budget_takes_nothing_for_rows_that_no_model_is_asked_for(one: Place) -> None:
    seeded(one, ROWS[:4])
    waiting = Document("0", "a text that waits for a vector to derive from")
    with one.open(TaskBackend()) as store:
        store.upsert_vectors([waiting], [None], space=V3)
    backend = LateShortening(SHORT)
    report = ran(one, backend, late_chunking=True, budget_tokens=1, batch_size=1)
    slot = report.collections[0].slots[0]
    assert (report.stopped, slot.filled, slot.left, report.tokens) == ("", 4, 1, 0)


def test_a_blank_chunk_has_its_document_embedded_for_nothing_but_itself(one: Place) -> None:
    blanks = [Document(f"{n}-blank", " ", parent=Parent(f"d{n}", 9)) for n in range(4)]
    seeded(one, [row for n in range(4) for row in chunks(f"d{n}", 2)])
    with one.open(TaskBackend()) as store:
        store.upsert_vectors(blanks, [None] * 4, space=V3)
    made = planned(one, TogetherBackend(UNLIKE, seed=5))
    reports = [
        ran(one, TogetherBackend(UNLIKE, seed=5), made, late_chunking=True, batch_size=3)
        for _ in range(2)
    ]
    assert [(report.complete, report.embedded) for report in reports] == [(True, 8), (True, 0)]
    assert [report.collections[0].slots[0].refused for report in reports] == [4, 4]


class Held(TogetherBackend):
    """Waits ``after`` it has embedded chunks together, once."""

    after: Callable[[], object] | None = None

    def embed_chunks(self, documents: Sequence[Sequence[str]]) -> list[Matrix]:
        made = super().embed_chunks(documents)
        then, self.after = self.after, None
        if then is not None:
            then()
        return made


@pytest.mark.parametrize("place", [3, 9])
def test_where_two_runs_meet_and_end_a_chunk_is_left_to_be_found(one: Place, place: int) -> None:
    first = [Document(f"a-{n}", f"part {n} of two", parent=Parent("a", n)) for n in (2, 4)]
    added = Document(f"a-{place}", "a third part", parent=Parent("a", place))
    seeded(one, first)
    slower, backend = Held(UNLIKE, seed=5), Held(UNLIKE, seed=5)
    made = planned(one, backend)
    with ThreadPoolExecutor(1) as others, one.open() as store, one.open() as beside:
        embedded, may_write = threading.Event(), threading.Event()
        other = MigrationRun(beside, backend, made, late_chunking=True)

        def wait() -> None:
            embedded.set()
            assert may_write.wait(60)

        def go_on_and_end() -> None:
            may_write.set()
            running.result(60)
            run.stop()

        backend.after = wait
        running = others.submit(other.run)
        assert embedded.wait(60)
        seeded(one, [added])
        other.stop()
        run = MigrationRun(store, slower, made)
        slower.after = go_on_and_end
        run.run()
    assert pending(one)
    assert ran(one, TogetherBackend(UNLIKE, seed=5), made).complete
    check_together(one, [*first, added])


def check_together(place: Place, rows: Sequence[Document]) -> None:
    """The chunks of a document have the vectors that they have in sight of one another."""
    rows = sorted(rows, key=chunk_order)
    (expected,) = TogetherBackend(UNLIKE, seed=5).embed_chunks([[row.text for row in rows]])
    found = vectors(place, UNLIKE)
    for row, vector in zip(rows, expected, strict=True):
        np.testing.assert_allclose(found[row.id][1], vector, atol=1e-5)


def test_a_document_with_a_chunk_that_cannot_be_written_is_soon_given_up(one: Place) -> None:
    seeded(one, chunks("a", 5))
    backend = TogetherBackend(UNLIKE, seed=5)
    made = planned(one, backend)
    ran(one, backend, made, late_chunking=True, budget_tokens=1)
    hold(one, "a-2")
    with one.open() as store, Follower(store, backend, made, interval=0.1) as follower:
        with follower._changed:
            assert follower._changed.wait_for(lambda: follower._report.sweeps > 4, 60)
        report = follower.run.report
    assert (report.idle, report.embedded, pending(one)) == (False, 15, ["a-2"])
    assert report.collections[0].slots[0].left == 1


def test_a_chunk_that_cannot_be_written_does_not_keep_others_from_it(one: Place) -> None:
    rows = chunks("a", 5)
    seeded(one, rows)
    made = planned(one, TogetherBackend(UNLIKE, seed=5))
    ran(one, TogetherBackend(UNLIKE, seed=5), made, late_chunking=True)
    hold(one, "a-2")
    seeded(one, [replace(rows[4], text="another text")])
    report = ran(one, TogetherBackend(UNLIKE, seed=5), made)
    assert (report.complete, report.embedded, pending(one)) == (True, 10, [])


def test_a_sibling_whose_metadata_are_written_meanwhile_gets_the_vector_of_its_document(
    logged: Place,
) -> None:
    rows, backend = chunks("a", 4), Held(UNLIKE, seed=5)
    seeded(logged, rows)
    made = planned(logged, backend)
    ran(logged, backend, made, late_chunking=True)
    rows[3] = replace(rows[3], text="another text")
    seeded(logged, rows[3:])
    views = iter(range(2))
    with logged.open() as writer:

        def count_up() -> None:
            for number in views:
                writer.update_metadata({"a-0": {"views": number}}, merge=True)
                backend.after = count_up
                return

        backend.after = count_up
        assert ran(logged, backend, made).complete
    assert next(views, None) is None
    check_together(logged, rows)


def test_a_chunk_that_is_written_again_before_its_turn_is_not_given_up(
    logged: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, views = chunks("a", 3), iter(range(4))
    fill_of = Rows.fill
    seeded(logged, rows)

    async def fill(self: Rows, space: EmbeddingSpace, rows: Any, vectors: Any) -> FillReport:
        for number in views if [row.document.id for row in rows] == ["a-2"] else ():
            writer.update_metadata({"a-2": {"views": number}}, merge=True)
            break
        return await fill_of(self, space, rows, vectors)

    monkeypatch.setattr(Rows, "fill", fill)
    backend = TogetherBackend(UNLIKE, seed=5)
    with logged.open() as writer:
        report = ran(logged, backend, planned(logged, backend), late_chunking=True)
    assert (report.complete, report.filled, next(views, None)) == (True, 3 + 4 * 2, None)
    check_together(logged, rows)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Each read of documents and each write, with how many documents or rows it is of."""
    made: list[tuple[str, int]] = []

    def counted(name: str) -> Any:
        method = getattr(Rows, name)

        async def call(self: Rows, space: EmbeddingSpace, these: Any, *others: Any) -> Any:
            made.append((name, len(these)))
            return await method(self, space, these, *others)

        return call

    for name in ("of_parents", "fill"):
        monkeypatch.setattr(Rows, name, counted(name))
    return made


def test_documents_of_a_batch_are_written_together(one: Place, calls: list[Any]) -> None:
    seeded(one, [row for n in range(12) for row in chunks(f"d{n:02}", 4)])
    report = ran(one, TogetherBackend(UNLIKE, seed=5), late_chunking=True, batch_size=48)
    assert (report.complete, report.filled) == (True, 48)
    assert calls == [*[("of_parents", 1)] * 12, ("fill", 36), ("of_parents", 12), ("fill", 12)]


def test_long_documents_are_written_one_by_one(one: Place, calls: list[Any]) -> None:
    rows = [row for n in range(3) for row in chunks(f"d{n}", 5)]
    seeded(one, rows)
    made = planned(one, TogetherBackend(UNLIKE, seed=5))
    ran(one, TogetherBackend(UNLIKE, seed=5), made, late_chunking=True)
    seeded(one, [replace(row, text="another text") for row in rows[::5]])
    calls.clear()
    assert ran(one, TogetherBackend(UNLIKE, seed=5), made, batch_size=4).filled == 15
    assert calls == [("of_parents", 1), ("fill", 4), ("of_parents", 1), ("fill", 1)] * 3


def test_documents_that_were_paid_for_are_written_where_the_next_cannot_be(one: Place) -> None:
    class Failing(TogetherBackend):
        def embed_chunks(self, documents: Sequence[Sequence[str]]) -> list[Matrix]:
            if "part 0 of document c" in documents[0]:
                raise BackendUnavailable("it is gone")
            return super().embed_chunks(documents)

    seeded(one, [row for parent in "abc" for row in chunks(parent, 2)])
    with pytest.raises(BackendUnavailable):
        ran(one, Failing(UNLIKE, seed=5), late_chunking=True)
    assert pending(one) == ["c-0", "c-1"]


def test_a_chunk_that_cannot_be_written_holds_back_no_other_document(one: Place) -> None:
    seeded(one, [row for parent in "abc" for row in chunks(parent, 3)])
    backend = TogetherBackend(UNLIKE, seed=5)
    made = planned(one, backend)
    ran(one, backend, made, late_chunking=True, budget_tokens=1)
    hold(one, "b-1")
    report = ran(one, backend, made)
    assert (report.complete, pending(one)) == (False, ["b-1"])
    assert report.collections[0].slots[0].left == 1
    asked = Counter(text.split()[4] for text in backend.documents if text not in CANARY_TEXTS)
    assert (asked["a"], asked["c"]) == (3, 3)
    assert asked["b"] <= 9
