"""A lexical backend without a model: for trying out, for tests, for machines without a key."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from samespace.models import HASHING
from samespace.names import check_texts_listed
from samespace.protocols import Matrix, Vector
from samespace.space import EmbeddingSpace

MODEL: Final = HASHING
_WORD: Final = re.compile(r"\w+|[^\w\s]")
_GRAM: Final = 4
_WORD_WEIGHT: Final = 1.0
_PAIR_WEIGHT: Final = 0.5
_GRAM_WEIGHT: Final = 0.5
_COMMON_WEIGHT: Final = 0.1
_COMMON_WORDS: Final = """
a an and are as at be by can do does for from has have how i if in is it its my of on or that the
their them there these this to use used was what when where which who why will you your
not no but so then than into also one may must should would could
der die das und ist ein eine mit von zu im den dem des auf für nicht wie
"""
_COMMON: Final = frozenset(_COMMON_WORDS.split())


class HashingBackend:
    """Hashed words, word pairs and character n-grams, as unit vectors of ``dimensions``.

    Two texts are near where they share words or parts of words; meaning is out of its reach. The
    same text gives the same vector in every process and on every machine (feature hashing with
    signs, Weinberger et al. 2009).
    """

    is_async: ClassVar[bool] = False

    def __init__(self, dimensions: int = 768) -> None:
        self._space = EmbeddingSpace(model=MODEL, dimensions=dimensions)

    @property
    def space(self) -> EmbeddingSpace:
        """The space of a lexical hash of this size."""
        return self._space

    def __repr__(self) -> str:
        return f"HashingBackend(dimensions={self._space.dimensions})"

    def provenance(self) -> Mapping[str, str]:
        """What made the vectors: no model."""
        return {"backend": "hashing", "kind": "lexical, no model"}

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        """Vectors of shape ``(len(texts), dimensions)``, float32, of unit norm."""
        check_texts_listed(texts)
        vectors = np.empty((len(texts), self._space.dimensions), dtype=np.float32)
        for row, text in enumerate(texts):
            vectors[row] = self._vector(text)
        return vectors

    def embed_queries(self, texts: Sequence[str]) -> Matrix:
        """As documents: a lexical hash has no sides."""
        return self.embed_documents(texts)

    def embed_query(self, text: str) -> Vector:
        """One query's vector, shape ``(dimensions,)``."""
        check_texts_listed([text])
        return self._vector(text)

    def _vector(self, text: str) -> Vector:
        hashes, weights = _features(text)
        signed = np.where(hashes & 1, weights, -weights)
        places = (hashes >> np.uint64(1)) % np.uint64(self._space.dimensions)
        summed = np.bincount(
            places.astype(np.int64), weights=signed, minlength=self._space.dimensions
        )
        norm = float(np.linalg.norm(summed))
        if norm == 0:  # signs cancelled out; any direction that depends on the text will do
            summed[_hash(text) % self._space.dimensions] = norm = 1.0
        return (summed / norm).astype(np.float32)


def _features(text: str) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
    """Hashes (uint64) and weights of a text's features; a feature's n-th occurrence counts less."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold()) or [text]
    counts = Counter(words)
    hashes: list[int] = []
    weights: list[float] = []
    for word, count in counts.items():
        found, weighed = _of_word(word)
        hashes += found
        weights += [weight * (1 + np.log(count)) for weight in weighed]
    content = [word for word in words if word not in _COMMON and word.isalnum()]
    for pair in set(pairwise(content)):
        hashes.append(_hash(" ".join(pair)))
        weights.append(_PAIR_WEIGHT)
    return np.array(hashes, dtype=np.uint64), np.array(weights)


@lru_cache(maxsize=16_384)  # about a kilobyte each
def _of_word(word: str) -> tuple[list[int], list[float]]:
    """A word's own hash and those of its n-grams, each with its weight."""
    common = word in _COMMON or not word.isalnum()
    if common:
        return [_hash(word)], [_COMMON_WEIGHT]
    padded = f"<{word}>"
    grams = {padded[i : i + _GRAM] for i in range(len(padded) - _GRAM + 1)} - {padded}
    each = _GRAM_WEIGHT / max(1.0, len(grams) ** 0.5)
    return [_hash(word), *map(_hash, sorted(grams))], [_WORD_WEIGHT, *[each] * len(grams)]


def _hash(feature: str) -> int:
    digest = hashlib.blake2b(feature.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
