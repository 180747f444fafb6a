"""What may be done with vectors of one space in a collection of another."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from samespace.errors import InvalidInput
from samespace.legality import Use, legality
from samespace.models import MODELS
from samespace.space import EmbeddingSpace, Verdict, compare, derive

V3 = EmbeddingSpace(model="jina-embeddings-v3", dimensions=1024, task="retrieval.passage")
SMALL = replace(V3, dimensions=768)
RAW = replace(V3, normalized=False)
V2 = EmbeddingSpace(model="jina-embeddings-v2-base-en", dimensions=768)
OWN = EmbeddingSpace(model="own", dimensions=768)


@pytest.mark.parametrize("use", get_args(Use))
@pytest.mark.parametrize(
    ("stored", "offered", "verdict", "reason"),
    [
        (V3, V3, "equal", "Both are of jina-embeddings-v3@1024:retrieval.passage"),
        (V3, SMALL, "derivable", "can be computed from the stored ones.*shortened to 768 components"),
        (SMALL, V3, "derivable", "once they are shortened to 768 components and divided by their norm"),
        (V3, RAW, "derivable", "once they are divided by their norm"),
        (RAW, SMALL, "derivable", "from the stored ones.*shortened to 768.*divided by their norm"),
        (SMALL, V2, "incompatible", "another model cannot be compared though the dimensions are equal"),
        (V3, V2, "incompatible", r"another model cannot be compared\."),
        (V3, replace(V3, task=None), "incompatible", "as retrieval.passage and as a text without a task"),
        (V3, replace(V3, variant="tuned"), "incompatible", "prompt, fine-tune or revision"),
        (OWN, replace(OWN, dimensions=32), "incompatible", "own is not trained for being shortened"),
        (SMALL, replace(RAW, dimensions=64), "incompatible", "lost their length"),
    ],
)  # fmt: skip
def test_every_verdict_has_its_reason(
    stored: EmbeddingSpace, offered: EmbeddingSpace, verdict: str, reason: str, use: Use
) -> None:
    found = legality(stored, offered, use)
    assert found.verdict == verdict
    assert found.is_legal == (stored == offered)
    assert re.search(reason, found.reason)


def test_what_is_to_be_done_is_said_of_the_use() -> None:
    assert "may be written once" in legality(SMALL, V3, "write").reason
    assert "may be searched with once" in legality(SMALL, V3, "query").reason


def test_it_agrees_with_what_can_be_derived() -> None:
    spaces = [
        EmbeddingSpace(model=model.name, dimensions=size, task=task, normalized=normalized)
        for model in MODELS.values()
        for size in {model.dimensions, max(model.min_dimensions, 64)}
        for task in {None, *model.tasks}
        if task is None or not task.endswith(".query")
        for normalized in (True, False)
    ]
    for stored in spaces:
        for offered in spaces:
            ways = {compare(stored, offered), compare(offered, stored)}
            expected = next(verdict for verdict in Verdict if verdict in ways)
            assert legality(stored, offered, "write").verdict is expected
    vectors = np.eye(2, 1024, dtype=np.float32)
    assert derive(vectors, stored=V3, offered=SMALL).shape == (2, 768)


def test_a_use_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidInput, match="use is 'zzz'; pass one of write, query"):
        legality(V3, SMALL, "zzz")  # type: ignore[arg-type]
