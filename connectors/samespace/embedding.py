"""Asking a backend, sync or async, and checking what it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeGuard, overload

import numpy as np
from numpy.typing import NDArray

from samespace.errors import BadResponse, EmbeddingError, InvalidInput, excerpt
from samespace.guard import CANARY_TEXTS, Canary, Direction
from samespace.protocols import (
    AnswersFromMemory,
    AnyBackend,
    AsyncEmbeddingBackend,
    CountsTokens,
    EmbeddingBackend,
    Matrix,
    ReportsProvenance,
    ReportsUsage,
    Usage,
)
from samespace.space import EmbeddingSpace
from samespace.vectors import embedded

_METHODS: Final = ("embed_documents", "embed_query", "embed_queries")
_NOTHING = Usage(0)
Embedded = tuple[Matrix, Usage]
"""Checked vectors, shape ``(n, dimensions)``, and what they cost."""


def require_sync(backend: AnyBackend | None) -> EmbeddingBackend | None:
    """Return the backend if a sync store can run it; :class:`InvalidInput` for an async one."""
    required = require_any(backend)
    if required is None or is_sync(required):
        return required
    raise InvalidInput(
        f"{type(backend).__name__} is async and this store is not; use its sync twin, "
        "or the async store"
    )


def require_any(backend: AnyBackend | None) -> AnyBackend | None:
    """Return the backend: an async store runs either kind; :class:`InvalidInput` for what is none."""
    if backend is None:
        return None
    missing = [name for name in _METHODS if not callable(getattr(backend, name, None))]
    if not isinstance(getattr(backend, "space", None), EmbeddingSpace):
        missing.insert(0, "space")
    if missing:
        raise InvalidInput(
            f"backend {excerpt(backend)} lacks {', '.join(missing)}; pass an EmbeddingBackend "
            "(samespace.open_backend makes one from a name)"
        )
    return backend


def is_async(backend: AnyBackend | None) -> TypeGuard[AsyncEmbeddingBackend]:
    """Whether a backend's methods are to be awaited."""
    return getattr(backend, "is_async", False)


def is_sync(backend: AnyBackend) -> TypeGuard[EmbeddingBackend]:
    """Whether a backend's methods are called as they are."""
    return not is_async(backend)


async def close_async(backend: AnyBackend) -> None:
    """Close an async backend that has something to close, in the loop that it was used in."""
    close = getattr(backend, "close", None)
    if is_async(backend) and callable(close):
        await close()


@overload
def uncached(backend: EmbeddingBackend) -> EmbeddingBackend: ...
@overload
def uncached(backend: AsyncEmbeddingBackend) -> AsyncEmbeddingBackend: ...
def uncached(backend: AnyBackend) -> AnyBackend:
    """The backend that asks its model for every text: this one, or the one beneath its caches.

    :class:`InvalidInput` if what a cache names is no backend of its own kind and space.
    """
    seen = [backend]
    while isinstance(backend, AnswersFromMemory) and backend.uncached is not backend:
        beneath = require_any(backend.uncached)
        if beneath is None or any(beneath is other for other in seen):
            raise InvalidInput(f"{excerpt(backend)} has no backend beneath it as its uncached")
        if (beneath.space, is_async(beneath)) != (backend.space, is_async(backend)):
            raise InvalidInput(
                f"{excerpt(backend)} is of {backend.space} and its uncached of {beneath.space}; they "
                "must be of one space, and both sync or both async"
            )
        seen.append(beneath)
        backend = beneath
    return backend


def embed(backend: EmbeddingBackend, direction: Direction, texts: Sequence[str]) -> Embedded:
    """Embed texts in one direction; checked, shape ``(len(texts), dimensions)``, with the cost."""
    asked = backend.embed_documents if direction == "documents" else backend.embed_queries
    try:
        answer = asked(texts)
    except EmbeddingError as error:
        error.tokens = usage_of(backend).tokens
        raise
    return embedded(answer, backend.space, count=len(texts)), usage_of(backend)


async def embed_async(backend: AnyBackend, direction: Direction, texts: Sequence[str]) -> Embedded:
    """:func:`embed` of either kind of backend; a sync one runs in a worker thread."""
    if is_sync(backend):
        return await asyncio.to_thread(embed, backend, direction, texts)
    asked: Any = backend.embed_documents if direction == "documents" else backend.embed_queries
    try:
        answer = await asked(texts)
    except EmbeddingError as error:
        error.tokens = usage_of(backend).tokens
        raise
    return embedded(answer, backend.space, count=len(texts)), usage_of(backend)


def embed_documents(backend: EmbeddingBackend, texts: Sequence[str]) -> Embedded:
    """Embed passages; checked, shape ``(len(texts), dimensions)``, with what it cost."""
    return embed(backend, "documents", texts)


def embed_queries(backend: EmbeddingBackend, texts: Sequence[str]) -> Matrix:
    """Embed queries; checked, shape ``(len(texts), dimensions)``."""
    return embed(backend, "queries", texts)[0]


async def embed_documents_async(backend: AnyBackend, texts: Sequence[str]) -> Embedded:
    """:func:`embed_documents` of either kind of backend; a sync one runs in a worker thread."""
    return await embed_async(backend, "documents", texts)


async def embed_queries_async(backend: AnyBackend, texts: Sequence[str]) -> Matrix:
    """:func:`embed_queries` of either kind of backend; a sync one runs in a worker thread."""
    return (await embed_async(backend, "queries", texts))[0]


def embed_proving(
    backend: EmbeddingBackend, direction: Direction, texts: Sequence[str]
) -> tuple[Embedded, Matrix]:
    """:func:`embed`, and the canary texts' vectors: they ride along, unless a memory could answer them.

    Then they are asked for first, of the backend beneath.
    """
    beneath = uncached(backend)
    if beneath is backend:
        with _about_the_first(len(texts)):
            return _apart(embed(backend, direction, [*texts, *CANARY_TEXTS]), len(texts))
    with _about_the_first(0):
        canary, usage = embed(beneath, direction, CANARY_TEXTS)
    found = embed(backend, direction, texts) if texts else (canary[:0], _NOTHING)
    return _with_tokens(found, usage), canary


async def embed_proving_async(
    backend: AnyBackend, direction: Direction, texts: Sequence[str]
) -> tuple[Embedded, Matrix]:
    """:func:`embed_proving` of either kind of backend."""
    beneath = uncached(backend)
    if beneath is backend:
        with _about_the_first(len(texts)):
            answer = await embed_async(backend, direction, [*texts, *CANARY_TEXTS])
        return _apart(answer, len(texts))
    with _about_the_first(0):
        canary, usage = await embed_async(beneath, direction, CANARY_TEXTS)
    found = await embed_async(backend, direction, texts) if texts else (canary[:0], _NOTHING)
    return _with_tokens(found, usage), canary


@contextmanager
def _about_the_first(count: int) -> Iterator[None]:
    """Have an error name texts of the caller, the first so many, or say that it is about none of them."""
    try:
        yield
    except EmbeddingError as error:
        own = tuple(place for place in error.indices if place < count)
        if error.indices and not own:
            error.args = (
                f"a known text that proves the backend (the canary) was refused, and none of yours: {error}",
            )
        error.indices = own
        raise


def _apart(answer: Embedded, count: int) -> tuple[Embedded, Matrix]:
    vectors, usage = answer
    return (vectors[:count], usage), vectors[count:]


def _with_tokens(found: Embedded, others: Usage) -> Embedded:
    vectors, usage = found
    return vectors, usage._replace(tokens=usage.tokens + others.tokens)


def embed_chunks(
    backend: EmbeddingBackend, documents: Sequence[Sequence[str]]
) -> tuple[list[Matrix], Usage]:
    """Embed chunks in sight of one another; a checked matrix for each document, and what it cost."""
    answer = backend.embed_chunks(documents)  # type: ignore[attr-defined]
    return _checked_chunks(answer, backend, documents), usage_of(backend)


async def embed_chunks_async(
    backend: AnyBackend, documents: Sequence[Sequence[str]]
) -> tuple[list[Matrix], Usage]:
    """:func:`embed_chunks` of an async backend."""
    answer = await backend.embed_chunks(documents)  # type: ignore[union-attr]
    return _checked_chunks(answer, backend, documents), usage_of(backend)


def _checked_chunks(
    answer: Sequence[Matrix], backend: AnyBackend, documents: Sequence[Sequence[str]]
) -> list[Matrix]:
    if len(answer) != len(documents):
        raise BadResponse(
            f"the backend answered wrongly: {len(answer)} matrices for {len(documents)} documents"
        )
    return [
        embedded(matrix, backend.space, count=len(chunks))
        for matrix, chunks in zip(answer, documents, strict=True)
    ]


def make_canary(backend: EmbeddingBackend) -> Canary:
    """Embed the canary texts in both directions, by the model itself and no cache."""
    beneath: Any = uncached(backend)
    documents, _ = embed_documents(beneath, CANARY_TEXTS)
    return _canary(documents, embed_queries(beneath, CANARY_TEXTS))


async def make_canary_async(backend: AnyBackend) -> Canary:
    """:func:`make_canary` of either kind of backend."""
    beneath = uncached(backend)
    documents, _ = await embed_documents_async(beneath, CANARY_TEXTS)
    return _canary(documents, await embed_queries_async(beneath, CANARY_TEXTS))


def _canary(documents: Matrix, queries: Matrix) -> Canary:
    return Canary(_directions(documents), _directions(queries))


def _directions(vectors: Matrix) -> NDArray[np.float16]:
    """Unit vectors, since float16 ends at 65,504; a canary compares nothing but directions."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(vectors / norms, dtype=np.float16)


def usage_of(backend: AnyBackend) -> Usage:
    """What this thread's (or task's) last call cost; nothing where the backend does not say."""
    return backend.usage() if isinstance(backend, ReportsUsage) else _NOTHING


def provenance_of(backend: AnyBackend | None) -> dict[str, str]:
    """How a backend makes vectors, for the record; empty without a backend."""
    if backend is None:
        return {}
    if isinstance(backend, ReportsProvenance):
        return dict(backend.provenance())
    return {"backend": type(backend).__name__}


async def provenance_of_async(backend: AnyBackend | None) -> dict[str, str]:
    """:func:`provenance_of` in a worker thread: a model may have to be looked for, or fetched, to tell."""
    return await asyncio.to_thread(provenance_of, backend)


async def count_tokens_async(backend: CountsTokens, texts: Sequence[str]) -> list[int]:
    """What a backend counts, in a worker thread: a tokenizer takes a second for a few megabytes."""
    return await asyncio.to_thread(backend.count_tokens, texts)
