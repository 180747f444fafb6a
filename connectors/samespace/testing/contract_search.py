# Generated from contract_search_async.py by tools/generate_sync.py; change that file, not this one.
"""The promises about searching and filtering."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import pytest

from samespace.documents import Document, Parent
from samespace.errors import InvalidInput, SpaceMismatch
from samespace.filters import Filter, everything, field, matches
from samespace.protocols import VectorStore
from samespace.testing.backends import DIMENSIONS, UNLIKE, V3, TaskBackend
from samespace.testing.harness import StoreHarness

VALUES: Final[list[Any]] = [
    "de", "", "2020", "true", 2020, 2020.0, 2020.5, -1, 0, 2**62, 1e300, True, False, None, [],
    ["de", "en"], [2019, "2021"], [None], [None, "de"], {"city": "Bern"}, {"city": ["Bern", 3]},
    {"city": None}, {}, [["de"]], [{"city": "Bern"}], "2024-02-29", "2024-02-30",
    "2024-01-01T12:00:00Z", "2024-01-01 12:00", "2024-01-01T12:00:00.5+02:00", "9999-12-31", "ü%_",
]  # fmt: skip
"""One document each has one of these as ``x``; the last one of all has no ``x``."""
DOCUMENTS: Final = [
    *(
        Document(f"d{n}", f"text {n}", {"x": value, "a.b": n % 3}, parent=Parent(f"p{n % 4}", n))
        for n, value in enumerate(VALUES)
    ),
    Document("none", "text without", {"y": 1}),
]
NOON: Final = datetime(2024, 1, 1, 12, tzinfo=UTC)
FILTERS: Final[list[Filter]] = [
    everything,
    *(field("x") == value for value in ["de", "", 2020, 2020.5, True, False, "true", None, 2**62]),
    *(field("x") != value for value in ["de", 2020, True, None, 1e300]),
    *(~(field("x") == value) for value in ["de", 2020, None]),
    field("x").in_(["de", 2020, True]),
    field("x").in_([]),
    ~field("x").in_([]),
    field("x").in_(["nothing", None]),
    field("x").contains("en"),
    field("x").exists(),
    ~field("x").exists(),
    *(f for v in (2020, 0, 2019.5, -1) for f in
      (field("x") < v, field("x") <= v, field("x") > v, field("x") >= v)),
    *(f for v in (NOON, "2024-02-29", "2024-01-01T10:00:00.5Z") for f in
      (field("x") < v, field("x") <= v, field("x") > v, field("x") >= v)),
    field("x", "city") == "Bern",
    field("x", "city") != "Bern",
    field("x", "city") == None,  # noqa: E711
    field("x", "city").exists(),
    field("x", "city") > 2,
    field("a.b") == 1,
    field("a", "b") == 1,
    field("y") == 1,
    field.id == "d3",
    field.id != "d3",
    field.id.in_(["d1", "none", "unknown"]),
    field.parent == "p1",
    field.parent != "p1",
    ~(field.parent == "p1"),
    ~field.parent.exists(),
    (field("x") == "de") | (field("x") > 2000) & ~(field("a.b") == 1),
]  # fmt: skip


def _expected(where: Filter) -> set[str]:
    return {
        document.id
        for document in DOCUMENTS
        if matches(
            where,
            id=document.id,
            metadata=document.metadata,
            parent=document.parent.id if document.parent else None,
        )
    }


def _random_filter(source: random.Random, depth: int = 3) -> Filter:
    if depth and source.random() < 0.6:
        left, right = _random_filter(source, depth - 1), _random_filter(source, depth - 1)
        return source.choice([left & right, left | right, ~left])
    return source.choice(FILTERS)


class SearchContract:
    """Searching and filtering."""

    @pytest.fixture
    def filled(self, harness: StoreHarness) -> Iterator[VectorStore]:
        with harness.open("search", backend=TaskBackend()) as store:
            store.upsert(DOCUMENTS)
            yield store

    @pytest.mark.parametrize("where", FILTERS, ids=range(len(FILTERS)))
    def test_a_filter_means_what_it_says(self, filled: VectorStore, where: Filter) -> None:
        expected = _expected(where)
        assert filled.count(where) == len(expected)
        hits = filled.search("text", where=where, limit=100)
        assert {hit.document.id for hit in hits} == expected

    def test_filters_combine_at_random(self, filled: VectorStore) -> None:
        source = random.Random(7)  # noqa: S311  reproducible
        for _ in range(150):
            where = _random_filter(source)
            found = {document.id for document in filled.scan(where=where)}
            assert found == _expected(where), where

    def test_scores_are_cosines_and_hits_come_best_first(self, filled: VectorStore) -> None:
        backend = TaskBackend()
        query = backend.embed_query("text 3")
        texts = [document.text for document in DOCUMENTS]
        cosines = backend.embed_documents(texts) @ query
        hits = filled.search("text 3", limit=100)
        assert [hit.score for hit in hits] == pytest.approx(sorted(cosines, reverse=True), abs=1e-5)
        by_id = dict(zip((document.id for document in DOCUMENTS), cosines, strict=True))
        for hit in hits:
            assert hit.score == pytest.approx(by_id[hit.document.id], abs=1e-5)

    def test_limit_and_least_score_hold(self, filled: VectorStore) -> None:
        hits = filled.search("text 3", limit=5)
        assert len(hits) == 5
        floor = hits[2].score
        some = filled.search("text 3", limit=5, min_score=floor)
        assert [hit.score >= floor for hit in some] == [True] * len(some)
        assert 1 <= len(some) < 5

    @pytest.mark.parametrize("limit", [0, -1, 10_001, 2.5, True, None])
    def test_a_limit_is_from_1_to_10000(self, filled: VectorStore, limit: Any) -> None:
        with pytest.raises(InvalidInput, match="limit"):
            filled.search("text", limit=limit)

    @pytest.mark.parametrize("query", ["", "  ", "a\x00", "\ud800", None])
    def test_a_query_is_a_text(self, filled: VectorStore, query: Any) -> None:
        with pytest.raises(InvalidInput):
            filled.search(query)

    def test_a_dict_is_no_filter(self, filled: VectorStore) -> None:
        where: Any = {"lang": "de"}
        with pytest.raises(InvalidInput, match="where"):
            filled.search("text", where=where)

    def test_vectors_come_when_asked_for(self, filled: VectorStore) -> None:
        plain, rich = [filled.search("text", with_vectors=asked)[0] for asked in (False, True)]
        assert plain.vector is None
        assert rich.vector is not None
        expected = TaskBackend().embed_documents([rich.document.text])[0]
        np.testing.assert_allclose(rich.vector, expected, atol=1e-6)

    def test_several_queries_are_answered_in_order(self, filled: VectorStore) -> None:
        both = filled.search_many(["text 3", "without"], limit=3)
        for query, hits in zip(("text 3", "without"), both, strict=True):
            alone = filled.search(query, limit=3)
            assert [hit.document for hit in hits] == [hit.document for hit in alone]
            scores = [hit.score for hit in alone]
            assert [hit.score for hit in hits] == pytest.approx(scores, abs=1e-6)
        assert filled.search_many([]) == []

    def test_a_ready_vector_finds_the_same(self, filled: VectorStore) -> None:
        vector = TaskBackend().embed_query("text 3")
        hits = filled.search_vector(vector, space=V3, limit=3)
        assert hits == filled.search("text 3", limit=3)
        with pytest.raises(SpaceMismatch, match="another-model"):
            filled.search_vector(vector, space=UNLIKE)
        with pytest.raises(InvalidInput):
            filled.search_vector(np.zeros(DIMENSIONS, np.float32), space=V3)

    def test_reads_see_writes_at_once(self, filled: VectorStore) -> None:
        filled.upsert([Document("new", "zebra crossing")])
        assert filled.search("zebra crossing")[0].document.id == "new"
        filled.delete(ids=["new"])
        assert "new" not in {hit.document.id for hit in filled.search("zebra", limit=100)}
