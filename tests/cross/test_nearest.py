"""Equal vectors have equal neighbours and scores on every store: those that numpy computes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from samespace import Document, Index
from samespace.filters import Filter, field
from samespace.protocols import Matrix
from samespace.testing.backends import V3
from samespace.testing.harness import StoreHarness

GROUPS = 20
FILTERS: list[tuple[Filter | None, Callable[[int], bool]]] = [
    (None, lambda group: True),
    (field("group") < 10, lambda group: group < 10),
    (field("group") == 3, lambda group: group == 3),
]
"""Each with what it says of a group."""
SIZES = [
    pytest.param(1_000, 20, id="small"),
    pytest.param(20_000, 200, id="full", marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
]


def unit_vectors(count: int, *, seed: int) -> Matrix:
    made = np.random.default_rng(seed).standard_normal((count, V3.dimensions))
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), np.float32)


@pytest.mark.parametrize(("rows", "queries"), SIZES)
def test_the_ten_nearest_and_their_scores_are_alike(
    harness: StoreHarness, rows: int, queries: int
) -> None:
    stored, asked = unit_vectors(rows, seed=1), unit_vectors(queries, seed=2)
    documents = [Document(f"n{n}", f"row {n}", {"group": n % GROUPS}) for n in range(rows)]
    cosines = asked.astype(np.float64) @ stored.astype(np.float64).T
    with harness.open("nearest", space=V3, index=Index(kind="flat")) as store:
        store.upsert_vectors(documents, stored, space=V3)
        for where, passes in FILTERS:
            passing = [passes(n % GROUPS) for n in range(rows)]
            for query, all_scores in zip(asked, cosines, strict=True):
                scores = np.where(passing, all_scores, -2)
                best = np.argsort(-scores)[:10]
                hits = store.search_vector(query, space=V3, limit=10, where=where)
                assert [hit.document for hit in hits] == [documents[place] for place in best]
                assert [hit.score for hit in hits] == pytest.approx(scores[best], abs=1e-4)
