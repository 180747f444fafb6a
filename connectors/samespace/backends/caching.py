# Generated from caching_async.py by tools/generate_sync.py; change that file, not this one.
"""A cache in front of a backend."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Any, ClassVar, Final, NamedTuple, Self

from samespace.embedding import (
    embed,
    embed_chunks,
    is_async,
    provenance_of,
    require_sync,
)
from samespace.errors import EmbeddingError, InvalidInput, excerpt
from samespace.guard import Direction
from samespace.names import check_texts_listed
from samespace.protocols import (
    CountsTokens,
    EmbeddingBackend,
    Matrix,
    SupportsLateChunking,
    TakesCallsAtOnce,
    Usage,
    Vector,
)
from samespace.space import EmbeddingSpace
from samespace.vectors import stack

SIZE: Final = 10_000
_NOTHING: Final = Usage(0)


class _Kept(NamedTuple):
    """A text's vector, and whether the text was cut for it."""

    vector: Vector
    cut: bool


class CachingBackend:
    """Remembers the vectors of the last ``size`` texts, those of documents and of queries apart.

    Each takes 4 bytes a dimension. A text that occurs again, also within one call, is not asked for:
    :meth:`usage` reports the tokens of what was, and every text that was cut, then or now. Chunks that
    are embedded together are not remembered, for their vectors depend on one another. A collection's
    canary passes the cache by. Whatever else the backend can do is handed through; closing this
    closes it. Threads (tasks) may share it.
    """

    is_async: ClassVar[bool] = False

    def __init__(self, backend: EmbeddingBackend, *, size: int = SIZE) -> None:
        required = require_sync(backend)
        if required is None:
            raise InvalidInput("backend is None; pass what is to embed")
        if is_async(required) != self.is_async:
            raise InvalidInput(
                f"{excerpt(required)} is sync and this cache is not; use its sync twin, which an async "
                "store runs too"
            )
        if type(size) is not int or size < 1:
            raise InvalidInput(
                f"size is {excerpt(size)}; pass how many texts to remember, from 1 on"
            )
        self._backend = required
        self._size = size
        self._kept: OrderedDict[tuple[Direction, str], _Kept] = OrderedDict()
        self._lock = threading.Lock()
        self._usage: ContextVar[Usage] = ContextVar("usage", default=_NOTHING)
        self._hand_through()

    def _hand_through(self) -> None:
        """Have the optional methods that the backend has, and no others."""
        backend: Any = self._backend
        if isinstance(backend, SupportsLateChunking):
            self.embed_chunks = self._embed_chunks
        if isinstance(backend, CountsTokens):
            self.count_tokens = backend.count_tokens
        if isinstance(backend, TakesCallsAtOnce):
            self.calls_at_once = backend.calls_at_once

    @property
    def space(self) -> EmbeddingSpace:
        """The backend's space."""
        return self._backend.space

    @property
    def uncached(self) -> EmbeddingBackend:
        """The backend, which remembers nothing of this."""
        return self._backend

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._backend!r}, size={self._size})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the backend, if it has something to close, and forget all."""
        with self._lock:
            self._kept.clear()
        close = getattr(self._backend, "close", None)
        if callable(close):
            close()

    def usage(self) -> Usage:
        """What this thread's (or task's) last call cost, and the positions of texts that were cut."""
        return self._usage.get()

    def provenance(self) -> Mapping[str, str]:
        """What the backend says of how it makes vectors."""
        return provenance_of(self._backend)

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        """Vectors of shape ``(len(texts), dimensions)``, float32."""
        return self._embed("documents", texts)

    def embed_queries(self, texts: Sequence[str]) -> Matrix:
        """Vectors of shape ``(len(texts), dimensions)``, float32."""
        return self._embed("queries", texts)

    def embed_query(self, text: str) -> Vector:
        """One query's vector, shape ``(dimensions,)``, float32."""
        vector: Vector = self._embed("queries", [text])[0]
        return vector

    def _embed_chunks(self, documents: Sequence[Sequence[str]]) -> list[Matrix]:
        self._usage.set(_NOTHING)
        matrices, usage = embed_chunks(self._backend, documents)
        self._usage.set(usage)
        return matrices

    def _embed(self, direction: Direction, texts: Sequence[str]) -> Matrix:
        self._usage.set(_NOTHING)
        check_texts_listed(texts)
        found = self._remembered(direction, texts)
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        tokens = 0
        if missing:
            made, tokens = self._asked(direction, missing, texts)
            found |= made
        cut = tuple(place for place, text in enumerate(texts) if found[text].cut)
        self._usage.set(Usage(tokens, cut))
        return stack([found[text].vector for text in texts], self.space.dimensions)

    def _remembered(self, direction: Direction, texts: Sequence[str]) -> dict[str, _Kept]:
        found = {}
        with self._lock:
            for text in texts:
                if (direction, text) in self._kept:
                    self._kept.move_to_end((direction, text))
                    found[text] = self._kept[direction, text]
        return found

    def _asked(
        self, direction: Direction, missing: Sequence[str], texts: Sequence[str]
    ) -> tuple[dict[str, _Kept], int]:
        """What the backend makes of texts, remembered from now on, and the tokens that it took."""
        try:
            vectors, usage = embed(self._backend, direction, missing)
        except EmbeddingError as error:
            self._usage.set(Usage(error.tokens))
            refused = {missing[i] for i in error.indices if i < len(missing)}
            error.indices = tuple(i for i, text in enumerate(texts) if text in refused)
            raise
        # A copy each, for a view would keep the whole answer.
        made = {
            text: _Kept(vector.copy(), place in usage.truncated)
            for place, (text, vector) in enumerate(zip(missing, vectors, strict=True))
        }
        with self._lock:
            for text, kept in made.items():
                self._kept[direction, text] = kept
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)
        return made, usage.tokens
