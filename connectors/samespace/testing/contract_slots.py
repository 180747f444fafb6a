# Generated from contract_slots_async.py by tools/generate_sync.py; change that file, not this one.
"""The promises about a second slot: what is filled, by whom, and what stays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pytest

from samespace.documents import Document, FillReport, Parent, VersionedRow
from samespace.errors import (
    InvalidInput,
    MigrationError,
    SlotNotReady,
    SpaceMismatch,
    StoreUnavailable,
)
from samespace.filters import everything, field
from samespace.guard import SlotState
from samespace.protocols import VectorStore
from samespace.testing.backends import UNLIKE, V3, TaskBackend
from samespace.testing.corpus import BAD_VECTORS, documents
from samespace.testing.gaps import DeclaresGaps
from samespace.testing.harness import StoreHarness

ROWS: Final = 12


def _other() -> TaskBackend:
    return TaskBackend(UNLIKE, seed=5)


def _ids(store: VectorStore) -> set[str]:
    rows, _ = store.pending(UNLIKE, limit=1000)
    return {row.document.id for row in rows}


def _fill(store: VectorStore) -> FillReport:
    rows, _ = store.pending(UNLIKE, limit=1000)
    texts = [row.document.embedded_text for row in rows]
    return store.fill(UNLIKE, rows, _other().embed_documents(texts))


class SlotsContract(DeclaresGaps):
    """Both slots speak of the same rows, and each vector of the text that is there."""

    @pytest.fixture
    def old(self, harness: StoreHarness) -> Iterator[VectorStore]:
        with harness.open("slots", backend=TaskBackend()) as store:
            store.upsert(documents(ROWS))
            store.add_slot(UNLIKE)
            yield store

    @pytest.fixture
    def new(self, harness: StoreHarness) -> Iterator[VectorStore]:
        with harness.open("slots", backend=_other()) as store:
            yield store

    def test_every_row_is_pending_in_a_new_slot(self, old: VectorStore) -> None:
        slots = {slot.space: slot for slot in old.info().slots}
        assert (slots[V3].state, slots[V3].pending) == ("ready", 0)
        assert (slots[UNLIKE].state, slots[UNLIKE].pending) == ("filling", ROWS)
        assert _ids(old) == {document.id for document in documents(ROWS)}

    def test_what_is_filled_is_found(self, old: VectorStore, new: VectorStore) -> None:
        assert _fill(old) == FillReport(filled=ROWS, changed=0)
        old.mark(UNLIKE, SlotState.READY)
        for document in new.get([d.id for d in documents(ROWS)], with_vectors=True):
            expected = _other().embed_documents([document.text])[0]
            assert document.vector is not None
            np.testing.assert_allclose(document.vector, expected, atol=1e-6)
        assert new.search(documents(ROWS)[4].text)[0].document.id == "d4"

    def test_both_models_read_and_write_side_by_side(
        self, old: VectorStore, new: VectorStore
    ) -> None:
        _fill(old)
        old.mark(UNLIKE, SlotState.READY)
        assert new.upsert([Document("n", "written by the new one")]).pending == 1
        assert old.upsert([Document("o", "written by the old one")]).pending == 1
        assert new.search("written by the new one")[0].document.id == "n"
        assert old.search("written by the old one")[0].document.id == "o"
        assert "o" not in {hit.document.id for hit in new.search("written", limit=100)}
        assert "n" not in {hit.document.id for hit in old.search("written", limit=100)}
        assert _ids(old) == {"o"}
        rows, _ = old.pending(V3, limit=10)
        assert [row.document.id for row in rows] == ["n"]

    def test_a_writer_of_the_slot_that_is_filling_fills_it(
        self, old: VectorStore, new: VectorStore
    ) -> None:
        assert new.upsert([Document("n", "new text")]).pending == 1
        assert _ids(old) == {document.id for document in documents(ROWS)}

    def test_what_was_embedded_separately_is_filled_as_such(self, old: VectorStore) -> None:
        old.upsert([Document("e", "shown", parent=Parent("p", 2), embed_text="embedded")])
        rows, _ = old.pending(UNLIKE, limit=10, where=field.id == "e")
        assert rows[0].document == Document(
            "e", "shown", parent=Parent("p", 2), embed_text="embedded"
        )
        _fill(old)
        old.upsert([Document("e", "shown", embed_text="embedded otherwise")])
        assert _ids(old) == {"e"}

    def test_a_deleted_row_does_not_come_back(self, old: VectorStore) -> None:
        rows, _ = old.pending(UNLIKE, limit=100)
        old.delete(where=everything)
        vectors = _other().embed_documents([row.document.text for row in rows])
        assert old.fill(UNLIKE, rows, vectors) == FillReport(filled=0, changed=ROWS)
        assert old.count() == 0

    def test_of_two_fillers_of_one_row_one_counts(self, old: VectorStore) -> None:
        rows, _ = old.pending(UNLIKE, limit=100)
        assert _fill(old).filled == ROWS
        vectors = _other().embed_documents([row.document.text for row in rows])
        assert old.fill(UNLIKE, rows, vectors) == FillReport(filled=0, changed=ROWS)
        assert _ids(old) == set()

    def test_filling_changes_nothing_but_the_slot(self, old: VectorStore) -> None:
        before = [d for d in old.scan(with_vectors=True)]
        _fill(old)
        after = [d for d in old.scan(with_vectors=True)]
        assert after == before
        for one, two in zip(before, after, strict=True):
            assert one.vector is not None
            assert two.vector is not None
            np.testing.assert_array_equal(one.vector, two.vector)

    def test_filled_rows_come_page_by_page_with_their_vectors(self, old: VectorStore) -> None:
        old.upsert_vectors([Document("bare", "no vector")], [None], space=V3)
        assert old.filled(UNLIKE, limit=100) == ([], None)
        found: dict[str, VersionedRow] = {}
        cursor: str | None = None
        while not found or cursor is not None:
            rows, cursor = old.filled(V3, limit=5, after=cursor)
            assert len(rows) <= 5
            found |= {row.document.id: row for row in rows}
        assert found.keys() == {document.id for document in documents(ROWS)}
        for document in documents(ROWS):
            row = found[document.id]
            assert row.document == document
            expected = TaskBackend().embed_documents([document.text])[0]
            assert row.vector is not None
            np.testing.assert_allclose(row.vector, expected, atol=1e-6)
        parts = [old.filled(V3, limit=100, shard=(part, 3)) for part in range(3)]
        assert sorted(row.document.id for rows, _ in parts for row in rows) == sorted(found)

    def test_a_filled_row_that_is_as_read_is_filled_again(self, old: VectorStore) -> None:
        _fill(old)
        wrong = _other().embed_documents(["something else"])
        where = field.id == "d3"
        for _ in range(2):
            rows, _ = old.filled(UNLIKE, limit=2, where=where)
            assert old.fill(UNLIKE, rows, wrong) == FillReport(filled=1, changed=0)
        rows, _ = old.filled(UNLIKE, limit=2, where=where)
        assert rows[0].vector is not None
        np.testing.assert_allclose(rows[0].vector, wrong[0], atol=1e-6)
        assert _ids(old) == set()

    def test_a_filled_row_that_has_changed_since_is_left_alone(
        self, old: VectorStore, new: VectorStore
    ) -> None:
        _fill(old)
        rows, _ = old.filled(UNLIKE, limit=100)
        new.upsert([replace(documents(ROWS)[3], text="another text")])
        old.delete(ids=["d4"])
        vectors = np.repeat(_other().embed_documents(["something else"]), len(rows), axis=0)
        assert old.fill(UNLIKE, rows, vectors) == FillReport(filled=ROWS - 2, changed=2)
        kept, _ = old.filled(UNLIKE, limit=1, where=field.id == "d3")
        assert kept[0].vector is not None
        expected = _other().embed_documents(["another text"])[0]
        np.testing.assert_allclose(kept[0].vector, expected, atol=1e-6)
        assert old.get(["d4"]) == []

    def test_a_sample_is_of_filled_rows_and_each_of_them_may_come_first(
        self, old: VectorStore
    ) -> None:
        old.upsert_vectors([Document("bare", "no vector")], [None], space=V3)
        everyone = {document.id for document in documents(ROWS)}
        rows = old.sample(V3, size=1000)
        assert {row.document.id for row in rows} == everyone
        assert all(row.vector is not None for row in rows)
        first: set[str] = set()
        for _ in range(400):  # one of 12 rows never comes first with a chance of 1e-14
            drawn = [row.document.id for row in old.sample(V3, size=4)]
            assert len(set(drawn)) == len(drawn) == 4
            first.add(drawn[0])
            if first == everyone:
                break
        assert first == everyone
        few = old.sample(V3, size=4, where=field.id.in_(["d1", "d2", "bare"]))
        assert {row.document.id for row in few} == {"d1", "d2"}

    @pytest.mark.parametrize("size", [0, -1, 1.5, True, 10_001, None])
    def test_what_is_no_size_of_a_sample_is_refused(self, old: VectorStore, size: Any) -> None:
        with pytest.raises(InvalidInput, match="size"):
            old.sample(V3, size=size)

    @pytest.mark.parametrize("fault", BAD_VECTORS)
    def test_vectors_that_cannot_be_of_the_space_fill_nothing(
        self, old: VectorStore, fault: str
    ) -> None:
        rows, _ = old.pending(UNLIKE, limit=2)
        first, second = _other().embed_documents([row.document.text for row in rows])
        vectors: Any = [first, BAD_VECTORS[fault](second)]
        with pytest.raises(InvalidInput):
            old.fill(UNLIKE, rows, vectors)
        assert len(_ids(old)) == ROWS

    @pytest.mark.parametrize("count", [0, 1, 3])
    def test_a_fill_takes_one_vector_for_each_row(self, old: VectorStore, count: int) -> None:
        rows, _ = old.pending(UNLIKE, limit=2)
        with pytest.raises(InvalidInput, match="2 vector"):
            old.fill(UNLIKE, rows, _other().embed_documents(["text"] * count))
        assert len(_ids(old)) == ROWS

    @pytest.mark.parametrize("text", ["", " "])
    def test_a_row_without_words_is_filled_too(self, old: VectorStore, text: str) -> None:
        old.upsert_vectors([Document("blank", text)], [None], space=V3)
        rows, _ = old.pending(V3, limit=10)
        assert [(row.document.id, row.document.text) for row in rows] == [("blank", text)]
        assert old.fill(V3, rows, TaskBackend().embed_documents(["any"])).filled == 1
        assert old.pending(V3, limit=10) == ([], None)
        assert old.stale(V3, limit=10) == ([], None)

    def test_filling_nothing_is_no_error(self, old: VectorStore) -> None:
        assert old.fill(UNLIKE, [], _other().embed_documents([])) == FillReport(filled=0, changed=0)

    def test_fresh_rows_are_not_stale_and_changed_ones_page(
        self, old: VectorStore, harness: StoreHarness
    ) -> None:
        _fill(old)
        assert old.stale(UNLIKE, limit=100)[0] == []
        changed = {"d1", "d3", "d5"}
        for id in sorted(changed):
            harness.set_text("slots", id, f"changed {id}")
        found: set[str] = _ids(old)
        since: str | None = None
        while True:
            rows, since = old.stale(UNLIKE, since=since, limit=1)
            found |= {row.document.id for row in rows}
            if since is None:
                break
        assert found == changed
        _fill(old)

    def test_deleting_concerns_both_slots(self, old: VectorStore, new: VectorStore) -> None:
        _fill(old)
        old.mark(UNLIKE, SlotState.READY)
        assert new.delete(ids=["d0", "d1"]) == 2
        assert old.count() == new.count() == ROWS - 2
        assert "d0" not in {hit.document.id for hit in old.search("x", limit=100)}

    def test_the_old_slot_goes_and_its_handles_are_refused(
        self, old: VectorStore, new: VectorStore
    ) -> None:
        _fill(old)
        old.search("warm")
        new.mark(UNLIKE, SlotState.READY)
        new.drop_slot(V3)
        with pytest.raises(SpaceMismatch):
            old.search("text")
        with pytest.raises(SpaceMismatch):
            old.upsert([Document("x", "text")])
        info = new.info()
        assert [(slot.space, slot.pending) for slot in info.slots] == [(UNLIKE, 0)]
        assert len(new.search("a garden in the rain", limit=100)) == ROWS
        assert new.upsert([Document("x", "text")]).pending == 0

    def test_a_slot_stays_while_a_row_has_a_vector_in_it_alone(self, old: VectorStore) -> None:
        rows, _ = old.pending(UNLIKE, limit=ROWS - 2)
        texts = [row.document.text for row in rows]
        old.fill(UNLIKE, rows, _other().embed_documents(texts))
        old.upsert_vectors([Document("bare", "no vector")], [None], space=V3)
        assert old.count_alone(V3, beside=UNLIKE) == 2
        assert old.count_alone(UNLIKE, beside=V3) == 0
        with pytest.raises(MigrationError, match="2 rows"):
            old.drop_slot(V3, keeps=UNLIKE)
        assert len(old.info().slots) == 2
        assert len(old.search("old maps", limit=100)) == ROWS
        old.drop_slot(UNLIKE, keeps=V3)
        assert [slot.space for slot in old.info().slots] == [V3]

    def test_a_slot_is_not_kept_instead_of_itself_or_for_one_that_is_not_there(
        self, old: VectorStore
    ) -> None:
        absent = replace(V3, dimensions=32)
        for refused in (
            lambda: old.count_alone(V3, beside=V3),
            lambda: old.drop_slot(V3, keeps=V3),
        ):
            with pytest.raises(InvalidInput, match="the space itself"):
                refused()
        for missing in (
            lambda: old.count_alone(V3, beside=absent),
            lambda: old.drop_slot(V3, keeps=absent),
        ):
            with pytest.raises(SpaceMismatch):
                missing()
        assert len(old.info().slots) == 2

    def test_a_slot_may_be_added_again_and_is_empty(self, old: VectorStore) -> None:
        _fill(old)
        old.drop_slot(UNLIKE)
        with pytest.raises(SpaceMismatch):
            old.pending(UNLIKE, limit=1)
        old.add_slot(UNLIKE)
        assert len(_ids(old)) == ROWS

    @pytest.mark.usefixtures("old")
    def test_reading_a_collection_of_ours_alters_nothing(self, harness: StoreHarness) -> None:
        before = harness.dump("slots"), harness.get_record("slots")
        with harness.open("slots", backend=TaskBackend()) as reader:
            reader.search("a garden", where=field("lang") == "en", with_vectors=True)
            reader.get(["d0"])
            reader.values("lang")
            reader.info()
            reader.pending(UNLIKE, limit=10, with_vectors_of=V3)
            reader.stale(V3, limit=10)
            assert len([document for document in reader.scan()]) == ROWS
        assert (harness.dump("slots"), harness.get_record("slots")) == before

    def test_a_built_index_finds_what_was_found_before(self, old: VectorStore) -> None:
        old.upsert(documents(400))
        query = "repairing a bicycle with a broken chain"
        before = old.search(query, limit=10)
        old.build_index()
        old.build_index()
        assert old.info().index_built
        after = old.search(query, limit=10)
        assert [hit.score for hit in after] == pytest.approx([h.score for h in before], abs=1e-5)
        rare = old.search(query, limit=4, where=field("year") < 2004)
        assert {hit.document.id for hit in rare} == {"d0", "d1", "d2", "d3"}
        assert len(old.search(query, limit=1000)) == 400

    def test_a_slot_that_is_filling_is_searched_when_that_is_allowed(
        self, old: VectorStore, new: VectorStore
    ) -> None:
        with pytest.raises(SlotNotReady, match=f"{ROWS} of {ROWS}"):
            new.search("old maps")
        vector = _other().embed_query("old maps in the library")
        with pytest.raises(SlotNotReady):
            new.search_vector(vector, space=UNLIKE)
        assert new.search_vector(vector, space=UNLIKE, allow_filling=True) == []
        _fill(old)
        hits = new.search_vector(vector, space=UNLIKE, allow_filling=True)
        assert hits[0].document.id == "d4"
        old.mark(UNLIKE, SlotState.READY)
        assert new.search_vector(vector, space=UNLIKE) == hits

    def test_a_writer_of_one_space_leaves_the_other_slot_pending(self, old: VectorStore) -> None:
        _fill(old)
        report = old.upsert([Document("d0", "another text"), Document("n", "a new one")])
        assert report.pending == 2
        rows, cursor = old.pending(UNLIKE, limit=10)
        assert {row.document.text for row in rows} == {"another text", "a new one"}
        assert cursor is None

    def test_an_equal_text_and_new_metadata_keep_the_other_slot(self, old: VectorStore) -> None:
        _fill(old)
        report = old.upsert([Document("d0", documents(1)[0].text, {"new": True})])
        assert report.pending == 0
        old.update_metadata({"d1": {"k": 1}})
        old.update_metadata({"k": 2}, where=everything, merge=True)
        assert _ids(old) == set()

    def test_a_row_that_changed_since_it_was_read_is_not_filled(
        self, old: VectorStore, harness: StoreHarness
    ) -> None:
        rows, _ = old.pending(UNLIKE, limit=1000)
        harness.set_text("slots", "d0", "changed by somebody")
        old.delete(ids=["d1"])
        vectors = _other().embed_documents([row.document.text for row in rows])
        report = old.fill(UNLIKE, rows, vectors)
        assert report == FillReport(filled=ROWS - 2, changed=2)
        assert old.count() == ROWS - 1
        assert _ids(old) == {"d0"}

    def test_a_text_changed_by_a_stranger_is_found_in_every_slot(
        self, old: VectorStore, harness: StoreHarness
    ) -> None:
        _fill(old)
        harness.set_text("slots", "d2", "changed by somebody")
        for space in (V3, UNLIKE):
            pending, _ = old.pending(space, limit=10)
            stale, _ = old.stale(space, limit=10)
            assert {row.document.id for row in (*pending, *stale)} == {"d2"}

    @pytest.mark.parametrize("shards", [1, 2, 3])
    def test_pages_of_shards_cover_everything_once(self, old: VectorStore, shards: int) -> None:
        seen: list[str] = []
        for shard in range(shards):
            after: str | None = None
            while True:
                rows, after = old.pending(UNLIKE, limit=2, after=after, shard=(shard, shards))
                seen += [row.document.id for row in rows]
                if after is None:
                    break
        assert sorted(seen) == sorted(document.id for document in documents(ROWS))

    def test_pending_rows_may_come_with_the_vectors_of_another_slot(self, old: VectorStore) -> None:
        rows, _ = old.pending(UNLIKE, limit=10, where=field("year") < 2002, with_vectors_of=V3)
        assert [row.document.id for row in rows] == ["d0", "d1"]
        expected = TaskBackend().embed_documents([row.document.text for row in rows])
        for row, vector in zip(rows, expected, strict=True):
            assert row.vector is not None
            np.testing.assert_allclose(row.vector, vector, atol=1e-6)

    def test_a_handle_in_another_space_uses_the_same_connections(self, old: VectorStore) -> None:
        _fill(old)
        old.mark(UNLIKE, SlotState.READY)
        with old.in_space(UNLIKE, backend=_other()) as new:
            assert (new.collection, new.space, old.space) == (old.collection, UNLIKE, V3)
            assert new.upsert([Document("n", "written by the new one")]).pending == 1
            assert new.search("written by the new one")[0].document.id == "n"
            assert new.canary_threshold == old.canary_threshold
        assert old.search("old maps", limit=100)[0].document.id == "d4"
        assert old.count() == ROWS + 1
        again = old.in_space(V3)
        assert [row.document.id for row in again.pending(V3, limit=10)[0]] == ["n"]
        old.close()
        with pytest.raises(StoreUnavailable):
            again.count()

    def test_a_handle_in_another_space_takes_backends_of_that_space_alone(
        self, old: VectorStore
    ) -> None:
        with pytest.raises(SpaceMismatch):
            old.in_space(UNLIKE, backend=TaskBackend())
        unfit: Any = None
        with pytest.raises(InvalidInput, match="EmbeddingSpace"):
            old.in_space(unfit, backend=TaskBackend())
        absent = old.in_space(replace(V3, dimensions=32))
        with pytest.raises(SpaceMismatch):
            absent.scan().__next__()
        with pytest.raises(InvalidInput, match="backend="):
            old.in_space(UNLIKE).search("old maps")

    def test_what_is_noted_of_a_slot_is_kept_with_it(self, old: VectorStore) -> None:
        old.drop_slot(UNLIKE)
        old.add_slot(UNLIKE, provenance={"plan": "1", "made": "so"})
        old.mark(UNLIKE, SlotState.READY, provenance={"made": "otherwise", "shown": "yes"})
        old.mark(UNLIKE, SlotState.READY)
        slots = {slot.space: slot for slot in old.info().slots}
        expected = {"plan": "1", "made": "otherwise", "shown": "yes"}
        assert slots[UNLIKE].state == "ready"
        assert expected.items() <= dict(slots[UNLIKE].provenance).items()
        assert not expected.keys() & slots[V3].provenance.keys()
        old.mark(UNLIKE, SlotState.READY, provenance={"shown": "again"})
        assert old.info().slots[1].provenance["shown"] == "again"

    @pytest.mark.parametrize("noted", [["a"], {"a": 1}, {1: "a"}, {"a": "\x00"}])
    def test_what_cannot_be_noted_of_a_slot_is_refused(self, old: VectorStore, noted: Any) -> None:
        with pytest.raises(InvalidInput, match="provenance"):
            old.mark(UNLIKE, SlotState.READY, provenance=noted)
        with pytest.raises(InvalidInput, match="provenance"):
            old.add_slot(replace(V3, dimensions=32), provenance=noted)
        assert [slot.state for slot in old.info().slots] == ["ready", "filling"]

    def test_a_vector_of_another_text_than_the_row_has_now_does_not_come_with_it(
        self, old: VectorStore, new: VectorStore, harness: StoreHarness
    ) -> None:
        harness.set_text("slots", "d2", "changed by somebody")
        new.upsert([replace(documents(ROWS)[3], text="by the other model")])
        old.upsert([Document("e", "shown", embed_text="embedded")])
        rows, _ = old.pending(UNLIKE, limit=100, with_vectors_of=V3)
        bare = {row.document.id for row in rows if row.vector is None}
        assert (bare, len(rows)) == ({"d2"}, ROWS)
        rows, _ = old.pending(V3, limit=100, with_vectors_of=UNLIKE)
        assert [row.vector is None for row in rows if row.document.id == "d3"] == [False]

    def test_adding_a_slot_twice_is_one_slot(self, old: VectorStore) -> None:
        _fill(old)
        old.add_slot(UNLIKE)
        info = old.info()
        assert [(slot.space, slot.pending) for slot in info.slots] == [(V3, 0), (UNLIKE, 0)]

    def test_a_dropped_slot_is_refused_and_the_last_one_stays(
        self, old: VectorStore, new: VectorStore
    ) -> None:
        _fill(old)
        old.mark(UNLIKE, SlotState.READY)
        assert len(new.search("old maps", limit=100)) == ROWS
        old.drop_slot(UNLIKE)
        with pytest.raises(SpaceMismatch):
            new.search("old maps")
        with pytest.raises(InvalidInput, match="at least one"):
            old.drop_slot(V3)
        assert len(old.search("old maps", limit=100)) == ROWS

    def test_slots_of_spaces_that_are_not_there_are_refused(self, old: VectorStore) -> None:
        absent = replace(V3, dimensions=32)
        nothing = np.empty((0, 32), np.float32)
        rows = old.pending(UNLIKE, limit=1)[0]
        for refused in (
            lambda: old.pending(absent, limit=1),
            lambda: old.stale(absent, limit=1),
            lambda: old.mark(absent, SlotState.READY),
            lambda: old.drop_slot(absent),
            lambda: old.build_index(absent),
            lambda: old.pending(UNLIKE, limit=1, with_vectors_of=absent),
            lambda: old.fill(absent, rows, TaskBackend(absent).embed_documents(["text"])),
        ):
            with pytest.raises(SpaceMismatch):
                refused()
        assert old.fill(absent, [], nothing) == FillReport(filled=0, changed=0)
