"""Whose vectors those are: the figures of every candidate, and what follows from them."""

from __future__ import annotations

import numpy as np
import pytest

from samespace.audit.judging import (
    Evidence,
    Verdict,
    compared,
    is_normalized,
    judged,
    ranked,
    tells_too_little,
)
from samespace.audit.renderings import JOINS, Rendering, titled
from samespace.audit.verdicts import AGREEMENT
from samespace.documents import Document
from samespace.models import find_model
from samespace.protocols import Matrix
from samespace.space import EmbeddingSpace
from samespace.testing.corpus import texts
from samespace.testing.jina_vectors import LexicalModel

ROWS = 50
TRIALS = 100
POOL = texts(400)
SPACES = tuple(
    EmbeddingSpace.parse(spec)
    for spec in (
        "jina-embeddings-v3@256:retrieval.passage",
        "jina-embeddings-v3@256:text-matching",
        "jina-embeddings-v3@256:separation",
        "jina-embeddings-v3@256",
        "jina-embeddings-v4@256:retrieval.passage",
        "jina-embeddings-v5-text-nano@256:retrieval.passage",
        "jina-clip-v2@256",
    )
)
"""Of one size; tasks of one model are at cosines between 0.5 and 0.95, models at 0."""


def made(space: EmbeddingSpace) -> Matrix:
    model = find_model(space.model)
    assert model is not None
    return LexicalModel(model).embed(POOL, task=space.task, dimensions=space.dimensions)


@pytest.fixture(scope="module")
def vectors() -> dict[EmbeddingSpace, Matrix]:
    return {space: made(space) for space in SPACES}


def in_another_runtime(vectors: Matrix, random: np.random.Generator) -> Matrix:
    """The same model by another library: cosines of about 0.997."""
    noise = random.standard_normal(vectors.shape) * 0.08 / np.sqrt(vectors.shape[1])
    noisy = vectors + noise
    return np.asarray(noisy / np.linalg.norm(noisy, axis=1, keepdims=True), np.float32)


def evidence(
    stored: Matrix, vectors: dict[EmbeddingSpace, Matrix], rows: np.ndarray
) -> list[Evidence]:
    return [
        compared(stored, each[rows], candidate=n, proposal=0, space=space, rendering="text")
        for n, (space, each) in enumerate(vectors.items())
    ]


def test_the_right_one_is_named_every_time(vectors: dict[EmbeddingSpace, Matrix]) -> None:
    random = np.random.default_rng(7)
    for trial in range(TRIALS):
        true = SPACES[trial % len(SPACES)]
        rows = random.choice(len(POOL), ROWS, replace=False)
        found = evidence(in_another_runtime(vectors[true][rows], random), vectors, rows)
        assert judged(found) is Verdict.IDENTIFIED
        best, second = ranked(found)[:2]
        assert best.space == true
        assert best.cosine > 0.995 > AGREEMENT > second.cosine


def test_none_is_named_where_the_right_one_is_missing(
    vectors: dict[EmbeddingSpace, Matrix],
) -> None:
    random = np.random.default_rng(8)
    for trial in range(TRIALS):
        true = SPACES[trial % len(SPACES)]
        rows = random.choice(len(POOL), ROWS, replace=False)
        others = {space: each for space, each in vectors.items() if space != true}
        found = evidence(in_another_runtime(vectors[true][rows], random), others, rows)
        assert judged(found) is Verdict.NONE


def figures(n: int, cosine: float, agreeing: float, failed: str = "") -> Evidence:
    return Evidence(
        candidate=n, proposal=0, space=SPACES[n], cosine=cosine, agreeing=agreeing, rows=ROWS,
        failed=failed,
    )  # fmt: skip


def test_a_minority_of_strangers_changes_nothing() -> None:
    assert judged([figures(0, 0.999, 0.7), figures(1, 0.1, 0.3)]) is Verdict.IDENTIFIED
    assert judged([figures(0, 0.999, 0.5), figures(1, 0.99, 0.5)]) is Verdict.NONE


def test_two_that_embed_alike_cannot_be_told_apart() -> None:
    assert judged([figures(0, 0.9999, 1.0), figures(1, 0.9996, 1.0)]) is Verdict.UNCLEAR
    twice = [figures(0, 0.9999, 1.0), figures(0, 0.9999, 1.0)]
    assert judged(twice) is Verdict.IDENTIFIED


def test_who_failed_counts_neither_way() -> None:
    assert judged([figures(0, 0.9, 0.0), figures(1, 1.0, 1.0, "no answer")]) is Verdict.NONE
    assert judged([figures(1, 1.0, 1.0, "no answer")]) is Verdict.UNCLEAR


def test_what_shows_nothing_is_said() -> None:
    three = np.eye(3, dtype=np.float32)
    assert tells_too_little(["a", "b", "c"], three) == ""
    assert "2 rows of the sample" in tells_too_little(["a", "b"], three[:2])
    assert "only 1 row of the collection" in tells_too_little(["a"], three[:1], is_all=True)
    assert "all alike" in tells_too_little(["a", "a", "a"], three)
    assert "all alike" in tells_too_little(["a", "b", "c"], np.ones((3, 3), np.float32))


def test_norms_are_judged_together() -> None:
    assert is_normalized(np.eye(3, dtype=np.float32))
    assert not is_normalized(np.eye(3, dtype=np.float32) * np.float32(1.01))


def test_titles_are_tried_where_most_rows_have_one() -> None:
    rows = [Document(str(n), "body", {"Title": "T", "name": "", "n": n}) for n in range(3)]
    found = list(titled(rows))
    assert [each.join for each in found] == list(JOINS)
    assert {each.title for each in found} == {"Title"}
    assert found[0].of(rows[0]) == "T\nbody"
    assert found[0].of(Document("4", "body", {"Title": None})) == "body"
    assert str(Rendering()) == "text"
