"""Where vectors of rows come from: what is derived, and what is first made in the other slot."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import numpy as np
import psycopg
import pytest
from psycopg import sql
from qdrant_client import QdrantClient, models
from tests.contract.ingesting import Place, elasticsearch_place, postgres_place
from tests.contract.test_elasticsearch_contract import Harness, raw
from tests.migrate.following import Follower
from tests.migrate.test_filling import (
    CHANGED,
    LateShortening,
    Reluctant,
    change_in_place,
    chunks,
    pending,
)
from tests.migrate.test_running import (
    ROWS,
    SHORT,
    Hooked,
    Shortening,
    TogetherBackend,
    planned,
    ran,
    seeded,
    vector_of,
    vectors,
)

from samespace import Document, Layout, QdrantStore
from samespace.documents import FillReport, VersionedRow
from samespace.errors import BackendUnavailable, EmbeddingError
from samespace.guard import CANARY_TEXTS
from samespace.migrate import MigrationPlan, MigrationRun, plan
from samespace.migrate.deriving import UNEMBEDDED, UNMADE
from samespace.migrate.reading import Rows
from samespace.migrate.tallying import BEHIND
from samespace.protocols import Matrix, Usage, VectorStore
from samespace.space import EmbeddingSpace, derive
from samespace.testing.backends import UNLIKE, V3, TaskBackend

__all__ = ["raw"]  # fixture


@pytest.fixture
def one(request: pytest.FixtureRequest) -> Place:
    """For what does not depend on the store."""
    return postgres_place(request)


@pytest.fixture
def logged(request: pytest.FixtureRequest) -> Place:
    """A store where a text can be changed and its vectors left."""
    return elasticsearch_place(request)


RAW = replace(V3, normalized=False)


def embedded_by(store: QdrantStore) -> list[str]:
    """What the model of a handle was asked for."""
    assert isinstance(store.backend, TaskBackend)
    return store.backend.documents


class Unscaled(TaskBackend):
    """One whose vectors are not of unit norm."""

    def __init__(self) -> None:
        super().__init__(RAW)

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        return super().embed_documents(texts) * 3

    def embed_queries(self, texts: Sequence[str]) -> Matrix:
        return super().embed_queries(texts) * 3


@contextmanager
def adopted(backend: TaskBackend, rows: int) -> Iterator[tuple[QdrantClient, QdrantStore]]:
    """Points that an application of a backend made, and a handle with that on them."""
    client = QdrantClient(":memory:")
    size = models.VectorParams(size=64, distance=models.Distance.COSINE)
    client.create_collection("docs", vectors_config={"v": size})
    texts = [f"text number {n}" for n in range(rows)]
    made = backend.embed_documents(texts).tolist()
    said = [{"doc": f"d{n}", "body": text, "of": "a", "nth": n} for n, text in enumerate(texts)]
    client.upsert(
        "docs",
        [
            models.PointStruct(id=n, payload=each, vector={"v": made[n]})
            for n, each in enumerate(said)
        ],
    )
    layout = Layout(id="doc", text="body", slot="v", parent="of", order="nth")
    with QdrantStore(client, collection="docs", layout=layout, backend=backend) as store:
        store.adopt()
        backend.documents.clear()
        yield client, store


@pytest.mark.usefixtures("qdrant_local")
@pytest.mark.parametrize(
    ("old", "new"), [(TaskBackend, lambda: Shortening(SHORT)), (Unscaled, TaskBackend)]
)
def test_what_was_changed_in_place_is_derived_from_what_is_made_of_it(
    old: Callable[[], TaskBackend], new: Callable[[], TaskBackend]
) -> None:
    backend = new()
    with adopted(old(), 5) as (client, store):
        made = plan(store, backend)
        assert made.collections[0].path == "derive"
        with Follower(store, backend, made, interval=0.1) as follower:
            follower.wait_until_idle()
            client.set_payload("docs", {"body": CHANGED}, points=[3])
            assert follower.wait_until_idle().complete
        assert embedded_by(store) == [CHANGED]
        found = {row.document.id: vector_of(row) for row in store.filled(backend.space, limit=9)[0]}
    expected = derive(TaskBackend().embed_documents([CHANGED]), stored=V3, offered=backend.space)
    np.testing.assert_allclose(found["d3"], expected[0], atol=1e-5)


def put(place: Place, id: str, vector: Sequence[float]) -> None:
    """What goes around the library: give a row another vector in the source's slot."""
    table = sql.Identifier(place.options["schema"], place.collection)
    change = sql.SQL("UPDATE {} SET {} = %s::vector WHERE id = %s").format(
        table, sql.Identifier(V3.id)
    )
    with psycopg.connect(place.source) as connection:
        assert connection.execute(change, (str(list(vector)), id)).rowcount == 1


BEYOND = [*([0.0] * 63), 1.0]
"""Of which nothing is left in fewer dimensions."""


def test_a_row_of_whose_vector_nothing_would_be_left_is_embedded(one: Place) -> None:
    seeded(one, ROWS[:4])
    put(one, ROWS[1].id, BEYOND)
    backend = Shortening(SHORT)
    report = ran(one, backend, budget_tokens=1000)
    assert (report.complete, report.filled, report.embedded) == (True, 4, 1)
    assert [text for text in backend.documents if text not in CANARY_TEXTS] == [ROWS[1].text]
    assert report.collections[0].slots[0].derived == 3


def test_embedding_what_cannot_be_derived_is_held_to_the_budget(one: Place) -> None:
    seeded(one, ROWS[:4])
    put(one, ROWS[1].id, BEYOND)
    report = ran(one, Shortening(SHORT), budget_tokens=1)
    assert (report.stopped, report.tokens, report.filled) == ("budget", 0, 3)


def test_what_may_not_be_embedded_is_refused_where_it_will_not_be_derived(one: Place) -> None:
    seeded(one, ROWS[:4])
    put(one, ROWS[1].id, BEYOND)
    backend = LateShortening(SHORT)
    made = planned(one, backend)
    with one.open(TaskBackend()) as writer, one.open() as store:
        writer.upsert_vectors([Document("blank", " ")], [None], space=V3)
        with Follower(store, backend, made, interval=0.1, late_chunking=True) as follower:
            report = follower.wait_until_idle()
            (slot,) = report.collections[0].slots
            assert (report.complete, slot.filled, slot.refused, slot.left) == (True, 3, 2, 0)
            assert sorted(id for id, _ in slot.named) == sorted([ROWS[1].id, "blank"])
            put(one, ROWS[1].id, TaskBackend().embed_documents([ROWS[1].text])[0].tolist())
            follower.wait_until_idle()
    assert pending(one, SHORT) == ["blank"]


def test_a_follower_begins_with_what_the_target_is_derived_from(logged: Place) -> None:
    seeded(logged, ROWS[:4])
    old, backend = TaskBackend(), Shortening(SHORT)
    made = planned(logged, backend)
    ran(logged, backend, made)
    change_in_place(logged, CHANGED)
    with logged.open(old) as store, Follower(store, backend, made, interval=0.1) as follower:
        assert follower.wait_until_idle().complete
    assert [text for text in backend.documents if text not in CANARY_TEXTS] == []
    assert old.documents == [CHANGED]


class Away(TaskBackend):
    """An old model that was switched off, but for its canary."""

    is_away = True

    def __init__(self) -> None:
        super().__init__()
        self.attempts = 0

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        if self.is_away and not set(texts) <= set(CANARY_TEXTS):
            self.attempts += 1
            raise BackendUnavailable("the old model is away")
        return super().embed_documents(texts)


@pytest.mark.parametrize("backend", [Shortening(SHORT), TaskBackend(UNLIKE, seed=5)])
def test_the_target_is_kept_fresh_while_the_old_model_is_away(
    one: Place, backend: TaskBackend
) -> None:
    seeded(one, ROWS[:4])
    made = planned(one, backend)
    ran(one, backend, made, worker=(0, 50_000))  # it but adds the slot
    with one.open(TaskBackend()) as writer:
        writer.upsert_vectors([Document("new", "written by the new model alone")], [None], space=V3)
        with one.open(Away()) as store, Follower(store, backend, made, interval=0.1) as follower:
            follower.wait_until(lambda: not pending(one, backend.space))
            writer.upsert([ROWS[4]])
            follower.wait_until(lambda: not pending(one, backend.space))
            assert not follower.run.report.complete
    assert pending(one, V3) == ["new"]


def test_the_target_is_looked_at_as_often_as_ever_while_the_old_model_is_away(one: Place) -> None:
    seeded(one, ROWS[:4])
    backend = TaskBackend(UNLIKE, seed=5)
    made = planned(one, backend)
    ran(one, backend, made)
    with one.open(TaskBackend()) as writer, one.open(Away()) as store:
        writer.upsert_vectors([Document("new", "written by the new model alone")], [None], space=V3)
        with Follower(store, backend, made, interval=0.02) as follower:
            follower.wait_until(lambda: follower.run.report.sweeps > 30)
            report = follower.run.report
            assert (report.trouble, report.idle) == ("the old model is away", False)
    assert isinstance(store.backend, Away)
    assert 3 < store.backend.attempts < 12


def point(n: int, document: str) -> models.PointStruct:
    """One that an application of the old model writes."""
    text = f"text number {n}"
    said = {"doc": f"d{n}", "body": text, "of": document, "nth": n}
    (vector,) = TaskBackend().embed_documents([text]).tolist()
    return models.PointStruct(id=n, payload=said, vector={"v": vector})


@pytest.mark.usefixtures("qdrant_local")
def test_only_a_document_that_was_changed_in_place_waits_for_the_old_model() -> None:
    backend, old = TogetherBackend(UNLIKE, seed=5), Away()
    old.is_away = False
    with adopted(old, 5) as (client, store):
        made = plan(store, backend)
        with Follower(store, backend, made, late_chunking=True, interval=0.05) as follower:
            follower.wait_until_idle()
            old.is_away = True
            client.set_payload("docs", {"body": CHANGED}, points=[3])
            follower.wait_until(lambda: old.attempts > 0)
            client.upsert("docs", [point(20, "a"), point(21, "z")])
            follower.wait_until(lambda: waiting(store) == (["d20"], ["d3"]))
            old.is_away = False
            assert follower.wait_until_idle().complete
        assert embedded_by(store) == [CHANGED]


def test_the_log_is_followed_beyond_a_row_that_waits_for_the_old_model(raw: Harness) -> None:
    backend, old = TaskBackend(UNLIKE, seed=5), Away()
    old.is_away = False
    name, layout = raw.make_foreign(ROWS[:4], TaskBackend().embed_documents(["any"] * 4))
    with raw.open(name, backend=old, layout=layout) as store:
        store.adopt()
        made = plan(store, backend)
        with Follower(store, backend, made, interval=0.05) as follower:
            follower.wait_until_idle()
            old.is_away = True
            raw.set_text(name, ROWS[0].id, CHANGED)
            follower.wait_until(lambda: old.attempts > 0)
            new = {
                "body": "a new one",
                "embedding": TaskBackend().embed_documents(["a"])[0].tolist(),
            }
            raw.client.index(index=raw.named(name), id="new", document=new, refresh=True)
            follower.wait_until(lambda: waiting(store) == ([], [ROWS[0].id]))
            assert not follower.run.report.complete


def waiting(store: VectorStore) -> tuple[list[str], list[str]]:
    """What the target lacks, and what is stale there."""
    found = store.pending(UNLIKE, limit=9)[0], store.stale(UNLIKE, limit=9)[0]
    pending, stale = ([row.document.id for row in rows] for rows in found)
    return pending, stale


def test_what_can_be_derived_is_filled_though_the_budget_ends_what_it_is_derived_from(
    one: Place,
) -> None:
    seeded(one, ROWS[:4])
    backend = Shortening(SHORT)
    made = planned(one, backend)
    ran(one, backend, made, worker=(0, 50_000))
    with one.open(TaskBackend()) as store:
        store.upsert_vectors([Document("0", "it has no vector yet")], [None], space=V3)
        report = MigrationRun(store, backend, made, follow=True, budget_tokens=1).run()
    assert (report.stopped, report.tokens) == ("budget", 0)
    assert pending(one, SHORT) == ["0"]


class Other:
    """Another run, that fills one chunk in sight of those before it, once."""

    def __init__(self, place: Place) -> None:
        self._place, self._is_done = place, False

    def fill(self) -> None:
        if self._is_done:
            return
        self._is_done = True
        texts = [row.text for row in chunks("a", 3)]
        made = TogetherBackend(UNLIKE, seed=5).embed_chunks([texts])[0]
        with self._place.open() as store:
            rows = [row for row in store.pending(UNLIKE, limit=9)[0] if row.document.id == "a-2"]
            assert store.fill(UNLIKE, rows, made[2:]).filled == 1


class Beside(TogetherBackend):
    """While it embeds, the other run writes."""

    other: Other | None = None

    def embed_chunks(self, documents: Sequence[Sequence[str]]) -> list[Matrix]:
        if self.other is not None:
            self.other.fill()
        return super().embed_chunks(documents)


@pytest.mark.parametrize("is_read", [False, True])
def test_a_chunk_that_another_run_fills_meanwhile_is_embedded_in_sight_of_all(
    one: Place, monkeypatch: pytest.MonkeyPatch, is_read: bool
) -> None:
    rows = chunks("a", 4)
    seeded(one, rows[:2])
    backend, other = Beside(UNLIKE, seed=5), Other(one)
    ran(one, backend, late_chunking=True)
    seeded(one, rows[2:])
    looking = Rows._all

    async def look(*asked: Any) -> list[VersionedRow]:
        found = await looking(*asked)
        other.fill()
        return found

    if is_read:
        backend.other = other
    else:
        monkeypatch.setattr(Rows, "_all", look)
    assert ran(one, backend).complete
    found = vectors(one, UNLIKE)
    (expected,) = TogetherBackend(UNLIKE, seed=5).embed_chunks([[row.text for row in rows]])
    for row, vector in zip(rows, expected, strict=True):
        np.testing.assert_allclose(found[row.id][1], vector, atol=1e-5)


def test_a_text_that_another_batch_asks_for_in_vain_costs_no_vectors(one: Place) -> None:
    class AtOnce(Hooked):
        calls_at_once = 2

    rows = [Document(f"r{n}", f"text number {n % 5 and n}") for n in range(9)]
    seeded(one, rows)
    backend, other = AtOnce(), threading.Event()
    failing = {"text number 0"}  # of the first batch, whichever call comes first

    def hook(number: int, texts: Sequence[str]) -> None:
        del number
        if failing.isdisjoint(texts):
            other.set()
            return
        failing.clear()
        assert other.wait(60)
        raise BackendUnavailable("away for a moment")

    backend.hook = hook
    made = planned(one, backend)
    with pytest.raises(BackendUnavailable):
        ran(one, backend, made, batch_size=5)
    assert pending(one) == [f"r{n}" for n in range(6)]
    assert ran(one, backend, made, batch_size=6).complete
    assert sorted(backend.documents) == sorted({row.text for row in rows})


@pytest.mark.usefixtures("qdrant_local")
@pytest.mark.parametrize("places", [(3,), (3, 5)])
def test_of_a_document_the_old_model_embeds_what_was_changed_in_place_alone(
    places: Sequence[int],
) -> None:
    backend = TogetherBackend(UNLIKE, seed=5)
    with adopted(TaskBackend(), 9) as (client, store):
        made = plan(store, backend)
        options = {"late_chunking": True, "batch_size": 1, "interval": 0.1}
        with Follower(store, backend, made, **options) as follower:
            follower.wait_until_idle()
            for place in places:
                client.set_payload("docs", {"body": f"{CHANGED} {place}"}, points=[place])
            assert follower.wait_until_idle().complete
        assert sorted(embedded_by(store)) == [f"{CHANGED} {place}" for place in places]
        texts = [row.document.text for row in store.filled(UNLIKE, limit=9)[0]]
        found = [vector_of(row) for row in store.filled(UNLIKE, limit=9)[0]]
    (expected,) = TogetherBackend(UNLIKE, seed=5).embed_chunks([texts])
    np.testing.assert_allclose(np.stack(found), expected, atol=1e-5)


@pytest.mark.usefixtures("qdrant_local")
@pytest.mark.parametrize("late", [True, False])
def test_what_was_changed_in_place_is_told_from_chunks_of_its_id_in_other_documents(
    late: bool,
) -> None:
    backend = TogetherBackend(UNLIKE, seed=5)
    with adopted(TaskBackend(), 6) as (client, store):
        for n in range(6):
            client.set_payload("docs", {"doc": str(n % 3), "of": "ab"[n // 3]}, points=[n])
        made = plan(store, backend)
        with Follower(store, backend, made, late_chunking=late, interval=0.1) as follower:
            follower.wait_until_idle()
            client.set_payload("docs", {"body": CHANGED}, points=[0, 3])
            follower.wait_until(lambda: not store.stale(UNLIKE, limit=9)[0])
            assert follower.wait_until_idle().complete
        assert embedded_by(store) == [CHANGED] * (2 if late else 1)
        rows = sorted(store.filled(UNLIKE, limit=9)[0], key=lambda row: row.native_id)
    texts = [row.document.text for row in rows]
    expected = (
        np.concatenate(backend.embed_chunks([texts[:3], texts[3:]]))
        if late
        else backend.embed_documents(texts)
    )
    np.testing.assert_allclose([vector_of(row) for row in rows], expected, atol=1e-5)


class Counting(TogetherBackend):
    """Counts words, each as so many tokens."""

    def __init__(self, space: EmbeddingSpace, *, seed: int = 0, each: int = 1) -> None:
        super().__init__(space, seed=seed)
        self._each = each

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [self._each * len(text.split()) for text in texts]

    def usage(self) -> Usage:
        paid = super().usage()
        return paid._replace(tokens=self._each * paid.tokens)


NINE: Final = " ".join("abcdefghi")


def paid_by_a_follower(store: QdrantStore, backend: Counting, made: MigrationPlan) -> int:
    """What it has paid once its budget ends it."""
    report = MigrationRun(store, backend, made, follow=True, budget_tokens=70, interval=0.1).run()
    assert report.stopped == "budget"
    return report.tokens


@pytest.mark.usefixtures("qdrant_local")
@pytest.mark.parametrize(("old", "paid"), [(1, 60), (3, 40)])
def test_a_budget_takes_as_many_rows_as_it_is_enough_for_by_both_models(
    old: int, paid: int
) -> None:
    backend = Counting(UNLIKE, seed=5)
    with adopted(Counting(V3, each=old), 8) as (client, store):
        made = plan(store, backend)
        MigrationRun(store, backend, made).run()
        for place in range(8):
            client.set_payload("docs", {"body": f"{NINE} {place}"}, points=[place])
        assert [paid_by_a_follower(store, backend, made) for _ in range(2)] == [paid, paid]


@pytest.mark.usefixtures("qdrant_local")
def test_the_old_model_is_not_asked_for_a_document_that_is_too_dear_for_the_new_one() -> None:
    backend = Counting(UNLIKE, seed=5)
    with adopted(Counting(V3), 20) as (client, store):
        made = plan(store, backend)
        MigrationRun(store, backend, made, late_chunking=True).run()
        client.set_payload("docs", {"body": NINE}, points=[3])
        assert paid_by_a_follower(store, backend, made) == 0


@pytest.mark.usefixtures("qdrant_local")
def test_what_was_changed_in_place_is_told_of_the_slot_that_it_was_written_to() -> None:
    backend = TaskBackend(UNLIKE, seed=5)
    with adopted(TaskBackend(), 5) as (client, store):
        made = plan(store, backend)
        with Follower(store, backend, made, interval=0.1) as follower:
            follower.wait_until_idle()
            client.set_payload("docs", {"body": CHANGED}, points=[3])
            slots = follower.wait_until_idle().collections[0].slots
    assert [slot.filled for slot in slots] == [6, 1]


@pytest.mark.usefixtures("qdrant_local")
def test_what_was_changed_in_place_is_named_where_nothing_makes_what_it_is_derived_from() -> None:
    backend = LateShortening(SHORT)
    with adopted(TaskBackend(), 5) as (client, store):
        made = plan(store, backend)
        assert MigrationRun(store, backend, made, late_chunking=True).run().complete
        client.set_payload("docs", {"body": CHANGED}, points=[3])
        report = MigrationRun(store, backend, made).run()
        assert report.complete
        ((named, reason),) = report.collections[0].slots[0].named
        assert (named, reason.endswith(UNMADE)) == ("d3", True)
        with Follower(store, backend, made, interval=0.1) as follower:
            report = follower.wait_until_idle()
    assert (report.complete, report.collections[0].slots[0].named) == (True, ())


TOO_LONG: Final = "a text that is too long"
BEHIND_THERE: Final = (("d3", f"{BEHIND}it is too long"),)
"""What the report says of such a row in the slot that it keeps a vector in."""


@pytest.mark.usefixtures("qdrant_local")
@pytest.mark.parametrize("late", [False, True])
def test_a_row_whose_changed_text_the_old_model_refuses_is_named_until_it_is_another(
    late: bool,
) -> None:
    backend, old = TogetherBackend(UNLIKE, seed=5), Reluctant()
    with adopted(old, 5) as (client, store):
        made = plan(store, backend)
        with Follower(store, backend, made, late_chunking=late, interval=0.05) as follower:
            follower.wait_until_idle()
            client.set_payload("docs", {"body": TOO_LONG}, points=[3])
            for _ in range(2):
                report = follower.wait_until_idle()
                slot = report.collections[0].slots[1]
                assert (report.complete, slot.refused, slot.named) == (True, 1, BEHIND_THERE)
            assert (old.refused, waiting(store)) == (1, ([], []))
            client.set_payload("docs", {"body": CHANGED}, points=[3])
            slot = follower.wait_until_idle().collections[0].slots[1]
    assert (slot.filled, slot.refused, slot.named) == (1, 0, ())


@pytest.mark.usefixtures("qdrant_local")
def test_a_row_whose_changed_text_the_old_model_refuses_cannot_be_derived() -> None:
    backend, old = LateShortening(SHORT), Reluctant()
    with adopted(old, 5) as (client, store):
        made = plan(store, backend)
        with Follower(store, backend, made, late_chunking=True, interval=0.05) as follower:
            follower.wait_until_idle()
            client.set_payload("docs", {"body": TOO_LONG}, points=[3])
            for _ in range(2):
                report = follower.wait_until_idle()
                slots = report.collections[0].slots
                named = [slot.named for slot in slots]
                assert named == [(("d3", BEHIND + UNEMBEDDED),), BEHIND_THERE]
                assert (report.complete, old.refused) == (True, 1)
            client.set_payload("docs", {"body": CHANGED}, points=[3])
            slots = follower.wait_until_idle().collections[0].slots
        assert [(slot.refused, slot.named) for slot in slots] == [(0, ())] * 2
        found = {row.document.id: vector_of(row) for row in store.filled(SHORT, limit=9)[0]}
    expected = derive(TaskBackend().embed_documents([CHANGED]), stored=V3, offered=SHORT)
    np.testing.assert_allclose(found["d3"], expected[0], atol=1e-5)


def test_a_row_that_the_old_model_refuses_cannot_be_derived(one: Place) -> None:
    seeded(one, ROWS[:4])
    backend, old = LateShortening(SHORT), Reluctant()
    made = planned(one, backend)
    with one.open(TaskBackend()) as writer, one.open(old) as store:
        writer.upsert_vectors([Document("new", TOO_LONG)], [None], space=V3)
        with Follower(store, backend, made, late_chunking=True, interval=0.05) as follower:
            report = follower.wait_until_idle()
            assert [slot.named for slot in report.collections[0].slots] == [
                (("new", UNEMBEDDED),),
                (("new", "it is too long"),),
            ]
            assert (report.complete, old.refused) == (True, 1)
            writer.upsert_vectors([Document("new", CHANGED)], [None], space=V3)
            report = follower.wait_until_idle()
    assert [slot.named for slot in report.collections[0].slots] == [(), ()]
    assert pending(one, SHORT) == []


class Meanwhile(Counting):
    """Somebody writes once it has embedded a text that was changed: ``then``."""

    then: Callable[[], object] | None = None

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        made = super().embed_documents(texts)
        then, said = self.then, " ".join(texts)
        if then is not None and (CHANGED in said or TOO_LONG in said):
            self.then = None
            then()
        return made


def put_back(client: QdrantClient) -> None:
    """Give a point the text that it was made with."""
    client.set_payload("docs", {"body": "text number 3"}, points=[3])


def check_old_vector(store: QdrantStore) -> None:
    """The point has the old model's vector of that text."""
    found = {row.document.id: vector_of(row) for row in store.filled(V3, limit=9)[0]}
    (expected,) = TaskBackend().embed_documents(["text number 3"])
    np.testing.assert_allclose(found["d3"], expected, atol=1e-5)


@pytest.mark.usefixtures("qdrant_local")
@pytest.mark.parametrize("text", [CHANGED, TOO_LONG])
@pytest.mark.parametrize("late", [False, True])
def test_the_old_vector_follows_a_text_that_is_changed_back_while_the_new_model_embeds(
    text: str, late: bool
) -> None:
    backend, old = Meanwhile(UNLIKE, seed=5), Reluctant()
    with adopted(old, 5) as (client, store):
        made = plan(store, backend)
        with Follower(store, backend, made, late_chunking=late, interval=0.05) as follower:
            follower.wait_until_idle()
            backend.then = lambda: put_back(client)
            client.set_payload("docs", {"body": text}, points=[3])
            follower.wait_until(lambda: backend.then is None)
            report = follower.wait_until_idle()
            asked = list(old.documents)
            slot = follower.wait_until_idle().collections[0].slots[1]
        assert (report.complete, slot.refused, waiting(store)) == (True, 0, ([], []))
        assert old.documents == asked == [*([text] * (old.refused == 0)), "text number 3"]
        check_old_vector(store)


@pytest.mark.usefixtures("qdrant_local")
def test_a_text_that_is_changed_back_is_embedded_until_its_vector_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    conflicts = [False, True, True]  # of what is written into the old slot
    fill_of = Rows.fill

    async def fill(self: Rows, space: EmbeddingSpace, rows: Any, vectors: Any) -> FillReport:
        if space == V3 and conflicts and conflicts.pop(0):
            return FillReport(filled=0, changed=len(rows))
        return await fill_of(self, space, rows, vectors)

    monkeypatch.setattr(Rows, "fill", fill)
    backend = Meanwhile(UNLIKE, seed=5)
    with adopted(TaskBackend(), 5) as (client, store):
        made = plan(store, backend)
        with Follower(store, backend, made, interval=0.05) as follower:
            follower.wait_until_idle()
            backend.then = lambda: put_back(client)
            client.set_payload("docs", {"body": CHANGED}, points=[3])
            follower.wait_until(lambda: backend.then is None)
            follower.wait_until_idle()
        assert embedded_by(store) == [CHANGED, *["text number 3"] * 3]
        check_old_vector(store)


@pytest.mark.usefixtures("qdrant_local")
def test_a_text_that_is_changed_back_is_embedded_within_the_budget() -> None:
    backend = Meanwhile(UNLIKE, seed=5)
    with adopted(Counting(V3), 5) as (client, store):
        made = plan(store, backend)
        MigrationRun(store, backend, made).run()
        backend.then = lambda: put_back(client)
        client.set_payload("docs", {"body": CHANGED}, points=[3])
        tokens = 2 * len(CHANGED.split())
        report = MigrationRun(store, backend, made, follow=True, budget_tokens=tokens).run()
    assert (report.stopped, report.tokens) == ("budget", tokens)


@pytest.mark.usefixtures("qdrant_local")
@pytest.mark.parametrize(("late", "changed"), [(False, 3), (True, 1)])
def test_the_old_vector_follows_a_text_that_is_changed_between_the_requests_of_a_fill(
    monkeypatch: pytest.MonkeyPatch, late: bool, changed: int
) -> None:
    """The new slot's vector of the text before is taken away by then, as if the row were replaced."""
    backend = TogetherBackend(UNLIKE, seed=5)
    left = 1

    def update(name: str, points: Sequence[models.PointVectors], **options: Any) -> Any:
        nonlocal left
        if left and changes and any(each.id == 3 and UNLIKE.id in each.vector for each in points):
            left -= 1
            client.set_payload("docs", {"body": "the last text"}, points=[3])
        return update_of(name, points, **options)

    with adopted(TaskBackend(), 5) as (client, store):
        made, changes, update_of = plan(store, backend), False, client.update_vectors
        monkeypatch.setattr(client, "update_vectors", update)
        with Follower(store, backend, made, late_chunking=late, interval=0.05) as follower:
            follower.wait_until_idle()
            changes = True
            client.set_payload("docs", {"body": CHANGED}, points=[changed])
            follower.wait_until(lambda: not left)
            assert follower.wait_until_idle().complete
        found = {row.document.id: vector_of(row) for row in store.filled(V3, limit=9)[0]}
    (expected,) = TaskBackend().embed_documents(["the last text"])
    np.testing.assert_allclose(found["d3"], expected, atol=1e-5)


@pytest.mark.usefixtures("qdrant_local")
def test_what_was_filled_beside_a_row_that_others_changed_is_in_no_doubt_later() -> None:
    backend, old = Meanwhile(UNLIKE, seed=5), TaskBackend()
    with adopted(old, 8) as (client, store):
        made = plan(store, backend)
        with Follower(store, backend, made, interval=0.05) as follower:
            follower.wait_until_idle()
            backend.then = lambda: put_back(client)
            for n in range(8):
                client.set_payload("docs", {"body": CHANGED}, points=[n])
            follower.wait_until(lambda: backend.then is None)
            follower.wait_until_idle()
            asked = list(old.documents)
            (own,) = TaskBackend().embed_documents(["a text of the old application"]).tolist()
            said = {"doc": "d5", "body": "a text of the old application", "of": "a", "nth": 5}
            client.upsert("docs", [models.PointStruct(id=5, payload=said, vector={"v": own})])
            assert follower.wait_until_idle().complete
        assert old.documents == asked


class Charging(Counting):
    """Refuses one bad text a call, and is paid for all of the call's."""

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        bad = [place for place, text in enumerate(texts) if "bad" in text]
        if bad:
            self._noted(texts)
            raise EmbeddingError("it is bad", indices=bad[:1])
        return super().embed_documents(texts)


@pytest.mark.parametrize(("budget", "paid", "filled"), [(25, 20, 0), (58, 54, 8), (53, 38, 0)])
def test_a_budget_is_asked_again_where_calls_that_are_refused_are_paid_for(
    one: Place, budget: int, paid: int, filled: int
) -> None:
    seeded(one, [Document(f"r{n}", f"{n} {'good' if n > 1 else 'bad'}") for n in range(10)])
    report = ran(one, Charging(UNLIKE, seed=5), budget_tokens=budget)
    assert (report.tokens, report.filled) == (paid, filled)
    assert report.stopped == ("" if filled else "budget")
