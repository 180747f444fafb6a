"""Documents whose chunks are embedded together, in a collection that others made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import pytest
from qdrant_client import QdrantClient, models
from tests.contract.ingesting import postgres_place
from tests.migrate.following import Follower
from tests.migrate.test_filling import CHANGED, Held, check_together, chunks
from tests.migrate.test_making import adopted, embedded_by
from tests.migrate.test_running import TogetherBackend, planned, ran, seeded

from samespace import Document, Parent, QdrantStore
from samespace.audit.rows import chunk_order
from samespace.documents import FillReport, VersionedRow
from samespace.errors import EmbeddingError
from samespace.guard import CANARY_TEXTS
from samespace.migrate import MigrationRun, plan
from samespace.migrate.reading import Rows
from samespace.protocols import Matrix
from samespace.space import EmbeddingSpace
from samespace.testing.backends import UNLIKE, V3, TaskBackend

pytestmark = pytest.mark.usefixtures("qdrant_local")


def texts_of(backend: TaskBackend) -> list[str]:
    return [text for text in backend.documents if text not in CANARY_TEXTS]


def check_documents(store: QdrantStore) -> None:
    """All chunks that are not blank have the vectors that they have in sight of one another."""
    rows = sorted(store.filled(UNLIKE, limit=999)[0], key=_order)
    rows = [row for row in rows if row.document.text.strip()]
    for _, of_it in groupby(rows, key=lambda row: _order(row)[0]):
        document = list(of_it)
        (expected,) = TogetherBackend(UNLIKE, seed=5).embed_chunks(
            [[row.document.text for row in document]]
        )
        for row, vector in zip(document, expected, strict=True):
            assert float(row.vector @ vector) > 0.9999


def _order(row: VersionedRow) -> Any:
    return row.document.parent and row.document.parent.id, chunk_order(row.document)


def put(client: QdrantClient, number: int, text: str) -> None:
    """Change a text in place."""
    client.set_payload("docs", {"body": text}, points=[number])


def test_chunks_that_share_an_id_are_refused_by_name_and_cost_nothing() -> None:
    backend = TogetherBackend(UNLIKE, seed=5)
    with adopted(TaskBackend(), 6) as (client, store):
        client.set_payload("docs", {"doc": "d3"}, points=[4])
        made = plan(store, backend)
        options = {"late_chunking": True, "batch_size": 2, "interval": 0.1}
        with Follower(store, backend, made, **options) as follower:
            slot = follower.wait_until_idle().collections[0].slots[0]
            assert (slot.filled, slot.refused, slot.left) == (0, 6, 0)
            assert "2 chunks of its document have the id 'd3'" in dict(slot.named)["d3"]
            assert texts_of(backend) == []
            client.set_payload("docs", {"doc": "d4"}, points=[4])
            report = follower.wait_until_idle()
    assert (report.complete, report.filled, report.embedded) == (True, 6, 6)


def test_a_document_meets_two_conflicts_and_the_old_model_is_asked_for_what_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Others write into it first while it is embedded, and then while the old model embeds."""
    conflicts: list[EmbeddingSpace] = []
    fill_of = Rows.fill

    async def fill(self: Rows, space: EmbeddingSpace, rows: Any, vectors: Any) -> FillReport:
        if conflicts and space == conflicts[0]:
            conflicts.pop(0)
            return FillReport(filled=0, changed=len(rows))
        return await fill_of(self, space, rows, vectors)

    monkeypatch.setattr(Rows, "fill", fill)
    backend = TogetherBackend(UNLIKE, seed=5)
    with adopted(TaskBackend(), 9) as (client, store):
        made = plan(store, backend)
        MigrationRun(store, backend, made, late_chunking=True).run()
        with Follower(store, backend, made, interval=0.1) as follower:
            follower.wait_until_idle()
            conflicts += [UNLIKE, V3]
            client.set_payload("docs", {"body": CHANGED}, points=[3])
            assert follower.wait_until_idle().complete
        assert conflicts == []
        assert set(embedded_by(store)) - set(CANARY_TEXTS) == {CHANGED}
        check_documents(store)


def test_a_chunk_that_is_put_under_another_point_meanwhile_is_filled_with_its_document() -> None:
    """As those do it who write a document anew under ids made up for it."""
    backend = Held(UNLIKE, seed=5)
    with adopted(TaskBackend(), 9) as (client, store):

        def put_again() -> None:
            text = "text number 8"
            vector = {"v": TaskBackend().embed_documents([text])[0].tolist()}
            said = {"doc": "d8", "body": text, "of": "a", "nth": 8}
            client.delete("docs", [8])
            client.upsert("docs", [models.PointStruct(id=108, payload=said, vector=vector)])

        made = plan(store, backend)
        backend.after = put_again
        report = MigrationRun(store, backend, made, late_chunking=True).run()
        assert (report.complete, store.pending(UNLIKE, limit=9)[0]) == (True, [])
    assert backend.after is None


def test_a_text_that_is_changed_and_changed_back_leaves_no_sibling_in_sight_of_it() -> None:
    backend = Held(UNLIKE, seed=5)
    with adopted(TaskBackend(), 5) as (client, store):
        made = plan(store, backend)
        MigrationRun(store, backend, made, late_chunking=True).run()
        put(client, 3, CHANGED)
        backend.after = lambda: put(client, 3, "text number 3")
        report = MigrationRun(store, backend, made).run()
        # All is embedded twice, and three chunks and then four are written.
        assert (report.complete, report.embedded, report.filled) == (True, 10, 4 + 5)
        check_documents(store)


def test_a_run_that_ends_while_a_document_moves_is_not_complete() -> None:
    class Hot(TogetherBackend):
        def embed_chunks(self, documents: Sequence[Sequence[str]]) -> list[Matrix]:
            made = super().embed_chunks(documents)
            is_back = CHANGED in documents[0]
            put(client, 3, "text number 3" if is_back else CHANGED)
            return made

    with adopted(TaskBackend(), 5) as (client, store):
        made = plan(store, TogetherBackend(UNLIKE, seed=5))
        MigrationRun(store, TogetherBackend(UNLIKE, seed=5), made, late_chunking=True).run()
        put(client, 3, CHANGED)
        report = MigrationRun(store, Hot(UNLIKE, seed=5), made).run()
        assert (report.complete, report.embedded) == (False, 20 * 5)
        assert report.collections[0].slots[0].left == 1


def test_siblings_of_a_chunk_that_is_deleted_before_its_turn_are_embedded_without_it() -> None:
    backend = Held(UNLIKE, seed=5)
    with adopted(TaskBackend(), 5) as (client, store):
        made = plan(store, backend)
        backend.after = lambda: client.delete("docs", [4])
        report = MigrationRun(store, backend, made, late_chunking=True).run()
        assert (report.complete, report.embedded) == (True, 5 + 4)
        check_documents(store)


def test_a_document_that_is_deleted_while_it_is_embedded_leaves_nothing_to_do() -> None:
    backend = Held(UNLIKE, seed=5)
    with adopted(TaskBackend(), 5) as (client, store):
        made = plan(store, backend)
        backend.after = lambda: client.delete("docs", list(range(5)))
        report = MigrationRun(store, backend, made, late_chunking=True).run()
        assert (report.complete, report.embedded) == (True, 5)


def test_a_chunk_that_becomes_blank_has_its_siblings_embedded_without_it_once() -> None:
    backend = TogetherBackend(UNLIKE, seed=5)
    with adopted(TaskBackend(), 5) as (client, store):
        made = plan(store, backend)
        options = {"late_chunking": True, "interval": 0.1}
        with Follower(store, backend, made, **options) as follower:
            follower.wait_until_idle()
            put(client, 2, " ")
            follower.wait_until_idle()
            report = follower.wait_until_idle()
            slot = report.collections[0].slots[0]
            assert (report.complete, report.embedded, slot.refused) == (True, 5 + 4, 1)
            assert "there is nothing to embed" in dict(slot.named)["d2"]
            check_documents(store)
        report = MigrationRun(store, backend, made).run()
        assert (report.complete, report.embedded, report.filled) == (True, 0, 0)


class Choosy(TogetherBackend):
    """Refuses documents with a text that is too long."""

    def embed_chunks(self, documents: Sequence[Sequence[str]]) -> list[Matrix]:
        bad = [place for place, chunks in enumerate(documents) if "too long" in " ".join(chunks)]
        if bad:
            raise EmbeddingError("it is too long", indices=bad)
        return super().embed_chunks(documents)


def test_a_chunk_that_is_blank_again_after_a_refused_text_has_its_siblings_embedded_again() -> None:
    backend = Choosy(UNLIKE, seed=5)
    with adopted(TaskBackend(), 4) as (client, store):
        put(client, 2, " ")
        made = plan(store, backend)
        with Follower(store, backend, made, late_chunking=True, interval=0.05) as follower:
            follower.wait_until_idle()
            for text in ("another text", "a text that is too long", " "):
                put(client, 2, text)
                follower.wait_until_idle()
                follower.wait_until_idle()
            report = follower.run.report
        assert (report.complete, report.embedded) == (True, 3 + 4 + 3 + 1)  # one by the old model
        assert report.collections[0].slots[0].refused == 1
        check_documents(store)


class Emptying(TogetherBackend):
    """Has something done while it embeds the fourth document."""

    then: Callable[[], object] | None = None
    asked = 0

    def embed_chunks(self, documents: Sequence[Sequence[str]]) -> list[Matrix]:
        self.asked += len(documents)
        if self.asked == 4 and self.then is not None:
            self.then()
        return super().embed_chunks(documents)


def test_a_chunk_that_becomes_blank_within_the_first_look_is_noticed_too() -> None:
    backend = Emptying(UNLIKE, seed=5)
    with adopted(TaskBackend(), 20) as (client, store):
        for n in range(20):
            client.set_payload("docs", {"of": f"p{n // 4}", "nth": n % 4}, points=[n])
        made = plan(store, backend)
        backend.then = lambda: put(client, 1, " ")
        report = MigrationRun(store, backend, made, late_chunking=True, batch_size=4).run()
        assert (report.complete, backend.asked) == (True, 6)
        check_documents(store)


def test_a_chunk_whose_vector_goes_as_it_becomes_blank_is_noticed_just_so(
    request: pytest.FixtureRequest,
) -> None:
    place, rows = postgres_place(request), chunks("a", 4)
    backend = TogetherBackend(UNLIKE, seed=5)
    seeded(place, rows)
    made = planned(place, backend)
    with (
        place.open() as store,
        place.open() as writer,
        Follower(store, backend, made, late_chunking=True, interval=0.1) as follower,
    ):
        follower.wait_until_idle()
        blank = Document("a-1", " ", parent=Parent("a", 1))
        writer.upsert_vectors([blank], [None], space=V3)
        follower.wait_until_idle()
        assert follower.wait_until_idle().embedded == 4 + 3
    assert ran(place, backend, made).embedded == 0
    check_together(place, [row for row in rows if row.id != "a-1"])


def test_the_same_text_under_the_same_id_in_many_documents_is_done_at_once() -> None:
    backend = TogetherBackend(UNLIKE, seed=5)
    with adopted(TaskBackend(), 100) as (client, store):
        for n in range(100):
            said = {"doc": str(n % 2), "of": f"p{n // 2}", "nth": n % 2}
            client.set_payload("docs", said, points=[n])
        made = plan(store, backend)
        MigrationRun(store, backend, made, late_chunking=True).run()
        client.set_payload("docs", {"body": CHANGED}, points=list(range(0, 100, 2)))
        report = MigrationRun(store, backend, made, batch_size=2).run()
        assert (report.complete, report.embedded) == (True, 100)
        check_documents(store)
