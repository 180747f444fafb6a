"""A backend that is not what filled the collection is found on its first use, on every store.

The model is a real one, and every sabotage as slight as it comes in practice (docs/canary.md).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from tests.models.minilm import MiniLM, another_revision, bfloat16

from samespace import Document
from samespace.errors import BadResponse, PartialWrite, SpaceMismatch
from samespace.protocols import EmbeddingBackend, Matrix, VectorStore
from samespace.testing.backends import DistortingBackend
from samespace.testing.harness import StoreHarness

ROWS = [
    Document("a", "The harbour was closed because of fog."),
    Document("b", "Brot ist um sieben fertig."),
]
QUESTION = "when does the bakery open?"


def cut(vectors: Matrix) -> Matrix:
    """To two thirds, and filled up to the size that is expected."""
    kept = np.where(np.arange(vectors.shape[1]) < 256, vectors, np.float32(0))
    return np.asarray(kept / np.linalg.norm(kept, axis=1, keepdims=True), np.float32)


def cut_alone(vectors: Matrix) -> Matrix:
    """Cut, without dividing by the norm anew, and filled up."""
    return np.where(np.arange(vectors.shape[1]) < 256, vectors, np.float32(0))


def prompted(**options: Any) -> MiniLM:
    return MiniLM(document_prompt="passage: ", query_prompt="query: ", **options)


@lru_cache
def honest() -> EmbeddingBackend:
    return prompted()


def distorted(distortion: Callable[[Matrix], Matrix]) -> EmbeddingBackend:
    return DistortingBackend(honest(), documents=distortion, queries=distortion)


@lru_cache
def rounded() -> EmbeddingBackend:
    return prompted(rounding=bfloat16, padding=64)


USES: tuple[Callable[[VectorStore], object], ...] = (
    lambda store: store.upsert([Document("x", "a text")]),
    lambda store: store.search(QUESTION),
    lambda store: store.prove(),
    lambda store: store.prove("queries"),
)
Refusal = tuple[type[Exception], str]
SABOTAGES: dict[str, tuple[Callable[[], EmbeddingBackend], Refusal]] = {
    "another revision of the weights": (
        lambda: prompted(change=another_revision(0.03)),
        (SpaceMismatch, "another revision of the weights"),
    ),
    "another task": (
        lambda: MiniLM(document_prompt="query: ", query_prompt="passage: "),
        (SpaceMismatch, "documents and queries are swapped"),
    ),
    "the prompt forgotten": (MiniLM, (SpaceMismatch, "prompt")),
    "not normalised": (
        lambda: distorted(lambda vectors: vectors * np.float32(1.002)),
        (BadResponse, "has norm 1.002 where the space is normalised"),
    ),
    "cut to another size": (
        lambda: distorted(cut),
        (SpaceMismatch, "cut to 256 dimensions and filled up with zeros"),
    ),
    "cut and not normalised again": (lambda: distorted(cut_alone), (BadResponse, "has norm 0")),
    "of another size": (
        lambda: distorted(lambda vectors: vectors[:, :256]),
        (BadResponse, "vectors have 256 dimensions"),
    ),
}


@lru_cache
def sabotaged(name: str) -> EmbeddingBackend:
    return SABOTAGES[name][0]()


def test_every_sabotage_is_refused_at_first_use(harness: StoreHarness) -> None:
    with harness.open("canary", backend=honest()) as store:
        store.upsert(ROWS)
    before = harness.dump("canary")
    for name, (_, (kind, said)) in SABOTAGES.items():
        for use in USES:
            with (
                harness.open("canary", backend=sabotaged(name)) as store,
                pytest.raises((kind, PartialWrite), match=said),
            ):
                use(store)
    assert harness.dump("canary") == before


def test_another_precision_is_no_other_model(harness: StoreHarness) -> None:
    with harness.open("canary", backend=honest()) as store:
        store.upsert(ROWS)
        wanted = [hit.document.id for hit in store.search(QUESTION)]
    with harness.open("canary", backend=rounded()) as store:
        assert store.upsert(ROWS).written == len(ROWS)
        assert [hit.document.id for hit in store.search(QUESTION)] == wanted
        (slot,) = store.info().slots
        for cosine in (slot.documents_cosine, slot.queries_cosine):
            assert cosine is not None
            assert 0.998 < cosine < 1
