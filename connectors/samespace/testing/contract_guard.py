# Generated from contract_guard_async.py by tools/generate_sync.py; change that file, not this one.
"""The promises about embedding spaces: records, refusals, canaries, slots, adopted collections."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from samespace.documents import Document
from samespace.errors import (
    InvalidInput,
    SlotNotReady,
    SpaceError,
    SpaceMismatch,
    SpaceUnknown,
)
from samespace.filters import field
from samespace.guard import SlotState
from samespace.protocols import Matrix, VectorStore
from samespace.space import EmbeddingSpace
from samespace.testing.backends import UNLIKE, V3, LyingBackend, TaskBackend
from samespace.testing.harness import StoreHarness

V2 = EmbeddingSpace(model="jina-embeddings-v2-base-en", dimensions=768)
V3_768 = EmbeddingSpace(model="jina-embeddings-v3", dimensions=768, task="retrieval.passage")
SHORTER = EmbeddingSpace(model=V3.model, dimensions=32, task=V3.task)
TEXTS = {"a": "red apples", "b": "green pears", "c": "blue plums", "d": "yellow lemons"}
DOCUMENTS = [Document(id, text, {"n": n}) for n, (id, text) in enumerate(TEXTS.items())]


class GuardContract:
    """One space in a collection, whoever asks."""

    def test_equal_dimensions_do_not_make_spaces_equal(self, harness: StoreHarness) -> None:
        backend = TaskBackend(V3_768)
        with harness.open("guarded", backend=backend) as store:
            store.upsert(DOCUMENTS)
        with harness.open("guarded", backend=TaskBackend(V2)) as other:
            with pytest.raises(SpaceMismatch) as caught:
                other.upsert([Document("x", "text")])
            with pytest.raises(SpaceMismatch):
                other.search("text")
            with pytest.raises(SpaceMismatch):
                other.create()
        error = caught.value
        assert [difference.field for difference in error.differences] == ["model", "task"]
        assert (error.stored, error.offered) == (V3_768, V2)
        for part in ("model", "task", "jina-embeddings-v3", "jina-embeddings-v2-base-en"):
            assert part in str(error)
        assert "incompatible" in str(error)

    def test_fewer_dimensions_are_derivable(self, harness: StoreHarness) -> None:
        with harness.open("guarded", backend=TaskBackend()) as store:
            store.upsert(DOCUMENTS)
        with harness.open("guarded", space=SHORTER) as shorter:
            with pytest.raises(SpaceMismatch, match="derivable"):
                shorter.info()

    def test_a_backend_that_lies_is_found_out(self, harness: StoreHarness) -> None:
        with harness.open("guarded", backend=TaskBackend()) as store:
            store.upsert(DOCUMENTS)
        with harness.open("guarded", backend=LyingBackend()) as liar:
            with pytest.raises(SpaceMismatch, match="another model"):
                liar.upsert([Document("x", "text")])
            with pytest.raises(SpaceMismatch, match="queries"):
                liar.search("text")
            assert liar.count() == len(DOCUMENTS)

    @pytest.mark.parametrize(
        "record", [None, {}, "text", {"format": 1}, {"format": 99, "slots": []}], ids=str
    )
    def test_no_one_writes_into_an_unknown_space(
        self, harness: StoreHarness, record: object
    ) -> None:
        with harness.open("guarded", backend=TaskBackend()) as store:
            store.upsert(DOCUMENTS)
        harness.set_record("guarded", record)
        with harness.open("guarded", backend=TaskBackend()) as store:
            with pytest.raises(SpaceUnknown):
                store.upsert([Document("x", "text")])

    @pytest.mark.parametrize("record", [{}, {"format": 99, "slots": []}], ids=str)
    def test_an_unreadable_record_stops_reading_too(
        self, harness: StoreHarness, record: object
    ) -> None:
        with harness.open("guarded", backend=TaskBackend()) as store:
            store.upsert(DOCUMENTS)
        harness.set_record("guarded", record)
        with harness.open("guarded", backend=TaskBackend()) as store:
            with pytest.raises(SpaceUnknown):
                store.search("text")

    def test_a_slot_that_names_its_space_can_be_read_without_a_record(
        self, harness: StoreHarness, caplog: pytest.LogCaptureFixture
    ) -> None:
        with harness.open("guarded", backend=TaskBackend()) as store:
            store.upsert(DOCUMENTS)
        harness.set_record("guarded", None)
        with harness.open("guarded", backend=TaskBackend()) as store:
            with caplog.at_level(logging.WARNING, logger="samespace"):
                assert store.search("red apples")[0].document.id == "a"
            assert "no record" in caplog.text
        with harness.open("guarded", space=UNLIKE) as other:
            with pytest.raises(SpaceUnknown):
                other.count()

    def test_a_handle_outlives_its_collection(self, harness: StoreHarness) -> None:
        with (
            harness.open("guarded", backend=TaskBackend()) as old,
            harness.open("guarded", backend=TaskBackend(UNLIKE)) as new,
        ):
            old.upsert(DOCUMENTS)
            old.search("warm")
            with harness.open("guarded", backend=TaskBackend()) as third:
                third.drop()
            new.upsert(DOCUMENTS)
            with pytest.raises(SpaceMismatch):
                old.search("text")
            with pytest.raises(SpaceMismatch):
                old.upsert([Document("x", "text")])

    def test_the_backend_must_be_of_the_space_that_is_said(self, harness: StoreHarness) -> None:
        with pytest.raises(SpaceMismatch):
            harness.open("guarded", backend=TaskBackend(), space=UNLIKE)
        with pytest.raises(InvalidInput, match="backend"):
            harness.open("guarded")

    @pytest.mark.parametrize(
        "name", ["", "Upper", "a b", "a%b", "../x", "1a", "a" * 49, "a\x00b", "ü", None]
    )
    def test_a_bad_name_is_refused_before_anything_is_sent(
        self, harness: StoreHarness, name: Any
    ) -> None:
        with pytest.raises(InvalidInput):
            harness.open(name, space=V3)


class SlotsContract:
    """Two slots in one row."""

    @pytest.fixture
    def slotted(self, harness: StoreHarness) -> Iterator[VectorStore]:
        with harness.open("slots", backend=TaskBackend()) as store:
            store.upsert(DOCUMENTS)
            store.add_slot(UNLIKE)
            yield store

    @pytest.fixture
    def other(self, harness: StoreHarness) -> Iterator[VectorStore]:
        with harness.open("slots", backend=TaskBackend(UNLIKE, seed=5)) as other:
            yield other

    @staticmethod
    def vectors(texts: list[str]) -> Matrix:
        """What the other space's backend makes."""
        return TaskBackend(UNLIKE, seed=5).embed_documents(texts)

    def _fill(self, slotted: VectorStore) -> None:
        rows, _ = slotted.pending(UNLIKE, limit=100)
        texts = [row.document.embedded_text for row in rows]
        report = slotted.fill(UNLIKE, rows, self.vectors(texts))
        assert (report.filled, report.changed) == (len(rows), 0)

    def test_a_slot_that_is_filling_is_not_searched(
        self, slotted: VectorStore, other: VectorStore
    ) -> None:
        with pytest.raises(SlotNotReady, match="4 of 4"):
            other.search("red apples")
        self._fill(slotted)
        vector = self.vectors(["red apples"])[0]
        hits = other.search_vector(vector, space=UNLIKE, allow_filling=True)
        assert hits[0].document.id == "a"
        slotted.mark(UNLIKE, SlotState.READY)
        assert other.search("red apples")[0].document.id == "a"
        assert slotted.search("red apples")[0].document.id == "a"

    def test_a_writer_of_one_space_leaves_the_other_slot_pending(
        self, slotted: VectorStore, harness: StoreHarness
    ) -> None:
        self._fill(slotted)
        with harness.open("slots", backend=TaskBackend()) as writer:
            report = writer.upsert([Document("a", "brown nuts"), Document("e", "figs")])
        assert report.pending == 2
        rows, cursor = slotted.pending(UNLIKE, limit=10)
        assert {row.document.id: row.document.text for row in rows} == {
            "a": "brown nuts",
            "e": "figs",
        }
        assert cursor is None

    def test_an_equal_text_keeps_the_other_slot(self, slotted: VectorStore) -> None:
        self._fill(slotted)
        report = slotted.upsert([Document("a", TEXTS["a"], {"new": True})])
        assert report.pending == 0

    def test_metadata_concerns_no_slot(self, slotted: VectorStore) -> None:
        self._fill(slotted)
        slotted.update_metadata({"a": {"k": 1}})
        assert slotted.pending(UNLIKE, limit=10)[0] == []

    def test_a_row_that_changed_since_it_was_read_is_not_filled(
        self, slotted: VectorStore, harness: StoreHarness
    ) -> None:
        rows, _ = slotted.pending(UNLIKE, limit=10)
        harness.set_text("slots", "a", "changed by somebody")
        slotted.delete(ids=["b"])
        report = slotted.fill(UNLIKE, rows, self.vectors([row.document.text for row in rows]))
        assert (report.filled, report.changed) == (2, 2)
        assert slotted.count() == 3
        left, _ = slotted.pending(UNLIKE, limit=10)
        assert [row.document.id for row in left] == ["a"]

    def test_a_text_changed_by_a_stranger_is_found(
        self, slotted: VectorStore, harness: StoreHarness
    ) -> None:
        self._fill(slotted)
        harness.set_text("slots", "c", "changed by somebody")
        for space in (V3, UNLIKE):
            pending, _ = slotted.pending(space, limit=10)
            stale, _ = slotted.stale(space, limit=10)
            assert {row.document.id for row in (*pending, *stale)} == {"c"}

    def test_pending_rows_come_in_pages_and_shards(self, slotted: VectorStore) -> None:
        seen, cursor = slotted.pending(UNLIKE, limit=3)
        assert cursor is not None
        rest, _ = slotted.pending(UNLIKE, limit=3, after=cursor)
        assert sorted(row.document.id for row in (*seen, *rest)) == list(TEXTS)
        shards = [
            row.document.id
            for shard in ((0, 3), (1, 3), (2, 3))
            for row in slotted.pending(UNLIKE, limit=10, shard=shard)[0]
        ]
        assert sorted(shards) == list(TEXTS)
        one, _ = slotted.pending(UNLIKE, limit=10, where=field("n") == 1, with_vectors_of=V3)
        assert [row.document.id for row in one] == ["b"]
        assert one[0].vector is not None
        np.testing.assert_allclose(
            one[0].vector, TaskBackend().embed_documents([TEXTS["b"]])[0], atol=1e-6
        )

    def test_adding_a_slot_twice_is_one_slot(self, slotted: VectorStore) -> None:
        self._fill(slotted)
        slotted.add_slot(UNLIKE)
        info = slotted.info()
        assert [(slot.space, slot.pending) for slot in info.slots] == [(V3, 0), (UNLIKE, 0)]

    def test_a_dropped_slot_is_refused(self, slotted: VectorStore, other: VectorStore) -> None:
        self._fill(slotted)
        slotted.mark(UNLIKE, SlotState.READY)
        assert len(other.search("red apples")) == 4
        slotted.drop_slot(UNLIKE)
        with pytest.raises(SpaceMismatch):
            other.search("red apples")
        with pytest.raises(InvalidInput, match="at least one"):
            slotted.drop_slot(V3)
        assert len(slotted.search("red apples")) == 4

    def test_slots_of_spaces_that_are_not_there_are_refused(self, slotted: VectorStore) -> None:
        with pytest.raises(SpaceMismatch):
            slotted.pending(SHORTER, limit=1)
        with pytest.raises(SpaceMismatch):
            slotted.mark(SHORTER, SlotState.READY)


class AdoptedContract:
    """A collection that somebody else made."""

    DOCUMENTS = tuple(
        Document(str(n), text, {"lang": lang, "year": 2000 + n})
        for n, (text, lang) in enumerate(
            [("red apples", "en"), ("grüne Birnen", "de"), ("blue plums", "en")]
        )
    )

    def _foreign(self, harness: StoreHarness) -> tuple[str, Any]:
        vectors = TaskBackend().embed_documents([document.text for document in self.DOCUMENTS])
        return harness.make_foreign(self.DOCUMENTS, vectors)

    def test_reading_alters_nothing(
        self, harness: StoreHarness, caplog: pytest.LogCaptureFixture
    ) -> None:
        collection, layout = self._foreign(harness)
        before = harness.dump(collection)
        with harness.open(collection, backend=TaskBackend(), layout=layout) as store:
            with caplog.at_level(logging.WARNING, logger="samespace"):
                hits = store.search("red apples", where=field("lang") == "en")
            assert [hit.document.id for hit in hits] == ["0", "2"]
            assert hits[0].document == self.DOCUMENTS[0]
            assert "no record" in caplog.text
            assert store.count(field("year") >= 2001) == 2
            assert [document for document in store.scan()] == list(self.DOCUMENTS)
            assert dict(store.values("lang")) == {"en": 2, "de": 1}
            assert store.get(["1", "no number", "01"]) == [self.DOCUMENTS[1]]
            with pytest.raises(SpaceError, match="adopt"):
                store.upsert([Document("9", "text")])
        assert harness.dump(collection) == before

    def test_once_adopted_it_is_written_and_guarded(self, harness: StoreHarness) -> None:
        collection, layout = self._foreign(harness)
        before = harness.dump(collection)
        with harness.open(collection, backend=TaskBackend(), layout=layout) as store:
            store.adopt()
            store.adopt()
            assert harness.dump(collection) == before
            new = Document("9", "yellow lemons", {"lang": "en"})
            assert store.upsert([new, Document("0", "ripe apples")]).written == 2
            assert store.search("yellow lemons")[0].document.id == "9"
            bad = store.upsert([Document("x9", "no number")], on_error="report")
            assert [rejected.id for rejected in bad.rejected] == ["x9"]
            assert store.update_metadata({"9": {"year": 1}}, merge=True) == 1
            assert store.get(["9"])[0].metadata == {"lang": "en", "year": 1}
            assert store.delete(ids=["9"]) == 1
            with pytest.raises(InvalidInput, match="adopted"):
                store.drop()
        with harness.open(collection, backend=TaskBackend(UNLIKE), layout=layout) as other:
            with pytest.raises(SpaceMismatch):
                other.search("text")

    def test_a_layout_that_does_not_fit_is_refused(self, harness: StoreHarness) -> None:
        collection, layout = self._foreign(harness)
        with harness.open(collection, space=V3_768, layout=layout) as store:
            with pytest.raises(InvalidInput, match="dimensions"):
                store.count()

    def test_it_takes_a_second_slot(self, harness: StoreHarness) -> None:
        collection, layout = self._foreign(harness)
        with harness.open(collection, backend=TaskBackend(), layout=layout) as store:
            store.adopt()
            store.add_slot(UNLIKE)
            rows, _ = store.pending(UNLIKE, limit=10)
            assert [row.document.id for row in rows] == ["0", "1", "2"]
            texts = [row.document.text for row in rows]
            vectors = TaskBackend(UNLIKE, seed=5).embed_documents(texts)
            assert store.fill(UNLIKE, rows, vectors).filled == 3
            harness.set_text(collection, "1", "changed by somebody")
            rows, _ = store.pending(UNLIKE, limit=10)
            assert [row.document.id for row in rows] == ["1"]
