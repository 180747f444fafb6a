"""The promises about mirrors: backends of further slots that writes fill too."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest

from samespace.documents import Document
from samespace.embedding import make_canary
from samespace.errors import EmbeddingError, InvalidInput, QuotaExhausted, SpaceMismatch
from samespace.guard import SlotState
from samespace.protocols import AsyncVectorStore, EmbeddingBackend
from samespace.testing.backends import (
    UNLIKE,
    V3,
    AwaitableBackend,
    DistortingBackend,
    RefusingBackend,
    TaskBackend,
)
from samespace.testing.corpus import documents
from samespace.testing.gaps import DeclaresGaps
from samespace.testing.harness_async import AsyncStoreHarness

ROWS = 4


def other() -> TaskBackend:
    """The honest backend of the second slot."""
    return TaskBackend(UNLIKE, seed=5)


def failing(word: str, error: EmbeddingError | None = None) -> EmbeddingBackend:
    """A backend that claims the second slot's space and refuses texts with a word."""
    return DistortingBackend(RefusingBackend(word, error=error), space=UNLIKE)


class AsyncMirrorsContract(DeclaresGaps):
    """A write fills every slot that it has a backend for, and no slot's trouble stops it."""

    @pytest.fixture
    async def plain(self, harness: AsyncStoreHarness) -> AsyncIterator[AsyncVectorStore]:
        async with harness.open("mirrored", backend=TaskBackend()) as store:
            await store.create()
            yield store

    @pytest.fixture
    async def two(self, plain: AsyncVectorStore) -> AsyncVectorStore:
        await plain.add_slot(UNLIKE, canary=make_canary(other()))
        return plain

    async def test_a_write_fills_both_slots(
        self, harness: AsyncStoreHarness, two: AsyncVectorStore
    ) -> None:
        async with harness.open("mirrored", backend=TaskBackend(), mirrors=[other()]) as store:
            report = await store.upsert(documents(ROWS))
        assert (report.written, report.pending) == (ROWS, 0)
        assert report.tokens == 2 * sum(len(d.text.split()) for d in documents(ROWS))
        assert await self._pending(two) == []
        await two.mark(UNLIKE, SlotState.READY)
        async with harness.open("mirrored", backend=other()) as reader:
            for document in await reader.get(["d0", "d3"], with_vectors=True):
                expected = other().embed_documents([document.text])[0]
                assert document.vector is not None
                np.testing.assert_allclose(document.vector, expected, atol=1e-6)
        assert (await two.stale(UNLIKE, limit=10))[0] == []

    async def test_a_text_that_a_mirror_cuts_is_reported_once(
        self, harness: AsyncStoreHarness, two: AsyncVectorStore
    ) -> None:
        rows = [Document("a", "short"), Document("b", "far too long"), Document("c", "long too")]
        backend = TaskBackend(truncated=["far too long"])
        mirror = TaskBackend(UNLIKE, seed=5, truncated=["far too long", "long too"])
        assert await self._pending(two) == []
        async with harness.open("mirrored", backend=backend, mirrors=[mirror]) as store:
            assert (await store.upsert(rows)).truncated == ("b", "c")

    async def test_ready_vectors_are_mirrored_where_there_is_text(
        self, harness: AsyncStoreHarness, two: AsyncVectorStore
    ) -> None:
        vector = TaskBackend().embed_documents(["x"])[0]
        rows = [Document("text", "some text"), Document("blank", " ")]
        async with harness.open("mirrored", space=V3, mirrors=[other()]) as store:
            report = await store.upsert_vectors(rows, [vector, None], space=V3)
        assert (report.written, report.pending) == (2, 1)
        assert await self._pending(two) == ["blank"]

    async def test_without_its_slot_a_mirror_is_not_asked(
        self, harness: AsyncStoreHarness, plain: AsyncVectorStore
    ) -> None:
        mirror = other()
        async with harness.open("mirrored", backend=TaskBackend(), mirrors=[mirror]) as store:
            await store.upsert(documents(1))
            assert (mirror.documents, mirror.canaries) == ([], 0)
            await plain.add_slot(UNLIKE)
            assert (await store.upsert(documents(2))).pending == 0
            assert len(mirror.documents) == 2
            await plain.drop_slot(UNLIKE)
            assert (await store.upsert(documents(3))).written == 3
        assert len(mirror.documents) == 2

    async def test_a_text_that_a_mirror_refuses_is_pending_there(
        self,
        harness: AsyncStoreHarness,
        plain: AsyncVectorStore,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        await plain.add_slot(UNLIKE)
        rows = [Document("a", "good"), Document("b", "poison"), Document("c", "fine")]
        mirror = failing("poison")
        with caplog.at_level(logging.WARNING, logger="samespace"):
            async with harness.open("mirrored", backend=TaskBackend(), mirrors=[mirror]) as store:
                report = await store.upsert(rows)
        assert (report.written, report.rejected, report.pending) == (3, (), 1)
        assert await self._pending(plain) == ["b"]
        assert "stay pending" in caplog.text

    @pytest.mark.parametrize("error", [EmbeddingError, QuotaExhausted])
    async def test_a_mirror_that_fails_altogether_stops_no_write(
        self,
        harness: AsyncStoreHarness,
        plain: AsyncVectorStore,
        error: type[EmbeddingError],
    ) -> None:
        await plain.add_slot(UNLIKE)
        mirror = failing("", error("the server is gone; start it"))
        async with harness.open("mirrored", backend=TaskBackend(), mirrors=[mirror]) as store:
            report = await store.upsert(documents(ROWS))
        assert (report.written, report.pending) == (ROWS, ROWS)
        assert len(await self._pending(plain)) == ROWS

    async def test_a_mirror_that_fails_leaves_what_is_still_true(
        self, harness: AsyncStoreHarness, plain: AsyncVectorStore
    ) -> None:
        await plain.add_slot(UNLIKE)
        rows = [Document("same", "same text"), Document("new", "old text")]
        await self._upsert(harness, other(), rows)
        rows = [Document("same", "same text", {"k": 1}), Document("new", "new text")]
        await self._upsert(harness, failing(""), rows)
        assert await self._pending(plain) == ["new"]

    async def test_a_mirror_that_lies_is_refused_before_anything_is_written(
        self, harness: AsyncStoreHarness, two: AsyncVectorStore
    ) -> None:
        with pytest.raises(SpaceMismatch, match="suggests"):
            await self._upsert(harness, TaskBackend(UNLIKE, seed=6), documents(ROWS))
        assert await two.count() == 0

    async def test_a_mirror_may_be_async_in_an_async_store_alone(
        self, harness: AsyncStoreHarness, two: AsyncVectorStore
    ) -> None:
        mirror: Any = AwaitableBackend(other())
        if not two.is_async:
            with pytest.raises(InvalidInput, match="async"):
                harness.open("mirrored", backend=TaskBackend(), mirrors=[mirror])
            return
        async with harness.open("mirrored", backend=TaskBackend(), mirrors=[mirror]) as store:
            await store.upsert(documents(ROWS))
        assert await self._pending(two) == []

    @pytest.mark.parametrize("spaces", [[V3], [UNLIKE, UNLIKE]], ids=["own", "twice"])
    async def test_every_slot_has_one_backend(
        self, harness: AsyncStoreHarness, spaces: Sequence[object]
    ) -> None:
        mirrors = [TaskBackend(V3 if space == V3 else UNLIKE) for space in spaces]
        with pytest.raises(InvalidInput, match="mirrors"):
            harness.open("mirrored", backend=TaskBackend(), mirrors=mirrors)

    @staticmethod
    async def _upsert(
        harness: AsyncStoreHarness, mirror: EmbeddingBackend, rows: Sequence[Document]
    ) -> None:
        async with harness.open("mirrored", backend=TaskBackend(), mirrors=[mirror]) as store:
            await store.upsert(rows)

    @staticmethod
    async def _pending(store: AsyncVectorStore) -> list[str]:
        rows, _ = await store.pending(UNLIKE, limit=100)
        return [row.document.id for row in rows]
