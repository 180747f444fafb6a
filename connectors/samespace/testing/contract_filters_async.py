"""The promises about filters, tried on every kind of value and on filters made at random."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings

from samespace.filters import Filter, field
from samespace.protocols import AsyncVectorStore
from samespace.testing.backends import TaskBackend
from samespace.testing.corpus import FILTER_DOCUMENTS, FILTERS, matching
from samespace.testing.gaps import DeclaresGaps
from samespace.testing.harness_async import AsyncStoreHarness
from samespace.testing.strategies import filters

ROWS: Final = len(FILTER_DOCUMENTS)
ONE_COLLECTION_FOR_ALL: Final = (
    HealthCheck.function_scoped_fixture,
    HealthCheck.differing_executors,
    HealthCheck.too_slow,
)
"""Examples share a collection, which they only read."""


class AsyncFiltersContract(DeclaresGaps):
    """What a filter finds is what :func:`samespace.filters.matches` says, through every method."""

    @pytest.fixture
    async def corpus(self, harness: AsyncStoreHarness) -> AsyncIterator[AsyncVectorStore]:
        async with harness.open("filters", backend=TaskBackend()) as store:
            await store.upsert(FILTER_DOCUMENTS)
            yield store

    async def test_counting_searching_and_scanning_agree_with_the_reference(
        self, corpus: AsyncVectorStore
    ) -> None:
        for name, where in FILTERS.items():
            expected = matching(where)
            assert await corpus.count(where) == len(expected), name
            hits = await corpus.search("a garden", where=where, limit=ROWS)
            assert {hit.document.id for hit in hits} == expected, name
            assert {document.id async for document in corpus.scan(where=where)} == expected, name

    @settings(
        max_examples=100, deadline=None, database=None, suppress_health_check=ONE_COLLECTION_FOR_ALL
    )
    @given(where=filters())
    async def test_any_combination_agrees_with_the_reference(
        self, corpus: AsyncVectorStore, where: Filter
    ) -> None:
        expected = matching(where)
        assert await corpus.count(where) == len(expected)
        hits = await corpus.search("a garden", where=where, limit=ROWS)
        assert {hit.document.id for hit in hits} == expected

    async def test_values_count_what_a_filter_finds(self, corpus: AsyncVectorStore) -> None:
        for key in ("lang", "flag", "day", "name"):
            counted = await corpus.values(key)
            scalars = [(value, n) for value, n in counted if not isinstance(value, dict | list)]
            assert scalars
            for value, documents in scalars:
                assert documents == len(matching(field(key) == value)), (key, value)

    async def test_values_page_through_all_of_them(self, corpus: AsyncVectorStore) -> None:
        whole = await corpus.values("year")
        paged = await corpus.values("year", limit=2)
        while len(page := await corpus.values("year", limit=2, after=paged[-1][0])):
            paged += page
        assert paged == whole
        assert len(whole) >= 8

    async def test_values_of_ids_and_parents(self, corpus: AsyncVectorStore) -> None:
        parents = dict(await corpus.values(field.parent))
        assert parents == {p: len(matching(field.parent == p)) for p in ("p0", "p1", "p2")}
        ids = await corpus.values(field.id, limit=1000)
        assert sorted(ids) == sorted((document.id, 1) for document in FILTER_DOCUMENTS)

    async def test_a_filter_selects_what_is_deleted(self, corpus: AsyncVectorStore) -> None:
        where = (field("lang") == "en") | (field("year") < 2020)
        gone = matching(where)
        assert await corpus.delete(where=where) == len(gone)
        left = {document.id async for document in corpus.scan()}
        assert left == {document.id for document in FILTER_DOCUMENTS} - gone

    async def test_a_filter_selects_whose_metadata_changes(self, corpus: AsyncVectorStore) -> None:
        where = ~field("lang").exists()
        found = matching(where)
        changed = await corpus.update_metadata({"seen": True}, where=where, merge=True)
        assert changed == len(found)
        seen = [d async for d in corpus.scan(where=field("seen").exists())]
        assert {document.id for document in seen} == found
        before = {document.id: document.metadata for document in FILTER_DOCUMENTS}
        assert all(d.metadata == {**before[d.id], "seen": True} for d in seen)
