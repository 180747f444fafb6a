"""The promises about the backend: what it is asked, what its answers must be, its canary."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Final, get_args

import numpy as np
import pytest

from samespace.documents import Document
from samespace.embedding import make_canary
from samespace.errors import (
    AuthenticationFailed,
    BackendUnavailable,
    BadResponse,
    CollectionNotFound,
    InvalidInput,
    PartialWrite,
    QuotaExhausted,
    SpaceMismatch,
)
from samespace.filters import field
from samespace.guard import CANARY_TEXTS, Direction, SlotState
from samespace.protocols import AsyncVectorStore, Matrix
from samespace.space import EmbeddingSpace
from samespace.testing.backends import (
    DIMENSIONS,
    UNLIKE,
    V3,
    AwaitableBackend,
    DistortingBackend,
    LyingBackend,
    RefusingBackend,
    TaskBackend,
)
from samespace.testing.corpus import documents, texts
from samespace.testing.gaps import DeclaresGaps
from samespace.testing.harness_async import AsyncStoreHarness
from samespace.testing.together import together_async

RAW: Final = EmbeddingSpace(model="un-normalised", dimensions=DIMENSIONS, normalized=False)
AT_ONCE: Final = 8
DIRECTIONS: Final[tuple[Direction, ...]] = get_args(Direction)
WRONG_SHAPES: Final = ("one row too few", "one dimension too few", "one axis")
WRONG_ROWS: Final = ("not finite", "zero", "too long")


def _wrong(vectors: Matrix, fault: str) -> Matrix:
    """The same answer with one fault; the faults of a row are in the first one."""
    first = np.arange(len(vectors))[:, np.newaxis] == 0
    distorted: dict[str, Matrix] = {
        "one row too few": vectors[1:],
        "one dimension too few": vectors[:, 1:],
        "one axis": vectors.ravel(),
        "not finite": np.where(first, np.float32(np.nan), vectors),
        "zero": np.where(first, np.float32(0), vectors),
        "too long": np.where(first, vectors * np.float32(1.01), vectors),
    }
    return distorted[fault]


class AsyncEmbeddingContract(DeclaresGaps):
    """A backend is asked as documents or as queries, never trusted blindly, and told apart."""

    @pytest.fixture
    async def honest(self, harness: AsyncStoreHarness) -> AsyncIterator[AsyncVectorStore]:
        async with harness.open("embedding", backend=TaskBackend()) as store:
            yield store

    async def test_a_generator_is_read_as_it_is_written(self, harness: AsyncStoreHarness) -> None:
        backend = TaskBackend()
        embedded_before_the_end: list[int] = []

        def stream() -> Iterator[Document]:
            yield from documents(3000)
            embedded_before_the_end.append(len(backend.documents))

        async with harness.open("embedding", backend=backend) as store:
            report = await store.upsert(stream())
            assert report.written == await store.count() == 3000
        assert report.tokens == sum(len(text.split()) for text in texts(3000))
        assert embedded_before_the_end[0] >= 1000

    async def test_tokens_and_cut_texts_are_reported(self, harness: AsyncStoreHarness) -> None:
        backend = TaskBackend(truncated=["far too long"])
        async with harness.open("embedding", backend=backend) as store:
            report = await store.upsert([Document("a", "two words"), Document("b", "far too long")])
            assert (report.tokens, report.truncated) == (5, ("b",))
            assert await store.count() == 2

    async def test_queries_are_embedded_together_and_once(self, harness: AsyncStoreHarness) -> None:
        backend = TaskBackend()
        async with harness.open("embedding", backend=backend) as store:
            await store.upsert(documents(5))
            await store.search_many(["one", "two", "three"])
        assert (backend.documents, backend.queries) == (texts(5), ["one", "two", "three"])

    async def test_an_async_backend_is_for_async_stores(self, harness: AsyncStoreHarness) -> None:
        backend: Any = AwaitableBackend(TaskBackend())
        try:
            store = harness.open("embedding", backend=backend)
        except InvalidInput as error:
            assert "async" in str(error)
            return
        async with store:
            assert store.is_async
            await store.upsert(documents(3))
            assert (await store.search(texts(3)[1]))[0].document.id == "d1"

    # Answers

    @pytest.mark.parametrize("fault", WRONG_SHAPES)
    async def test_an_answer_of_the_wrong_shape_stops_the_call(
        self, harness: AsyncStoreHarness, honest: AsyncVectorStore, fault: str
    ) -> None:
        await honest.create()
        backend = DistortingBackend(
            TaskBackend(), documents=lambda v: _wrong(v, fault), queries=lambda v: _wrong(v, fault)
        )
        async with harness.open("embedding", backend=backend) as store:
            with pytest.raises(BadResponse):
                await store.upsert(documents(3))
            with pytest.raises(BadResponse):
                await store.search("text")
        assert await honest.count() == 0

    @pytest.mark.parametrize("fault", WRONG_ROWS)
    async def test_a_wrong_row_of_an_answer_rejects_its_document(
        self, harness: AsyncStoreHarness, honest: AsyncVectorStore, fault: str
    ) -> None:
        await honest.create()
        marker = TaskBackend().embed_documents(["marked"])[0]

        def spoil(vectors: Matrix) -> Matrix:
            found = np.flatnonzero(np.abs(vectors - marker).max(axis=1) < 1e-6)
            order = [*found, *(n for n in range(len(vectors)) if n not in found)]
            return _wrong(vectors[order], fault)[np.argsort(order)] if len(found) else vectors

        backend = DistortingBackend(TaskBackend(), documents=spoil)
        async with harness.open("embedding", backend=backend) as store:
            with pytest.raises(PartialWrite) as caught:
                await store.upsert([Document("a", "one"), Document("b", "marked")])
        rejected = caught.value.report.rejected
        assert [(one.id, type(one.error)) for one in rejected] == [("b", BadResponse)]
        assert [document.id async for document in honest.scan()] == ["a"]

    @pytest.mark.parametrize("kind", [AuthenticationFailed, QuotaExhausted, BackendUnavailable])
    async def test_an_error_of_the_whole_call_rejects_no_document(
        self, harness: AsyncStoreHarness, kind: Any
    ) -> None:
        indices = () if kind is BackendUnavailable else (0,)
        backend = RefusingBackend("part", error=kind("no", indices=indices))
        async with harness.open("embedding", backend=backend) as store:
            with pytest.raises(kind) as caught:
                await store.upsert(documents(3))
            assert caught.value.report is not None
            assert (caught.value.report.written, caught.value.report.rejected) == (0, ())
            assert await store.count() == 0

    async def test_a_batch_that_is_refused_whole_writes_nothing(
        self, harness: AsyncStoreHarness
    ) -> None:
        async with harness.open("embedding", backend=RefusingBackend("part", charged=7)) as store:
            report = await store.upsert(documents(3), on_error="report")
            assert (report.written, len(report.rejected), report.tokens) == (0, 3, 7)
            assert await store.count() == 0

    # Without a backend

    async def test_without_a_backend_ready_vectors_alone_are_taken(
        self, harness: AsyncStoreHarness
    ) -> None:
        vectors = TaskBackend().embed_documents(texts(3))
        async with harness.open("embedding", space=V3) as store:
            for refused in (lambda: store.upsert(documents(3)), lambda: store.search("text")):
                with pytest.raises(InvalidInput, match="backend"):
                    await refused()
            with pytest.raises(CollectionNotFound):
                await store.count()
            await store.upsert_vectors(documents(3), vectors, space=V3)
            hits = await store.search_vector(vectors[2], space=V3, limit=1)
            assert hits[0].document.id == "d2"
            assert hits[0].score == pytest.approx(1, abs=1e-5)
            assert not (await store.info()).slots[0].has_canary

    async def test_vectors_may_be_lists_or_double_precision_or_streamed(
        self, harness: AsyncStoreHarness
    ) -> None:
        made = TaskBackend().embed_documents(texts(6))
        forms: list[Any] = [made.tolist(), made.astype(np.float64), (vector for vector in made)]
        for n, form in enumerate(forms):
            async with harness.open(f"embedding{n}", space=V3) as store:
                await store.upsert_vectors((d for d in documents(6)), form, space=V3)
                found = await store.get([d.id for d in documents(6)], with_vectors=True)
                for document, vector in zip(found, made, strict=True):
                    assert document.vector is not None
                    np.testing.assert_allclose(document.vector, vector, atol=1e-6)

    async def test_vectors_of_any_length_are_compared_by_angle(
        self, harness: AsyncStoreHarness
    ) -> None:
        unit = TaskBackend().embed_documents(texts(8))
        vectors = unit * np.linspace(0.1, 30, 8, dtype=np.float32)[:, np.newaxis]
        async with harness.open("embedding", space=RAW) as store:
            await store.upsert_vectors(documents(8), vectors, space=RAW)
            hits = await store.search_vector(vectors[3], space=RAW, limit=8)
            cosines = sorted(unit @ unit[3], reverse=True)
            assert [hit.score for hit in hits] == pytest.approx(cosines, abs=1e-5)
            assert all(-1 <= hit.score <= 1 for hit in hits)
            stored = (await store.get(["d7"], with_vectors=True))[0].vector
            assert stored is not None
            np.testing.assert_allclose(stored, vectors[7], rtol=1e-5)

    # The canary

    async def test_the_canary_is_embedded_once_a_direction_and_never_stored(
        self, harness: AsyncStoreHarness, honest: AsyncVectorStore
    ) -> None:
        await honest.upsert(documents(2))
        backend = TaskBackend()
        async with harness.open("embedding", backend=backend) as store:
            for _ in range(3):
                await store.upsert(documents(2))
                assert len(await store.search(CANARY_TEXTS[0], limit=100)) == 2
            assert backend.canaries == 2 * len(CANARY_TEXTS) + 3  # those that were searched for
            assert {d.id async for d in store.scan()} == {"d0", "d1"}
            assert (await store.info()).slots[0].has_canary

    async def test_a_creator_of_many_rows_pays_for_the_canary_once(
        self, harness: AsyncStoreHarness
    ) -> None:
        backend = TaskBackend()
        async with harness.open("embedding", backend=backend) as store:
            await store.upsert(documents(10))
            await store.search("text")
            assert backend.canaries == 2 * len(CANARY_TEXTS)

    async def test_a_liar_writes_nothing_and_is_told_what_it_looks_like(
        self, harness: AsyncStoreHarness, honest: AsyncVectorStore
    ) -> None:
        await honest.upsert(documents(2))
        async with harness.open("embedding", backend=LyingBackend()) as liar:
            for _ in range(2):  # a refusal does not use the canary up
                with pytest.raises(SpaceMismatch, match=r"cosine .* suggests another model"):
                    await liar.upsert([Document("lie", "text")])
                with pytest.raises(SpaceMismatch, match=r"queries .* suggests"):
                    await liar.search("text")
            assert await liar.count() == 2  # what concerns no vectors needs no backend
        assert {d.id async for d in honest.scan()} == {"d0", "d1"}

    async def test_a_backend_is_proved_for_those_who_bring_its_vectors(
        self, harness: AsyncStoreHarness, honest: AsyncVectorStore
    ) -> None:
        await honest.upsert(documents(2))
        async with harness.open("embedding", backend=LyingBackend()) as liar:
            for _ in range(2):
                with pytest.raises(SpaceMismatch, match="suggests another model"):
                    await liar.prove()
        backend = TaskBackend()
        async with harness.open("embedding", backend=backend) as store:
            await store.prove()
            await store.prove()
            await store.upsert([Document("x", "text")])
            assert (backend.canaries, backend.documents) == (len(CANARY_TEXTS), ["text"])
        async with harness.open("embedding", space=V3) as store:
            with pytest.raises(InvalidInput, match="backend="):
                await store.prove()

    async def test_a_creator_may_say_how_the_vectors_are_made(
        self, harness: AsyncStoreHarness
    ) -> None:
        async with harness.open("embedding", backend=TaskBackend()) as store:
            await store.create(provenance={"late_chunking": "by document"})
            said = (await store.info()).provenance
        assert (said["backend"], said["late_chunking"]) == ("TaskBackend", "by document")

    async def test_writes_in_bulk_are_seen_like_others(self, harness: AsyncStoreHarness) -> None:
        async with harness.open("embedding", backend=TaskBackend()) as store:
            async with store.bulk():
                for document in documents(2):
                    await store.upsert([document])
                    assert await store.count(field.id == document.id) == 1
            assert await store.count() == 2

    async def test_a_liar_about_queries_alone_may_write_and_not_search(
        self, harness: AsyncStoreHarness, honest: AsyncVectorStore
    ) -> None:
        await honest.upsert(documents(2))
        liar = DistortingBackend(TaskBackend(), queries=lambda vectors: np.roll(vectors, 1, axis=1))
        async with harness.open("embedding", backend=liar) as store:
            await store.upsert([Document("x", "text")])
            with pytest.raises(SpaceMismatch, match="queries"):
                await store.search("text")
            assert await store.count(field.id == "x") == 1

    async def test_a_handle_knows_how_alike_its_backend_embeds(
        self, harness: AsyncStoreHarness, honest: AsyncVectorStore
    ) -> None:
        await honest.upsert(documents(2))
        async with harness.open("embedding", backend=TaskBackend()) as store:
            for proved, direction in enumerate(DIRECTIONS):
                slot = (await store.info()).slots[0]
                found = [slot.documents_cosine, slot.queries_cosine]
                assert [cosine is not None for cosine in found] == [proved > 0, False]
                await store.prove(direction)
            slot = (await store.info()).slots[0]
            assert [slot.documents_cosine, slot.queries_cosine] == pytest.approx([1, 1], abs=1e-6)
            with pytest.raises(InvalidInput, match="direction"):
                await store.prove("both")  # type: ignore[arg-type]
        async with harness.open("embedding", backend=LyingBackend()) as liar:
            for direction in DIRECTIONS:
                with pytest.raises(SpaceMismatch, match=direction):
                    await liar.prove(direction)
            slot = (await liar.info()).slots[0]
            assert (slot.documents_cosine, slot.queries_cosine) == (None, None)

    async def test_first_searches_at_once_prove_the_backend_once(
        self, harness: AsyncStoreHarness, honest: AsyncVectorStore
    ) -> None:
        await honest.upsert(documents(2))
        backend = TaskBackend()
        async with harness.open("embedding", backend=backend) as store:
            found = await together_async([lambda: store.search("text")] * AT_ONCE)
            assert [len(hits) for hits in found] == [2] * AT_ONCE
            assert backend.canaries == len(CANARY_TEXTS)
        async with harness.open("embedding", backend=LyingBackend()) as liar:
            refused = await together_async([lambda: liar.search("text")] * AT_ONCE)
            assert [type(error) for error in refused] == [SpaceMismatch] * AT_ONCE

    async def test_a_collection_that_is_made_anew_is_proved_anew(
        self, harness: AsyncStoreHarness, honest: AsyncVectorStore
    ) -> None:
        await honest.upsert(documents(2))
        async with harness.open("embedding", backend=LyingBackend()) as other:
            await honest.drop()
            await other.upsert(documents(2))
            for refused in (
                lambda: honest.upsert([Document("x", "text")]),
                lambda: honest.search("text"),
            ):
                with pytest.raises(SpaceMismatch, match="suggests another model"):
                    await refused()
            assert await other.count() == 2

    async def test_a_slot_without_a_canary_believes_its_writers(
        self, harness: AsyncStoreHarness
    ) -> None:
        async with harness.open("embedding", space=V3) as store:
            await store.create()
        async with harness.open("embedding", backend=LyingBackend()) as liar:
            assert (await liar.upsert(documents(2))).written == 2

    async def test_an_added_slot_may_be_given_a_canary(
        self, harness: AsyncStoreHarness, honest: AsyncVectorStore
    ) -> None:
        await honest.create()
        await honest.add_slot(UNLIKE, canary=make_canary(TaskBackend(UNLIKE, seed=5)))
        await honest.mark(UNLIKE, SlotState.READY)
        async with harness.open("embedding", backend=TaskBackend(UNLIKE, seed=6)) as liar:
            with pytest.raises(SpaceMismatch):
                await liar.upsert(documents(1))
        async with harness.open("embedding", backend=TaskBackend(UNLIKE, seed=5)) as true:
            assert (await true.upsert(documents(1))).written == 1
