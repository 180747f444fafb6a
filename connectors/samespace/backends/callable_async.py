"""Functions of yours as a backend."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import ArrayLike

from samespace.embedding import require_any
from samespace.errors import InvalidInput, excerpt
from samespace.names import check_texts_listed
from samespace.protocols import AnyBackend, Matrix, Vector
from samespace.space import EmbeddingSpace
from samespace.vectors import embedded, stack

_WRONG_KIND: Final = {
    True: "this backend calls async functions and was given a plain one; use its sync twin, which an "
    "async store runs too",
    False: "this backend calls plain functions and was given an async one; use its async twin, with "
    "an async store",
}
"""By whether the backend is async."""


class AsyncCallableBackend:
    """Embeds by calling ``embed_documents(texts)``, of a list, and ``embed_query(text)``.

    The first returns something of shape ``(len(texts), dimensions)``, the second of shape
    ``(dimensions,)``, lists or arrays; what they return is copied and checked against ``space``
    (:class:`~samespace.errors.BadResponse`), what they raise passes through. ``embed_query`` may be
    left out where queries are embedded as documents are.

    The sync backend takes plain functions, its async twin async ones. An async store runs either, the
    sync one in a worker thread; a sync store runs the sync one. Of a LangChain ``Embeddings`` object
    pass the methods: ``embed_documents`` and ``embed_query``, or ``aembed_documents`` and
    ``aembed_query`` to the async twin. Which space its vectors live in only you can say; that it stays
    the same is what a collection's canary watches.

    Where the functions answer from a cache, ``uncached`` is a backend of the same space that does not:
    the canary is embedded by that. The methods of a LangChain ``CacheBackedEmbeddings`` need none, for
    what is beneath is known.
    """

    is_async: ClassVar[bool] = True

    def __init__(
        self,
        space: EmbeddingSpace,
        embed_documents: Callable[[list[str]], Awaitable[ArrayLike]],
        embed_query: Callable[[str], Awaitable[ArrayLike]] | None = None,
        *,
        uncached: AnyBackend | None = None,
    ) -> None:
        if not isinstance(space, EmbeddingSpace):
            raise InvalidInput(f"space is {excerpt(space)}; pass an EmbeddingSpace")
        for name, function in {
            "embed_documents": embed_documents,
            "embed_query": embed_query,
        }.items():
            if not callable(function) and not (name == "embed_query" and function is None):
                raise InvalidInput(f"{name} is {excerpt(function)}; pass a function")
        if embed_query is None and space.query_task != space.task:
            raise InvalidInput(
                f"documents of {space} have another task than their queries, {space.query_task}; "
                "pass embed_query= too"
            )
        self._space = space
        self._documents = embed_documents
        self._query = embed_query
        self._uncached = require_any(uncached) or self._beneath()

    def _beneath(self) -> AnyBackend | None:
        """A backend of the functions that these methods, if they are a cache's, are in front of."""
        documents, query = _method_beneath(self._documents), _method_beneath(self._query)
        if documents is None and query is None:
            return None
        return type(self)(self._space, documents or self._documents, query or self._query)

    @property
    def space(self) -> EmbeddingSpace:
        """The space that the functions' vectors are said to live in."""
        return self._space

    @property
    def uncached(self) -> AnyBackend:
        """The backend that answers from no cache, this one unless another was passed."""
        return self._uncached or self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._space)!r})"

    async def embed_documents(self, texts: Sequence[str]) -> Matrix:
        """Vectors of shape ``(len(texts), dimensions)``, float32."""
        check_texts_listed(texts)
        if not len(texts):
            return stack([], self._space.dimensions)
        answer = await self._answer_of(self._documents, list(texts))
        # A copy, for a function may fill the same array again at its next call.
        return np.array(embedded(answer, self._space, count=len(texts)))

    async def embed_queries(self, texts: Sequence[str]) -> Matrix:
        """Vectors of shape ``(len(texts), dimensions)``, float32; one call of yours each."""
        check_texts_listed(texts)
        if self._query is None:
            return await self.embed_documents(texts)
        return stack([await self.embed_query(text) for text in texts], self._space.dimensions)

    async def embed_query(self, text: str) -> Vector:
        """One query's vector, shape ``(dimensions,)``, float32."""
        if self._query is None:
            found: Vector = (await self.embed_documents([text]))[0]
            return found
        check_texts_listed([text])
        answer = await self._answer_of(self._query, text)
        vector: Vector = embedded([answer], self._space, count=1)[0]
        return vector

    async def _answer_of(
        self, function: Callable[[Any], Awaitable[ArrayLike]], asked: Any
    ) -> ArrayLike:
        """What a function returns, if it is of this backend's kind: plain or async."""
        answer: Any = function(asked)
        if inspect.isawaitable(answer) == self.is_async:
            found: ArrayLike = await answer
            return found
        if inspect.iscoroutine(answer):
            answer.close()  # it has not begun
        raise InvalidInput(_WRONG_KIND[self.is_async])


def _method_beneath(method: Any) -> Callable[..., Any] | None:
    """The method of this name of what a LangChain cache embeds with; None for all else."""
    beneath = getattr(getattr(method, "__self__", None), "underlying_embeddings", None)
    found: Callable[..., Any] | None = getattr(beneath, getattr(method, "__name__", ""), None)
    return found
