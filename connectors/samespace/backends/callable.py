"""Functions of yours as a backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from numpy.typing import ArrayLike

from samespace.errors import InvalidInput, excerpt
from samespace.protocols import Matrix, Vector
from samespace.space import EmbeddingSpace
from samespace.vectors import embedded, stack


class CallableBackend:
    """Embeds by calling ``embed_documents(texts)`` and ``embed_query(text)``.

    The first returns something of shape ``(len(texts), dimensions)``, the second of shape
    ``(dimensions,)``; what they return is checked against ``space``
    (:class:`~samespace.errors.BadResponse`), what they raise passes through. ``embed_query`` may be
    left out where queries are embedded as documents are.
    """

    is_async: ClassVar[bool] = False

    def __init__(
        self,
        space: EmbeddingSpace,
        embed_documents: Callable[[Sequence[str]], ArrayLike],
        embed_query: Callable[[str], ArrayLike] | None = None,
    ) -> None:
        if not isinstance(space, EmbeddingSpace):
            raise InvalidInput(f"space is {excerpt(space)}; pass an EmbeddingSpace")
        if embed_query is None and space.query_task != space.task:
            raise InvalidInput(
                f"documents of {space} have another task than their queries, {space.query_task}; "
                "pass embed_query= too"
            )
        self._space = space
        self._documents = embed_documents
        self._query = embed_query

    @property
    def space(self) -> EmbeddingSpace:
        """The space that the functions' vectors are said to live in."""
        return self._space

    def __repr__(self) -> str:
        return f"CallableBackend({str(self._space)!r})"

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        """Vectors of shape ``(len(texts), dimensions)``, float32."""
        return embedded(self._documents(texts), self._space, count=len(texts))

    def embed_queries(self, texts: Sequence[str]) -> Matrix:
        """Vectors of shape ``(len(texts), dimensions)``, float32; one call of yours each."""
        if self._query is None and texts:
            return self.embed_documents(texts)
        return stack([self.embed_query(text) for text in texts], self._space.dimensions)

    def embed_query(self, text: str) -> Vector:
        """One query's vector, shape ``(dimensions,)``, float32."""
        answer = self._documents([text]) if self._query is None else [self._query(text)]
        vector: Vector = embedded(answer, self._space, count=1)[0]
        return vector
