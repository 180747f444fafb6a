# Generated from contract_documents_async.py by tools/generate_sync.py; change that file, not this one.
"""The promises about writing and reading documents."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import pytest

from samespace.documents import Document, Parent
from samespace.errors import (
    CollectionNotFound,
    DocumentExists,
    EmbeddingError,
    InvalidInput,
    PartialWrite,
    QuotaExhausted,
    SpaceMismatch,
    StoreUnavailable,
)
from samespace.filters import everything, field
from samespace.protocols import VectorStore
from samespace.testing.backends import DIMENSIONS, UNLIKE, V3, RefusingBackend, TaskBackend
from samespace.testing.corpus import BAD_VECTORS
from samespace.testing.gaps import DeclaresGaps
from samespace.testing.harness import StoreHarness


class DocumentsContract(DeclaresGaps):
    """Writing, reading, changing and deleting documents."""

    @pytest.fixture
    def store(self, harness: StoreHarness) -> Iterator[VectorStore]:
        with harness.open("documents", backend=TaskBackend()) as store:
            yield store

    def test_all_parts_of_a_document_come_back(self, store: VectorStore) -> None:
        chunk = Document(
            "a#1", "the text", {"k": 1}, parent=Parent("a", 1, (10, 18)), embed_text="title: text"
        )
        store.upsert([chunk])
        assert store.get(["a#1"]) == [chunk]
        assert store.search("title")[0].document == chunk

    def test_strings_of_other_libraries_are_strings(self, store: VectorStore) -> None:
        id, text, embed_text = map(np.str_, ("a", "the text" * 9, "title: text"))
        store.upsert([Document(id, text, embed_text=embed_text, parent=Parent(id))])
        assert store.get(["a"]) == [
            Document("a", "the text" * 9, parent=Parent("a"), embed_text="title: text")
        ]
        assert store.search("title")[0].document.id == "a"

    def test_what_is_embedded_is_the_embed_text(self, harness: StoreHarness) -> None:
        backend = TaskBackend()
        with harness.open("documents", backend=backend) as store:
            store.upsert([Document("a", "text", embed_text="title")])
            store.search("a question")
        assert backend.documents == ["title"]
        assert backend.queries == ["a question"]

    def test_what_is_handed_over_is_never_changed(self, store: VectorStore) -> None:
        metadata: dict[str, Any] = {"list": [1, {"k": None}], "text": "x"}
        vectors = TaskBackend().embed_documents(["text"])
        kept, numbers = deepcopy(metadata), vectors.copy()
        store.upsert([Document("a", "text", metadata)])
        store.upsert_vectors([Document("b", "text", metadata)], vectors, space=V3)
        store.update_metadata({"a": metadata}, merge=True)
        store.search_vector(vectors[0], space=V3)
        assert metadata == kept
        np.testing.assert_array_equal(vectors, numbers)

    def test_nothing_is_written_of_nothing(self, store: VectorStore) -> None:
        assert store.upsert([]).written == 0

    def test_overwriting_replaces_the_whole_document(self, store: VectorStore) -> None:
        store.upsert([Document("a", "old", {"k": 1, "l": 2}, embed_text="x")])
        report = store.upsert([Document("a", "new", {"m": 3})])
        assert report.written == 1
        assert store.get(["a"]) == [Document("a", "new", {"m": 3})]
        assert store.count() == 1

    def test_of_the_same_id_twice_the_last_wins(self, store: VectorStore) -> None:
        report = store.upsert([Document("a", "first"), Document("a", "last")])
        assert report.written == 2
        assert store.get(["a"])[0].text == "last"

    def test_of_the_same_id_twice_under_fail_the_first_is_stored(self, store: VectorStore) -> None:
        documents = [Document("a", "first"), Document("a", "last")]
        report = store.upsert(documents, on_conflict="fail", on_error="report")
        assert report.written == 1
        assert [(one.id, type(one.error)) for one in report.rejected] == [("a", DocumentExists)]
        assert store.get(["a"])[0].text == "first"

    def test_under_skip_what_is_stored_stays(self, harness: StoreHarness) -> None:
        backend = TaskBackend()
        with harness.open("documents", backend=backend) as store:
            store.upsert([Document("a", "stored")])
            documents = [Document("a", "other"), Document("b", "first"), Document("b", "last")]
            report = store.upsert(documents, on_conflict="skip")
            assert (report.written, report.skipped) == (1, 2)
            texts = [document.text for document in store.get(["a", "b"])]
        assert texts == ["stored", "first"]
        assert "other" not in backend.documents

    def test_under_fail_what_is_stored_is_refused(self, store: VectorStore) -> None:
        store.upsert([Document("a", "stored")])
        with pytest.raises(PartialWrite) as caught:
            store.upsert([Document("a", "x"), Document("b", "y")], on_conflict="fail")
        report = caught.value.report
        assert report.written == 1
        assert [rejected.id for rejected in report.rejected] == ["a"]
        assert isinstance(report.rejected[0].error, DocumentExists)
        assert store.get(["a"])[0].text == "stored"

    def test_ready_vectors_meet_what_is_stored_in_the_same_ways(self, store: VectorStore) -> None:
        vectors = TaskBackend().embed_documents(["stored", "x", "y"])
        store.upsert_vectors([Document("a", "stored")], vectors[:1], space=V3)
        documents = [Document("a", "x"), Document("b", "y")]
        skipped = store.upsert_vectors(documents, vectors[1:], space=V3, on_conflict="skip")
        assert (skipped.written, skipped.skipped) == (1, 1)
        failed = store.upsert_vectors(
            documents, vectors[1:], space=V3, on_conflict="fail", on_error="report"
        )
        assert [(one.id, type(one.error)) for one in failed.rejected] == [
            ("a", DocumentExists), ("b", DocumentExists)
        ]  # fmt: skip
        a, b = store.get(["a", "b"], with_vectors=True)
        assert (a.text, b.text) == ("stored", "y")
        for document, vector in ((a, vectors[0]), (b, vectors[2])):
            assert document.vector is not None
            np.testing.assert_allclose(document.vector, vector, atol=1e-6)
        overwritten = store.upsert_vectors(
            documents, vectors[1:], space=V3, on_conflict="overwrite"
        )
        assert overwritten.written == 2
        assert store.get(["a"])[0].text == "x"

    def test_a_refused_document_is_raised_after_the_rest_is_stored(
        self, store: VectorStore
    ) -> None:
        with pytest.raises(PartialWrite, match="bad") as caught:
            store.upsert([Document("bad", " "), Document("good", "text")])
        assert caught.value.report.written == 1
        assert store.count() == 1

    def test_texts_that_the_backend_refuses_are_rejected(self, harness: StoreHarness) -> None:
        with harness.open("documents", backend=RefusingBackend("poison")) as store:
            documents = [Document("a", "good"), Document("b", "poison"), Document("c", "fine")]
            report = store.upsert(documents, on_error="report")
            assert report.written == 2
            assert [rejected.id for rejected in report.rejected] == ["b"]
            assert isinstance(report.rejected[0].error, EmbeddingError)

    def test_an_error_of_the_whole_call_carries_the_report(self, harness: StoreHarness) -> None:
        backend = RefusingBackend("last", error=QuotaExhausted("no balance; top up"))
        with harness.open("documents", backend=backend) as store:
            documents = [Document(f"{n:04}", f"text {n}") for n in range(1000)]
            with pytest.raises(QuotaExhausted) as caught:
                store.upsert([*documents, Document("x", "last")])
            assert caught.value.report is not None
            assert caught.value.report.written == 1000
            assert store.count() == 1000

    # Vectors made elsewhere

    def test_ready_vectors_are_stored(self, store: VectorStore) -> None:
        vectors = TaskBackend().embed_documents(["one", "two"])
        documents = [Document("1", "one"), Document("2", "two")]
        assert store.upsert_vectors(documents, vectors, space=V3).written == 2
        found = store.get(["2", "1"], with_vectors=True)
        assert found[0].vector is not None
        np.testing.assert_allclose(found[0].vector, vectors[1], atol=1e-6)

    def test_vectors_of_another_space_are_refused(self, store: VectorStore) -> None:
        with pytest.raises(SpaceMismatch):
            store.upsert_vectors(
                [Document("a", "x")], np.ones((1, DIMENSIONS), np.float32), space=UNLIKE
            )

    @pytest.mark.parametrize("fault", BAD_VECTORS)
    def test_a_bad_vector_rejects_its_document_alone(self, store: VectorStore, fault: str) -> None:
        good = TaskBackend().embed_documents(["x"])[0]
        documents = [Document("good", "x"), Document("bad", "y")]
        report = store.upsert_vectors(
            documents, [good, BAD_VECTORS[fault](good)], space=V3, on_error="report"
        )
        assert report.written == 1
        assert [rejected.id for rejected in report.rejected] == ["bad"]
        assert isinstance(report.rejected[0].error, InvalidInput)

    @pytest.mark.parametrize("count", [1, 3])
    def test_there_is_one_vector_for_each_document(self, store: VectorStore, count: int) -> None:
        vectors = TaskBackend().embed_documents(["x"] * count)
        with pytest.raises(InvalidInput):
            store.upsert_vectors([Document("a", "x"), Document("b", "y")], list(vectors), space=V3)

    def test_no_vector_leaves_the_slot_empty(self, store: VectorStore) -> None:
        report = store.upsert_vectors([Document("a", "  ")], [None], space=V3)
        assert (report.written, report.pending) == (1, 1)
        rows, _ = store.pending(V3, limit=10)
        assert [row.document.id for row in rows] == ["a"]
        assert store.search("text") == []

    # Reading

    def test_get_keeps_the_order_and_leaves_out_what_is_missing(self, store: VectorStore) -> None:
        store.upsert([Document(id, f"text {id}") for id in "abc"])
        assert [document.id for document in store.get(["c", "x", "a"])] == ["c", "a"]
        assert store.get([]) == []

    @pytest.mark.parametrize("batch_size", [1, 3, 7, 500])
    def test_a_scan_yields_every_document_once(self, store: VectorStore, batch_size: int) -> None:
        store.upsert(Document(f"{n}", f"text {n}", {"even": n % 2 == 0}) for n in range(7))
        ids = [document.id for document in store.scan(batch_size=batch_size)]
        assert sorted(ids) == [str(n) for n in range(7)]
        even = [
            document.id
            for document in store.scan(where=field("even") == True, with_vectors=True)  # noqa: E712
        ]
        assert sorted(even) == ["0", "2", "4", "6"]

    def test_values_are_counted_by_document(self, store: VectorStore) -> None:
        tags: list[Any] = [["x", "y"], ["x", "x"], "y", None, [], 3]
        store.upsert(
            Document(str(n), "text", {"tags": tag, "deep": {"n": n}}) for n, tag in enumerate(tags)
        )
        assert dict(store.values("tags")) == {"x": 2, "y": 2, 3: 1}
        assert dict(store.values(field("deep", "n"), where=field.id == "4")) == {4: 1}
        first = store.values("tags", limit=1)
        rest = store.values("tags", after=first[0][0])
        assert dict([*first, *rest]) == {"x": 2, "y": 2, 3: 1}

    # Changing

    def test_metadata_is_replaced_or_merged(self, store: VectorStore) -> None:
        store.upsert([Document(id, "text", {"k": 1, "l": 2}) for id in "abc"])
        assert store.update_metadata({"a": {"m": 3}, "none": {"m": 3}}) == 1
        assert store.update_metadata({"b": {"m": 3}}, merge=True) == 1
        assert store.update_metadata({"k": 9}, where=field.id == "c", merge=True) == 1
        found = {document.id: document.metadata for document in store.get(["a", "b", "c"])}
        assert found == {"a": {"m": 3}, "b": {"k": 1, "l": 2, "m": 3}, "c": {"k": 9, "l": 2}}

    def test_changing_metadata_embeds_nothing(self, harness: StoreHarness) -> None:
        backend = TaskBackend()
        with harness.open("documents", backend=backend) as store:
            store.upsert([Document("a", "text")])
            store.update_metadata({"a": {"k": 1}})
            assert backend.documents == ["text"]
            assert len(store.search("text", where=field("k") == 1)) == 1

    # Deleting

    def test_every_selector_of_a_deletion_counts(self, store: VectorStore) -> None:
        store.upsert(
            Document(f"{p}{n}", "text", {"n": n}, parent=Parent(p, n))
            for p in "ab"
            for n in range(3)
        )
        assert store.delete(ids=["a0", "a1", "b0"], where=field("n") == 0, parent="a") == 1
        assert store.delete(parent="b") == 3
        assert store.delete(ids=["nothing"]) == 0
        assert store.delete(ids=[]) == 0
        assert store.count() == 2
        assert store.delete(where=everything) == 2

    def test_more_ids_may_be_asked_for_than_a_search_answers(self, store: VectorStore) -> None:
        ids = [f"d{n}" for n in range(10_001)]
        store.upsert(Document(id, "text") for id in ids[::5_000])
        assert store.count(field.id.in_(ids)) == 3
        assert len(store.get(ids)) == 3
        assert store.update_metadata({id: {"k": 1} for id in ids}) == 3
        assert store.delete(ids=ids, where=field("k") == 1) == 3

    def test_a_deletion_needs_a_selector(self, store: VectorStore) -> None:
        store.upsert([Document("a", "text")])
        with pytest.raises(InvalidInput, match="everything"):
            store.delete()
        assert store.count() == 1

    def test_what_does_not_exist_cannot_be_read(self, store: VectorStore) -> None:
        with pytest.raises(CollectionNotFound, match="documents"):
            store.count()
        with pytest.raises(CollectionNotFound, match="documents"):
            store.get(["a"])
        with pytest.raises(CollectionNotFound, match="documents"):
            store.search("x")
        with pytest.raises(CollectionNotFound, match="documents"):
            store.drop()

    def test_dropping_removes_everything(self, store: VectorStore) -> None:
        store.upsert([Document("a", "text")])
        store.drop()
        with pytest.raises(CollectionNotFound):
            store.count()
        store.create()
        assert store.count() == 0

    def test_creating_again_is_no_error_unless_asked(self, store: VectorStore) -> None:
        store.create()
        store.create()
        with pytest.raises(InvalidInput, match="exists"):
            store.create(exist_ok=False)

    def test_info_says_what_the_collection_is(self, store: VectorStore) -> None:
        store.upsert([Document("a", "text")])
        info = store.info()
        assert info.name.endswith("documents")
        assert (info.space, info.rows, info.layout) == (V3, 1, None)
        assert [(slot.space, slot.state, slot.pending) for slot in info.slots] == [(V3, "ready", 0)]
        assert info.slots[0].has_canary
        assert info.provenance == info.slots[0].provenance
        assert info.provenance["backend"] == "TaskBackend"

    def test_a_handle_says_what_it_is(self, harness: StoreHarness) -> None:
        backend = TaskBackend()
        with harness.open("documents", backend=backend) as store:
            assert (store.space, store.backend) == (V3, backend)
            assert "documents" in repr(store)
            for name in ("space", "backend"):
                with pytest.raises(AttributeError):
                    setattr(store, name, None)

    def test_a_closed_handle_is_of_no_use(self, harness: StoreHarness) -> None:
        store = harness.open("documents", backend=TaskBackend())
        store.upsert([Document("a", "text")])
        store.close()
        store.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            store.count()
        with harness.open("documents", backend=TaskBackend()) as another:
            assert another.count() == 1
