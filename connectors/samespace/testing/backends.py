"""Small backends with known behaviour, honest ones and others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, Final

import numpy as np

from samespace.backends.hashing import HashingBackend
from samespace.errors import EmbeddingError
from samespace.guard import CANARY_TEXTS
from samespace.protocols import EmbeddingBackend, Matrix, Usage, Vector
from samespace.space import EmbeddingSpace

DIMENSIONS: Final = 64
V3: Final = EmbeddingSpace(
    model="jina-embeddings-v3", dimensions=DIMENSIONS, task="retrieval.passage"
)
UNLIKE: Final = EmbeddingSpace(model="another-model", dimensions=DIMENSIONS)
"""A space of the same size that has nothing to do with :data:`V3`."""
Distortion = Callable[[Matrix], Matrix]


class TaskBackend:
    """Embeds lexically, queries a little otherwise than documents, and keeps count of both.

    ``documents`` and ``queries`` are the texts it was asked for, ``canaries`` counts those of the
    canary, which cost nothing here. Texts in ``truncated`` are reported as cut.
    """

    is_async: ClassVar[bool] = False

    def __init__(
        self, space: EmbeddingSpace = V3, *, seed: int = 0, truncated: Iterable[str] = ()
    ) -> None:
        self._space = space
        self._truncated = frozenset(truncated)
        self._usage = Usage(0)
        self._lexical = HashingBackend(space.dimensions)
        random = np.random.default_rng(seed)
        rotation, _ = np.linalg.qr(random.standard_normal((space.dimensions, space.dimensions)))
        self._rotation = rotation.astype(np.float32)
        self._queries = random.standard_normal(space.dimensions).astype(np.float32) * 0.05
        self.documents: list[str] = []
        self.queries: list[str] = []
        self.canaries = 0

    @property
    def space(self) -> EmbeddingSpace:
        """The space it claims."""
        return self._space

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        """Shape ``(len(texts), dimensions)``."""
        self.documents += self._noted(texts)
        return self._unit(self._lexical.embed_documents(texts) @ self._rotation)

    def embed_queries(self, texts: Sequence[str]) -> Matrix:
        """Shape ``(len(texts), dimensions)``."""
        self.queries += self._noted(texts)
        return self._unit(self._lexical.embed_documents(texts) @ self._rotation + self._queries)

    def embed_query(self, text: str) -> Vector:
        """Shape ``(dimensions,)``."""
        vector: Vector = self.embed_queries([text])[0]
        return vector

    def usage(self) -> Usage:
        """What the last call cost: a token for each word."""
        return self._usage

    def _noted(self, texts: Sequence[str]) -> list[str]:
        own = [text for text in texts if text not in CANARY_TEXTS]
        self.canaries += len(texts) - len(own)
        cut = tuple(place for place, text in enumerate(texts) if text in self._truncated)
        self._usage = Usage(sum(len(text.split()) for text in own), cut)
        return own

    @staticmethod
    def _unit(vectors: Matrix) -> Matrix:
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


class LyingBackend(TaskBackend):
    """Claims a space and embeds like another model."""

    def __init__(self, space: EmbeddingSpace = V3) -> None:
        super().__init__(space, seed=99)


class RefusingBackend(TaskBackend):
    """Refuses every text that contains a word; with ``error`` everything, in that way.

    A call that is refused costs ``charged`` tokens.
    """

    def __init__(self, word: str, *, error: EmbeddingError | None = None, charged: int = 0) -> None:
        super().__init__()
        self._word = word
        self._error = error
        self._charged = charged

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        """Shape ``(len(texts), dimensions)``, or the refusal."""
        found = [place for place, text in enumerate(texts) if self._word in text]
        if found:
            self._usage = Usage(self._charged)
            raise self._error or EmbeddingError("text refused; shorten it", indices=found)
        return super().embed_documents(texts)


class DistortingBackend:
    """Another backend whose answers pass through a function of the matrix, for each direction.

    ``space`` is what it claims, the other backend's space unless given.
    """

    is_async: ClassVar[bool] = False

    def __init__(
        self,
        backend: EmbeddingBackend,
        *,
        documents: Distortion | None = None,
        queries: Distortion | None = None,
        space: EmbeddingSpace | None = None,
    ) -> None:
        self._backend = backend
        self._documents = documents
        self._queries = queries
        self._space = space or backend.space

    @property
    def space(self) -> EmbeddingSpace:
        """The space it claims."""
        return self._space

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        """What the distortion makes of vectors of shape ``(len(texts), dimensions)``."""
        vectors = self._backend.embed_documents(texts)
        return self._documents(vectors) if self._documents else vectors

    def embed_queries(self, texts: Sequence[str]) -> Matrix:
        """What the distortion makes of vectors of shape ``(len(texts), dimensions)``."""
        vectors = self._backend.embed_queries(texts)
        return self._queries(vectors) if self._queries else vectors

    def embed_query(self, text: str) -> Vector:
        """What the distortion makes of one vector of shape ``(dimensions,)``."""
        vector: Vector = self.embed_queries([text])[0]
        return vector


class ChangingBackend:
    """What stands behind an address: one model at first, and another once ``model`` is set."""

    is_async: ClassVar[bool] = False

    def __init__(self, model: EmbeddingBackend) -> None:
        self.model = model

    @property
    def space(self) -> EmbeddingSpace:
        """The model's space."""
        return self.model.space

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        """Vectors of shape ``(len(texts), dimensions)``."""
        return self.model.embed_documents(texts)

    def embed_queries(self, texts: Sequence[str]) -> Matrix:
        """Vectors of shape ``(len(texts), dimensions)``."""
        return self.model.embed_queries(texts)

    def embed_query(self, text: str) -> Vector:
        """One query's vector, shape ``(dimensions,)``."""
        return self.model.embed_query(text)


class AwaitableBackend:
    """Another backend with async methods."""

    is_async: ClassVar[bool] = True

    def __init__(self, backend: EmbeddingBackend) -> None:
        self._backend = backend

    @property
    def space(self) -> EmbeddingSpace:
        """The other backend's space."""
        return self._backend.space

    async def embed_documents(self, texts: Sequence[str]) -> Matrix:
        """Vectors of shape ``(len(texts), dimensions)``."""
        return self._backend.embed_documents(texts)

    async def embed_queries(self, texts: Sequence[str]) -> Matrix:
        """Vectors of shape ``(len(texts), dimensions)``."""
        return self._backend.embed_queries(texts)

    async def embed_query(self, text: str) -> Vector:
        """One query's vector, shape ``(dimensions,)``."""
        return self._backend.embed_query(text)
