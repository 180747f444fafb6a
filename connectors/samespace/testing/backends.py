"""Small backends with known behaviour, honest ones and others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

import numpy as np

from samespace.backends.hashing import HashingBackend
from samespace.errors import EmbeddingError
from samespace.guard import CANARY_TEXTS
from samespace.protocols import Matrix, Usage, Vector
from samespace.space import EmbeddingSpace

DIMENSIONS: Final = 64
V3: Final = EmbeddingSpace(
    model="jina-embeddings-v3", dimensions=DIMENSIONS, task="retrieval.passage"
)
UNLIKE: Final = EmbeddingSpace(model="another-model", dimensions=DIMENSIONS)
"""A space of the same size that has nothing to do with :data:`V3`."""


class TaskBackend:
    """Embeds lexically, queries a little otherwise than documents, and keeps count of both."""

    is_async: ClassVar[bool] = False

    def __init__(self, space: EmbeddingSpace = V3, *, seed: int = 0) -> None:
        self._space = space
        self._lexical = HashingBackend(space.dimensions)
        random = np.random.default_rng(seed)
        rotation, _ = np.linalg.qr(random.standard_normal((space.dimensions, space.dimensions)))
        self._rotation = rotation.astype(np.float32)
        self._queries = random.standard_normal(space.dimensions).astype(np.float32) * 0.05
        self.documents: list[str] = []
        self.queries: list[str] = []

    @property
    def space(self) -> EmbeddingSpace:
        """The space it claims."""
        return self._space

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        """Shape ``(len(texts), dimensions)``."""
        self.documents += [text for text in texts if text not in CANARY_TEXTS]
        return self._unit(self._lexical.embed_documents(texts) @ self._rotation)

    def embed_queries(self, texts: Sequence[str]) -> Matrix:
        """Shape ``(len(texts), dimensions)``."""
        self.queries += [text for text in texts if text not in CANARY_TEXTS]
        return self._unit(self._lexical.embed_documents(texts) @ self._rotation + self._queries)

    def embed_query(self, text: str) -> Vector:
        """Shape ``(dimensions,)``."""
        vector: Vector = self.embed_queries([text])[0]
        return vector

    def usage(self) -> Usage:
        """A token a text: enough to see it reported."""
        return Usage(tokens=1)

    @staticmethod
    def _unit(vectors: Matrix) -> Matrix:
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


class LyingBackend(TaskBackend):
    """Claims a space and embeds like another model."""

    def __init__(self, space: EmbeddingSpace = V3) -> None:
        super().__init__(space, seed=99)


class RefusingBackend(TaskBackend):
    """Refuses every text that contains a word; with ``error`` everything, in that way."""

    def __init__(self, word: str, *, error: EmbeddingError | None = None) -> None:
        super().__init__()
        self._word = word
        self._error = error

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        """Shape ``(len(texts), dimensions)``, or the refusal."""
        found = [place for place, text in enumerate(texts) if self._word in text]
        if found:
            raise self._error or EmbeddingError("text refused; shorten it", indices=found)
        return super().embed_documents(texts)
