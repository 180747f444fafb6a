# Generated from contract_embedding_async.py by tools/generate_sync.py; change that file, not this one.
"""The promises about the backend: what it is asked, what its answers must be, its canary."""

from __future__ import annotations

from collections.abc import Iterator
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
from samespace.protocols import Matrix, VectorStore
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
from samespace.testing.harness import StoreHarness
from samespace.testing.together import together

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


class EmbeddingContract(DeclaresGaps):
    """A backend is asked as documents or as queries, never trusted blindly, and told apart."""

    @pytest.fixture
    def honest(self, harness: StoreHarness) -> Iterator[VectorStore]:
        with harness.open("embedding", backend=TaskBackend()) as store:
            yield store

    def test_a_generator_is_read_as_it_is_written(self, harness: StoreHarness) -> None:
        backend = TaskBackend()
        embedded_before_the_end: list[int] = []

        def stream() -> Iterator[Document]:
            yield from documents(3000)
            embedded_before_the_end.append(len(backend.documents))

        with harness.open("embedding", backend=backend) as store:
            report = store.upsert(stream())
            assert report.written == store.count() == 3000
        assert report.tokens == sum(len(text.split()) for text in texts(3000))
        assert embedded_before_the_end[0] >= 1000

    def test_tokens_and_cut_texts_are_reported(self, harness: StoreHarness) -> None:
        backend = TaskBackend(truncated=["far too long"])
        with harness.open("embedding", backend=backend) as store:
            report = store.upsert([Document("a", "two words"), Document("b", "far too long")])
            assert (report.tokens, report.truncated) == (5, ("b",))
            assert store.count() == 2

    def test_queries_are_embedded_together_and_once(self, harness: StoreHarness) -> None:
        backend = TaskBackend()
        with harness.open("embedding", backend=backend) as store:
            store.upsert(documents(5))
            store.search_many(["one", "two", "three"])
        assert (backend.documents, backend.queries) == (texts(5), ["one", "two", "three"])

    def test_an_async_backend_is_for_async_stores(self, harness: StoreHarness) -> None:
        backend: Any = AwaitableBackend(TaskBackend())
        try:
            store = harness.open("embedding", backend=backend)
        except InvalidInput as error:
            assert "async" in str(error)
            return
        with store:
            assert store.is_async
            store.upsert(documents(3))
            assert store.search(texts(3)[1])[0].document.id == "d1"

    # Answers

    @pytest.mark.parametrize("fault", WRONG_SHAPES)
    def test_an_answer_of_the_wrong_shape_stops_the_call(
        self, harness: StoreHarness, honest: VectorStore, fault: str
    ) -> None:
        honest.create()
        backend = DistortingBackend(
            TaskBackend(), documents=lambda v: _wrong(v, fault), queries=lambda v: _wrong(v, fault)
        )
        with harness.open("embedding", backend=backend) as store:
            with pytest.raises(BadResponse):
                store.upsert(documents(3))
            with pytest.raises(BadResponse):
                store.search("text")
        assert honest.count() == 0

    @pytest.mark.parametrize("fault", WRONG_ROWS)
    def test_a_wrong_row_of_an_answer_rejects_its_document(
        self, harness: StoreHarness, honest: VectorStore, fault: str
    ) -> None:
        honest.create()
        marker = TaskBackend().embed_documents(["marked"])[0]

        def spoil(vectors: Matrix) -> Matrix:
            found = np.flatnonzero(np.abs(vectors - marker).max(axis=1) < 1e-6)
            order = [*found, *(n for n in range(len(vectors)) if n not in found)]
            return _wrong(vectors[order], fault)[np.argsort(order)] if len(found) else vectors

        backend = DistortingBackend(TaskBackend(), documents=spoil)
        with harness.open("embedding", backend=backend) as store:
            with pytest.raises(PartialWrite) as caught:
                store.upsert([Document("a", "one"), Document("b", "marked")])
        rejected = caught.value.report.rejected
        assert [(one.id, type(one.error)) for one in rejected] == [("b", BadResponse)]
        assert [document.id for document in honest.scan()] == ["a"]

    @pytest.mark.parametrize("kind", [AuthenticationFailed, QuotaExhausted, BackendUnavailable])
    def test_an_error_of_the_whole_call_rejects_no_document(
        self, harness: StoreHarness, kind: Any
    ) -> None:
        indices = () if kind is BackendUnavailable else (0,)
        backend = RefusingBackend("part", error=kind("no", indices=indices))
        with harness.open("embedding", backend=backend) as store:
            with pytest.raises(kind) as caught:
                store.upsert(documents(3))
            assert caught.value.report is not None
            assert (caught.value.report.written, caught.value.report.rejected) == (0, ())
            assert store.count() == 0

    def test_a_batch_that_is_refused_whole_writes_nothing(self, harness: StoreHarness) -> None:
        with harness.open("embedding", backend=RefusingBackend("part", charged=7)) as store:
            report = store.upsert(documents(3), on_error="report")
            assert (report.written, len(report.rejected), report.tokens) == (0, 3, 7)
            assert store.count() == 0

    # Without a backend

    def test_without_a_backend_ready_vectors_alone_are_taken(self, harness: StoreHarness) -> None:
        vectors = TaskBackend().embed_documents(texts(3))
        with harness.open("embedding", space=V3) as store:
            for refused in (lambda: store.upsert(documents(3)), lambda: store.search("text")):
                with pytest.raises(InvalidInput, match="backend"):
                    refused()
            with pytest.raises(CollectionNotFound):
                store.count()
            store.upsert_vectors(documents(3), vectors, space=V3)
            hits = store.search_vector(vectors[2], space=V3, limit=1)
            assert hits[0].document.id == "d2"
            assert hits[0].score == pytest.approx(1, abs=1e-5)
            assert not store.info().slots[0].has_canary

    def test_vectors_may_be_lists_or_double_precision_or_streamed(
        self, harness: StoreHarness
    ) -> None:
        made = TaskBackend().embed_documents(texts(6))
        forms: list[Any] = [made.tolist(), made.astype(np.float64), (vector for vector in made)]
        for n, form in enumerate(forms):
            with harness.open(f"embedding{n}", space=V3) as store:
                store.upsert_vectors((d for d in documents(6)), form, space=V3)
                found = store.get([d.id for d in documents(6)], with_vectors=True)
                for document, vector in zip(found, made, strict=True):
                    assert document.vector is not None
                    np.testing.assert_allclose(document.vector, vector, atol=1e-6)

    def test_vectors_of_any_length_are_compared_by_angle(self, harness: StoreHarness) -> None:
        unit = TaskBackend().embed_documents(texts(8))
        vectors = unit * np.linspace(0.1, 30, 8, dtype=np.float32)[:, np.newaxis]
        with harness.open("embedding", space=RAW) as store:
            store.upsert_vectors(documents(8), vectors, space=RAW)
            hits = store.search_vector(vectors[3], space=RAW, limit=8)
            cosines = sorted(unit @ unit[3], reverse=True)
            assert [hit.score for hit in hits] == pytest.approx(cosines, abs=1e-5)
            assert all(-1 <= hit.score <= 1 for hit in hits)
            stored = store.get(["d7"], with_vectors=True)[0].vector
            assert stored is not None
            np.testing.assert_allclose(stored, vectors[7], rtol=1e-5)

    # The canary

    def test_the_canary_is_embedded_once_a_direction_and_never_stored(
        self, harness: StoreHarness, honest: VectorStore
    ) -> None:
        honest.upsert(documents(2))
        backend = TaskBackend()
        with harness.open("embedding", backend=backend) as store:
            for _ in range(3):
                store.upsert(documents(2))
                assert len(store.search(CANARY_TEXTS[0], limit=100)) == 2
            assert backend.canaries == 2 * len(CANARY_TEXTS) + 3  # those that were searched for
            assert {d.id for d in store.scan()} == {"d0", "d1"}
            assert store.info().slots[0].has_canary

    def test_a_creator_of_many_rows_pays_for_the_canary_once(self, harness: StoreHarness) -> None:
        backend = TaskBackend()
        with harness.open("embedding", backend=backend) as store:
            store.upsert(documents(10))
            store.search("text")
            assert backend.canaries == 2 * len(CANARY_TEXTS)

    def test_a_liar_writes_nothing_and_is_told_what_it_looks_like(
        self, harness: StoreHarness, honest: VectorStore
    ) -> None:
        honest.upsert(documents(2))
        with harness.open("embedding", backend=LyingBackend()) as liar:
            for _ in range(2):  # a refusal does not use the canary up
                with pytest.raises(SpaceMismatch, match=r"cosine .* suggests another model"):
                    liar.upsert([Document("lie", "text")])
                with pytest.raises(SpaceMismatch, match=r"queries .* suggests"):
                    liar.search("text")
            assert liar.count() == 2  # what concerns no vectors needs no backend
        assert {d.id for d in honest.scan()} == {"d0", "d1"}

    def test_a_backend_is_proved_for_those_who_bring_its_vectors(
        self, harness: StoreHarness, honest: VectorStore
    ) -> None:
        honest.upsert(documents(2))
        with harness.open("embedding", backend=LyingBackend()) as liar:
            for _ in range(2):
                with pytest.raises(SpaceMismatch, match="suggests another model"):
                    liar.prove()
        backend = TaskBackend()
        with harness.open("embedding", backend=backend) as store:
            store.prove()
            store.prove()
            store.upsert([Document("x", "text")])
            assert (backend.canaries, backend.documents) == (len(CANARY_TEXTS), ["text"])
        with harness.open("embedding", space=V3) as store:
            with pytest.raises(InvalidInput, match="backend="):
                store.prove()

    def test_a_creator_may_say_how_the_vectors_are_made(self, harness: StoreHarness) -> None:
        with harness.open("embedding", backend=TaskBackend()) as store:
            store.create(provenance={"late_chunking": "by document"})
            said = store.info().provenance
        assert (said["backend"], said["late_chunking"]) == ("TaskBackend", "by document")

    def test_writes_in_bulk_are_seen_like_others(self, harness: StoreHarness) -> None:
        with harness.open("embedding", backend=TaskBackend()) as store:
            with store.bulk():
                for document in documents(2):
                    store.upsert([document])
                    assert store.count(field.id == document.id) == 1
            assert store.count() == 2

    def test_a_liar_about_queries_alone_may_write_and_not_search(
        self, harness: StoreHarness, honest: VectorStore
    ) -> None:
        honest.upsert(documents(2))
        liar = DistortingBackend(TaskBackend(), queries=lambda vectors: np.roll(vectors, 1, axis=1))
        with harness.open("embedding", backend=liar) as store:
            store.upsert([Document("x", "text")])
            with pytest.raises(SpaceMismatch, match="queries"):
                store.search("text")
            assert store.count(field.id == "x") == 1

    def test_a_handle_knows_how_alike_its_backend_embeds(
        self, harness: StoreHarness, honest: VectorStore
    ) -> None:
        honest.upsert(documents(2))
        with harness.open("embedding", backend=TaskBackend()) as store:
            for proved, direction in enumerate(DIRECTIONS):
                slot = store.info().slots[0]
                found = [slot.documents_cosine, slot.queries_cosine]
                assert [cosine is not None for cosine in found] == [proved > 0, False]
                store.prove(direction)
            slot = store.info().slots[0]
            assert [slot.documents_cosine, slot.queries_cosine] == pytest.approx([1, 1], abs=1e-6)
            with pytest.raises(InvalidInput, match="direction"):
                store.prove("both")  # type: ignore[arg-type]
        with harness.open("embedding", backend=LyingBackend()) as liar:
            for direction in DIRECTIONS:
                with pytest.raises(SpaceMismatch, match=direction):
                    liar.prove(direction)
            slot = liar.info().slots[0]
            assert (slot.documents_cosine, slot.queries_cosine) == (None, None)

    def test_first_searches_at_once_prove_the_backend_once(
        self, harness: StoreHarness, honest: VectorStore
    ) -> None:
        honest.upsert(documents(2))
        backend = TaskBackend()
        with harness.open("embedding", backend=backend) as store:
            found = together([lambda: store.search("text")] * AT_ONCE)
            assert [len(hits) for hits in found] == [2] * AT_ONCE
            assert backend.canaries == len(CANARY_TEXTS)
        with harness.open("embedding", backend=LyingBackend()) as liar:
            refused = together([lambda: liar.search("text")] * AT_ONCE)
            assert [type(error) for error in refused] == [SpaceMismatch] * AT_ONCE

    def test_a_collection_that_is_made_anew_is_proved_anew(
        self, harness: StoreHarness, honest: VectorStore
    ) -> None:
        honest.upsert(documents(2))
        with harness.open("embedding", backend=LyingBackend()) as other:
            honest.drop()
            other.upsert(documents(2))
            for refused in (
                lambda: honest.upsert([Document("x", "text")]),
                lambda: honest.search("text"),
            ):
                with pytest.raises(SpaceMismatch, match="suggests another model"):
                    refused()
            assert other.count() == 2

    def test_a_slot_without_a_canary_believes_its_writers(self, harness: StoreHarness) -> None:
        with harness.open("embedding", space=V3) as store:
            store.create()
        with harness.open("embedding", backend=LyingBackend()) as liar:
            assert liar.upsert(documents(2)).written == 2

    def test_an_added_slot_may_be_given_a_canary(
        self, harness: StoreHarness, honest: VectorStore
    ) -> None:
        honest.create()
        honest.add_slot(UNLIKE, canary=make_canary(TaskBackend(UNLIKE, seed=5)))
        honest.mark(UNLIKE, SlotState.READY)
        with harness.open("embedding", backend=TaskBackend(UNLIKE, seed=6)) as liar:
            with pytest.raises(SpaceMismatch):
                liar.upsert(documents(1))
        with harness.open("embedding", backend=TaskBackend(UNLIKE, seed=5)) as true:
            assert true.upsert(documents(1)).written == 1
