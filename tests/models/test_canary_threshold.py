"""Where the canary's threshold lies between honest differences and the slightest of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.models.minilm import MiniLM, bfloat16, float16
from tests.models.paragraphs import paragraphs

from samespace.guard import CANARY_TEXTS, CANARY_THRESHOLD
from samespace.vectors import cosines

COUNTS = [
    pytest.param(8, id="small"),
    pytest.param(1000, id="full", marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
]
HONEST: dict[str, dict[str, Any]] = {
    "float16": {"rounding": float16},
    "bfloat16": {"rounding": bfloat16},
    "weights in bfloat16": {"weight_rounding": bfloat16},
    "padding": {"padding": 64},
}
PROMPTS = [
    "passage: ",
    "query: ",
    "search_document: ",
    "title: none | text: ",
    "Represent the document for retrieval: ",
    "Represent the query for retrieving evidence documents: ",
    "Represent this sentence for searching relevant passages: ",
]
"""Those of E5, Nomic, EmbeddingGemma, jina-embeddings-v3 and BGE."""


def embedded(model: MiniLM, texts: Sequence[str], *, batch: int) -> NDArray[np.float32]:
    return np.concatenate([
        model.embed_documents(texts[start : start + batch])
        for start in range(0, len(texts), batch)
    ])  # fmt: skip


def test_the_model_is_the_published_one() -> None:
    one, other = MiniLM().embed_documents(
        ["A man is eating food.", "A man is eating a piece of bread."]
    )
    assert float(one @ other) == pytest.approx(0.7553, abs=1e-4)


@pytest.mark.parametrize("count", COUNTS)
def test_no_honest_difference_comes_near_the_threshold(count: int) -> None:
    texts = [*CANARY_TEXTS, *paragraphs(count)]
    exact = embedded(MiniLM(), texts, batch=32)
    for options in HONEST.values():
        variant = embedded(MiniLM(**options), texts, batch=7)
        assert cosines(variant, exact).min() > 1 - (1 - CANARY_THRESHOLD) / 2


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_forgotten_prompt_is_far_below_it(prompt: str) -> None:
    asked = MiniLM(document_prompt=prompt).embed_documents(CANARY_TEXTS)
    found = cosines(MiniLM().embed_documents(CANARY_TEXTS), asked)
    assert found.min() < CANARY_THRESHOLD - 0.05


def test_one_canary_text_would_not_do() -> None:
    """A short prompt moves some texts by so little that three are compared."""
    texts = paragraphs(12)
    plain, asked = (
        embedded(MiniLM(document_prompt=prompt), texts, batch=8) for prompt in ("", "- ")
    )
    found = cosines(plain, asked)
    assert found.max() > CANARY_THRESHOLD > found.min()
