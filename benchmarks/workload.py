"""The rows and queries that every contestant gets: the same in every process."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CLUSTERS = 200
SPREAD = 0.7
BUCKETS = 100
"""Each bucket holds one row in a hundred: a filter on one selects 1 %."""
LOREM = "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor "


@dataclass(frozen=True)
class Workload:
    """``vectors`` and ``queries`` are of unit norm and lie in clusters, as embeddings do."""

    ids: list[str]
    texts: list[str]
    metadata: list[dict[str, object]]
    vectors: NDArray[np.float32]
    queries: NDArray[np.float32]


def workload(rows: int, dimensions: int, queries: int = 200) -> Workload:
    """Rows and queries, from one seed."""
    random = np.random.default_rng(20261)
    centres = random.standard_normal((CLUSTERS, dimensions), dtype=np.float32)
    return Workload(
        ids=[str(uuid.uuid5(uuid.NAMESPACE_OID, str(n))) for n in range(rows)],
        texts=[f"Passage {n}: {LOREM * 3}" for n in range(rows)],
        metadata=[
            {"lang": ("en", "de")[n % 2], "bucket": n % BUCKETS, "source": f"manual-{n % 37}.pdf"}
            for n in range(rows)
        ],
        vectors=_clustered(random, centres, rows),
        queries=_clustered(random, centres, queries),
    )


def _clustered(
    random: np.random.Generator, centres: NDArray[np.float32], count: int
) -> NDArray[np.float32]:
    noise = random.standard_normal((count, centres.shape[1]), dtype=np.float32)
    vectors = centres[random.integers(0, len(centres), count)] + np.float32(SPREAD) * noise
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def nearest(vectors: NDArray[np.float32], query: NDArray[np.float32], limit: int) -> set[int]:
    """The places of the ``limit`` nearest rows, found by comparing all."""
    return set(np.argsort(-(vectors @ query))[:limit].tolist())
