# Generated from contract_filters_async.py by tools/generate_sync.py; change that file, not this one.
"""The promises about filters, tried on every kind of value and on filters made at random."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings

from samespace.filters import Filter, field
from samespace.protocols import VectorStore
from samespace.testing.backends import TaskBackend
from samespace.testing.corpus import FILTER_DOCUMENTS, FILTERS, matching
from samespace.testing.gaps import DeclaresGaps
from samespace.testing.harness import StoreHarness
from samespace.testing.strategies import filters

ROWS: Final = len(FILTER_DOCUMENTS)
ONE_COLLECTION_FOR_ALL: Final = (
    HealthCheck.function_scoped_fixture,
    HealthCheck.differing_executors,
    HealthCheck.too_slow,
)
"""Examples share a collection, which they only read."""


class FiltersContract(DeclaresGaps):
    """What a filter finds is what :func:`samespace.filters.matches` says, through every method."""

    @pytest.fixture
    def corpus(self, harness: StoreHarness) -> Iterator[VectorStore]:
        with harness.open("filters", backend=TaskBackend()) as store:
            store.upsert(FILTER_DOCUMENTS)
            yield store

    def test_counting_searching_and_scanning_agree_with_the_reference(
        self, corpus: VectorStore
    ) -> None:
        for name, where in FILTERS.items():
            expected = matching(where)
            assert corpus.count(where) == len(expected), name
            hits = corpus.search("a garden", where=where, limit=ROWS)
            assert {hit.document.id for hit in hits} == expected, name
            assert {document.id for document in corpus.scan(where=where)} == expected, name

    @settings(
        max_examples=100, deadline=None, database=None, suppress_health_check=ONE_COLLECTION_FOR_ALL
    )
    @given(where=filters())
    def test_any_combination_agrees_with_the_reference(
        self, corpus: VectorStore, where: Filter
    ) -> None:
        expected = matching(where)
        assert corpus.count(where) == len(expected)
        hits = corpus.search("a garden", where=where, limit=ROWS)
        assert {hit.document.id for hit in hits} == expected

    def test_values_count_what_a_filter_finds(self, corpus: VectorStore) -> None:
        for key in ("lang", "flag", "day", "name"):
            counted = corpus.values(key)
            scalars = [(value, n) for value, n in counted if not isinstance(value, dict | list)]
            assert scalars
            for value, documents in scalars:
                assert documents == len(matching(field(key) == value)), (key, value)

    def test_values_page_through_all_of_them(self, corpus: VectorStore) -> None:
        whole = corpus.values("year")
        paged = corpus.values("year", limit=2)
        while len(page := corpus.values("year", limit=2, after=paged[-1][0])):
            paged += page
        assert paged == whole
        assert len(whole) >= 8

    def test_values_of_ids_and_parents(self, corpus: VectorStore) -> None:
        parents = dict(corpus.values(field.parent))
        assert parents == {p: len(matching(field.parent == p)) for p in ("p0", "p1", "p2")}
        ids = corpus.values(field.id, limit=1000)
        assert sorted(ids) == sorted((document.id, 1) for document in FILTER_DOCUMENTS)

    def test_a_filter_selects_what_is_deleted(self, corpus: VectorStore) -> None:
        where = (field("lang") == "en") | (field("year") < 2020)
        gone = matching(where)
        assert corpus.delete(where=where) == len(gone)
        left = {document.id for document in corpus.scan()}
        assert left == {document.id for document in FILTER_DOCUMENTS} - gone

    def test_a_filter_selects_whose_metadata_changes(self, corpus: VectorStore) -> None:
        where = ~field("lang").exists()
        found = matching(where)
        changed = corpus.update_metadata({"seen": True}, where=where, merge=True)
        assert changed == len(found)
        seen = [d for d in corpus.scan(where=field("seen").exists())]
        assert {document.id for document in seen} == found
        before = {document.id: document.metadata for document in FILTER_DOCUMENTS}
        assert all(d.metadata == {**before[d.id], "seen": True} for d in seen)
