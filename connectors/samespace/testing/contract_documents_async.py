"""The promises about writing and reading documents."""

from __future__ import annotations

from collections.abc import AsyncIterator
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
from samespace.protocols import AsyncVectorStore
from samespace.testing.backends import DIMENSIONS, UNLIKE, V3, RefusingBackend, TaskBackend
from samespace.testing.corpus import BAD_VECTORS
from samespace.testing.gaps import DeclaresGaps
from samespace.testing.harness_async import AsyncStoreHarness


class AsyncDocumentsContract(DeclaresGaps):
    """Writing, reading, changing and deleting documents."""

    @pytest.fixture
    async def store(self, harness: AsyncStoreHarness) -> AsyncIterator[AsyncVectorStore]:
        async with harness.open("documents", backend=TaskBackend()) as store:
            yield store

    async def test_all_parts_of_a_document_come_back(self, store: AsyncVectorStore) -> None:
        chunk = Document(
            "a#1", "the text", {"k": 1}, parent=Parent("a", 1, (10, 18)), embed_text="title: text"
        )
        await store.upsert([chunk])
        assert await store.get(["a#1"]) == [chunk]
        assert (await store.search("title"))[0].document == chunk

    async def test_strings_of_other_libraries_are_strings(self, store: AsyncVectorStore) -> None:
        id, text, embed_text = map(np.str_, ("a", "the text" * 9, "title: text"))
        await store.upsert([Document(id, text, embed_text=embed_text, parent=Parent(id))])
        assert await store.get(["a"]) == [
            Document("a", "the text" * 9, parent=Parent("a"), embed_text="title: text")
        ]
        assert (await store.search("title"))[0].document.id == "a"

    async def test_what_is_embedded_is_the_embed_text(self, harness: AsyncStoreHarness) -> None:
        backend = TaskBackend()
        async with harness.open("documents", backend=backend) as store:
            await store.upsert([Document("a", "text", embed_text="title")])
            await store.search("a question")
        assert backend.documents == ["title"]
        assert backend.queries == ["a question"]

    async def test_what_is_handed_over_is_never_changed(self, store: AsyncVectorStore) -> None:
        metadata: dict[str, Any] = {"list": [1, {"k": None}], "text": "x"}
        vectors = TaskBackend().embed_documents(["text"])
        kept, numbers = deepcopy(metadata), vectors.copy()
        await store.upsert([Document("a", "text", metadata)])
        await store.upsert_vectors([Document("b", "text", metadata)], vectors, space=V3)
        await store.update_metadata({"a": metadata}, merge=True)
        await store.search_vector(vectors[0], space=V3)
        assert metadata == kept
        np.testing.assert_array_equal(vectors, numbers)

    async def test_nothing_is_written_of_nothing(self, store: AsyncVectorStore) -> None:
        assert (await store.upsert([])).written == 0

    async def test_overwriting_replaces_the_whole_document(self, store: AsyncVectorStore) -> None:
        await store.upsert([Document("a", "old", {"k": 1, "l": 2}, embed_text="x")])
        report = await store.upsert([Document("a", "new", {"m": 3})])
        assert report.written == 1
        assert await store.get(["a"]) == [Document("a", "new", {"m": 3})]
        assert await store.count() == 1

    async def test_of_the_same_id_twice_the_last_wins(self, store: AsyncVectorStore) -> None:
        report = await store.upsert([Document("a", "first"), Document("a", "last")])
        assert report.written == 2
        assert (await store.get(["a"]))[0].text == "last"

    async def test_of_the_same_id_twice_under_fail_the_first_is_stored(
        self, store: AsyncVectorStore
    ) -> None:
        documents = [Document("a", "first"), Document("a", "last")]
        report = await store.upsert(documents, on_conflict="fail", on_error="report")
        assert report.written == 1
        assert [(one.id, type(one.error)) for one in report.rejected] == [("a", DocumentExists)]
        assert (await store.get(["a"]))[0].text == "first"

    async def test_under_skip_what_is_stored_stays(self, harness: AsyncStoreHarness) -> None:
        backend = TaskBackend()
        async with harness.open("documents", backend=backend) as store:
            await store.upsert([Document("a", "stored")])
            documents = [Document("a", "other"), Document("b", "first"), Document("b", "last")]
            report = await store.upsert(documents, on_conflict="skip")
            assert (report.written, report.skipped) == (1, 2)
            texts = [document.text for document in await store.get(["a", "b"])]
        assert texts == ["stored", "first"]
        assert "other" not in backend.documents

    async def test_under_fail_what_is_stored_is_refused(self, store: AsyncVectorStore) -> None:
        await store.upsert([Document("a", "stored")])
        with pytest.raises(PartialWrite) as caught:
            await store.upsert([Document("a", "x"), Document("b", "y")], on_conflict="fail")
        report = caught.value.report
        assert report.written == 1
        assert [rejected.id for rejected in report.rejected] == ["a"]
        assert isinstance(report.rejected[0].error, DocumentExists)
        assert (await store.get(["a"]))[0].text == "stored"

    async def test_ready_vectors_meet_what_is_stored_in_the_same_ways(
        self, store: AsyncVectorStore
    ) -> None:
        vectors = TaskBackend().embed_documents(["stored", "x", "y"])
        await store.upsert_vectors([Document("a", "stored")], vectors[:1], space=V3)
        documents = [Document("a", "x"), Document("b", "y")]
        skipped = await store.upsert_vectors(documents, vectors[1:], space=V3, on_conflict="skip")
        assert (skipped.written, skipped.skipped) == (1, 1)
        failed = await store.upsert_vectors(
            documents, vectors[1:], space=V3, on_conflict="fail", on_error="report"
        )
        assert [(one.id, type(one.error)) for one in failed.rejected] == [
            ("a", DocumentExists), ("b", DocumentExists)
        ]  # fmt: skip
        a, b = await store.get(["a", "b"], with_vectors=True)
        assert (a.text, b.text) == ("stored", "y")
        for document, vector in ((a, vectors[0]), (b, vectors[2])):
            assert document.vector is not None
            np.testing.assert_allclose(document.vector, vector, atol=1e-6)
        overwritten = await store.upsert_vectors(
            documents, vectors[1:], space=V3, on_conflict="overwrite"
        )
        assert overwritten.written == 2
        assert (await store.get(["a"]))[0].text == "x"

    async def test_a_refused_document_is_raised_after_the_rest_is_stored(
        self, store: AsyncVectorStore
    ) -> None:
        with pytest.raises(PartialWrite, match="bad") as caught:
            await store.upsert([Document("bad", " "), Document("good", "text")])
        assert caught.value.report.written == 1
        assert await store.count() == 1

    async def test_texts_that_the_backend_refuses_are_rejected(
        self, harness: AsyncStoreHarness
    ) -> None:
        async with harness.open("documents", backend=RefusingBackend("poison")) as store:
            documents = [Document("a", "good"), Document("b", "poison"), Document("c", "fine")]
            report = await store.upsert(documents, on_error="report")
            assert report.written == 2
            assert [rejected.id for rejected in report.rejected] == ["b"]
            assert isinstance(report.rejected[0].error, EmbeddingError)

    async def test_an_error_of_the_whole_call_carries_the_report(
        self, harness: AsyncStoreHarness
    ) -> None:
        backend = RefusingBackend("last", error=QuotaExhausted("no balance; top up"))
        async with harness.open("documents", backend=backend) as store:
            documents = [Document(f"{n:04}", f"text {n}") for n in range(1000)]
            with pytest.raises(QuotaExhausted) as caught:
                await store.upsert([*documents, Document("x", "last")])
            assert caught.value.report is not None
            assert caught.value.report.written == 1000
            assert await store.count() == 1000

    # Vectors made elsewhere

    async def test_ready_vectors_are_stored(self, store: AsyncVectorStore) -> None:
        vectors = TaskBackend().embed_documents(["one", "two"])
        documents = [Document("1", "one"), Document("2", "two")]
        assert (await store.upsert_vectors(documents, vectors, space=V3)).written == 2
        found = await store.get(["2", "1"], with_vectors=True)
        assert found[0].vector is not None
        np.testing.assert_allclose(found[0].vector, vectors[1], atol=1e-6)

    async def test_vectors_of_another_space_are_refused(self, store: AsyncVectorStore) -> None:
        with pytest.raises(SpaceMismatch):
            await store.upsert_vectors(
                [Document("a", "x")], np.ones((1, DIMENSIONS), np.float32), space=UNLIKE
            )

    @pytest.mark.parametrize("fault", BAD_VECTORS)
    async def test_a_bad_vector_rejects_its_document_alone(
        self, store: AsyncVectorStore, fault: str
    ) -> None:
        good = TaskBackend().embed_documents(["x"])[0]
        documents = [Document("good", "x"), Document("bad", "y")]
        report = await store.upsert_vectors(
            documents, [good, BAD_VECTORS[fault](good)], space=V3, on_error="report"
        )
        assert report.written == 1
        assert [rejected.id for rejected in report.rejected] == ["bad"]
        assert isinstance(report.rejected[0].error, InvalidInput)

    @pytest.mark.parametrize("count", [1, 3])
    async def test_there_is_one_vector_for_each_document(
        self, store: AsyncVectorStore, count: int
    ) -> None:
        vectors = TaskBackend().embed_documents(["x"] * count)
        with pytest.raises(InvalidInput):
            await store.upsert_vectors(
                [Document("a", "x"), Document("b", "y")], list(vectors), space=V3
            )

    async def test_no_vector_leaves_the_slot_empty(self, store: AsyncVectorStore) -> None:
        report = await store.upsert_vectors([Document("a", "  ")], [None], space=V3)
        assert (report.written, report.pending) == (1, 1)
        rows, _ = await store.pending(V3, limit=10)
        assert [row.document.id for row in rows] == ["a"]
        assert await store.search("text") == []

    # Reading

    async def test_get_keeps_the_order_and_leaves_out_what_is_missing(
        self, store: AsyncVectorStore
    ) -> None:
        await store.upsert([Document(id, f"text {id}") for id in "abc"])
        assert [document.id for document in await store.get(["c", "x", "a"])] == ["c", "a"]
        assert await store.get([]) == []

    @pytest.mark.parametrize("batch_size", [1, 3, 7, 500])
    async def test_a_scan_yields_every_document_once(
        self, store: AsyncVectorStore, batch_size: int
    ) -> None:
        await store.upsert(Document(f"{n}", f"text {n}", {"even": n % 2 == 0}) for n in range(7))
        ids = [document.id async for document in store.scan(batch_size=batch_size)]
        assert sorted(ids) == [str(n) for n in range(7)]
        even = [
            document.id
            async for document in store.scan(where=field("even") == True, with_vectors=True)  # noqa: E712
        ]
        assert sorted(even) == ["0", "2", "4", "6"]

    async def test_values_are_counted_by_document(self, store: AsyncVectorStore) -> None:
        tags: list[Any] = [["x", "y"], ["x", "x"], "y", None, [], 3]
        await store.upsert(
            Document(str(n), "text", {"tags": tag, "deep": {"n": n}}) for n, tag in enumerate(tags)
        )
        assert dict(await store.values("tags")) == {"x": 2, "y": 2, 3: 1}
        assert dict(await store.values(field("deep", "n"), where=field.id == "4")) == {4: 1}
        first = await store.values("tags", limit=1)
        rest = await store.values("tags", after=first[0][0])
        assert dict([*first, *rest]) == {"x": 2, "y": 2, 3: 1}

    # Changing

    async def test_metadata_is_replaced_or_merged(self, store: AsyncVectorStore) -> None:
        await store.upsert([Document(id, "text", {"k": 1, "l": 2}) for id in "abc"])
        assert await store.update_metadata({"a": {"m": 3}, "none": {"m": 3}}) == 1
        assert await store.update_metadata({"b": {"m": 3}}, merge=True) == 1
        assert await store.update_metadata({"k": 9}, where=field.id == "c", merge=True) == 1
        found = {document.id: document.metadata for document in await store.get(["a", "b", "c"])}
        assert found == {"a": {"m": 3}, "b": {"k": 1, "l": 2, "m": 3}, "c": {"k": 9, "l": 2}}

    async def test_changing_metadata_embeds_nothing(self, harness: AsyncStoreHarness) -> None:
        backend = TaskBackend()
        async with harness.open("documents", backend=backend) as store:
            await store.upsert([Document("a", "text")])
            await store.update_metadata({"a": {"k": 1}})
            assert backend.documents == ["text"]
            assert len(await store.search("text", where=field("k") == 1)) == 1

    # Deleting

    async def test_every_selector_of_a_deletion_counts(self, store: AsyncVectorStore) -> None:
        await store.upsert(
            Document(f"{p}{n}", "text", {"n": n}, parent=Parent(p, n))
            for p in "ab"
            for n in range(3)
        )
        assert await store.delete(ids=["a0", "a1", "b0"], where=field("n") == 0, parent="a") == 1
        assert await store.delete(parent="b") == 3
        assert await store.delete(ids=["nothing"]) == 0
        assert await store.delete(ids=[]) == 0
        assert await store.count() == 2
        assert await store.delete(where=everything) == 2

    async def test_more_ids_may_be_asked_for_than_a_search_answers(
        self, store: AsyncVectorStore
    ) -> None:
        ids = [f"d{n}" for n in range(10_001)]
        await store.upsert(Document(id, "text") for id in ids[::5_000])
        assert await store.count(field.id.in_(ids)) == 3
        assert len(await store.get(ids)) == 3
        assert await store.update_metadata({id: {"k": 1} for id in ids}) == 3
        assert await store.delete(ids=ids, where=field("k") == 1) == 3

    async def test_a_deletion_needs_a_selector(self, store: AsyncVectorStore) -> None:
        await store.upsert([Document("a", "text")])
        with pytest.raises(InvalidInput, match="everything"):
            await store.delete()
        assert await store.count() == 1

    async def test_what_does_not_exist_cannot_be_read(self, store: AsyncVectorStore) -> None:
        with pytest.raises(CollectionNotFound, match="documents"):
            await store.count()
        with pytest.raises(CollectionNotFound, match="documents"):
            await store.get(["a"])
        with pytest.raises(CollectionNotFound, match="documents"):
            await store.search("x")
        with pytest.raises(CollectionNotFound, match="documents"):
            await store.drop()

    async def test_dropping_removes_everything(self, store: AsyncVectorStore) -> None:
        await store.upsert([Document("a", "text")])
        await store.drop()
        with pytest.raises(CollectionNotFound):
            await store.count()
        await store.create()
        assert await store.count() == 0

    async def test_creating_again_is_no_error_unless_asked(self, store: AsyncVectorStore) -> None:
        await store.create()
        await store.create()
        with pytest.raises(InvalidInput, match="exists"):
            await store.create(exist_ok=False)

    async def test_info_says_what_the_collection_is(self, store: AsyncVectorStore) -> None:
        await store.upsert([Document("a", "text")])
        info = await store.info()
        assert info.name.endswith("documents")
        assert (info.space, info.rows, info.layout) == (V3, 1, None)
        assert [(slot.space, slot.state, slot.pending) for slot in info.slots] == [(V3, "ready", 0)]
        assert info.slots[0].has_canary
        assert info.provenance == info.slots[0].provenance
        assert info.provenance["backend"] == "TaskBackend"

    async def test_a_handle_says_what_it_is(self, harness: AsyncStoreHarness) -> None:
        backend = TaskBackend()
        async with harness.open("documents", backend=backend) as store:
            assert (store.space, store.backend) == (V3, backend)
            assert "documents" in repr(store)
            for name in ("space", "backend"):
                with pytest.raises(AttributeError):
                    setattr(store, name, None)

    async def test_a_closed_handle_is_of_no_use(self, harness: AsyncStoreHarness) -> None:
        store = harness.open("documents", backend=TaskBackend())
        await store.upsert([Document("a", "text")])
        await store.close()
        await store.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            await store.count()
        async with harness.open("documents", backend=TaskBackend()) as another:
            assert await another.count() == 1
