"""Where the canary's threshold lies between honest differences and the slightest of others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.models.minilm import ROOT, MiniLM, another_revision, bfloat16, float16
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


NOISE = re.compile(r"^\| (\d+(?:\.\d+)?) % \|(.*)\|$", re.MULTILINE)
"""A row of the table in docs/canary.md about another revision."""


def documented() -> dict[float, list[str]]:
    """The cells of each such row, by the share of noise."""
    text = (ROOT / "docs" / "canary.md").read_text()
    return {
        float(share) / 100: cells.replace(" ", "").split("|")
        for share, cells in NOISE.findall(text)
    }


def canary_cell(cosine: float) -> str:
    """As the table has it: four digits, or three that are rounded down."""
    return f"{cosine:.4f}" if cosine >= 0.99 else f"{int(cosine * 1000) / 1000:.3f}"


def cell(cosine: float, like: str) -> str:
    return f"{cosine:.{len(like) - 2}f}"


@pytest.mark.parametrize("share", [0.003, 0.01, 0.02, 0.03, 0.05, 0.1])
def test_the_documented_canary_of_another_revision_is_measured(share: float) -> None:
    revised = MiniLM(change=another_revision(share)).embed_documents(CANARY_TEXTS)
    found = cosines(revised, MiniLM().embed_documents(CANARY_TEXTS))
    assert documented()[share][0] == canary_cell(float(found.min()))


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_the_documented_cosines_of_another_revision_are_measured() -> None:
    texts = paragraphs(300)
    exact = embedded(MiniLM(), texts, batch=32)
    for share, cells in documented().items():
        found = cosines(embedded(MiniLM(change=another_revision(share)), texts, batch=32), exact)
        figures = (found.min(), np.median(found), found.max())
        told = [cell(float(each), like) for each, like in zip(figures, cells[1:4], strict=True)]
        below = f"{np.mean(found < CANARY_THRESHOLD):.0%}"
        assert [*told, below] == cells[1:], share


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
