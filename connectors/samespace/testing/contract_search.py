# Generated from contract_search_async.py by tools/generate_sync.py; change that file, not this one.
"""The promises about searching; those about filters have a part of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pytest

from samespace.documents import Document
from samespace.errors import InvalidInput, SpaceMismatch
from samespace.filters import everything, field
from samespace.index import Index
from samespace.protocols import VectorStore
from samespace.space import EmbeddingSpace
from samespace.testing.backends import UNLIKE, V3, TaskBackend
from samespace.testing.corpus import documents, texts
from samespace.testing.gaps import DeclaresGaps
from samespace.testing.harness import StoreHarness

ROWS: Final = 24
QUERY: Final = "repairing a bicycle with a broken chain"


class SearchContract(DeclaresGaps):
    """What is found, how near it is, and in which order."""

    @pytest.fixture
    def filled(self, harness: StoreHarness) -> Iterator[VectorStore]:
        with harness.open("search", backend=TaskBackend()) as store:
            store.upsert(documents(ROWS))
            yield store

    def test_scores_are_cosines_and_hits_come_best_first(self, filled: VectorStore) -> None:
        backend = TaskBackend()
        query = backend.embed_query(QUERY)
        cosines = backend.embed_documents(texts(ROWS)) @ query
        hits = filled.search(QUERY, limit=100)
        assert [hit.score for hit in hits] == pytest.approx(sorted(cosines, reverse=True), abs=1e-5)
        by_id = {
            document.id: cosine for document, cosine in zip(documents(ROWS), cosines, strict=True)
        }
        for hit in hits:
            assert hit.score == pytest.approx(by_id[hit.document.id], abs=1e-5)

    def test_limit_and_least_score_hold(self, filled: VectorStore) -> None:
        hits = filled.search(QUERY, limit=5)
        assert len(hits) == 5
        floor = hits[2].score
        some = filled.search(QUERY, limit=5, min_score=floor)
        assert [hit.score >= floor for hit in some] == [True] * len(some)
        assert 1 <= len(some) < 5

    def test_a_least_score_holds_for_every_kind_of_search(self, filled: VectorStore) -> None:
        query = TaskBackend().embed_query(QUERY)
        every = filled.search(QUERY, limit=100)
        floor = (every[2].score + every[3].score) / 2
        by_vector = filled.search_vector(query, space=V3, limit=100, min_score=floor)
        (by_many,) = filled.search_many([QUERY], limit=100, min_score=floor)
        assert by_vector == by_many == every[:3]

    @pytest.mark.parametrize("wrong", [2, -1.5, float("nan"), True, "0.5"])
    def test_a_least_score_is_a_cosine(self, filled: VectorStore, wrong: Any) -> None:
        with pytest.raises(InvalidInput, match="pass a cosine from -1 to 1"):
            filled.search(QUERY, min_score=wrong)

    def test_a_batch_of_a_scan_has_at_least_one_row(self, filled: VectorStore) -> None:
        with pytest.raises(InvalidInput, match="batch_size is 0"):
            [document for document in filled.scan(batch_size=0)]

    def test_vectors_come_when_asked_for(self, filled: VectorStore) -> None:
        plain, rich = [filled.search(QUERY, with_vectors=asked)[0] for asked in (False, True)]
        assert plain.vector is None
        assert rich.vector is not None
        expected = TaskBackend().embed_documents([rich.document.text])[0]
        np.testing.assert_allclose(rich.vector, expected, atol=1e-6)

    def test_several_queries_are_answered_in_order(self, filled: VectorStore) -> None:
        both = filled.search_many([QUERY, "old maps"], limit=3)
        for query, hits in zip((QUERY, "old maps"), both, strict=True):
            alone = filled.search(query, limit=3)
            assert [hit.document for hit in hits] == [hit.document for hit in alone]
            scores = [hit.score for hit in alone]
            assert [hit.score for hit in hits] == pytest.approx(scores, abs=1e-6)
        assert filled.search_many([]) == []

    def test_a_ready_vector_finds_the_same(self, filled: VectorStore) -> None:
        vector = TaskBackend().embed_query(QUERY)
        hits = filled.search_vector(vector, space=V3, limit=3)
        assert hits == filled.search(QUERY, limit=3)
        with pytest.raises(SpaceMismatch, match="another-model"):
            filled.search_vector(vector, space=UNLIKE)

    def test_no_hits_are_no_error(self, filled: VectorStore) -> None:
        assert filled.search(QUERY, where=field("nowhere").exists()) == []
        assert filled.search(QUERY, min_score=1.0) == []
        assert filled.search_many([QUERY, "x"], where=~everything) == [[], []]
        assert len(filled.search(QUERY, limit=10_000)) == ROWS

    def test_the_score_of_what_is_opposite_is_minus_one(self, harness: StoreHarness) -> None:
        vector = TaskBackend().embed_documents(["text"])[0]
        with harness.open("opposite", space=V3) as store:
            both = [Document("same", "x"), Document("opposite", "y")]
            store.upsert_vectors(both, [vector, -vector], space=V3)
            hits = store.search_vector(vector, space=V3)
        assert [hit.document.id for hit in hits] == ["same", "opposite"]
        assert [hit.score for hit in hits] == pytest.approx([1, -1], abs=1e-6)
        assert all(-1 <= hit.score <= 1 for hit in hits)

    @pytest.mark.parametrize("length", [1e-6, 1e-3, 1e3, 1e6])
    def test_scores_are_cosines_whatever_the_vectors_lengths(
        self, harness: StoreHarness, length: float
    ) -> None:
        space = EmbeddingSpace(model="of any length", dimensions=64, normalized=False)
        one, other = TaskBackend().embed_documents(texts(2))
        stored = one * np.float32(length)
        with harness.open("lengths", space=space) as store:
            store.upsert_vectors([Document("a", "x")], [stored], space=space)
            for query, score in ((stored, 1), (one, 1), (-stored, -1), (other, float(one @ other))):
                (hit,) = store.search_vector(query, space=space)
                assert hit.score == pytest.approx(score, abs=1e-5)
            (found,) = store.get(["a"], with_vectors=True)
        assert found.vector is not None
        np.testing.assert_allclose(found.vector, stored, rtol=1e-5, atol=length * 1e-6)

    @pytest.mark.parametrize(
        "index",
        [
            Index(kind="flat"),
            Index(build="immediate"),
            Index(build="manual"),
            Index(quantization="half"),
            Index(quantization="int8"),
            Index(quantization="binary"),
        ],
        ids=str,
    )
    def test_every_index_finds_the_same_or_is_refused_by_name(
        self, harness: StoreHarness, filled: VectorStore, index: Index
    ) -> None:
        expected = filled.search(QUERY, limit=5)
        try:
            store = harness.open("indexed", backend=TaskBackend(), index=index)
        except InvalidInput as error:
            assert f'"{index.quantization or index.build}"' in str(error)
            return
        with store:
            store.upsert(documents(ROWS))
            if index.kind == "flat":
                with pytest.raises(InvalidInput, match="flat"):
                    store.build_index()
            else:
                store.build_index()
            assert store.info().index_built == (index.kind != "flat")
            hits = store.search(QUERY, limit=5)
        assert [hit.document for hit in hits] == [hit.document for hit in expected]
        # A store may keep nothing but the halves, of which a component has 11 bits.
        tolerance = 1e-3 if index.quantization == "half" else 1e-5
        assert [h.score for h in hits] == pytest.approx([h.score for h in expected], abs=tolerance)

    def test_reads_see_writes_at_once(self, filled: VectorStore) -> None:
        filled.upsert([Document("new", "zebra crossing")])
        assert filled.search("zebra crossing")[0].document.id == "new"
        filled.delete(ids=["new"])
        assert "new" not in {hit.document.id for hit in filled.search("zebra", limit=100)}
