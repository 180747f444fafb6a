"""Vectors without a model that relate to one another as those of Jina's models do.

A text's features are hashed (:class:`~samespace.backends.hashing.HashingBackend`) and spread over
all components by an orthonormal map of the model's own: two models have nothing in common, and a
prefix of a vector is a smaller picture of the whole. A task then turns each block of four
components by a unit quaternion, which keeps angles between texts of one task exactly, and puts the
two vectors of one text at the cosine of the two quaternions, in every prefix of whole blocks.

Randomness comes from hashes, so that every process and every machine makes the same vectors.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from samespace.backends.hashing import HashingBackend
from samespace.models import Model
from samespace.protocols import Matrix

Wide = NDArray[np.float64]

_TOKEN: Final = re.compile(r"\w+|[^\w\s]")
_SPECIAL_TOKENS: Final = 2
_NEIGHBOUR: Final = 0.25
"""Weight of the chunk before and of the one after, in late chunking."""
_ROUNDS: Final = 2
_QUATERNIONS: Final[dict[str | None, tuple[float, float, float, float]]] = {
    "passage": (1.0, 0.0, 0.0, 0.0),
    "query": (0.8, 0.6, 0.0, 0.0),
    None: (0.63, 0.0, 0.777, 0.0),
    "text-matching": (0.72, 0.3, 0.3, 0.55),
    "classification": (0.68, 0.3, 0.3, -0.6),
    "separation": (0.7, -0.3, 0.4, 0.5),
    "clustering": (0.7, -0.3, 0.4, 0.5),
}
"""By the side of a pair, or by the whole name; v3's measured relations, the others in between."""


_FAMILIES: Final = ("code", "nl2code", "qa", "code2code", "code2nl", "code2completion")
_BETWEEN_FAMILIES: Final = 0.3


def count_tokens(text: str) -> int:
    """Words and punctuation marks, and the two special tokens."""
    return len(_TOKEN.findall(text)) + _SPECIAL_TOKENS


def first_tokens(text: str, most: int) -> str:
    """The beginning of a text that has at most ``most`` tokens, special ones included."""
    ends = [match.end() for match in _TOKEN.finditer(text)]
    room = most - _SPECIAL_TOKENS
    return text if len(ends) <= room else text[: ends[room - 1]]


class LexicalModel:
    """Stands for one model of the registry."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._lexical = HashingBackend(model.dimensions)

    def embed(
        self,
        texts: Sequence[str],
        *,
        task: str | None,
        dimensions: int,
        normalized: bool = True,
        late_chunking: bool = False,
    ) -> Matrix:
        """Vectors of shape ``(len(texts), dimensions)``; a shorter one begins a longer one."""
        features = self._lexical.embed_documents(texts).astype(np.float64)
        if late_chunking:
            features = _unit(_blended(features))
        vectors = _turned(_spread(features, self._model.name), _quaternion(task))
        if not normalized:
            counts = np.array([[count_tokens(text)] for text in texts])
            vectors *= 2 + np.sqrt(counts)
            return vectors[:, :dimensions].astype(np.float32)
        return _unit(vectors[:, :dimensions]).astype(np.float32)


def _unit(vectors: Wide) -> Wide:
    norms: Wide = np.sqrt(np.sum(vectors * vectors, axis=1, keepdims=True))
    return vectors / norms


def _blended(chunks: Wide) -> Wide:
    """Each chunk with some of its neighbours."""
    blended = chunks.copy()
    blended[1:] += _NEIGHBOUR * chunks[:-1]
    blended[:-1] += _NEIGHBOUR * chunks[1:]
    return blended


def _spread(vectors: Wide, model: str) -> Wide:
    """Signs, a permutation and a Hadamard transform of blocks, twice: orthonormal."""
    for round_ in range(_ROUNDS):
        signs, order = _signs_and_order(f"{model}/{round_}", vectors.shape[1])
        vectors = _hadamard((vectors * signs)[:, order])
    return vectors


@lru_cache(maxsize=64)
def _signs_and_order(seed: str, size: int) -> tuple[Wide, NDArray[np.int64]]:
    random = np.frombuffer(hashlib.shake_256(seed.encode()).digest(8 * size), dtype="<u8")
    return np.where(random & np.uint64(1), 1.0, -1.0), np.argsort(random, kind="stable")


def _hadamard(vectors: Wide) -> Wide:
    """The normalised transform of each block, as long as the largest power of two in the size."""
    count, size = vectors.shape
    block = size & -size
    step = 1
    while step < block:
        pairs = vectors.reshape(count, -1, 2, step)
        left, right = pairs[:, :, 0, :], pairs[:, :, 1, :]
        vectors = np.stack((left + right, left - right), axis=2).reshape(count, size)
        step *= 2
    unit: Wide = vectors / np.sqrt(block)
    return unit


def _quaternion(task: str | None) -> tuple[float, float, float, float]:
    """What a task turns by; the pairs of other families lie in a circle around retrieval's."""
    family, _, side = (task or "").rpartition(".")
    a, b, c, d = _QUATERNIONS[side if family else task]
    if family in _FAMILIES:
        angle = 2 * math.pi * _FAMILIES.index(family) / len(_FAMILIES)
        c += _BETWEEN_FAMILIES * math.cos(angle)
        d += _BETWEEN_FAMILIES * math.sin(angle)
    norm = (a * a + b * b + c * c + d * d) ** 0.5
    return a / norm, b / norm, c / norm, d / norm


def _turned(vectors: Wide, quaternion: tuple[float, float, float, float]) -> Wide:
    """Each block of four components, as a quaternion, multiplied from the left."""
    a, b, c, d = quaternion
    w, x, y, z = (vectors[:, place::4] for place in range(4))
    turned = np.empty_like(vectors)
    turned[:, 0::4] = a * w - b * x - c * y - d * z
    turned[:, 1::4] = a * x + b * w + c * z - d * y
    turned[:, 2::4] = a * y - b * z + c * w + d * x
    turned[:, 3::4] = a * z + b * y - c * x + d * w
    return turned
