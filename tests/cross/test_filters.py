"""A filter finds the same documents on every store: those that its reference in Python names."""

from __future__ import annotations

import pytest
from tests.cross.metadata import KINDS, documents, filters

from samespace.filters import matches
from samespace.testing.backends import V3, TaskBackend
from samespace.testing.harness import StoreHarness

SOAK = [pytest.mark.soak, pytest.mark.timeout(3600)]
SEEDS = [
    pytest.param(1, 80, 7, id="small"),
    *(pytest.param(seed, 200, 50, id=f"full {seed}", marks=SOAK) for seed in range(2, 7)),
]


@pytest.mark.parametrize(("seed", "size", "count"), SEEDS)
def test_every_kind_of_filter_finds_what_the_reference_names(
    harness: StoreHarness, seed: int, size: int, count: int
) -> None:
    rows = documents(size, seed=seed)
    backend = TaskBackend()
    query = backend.embed_query("row")
    with harness.open("filters", space=V3) as store:
        vectors = backend.embed_documents([row.text for row in rows])
        store.upsert_vectors(rows, vectors, space=V3)
        for kind in KINDS:
            found = []
            for where in filters(kind, count, seed=seed):
                expected = {
                    row.id for row in rows if matches(where, id=row.id, metadata=row.metadata)
                }
                hits = store.search_vector(query, space=V3, limit=size, where=where)
                assert {hit.document.id for hit in hits} == expected, where
                assert store.count(where) == len(expected), where
                found.append(len(expected))
            assert any(0 < n < size for n in found), kind
        assert store.get([row.id for row in rows]) == rows
