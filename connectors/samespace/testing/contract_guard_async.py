"""The promises about embedding spaces: records, refusals, canaries, slots, adopted collections."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
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
from samespace.protocols import AsyncVectorStore, Matrix
from samespace.space import EmbeddingSpace
from samespace.testing.backends import UNLIKE, V3, LyingBackend, TaskBackend
from samespace.testing.harness_async import AsyncStoreHarness

V2 = EmbeddingSpace(model="jina-embeddings-v2-base-en", dimensions=768)
V3_768 = EmbeddingSpace(model="jina-embeddings-v3", dimensions=768, task="retrieval.passage")
SHORTER = EmbeddingSpace(model=V3.model, dimensions=32, task=V3.task)
TEXTS = {"a": "red apples", "b": "green pears", "c": "blue plums", "d": "yellow lemons"}
DOCUMENTS = [Document(id, text, {"n": n}) for n, (id, text) in enumerate(TEXTS.items())]


class AsyncGuardContract:
    """One space in a collection, whoever asks."""

    async def test_equal_dimensions_do_not_make_spaces_equal(
        self, harness: AsyncStoreHarness
    ) -> None:
        backend = TaskBackend(V3_768)
        async with harness.open("guarded", backend=backend) as store:
            await store.upsert(DOCUMENTS)
        async with harness.open("guarded", backend=TaskBackend(V2)) as other:
            with pytest.raises(SpaceMismatch) as caught:
                await other.upsert([Document("x", "text")])
            with pytest.raises(SpaceMismatch):
                await other.search("text")
            with pytest.raises(SpaceMismatch):
                await other.create()
        error = caught.value
        assert [difference.field for difference in error.differences] == ["model", "task"]
        assert (error.stored, error.offered) == (V3_768, V2)
        for part in ("model", "task", "jina-embeddings-v3", "jina-embeddings-v2-base-en"):
            assert part in str(error)
        assert "incompatible" in str(error)

    async def test_fewer_dimensions_are_derivable(self, harness: AsyncStoreHarness) -> None:
        async with harness.open("guarded", backend=TaskBackend()) as store:
            await store.upsert(DOCUMENTS)
        async with harness.open("guarded", space=SHORTER) as shorter:
            with pytest.raises(SpaceMismatch, match="derivable"):
                await shorter.info()

    async def test_a_backend_that_lies_is_found_out(self, harness: AsyncStoreHarness) -> None:
        async with harness.open("guarded", backend=TaskBackend()) as store:
            await store.upsert(DOCUMENTS)
        async with harness.open("guarded", backend=LyingBackend()) as liar:
            with pytest.raises(SpaceMismatch, match="another model"):
                await liar.upsert([Document("x", "text")])
            with pytest.raises(SpaceMismatch, match="queries"):
                await liar.search("text")
            assert await liar.count() == len(DOCUMENTS)

    @pytest.mark.parametrize(
        "record", [None, {}, "text", {"format": 1}, {"format": 99, "slots": []}], ids=str
    )
    async def test_no_one_writes_into_an_unknown_space(
        self, harness: AsyncStoreHarness, record: object
    ) -> None:
        async with harness.open("guarded", backend=TaskBackend()) as store:
            await store.upsert(DOCUMENTS)
        await harness.set_record("guarded", record)
        async with harness.open("guarded", backend=TaskBackend()) as store:
            with pytest.raises(SpaceUnknown):
                await store.upsert([Document("x", "text")])

    @pytest.mark.parametrize("record", [{}, {"format": 99, "slots": []}], ids=str)
    async def test_an_unreadable_record_stops_reading_too(
        self, harness: AsyncStoreHarness, record: object
    ) -> None:
        async with harness.open("guarded", backend=TaskBackend()) as store:
            await store.upsert(DOCUMENTS)
        await harness.set_record("guarded", record)
        async with harness.open("guarded", backend=TaskBackend()) as store:
            with pytest.raises(SpaceUnknown):
                await store.search("text")

    async def test_a_slot_that_names_its_space_can_be_read_without_a_record(
        self, harness: AsyncStoreHarness, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with harness.open("guarded", backend=TaskBackend()) as store:
            await store.upsert(DOCUMENTS)
        await harness.set_record("guarded", None)
        async with harness.open("guarded", backend=TaskBackend()) as store:
            with caplog.at_level(logging.WARNING, logger="samespace"):
                assert (await store.search("red apples"))[0].document.id == "a"
            assert "no record" in caplog.text
        async with harness.open("guarded", space=UNLIKE) as other:
            with pytest.raises(SpaceUnknown):
                await other.count()

    async def test_a_handle_outlives_its_collection(self, harness: AsyncStoreHarness) -> None:
        async with (
            harness.open("guarded", backend=TaskBackend()) as old,
            harness.open("guarded", backend=TaskBackend(UNLIKE)) as new,
        ):
            await old.upsert(DOCUMENTS)
            await old.search("warm")
            async with harness.open("guarded", backend=TaskBackend()) as third:
                await third.drop()
            await new.upsert(DOCUMENTS)
            with pytest.raises(SpaceMismatch):
                await old.search("text")
            with pytest.raises(SpaceMismatch):
                await old.upsert([Document("x", "text")])

    async def test_the_backend_must_be_of_the_space_that_is_said(
        self, harness: AsyncStoreHarness
    ) -> None:
        with pytest.raises(SpaceMismatch):
            harness.open("guarded", backend=TaskBackend(), space=UNLIKE)
        with pytest.raises(InvalidInput, match="backend"):
            harness.open("guarded")

    @pytest.mark.parametrize(
        "name", ["", "Upper", "a b", "a%b", "../x", "1a", "a" * 49, "a\x00b", "ü", None]
    )
    async def test_a_bad_name_is_refused_before_anything_is_sent(
        self, harness: AsyncStoreHarness, name: Any
    ) -> None:
        with pytest.raises(InvalidInput):
            harness.open(name, space=V3)


class AsyncSlotsContract:
    """Two slots in one row."""

    @pytest.fixture
    async def slotted(self, harness: AsyncStoreHarness) -> AsyncIterator[AsyncVectorStore]:
        async with harness.open("slots", backend=TaskBackend()) as store:
            await store.upsert(DOCUMENTS)
            await store.add_slot(UNLIKE)
            yield store

    @pytest.fixture
    async def other(self, harness: AsyncStoreHarness) -> AsyncIterator[AsyncVectorStore]:
        async with harness.open("slots", backend=TaskBackend(UNLIKE, seed=5)) as other:
            yield other

    @staticmethod
    def vectors(texts: list[str]) -> Matrix:
        """What the other space's backend makes."""
        return TaskBackend(UNLIKE, seed=5).embed_documents(texts)

    async def _fill(self, slotted: AsyncVectorStore) -> None:
        rows, _ = await slotted.pending(UNLIKE, limit=100)
        texts = [row.document.embedded_text for row in rows]
        report = await slotted.fill(UNLIKE, rows, self.vectors(texts))
        assert (report.filled, report.changed) == (len(rows), 0)

    async def test_a_slot_that_is_filling_is_not_searched(
        self, slotted: AsyncVectorStore, other: AsyncVectorStore
    ) -> None:
        with pytest.raises(SlotNotReady, match="4 of 4"):
            await other.search("red apples")
        await self._fill(slotted)
        vector = self.vectors(["red apples"])[0]
        hits = await other.search_vector(vector, space=UNLIKE, allow_filling=True)
        assert hits[0].document.id == "a"
        await slotted.mark(UNLIKE, SlotState.READY)
        assert (await other.search("red apples"))[0].document.id == "a"
        assert (await slotted.search("red apples"))[0].document.id == "a"

    async def test_a_writer_of_one_space_leaves_the_other_slot_pending(
        self, slotted: AsyncVectorStore, harness: AsyncStoreHarness
    ) -> None:
        await self._fill(slotted)
        async with harness.open("slots", backend=TaskBackend()) as writer:
            report = await writer.upsert([Document("a", "brown nuts"), Document("e", "figs")])
        assert report.pending == 2
        rows, cursor = await slotted.pending(UNLIKE, limit=10)
        assert {row.document.id: row.document.text for row in rows} == {
            "a": "brown nuts",
            "e": "figs",
        }
        assert cursor is None

    async def test_an_equal_text_keeps_the_other_slot(self, slotted: AsyncVectorStore) -> None:
        await self._fill(slotted)
        report = await slotted.upsert([Document("a", TEXTS["a"], {"new": True})])
        assert report.pending == 0

    async def test_metadata_concerns_no_slot(self, slotted: AsyncVectorStore) -> None:
        await self._fill(slotted)
        await slotted.update_metadata({"a": {"k": 1}})
        assert (await slotted.pending(UNLIKE, limit=10))[0] == []

    async def test_a_row_that_changed_since_it_was_read_is_not_filled(
        self, slotted: AsyncVectorStore, harness: AsyncStoreHarness
    ) -> None:
        rows, _ = await slotted.pending(UNLIKE, limit=10)
        await harness.set_text("slots", "a", "changed by somebody")
        await slotted.delete(ids=["b"])
        report = await slotted.fill(UNLIKE, rows, self.vectors([row.document.text for row in rows]))
        assert (report.filled, report.changed) == (2, 2)
        assert await slotted.count() == 3
        left, _ = await slotted.pending(UNLIKE, limit=10)
        assert [row.document.id for row in left] == ["a"]

    async def test_a_text_changed_by_a_stranger_is_found(
        self, slotted: AsyncVectorStore, harness: AsyncStoreHarness
    ) -> None:
        await self._fill(slotted)
        await harness.set_text("slots", "c", "changed by somebody")
        for space in (V3, UNLIKE):
            pending, _ = await slotted.pending(space, limit=10)
            stale, _ = await slotted.stale(space, limit=10)
            assert {row.document.id for row in (*pending, *stale)} == {"c"}

    async def test_pending_rows_come_in_pages_and_shards(self, slotted: AsyncVectorStore) -> None:
        seen, cursor = await slotted.pending(UNLIKE, limit=3)
        assert cursor is not None
        rest, _ = await slotted.pending(UNLIKE, limit=3, after=cursor)
        assert sorted(row.document.id for row in (*seen, *rest)) == list(TEXTS)
        shards = [
            row.document.id
            for shard in ((0, 3), (1, 3), (2, 3))
            for row in (await slotted.pending(UNLIKE, limit=10, shard=shard))[0]
        ]
        assert sorted(shards) == list(TEXTS)
        one, _ = await slotted.pending(UNLIKE, limit=10, where=field("n") == 1, with_vectors_of=V3)
        assert [row.document.id for row in one] == ["b"]
        assert one[0].vector is not None
        np.testing.assert_allclose(
            one[0].vector, TaskBackend().embed_documents([TEXTS["b"]])[0], atol=1e-6
        )

    async def test_adding_a_slot_twice_is_one_slot(self, slotted: AsyncVectorStore) -> None:
        await self._fill(slotted)
        await slotted.add_slot(UNLIKE)
        info = await slotted.info()
        assert [(slot.space, slot.pending) for slot in info.slots] == [(V3, 0), (UNLIKE, 0)]

    async def test_a_dropped_slot_is_refused(
        self, slotted: AsyncVectorStore, other: AsyncVectorStore
    ) -> None:
        await self._fill(slotted)
        await slotted.mark(UNLIKE, SlotState.READY)
        assert len(await other.search("red apples")) == 4
        await slotted.drop_slot(UNLIKE)
        with pytest.raises(SpaceMismatch):
            await other.search("red apples")
        with pytest.raises(InvalidInput, match="at least one"):
            await slotted.drop_slot(V3)
        assert len(await slotted.search("red apples")) == 4

    async def test_slots_of_spaces_that_are_not_there_are_refused(
        self, slotted: AsyncVectorStore
    ) -> None:
        with pytest.raises(SpaceMismatch):
            await slotted.pending(SHORTER, limit=1)
        with pytest.raises(SpaceMismatch):
            await slotted.mark(SHORTER, SlotState.READY)


class AsyncAdoptedContract:
    """A collection that somebody else made."""

    DOCUMENTS = tuple(
        Document(str(n), text, {"lang": lang, "year": 2000 + n})
        for n, (text, lang) in enumerate(
            [("red apples", "en"), ("grüne Birnen", "de"), ("blue plums", "en")]
        )
    )

    async def _foreign(self, harness: AsyncStoreHarness) -> tuple[str, Any]:
        vectors = TaskBackend().embed_documents([document.text for document in self.DOCUMENTS])
        return await harness.make_foreign(self.DOCUMENTS, vectors)

    async def test_reading_alters_nothing(
        self, harness: AsyncStoreHarness, caplog: pytest.LogCaptureFixture
    ) -> None:
        collection, layout = await self._foreign(harness)
        before = await harness.dump(collection)
        async with harness.open(collection, backend=TaskBackend(), layout=layout) as store:
            with caplog.at_level(logging.WARNING, logger="samespace"):
                hits = await store.search("red apples", where=field("lang") == "en")
            assert [hit.document.id for hit in hits] == ["0", "2"]
            assert hits[0].document == self.DOCUMENTS[0]
            assert "no record" in caplog.text
            assert await store.count(field("year") >= 2001) == 2
            assert [document async for document in store.scan()] == list(self.DOCUMENTS)
            assert dict(await store.values("lang")) == {"en": 2, "de": 1}
            assert await store.get(["1", "no number", "01"]) == [self.DOCUMENTS[1]]
            with pytest.raises(SpaceError, match="adopt"):
                await store.upsert([Document("9", "text")])
        assert await harness.dump(collection) == before

    async def test_once_adopted_it_is_written_and_guarded(self, harness: AsyncStoreHarness) -> None:
        collection, layout = await self._foreign(harness)
        before = await harness.dump(collection)
        async with harness.open(collection, backend=TaskBackend(), layout=layout) as store:
            await store.adopt()
            await store.adopt()
            assert await harness.dump(collection) == before
            new = Document("9", "yellow lemons", {"lang": "en"})
            assert (await store.upsert([new, Document("0", "ripe apples")])).written == 2
            assert (await store.search("yellow lemons"))[0].document.id == "9"
            bad = await store.upsert([Document("x9", "no number")], on_error="report")
            assert [rejected.id for rejected in bad.rejected] == ["x9"]
            assert await store.update_metadata({"9": {"year": 1}}, merge=True) == 1
            assert (await store.get(["9"]))[0].metadata == {"lang": "en", "year": 1}
            assert await store.delete(ids=["9"]) == 1
            with pytest.raises(InvalidInput, match="adopted"):
                await store.drop()
        async with harness.open(collection, backend=TaskBackend(UNLIKE), layout=layout) as other:
            with pytest.raises(SpaceMismatch):
                await other.search("text")

    async def test_a_layout_that_does_not_fit_is_refused(self, harness: AsyncStoreHarness) -> None:
        collection, layout = await self._foreign(harness)
        async with harness.open(collection, space=V3_768, layout=layout) as store:
            with pytest.raises(InvalidInput, match="dimensions"):
                await store.count()

    async def test_it_takes_a_second_slot(self, harness: AsyncStoreHarness) -> None:
        collection, layout = await self._foreign(harness)
        async with harness.open(collection, backend=TaskBackend(), layout=layout) as store:
            await store.adopt()
            await store.add_slot(UNLIKE)
            rows, _ = await store.pending(UNLIKE, limit=10)
            assert [row.document.id for row in rows] == ["0", "1", "2"]
            texts = [row.document.text for row in rows]
            vectors = TaskBackend(UNLIKE, seed=5).embed_documents(texts)
            assert (await store.fill(UNLIKE, rows, vectors)).filled == 3
            await harness.set_text(collection, "1", "changed by somebody")
            rows, _ = await store.pending(UNLIKE, limit=10)
            assert [row.document.id for row in rows] == ["1"]
