"""Asking a backend, sync or async: each act goes to its own method, and every answer is checked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from samespace.embedding import (
    embed_documents,
    embed_documents_async,
    embed_proving,
    embed_proving_async,
    embed_queries,
    embed_queries_async,
    make_canary,
    make_canary_async,
    provenance_of,
    require_any,
    require_sync,
    uncached,
)
from samespace.errors import BadResponse, InvalidInput, RateLimited, TokenLimitExceeded
from samespace.guard import CANARY_TEXTS
from samespace.protocols import AnyBackend, Matrix, Usage
from samespace.space import EmbeddingSpace

SPACE = EmbeddingSpace(model="own", dimensions=2)
DOCUMENT, QUERY = (1.0, 0.0), (0.0, 1.0)


class SyncBackend:
    """Documents lie on one axis, queries on the other; remembers the threads that it ran in."""

    is_async: ClassVar[bool] = False

    def __init__(self) -> None:
        self.threads: list[int] = []

    @property
    def space(self) -> EmbeddingSpace:
        return SPACE

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        return self._rows(DOCUMENT, texts)

    def embed_query(self, text: str) -> Matrix:
        vector: Matrix = self._rows(QUERY, [text])[0]
        return vector

    def embed_queries(self, texts: Sequence[str]) -> Matrix:
        return self._rows(QUERY, texts)

    def _rows(self, row: tuple[float, float], texts: Sequence[str]) -> Matrix:
        self.threads.append(threading.get_ident())
        return np.array([row] * len(texts), dtype=np.float32)


class AsyncBackend:
    """The same, async."""

    is_async: ClassVar[bool] = True

    def __init__(self) -> None:
        self.inner = SyncBackend()

    @property
    def space(self) -> EmbeddingSpace:
        return SPACE

    async def embed_documents(self, texts: Sequence[str]) -> Matrix:
        return self.inner.embed_documents(texts)

    async def embed_query(self, text: str) -> Matrix:
        return self.inner.embed_query(text)

    async def embed_queries(self, texts: Sequence[str]) -> Matrix:
        return self.inner.embed_queries(texts)


class ReportingBackend(SyncBackend):
    """Says what a call cost, and how it makes vectors."""

    def usage(self) -> Usage:
        return Usage(7, (1,))

    def provenance(self) -> Mapping[str, str]:
        return {"backend": "test", "revision": "abc"}


class ShortBackend(SyncBackend):
    """Forgets the last text."""

    def _rows(self, row: tuple[float, float], texts: Sequence[str]) -> Matrix:
        return super()._rows(row, texts[:-1])


class ZeroBackend(SyncBackend):
    """Answers the second text with zeros."""

    def _rows(self, row: tuple[float, float], texts: Sequence[str]) -> Matrix:
        rows = super()._rows(row, texts)
        rows[1] = 0
        return rows


class LimitedBackend(SyncBackend):
    """Refuses, naming a text."""

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        raise RateLimited("still limited; wait a minute", indices=[0])


EITHER = pytest.mark.parametrize("make", [SyncBackend, AsyncBackend])
TEXTS = ["a", "b", "c"]


# Directions


def test_documents_and_queries_are_different_acts() -> None:
    documents, usage = embed_documents(SyncBackend(), TEXTS)
    np.testing.assert_array_equal(documents, [DOCUMENT] * 3)
    np.testing.assert_array_equal(embed_queries(SyncBackend(), TEXTS), [QUERY] * 3)
    assert usage == Usage(0)


@EITHER
async def test_an_async_caller_runs_either_kind(make: Callable[[], AnyBackend]) -> None:
    documents, usage = await embed_documents_async(make(), TEXTS)
    np.testing.assert_array_equal(documents, [DOCUMENT] * 3)
    np.testing.assert_array_equal(await embed_queries_async(make(), TEXTS), [QUERY] * 3)
    assert usage == Usage(0)


async def test_a_sync_backend_does_not_block_the_loop() -> None:
    backend = SyncBackend()
    await embed_documents_async(backend, TEXTS)
    await embed_queries_async(backend, TEXTS)
    assert threading.get_ident() not in backend.threads


async def test_an_async_backend_stays_in_the_loop() -> None:
    backend = AsyncBackend()
    await embed_documents_async(backend, TEXTS)
    assert backend.inner.threads == [threading.get_ident()]


def test_no_texts_are_no_vectors() -> None:
    class EmptyAware(SyncBackend):
        def _rows(self, row: tuple[float, float], texts: Sequence[str]) -> Matrix:
            return super()._rows(row, texts).reshape(len(texts), 2)

    assert embed_queries(EmptyAware(), []).shape == (0, 2)


# Costs and provenance


async def test_what_a_call_cost_is_passed_on() -> None:
    assert embed_documents(ReportingBackend(), TEXTS)[1] == Usage(7, (1,))
    assert (await embed_documents_async(ReportingBackend(), TEXTS))[1] == Usage(7, (1,))


def test_provenance_is_the_backends_own_or_its_kind() -> None:
    assert provenance_of(ReportingBackend()) == {"backend": "test", "revision": "abc"}
    assert provenance_of(AsyncBackend()) == {"backend": "AsyncBackend"}
    assert provenance_of(None) == {}


# Answers that cannot be trusted


@pytest.mark.parametrize(
    ("backend", "message", "indices"),
    [
        (ShortBackend(), r"3 vector\(s\) expected", ()),
        (ZeroBackend(), "vector 1 is zero", (1,)),
    ],
    ids=["short", "zero"],
)
async def test_a_bad_answer_is_refused(
    backend: SyncBackend, message: str, indices: tuple[int, ...]
) -> None:
    for ask in (embed_documents, embed_queries):
        with pytest.raises(BadResponse, match=message) as caught:
            ask(backend, TEXTS)
        assert caught.value.indices == indices
    for ask_async in (embed_documents_async, embed_queries_async):
        with pytest.raises(BadResponse, match=message):
            await ask_async(backend, TEXTS)


async def test_a_backends_own_error_passes_unchanged() -> None:
    with pytest.raises(RateLimited, match="wait a minute") as caught:
        await embed_documents_async(LimitedBackend(), TEXTS)
    assert caught.value.indices == (0,)


# Which store takes which backend


def test_a_sync_store_refuses_an_async_backend() -> None:
    backend = SyncBackend()
    assert require_sync(backend) is backend
    assert require_sync(None) is None
    with pytest.raises(InvalidInput, match="AsyncBackend is async and this store is not"):
        require_sync(AsyncBackend())


def test_an_async_store_takes_both() -> None:
    for backend in (SyncBackend(), AsyncBackend(), None):
        assert require_any(backend) is backend


def plain(*methods: str) -> Any:
    """A space and these methods, and nothing said of async."""
    backend = SyncBackend()
    return SimpleNamespace(space=SPACE, **{name: getattr(backend, name) for name in methods})


async def test_a_space_and_three_methods_are_a_backend() -> None:
    backend = plain("embed_documents", "embed_query", "embed_queries")
    assert [require(backend) for require in (require_sync, require_any)] == [backend, backend]
    vectors, _ = await embed_documents_async(backend, TEXTS)
    np.testing.assert_array_equal(vectors, [DOCUMENT] * len(TEXTS))
    np.testing.assert_array_equal(await embed_queries_async(backend, TEXTS), [QUERY] * len(TEXTS))


@pytest.mark.parametrize("wrong", ["jina", 7, object(), [SyncBackend()]])
@pytest.mark.parametrize("require", [require_any, require_sync])
def test_what_is_no_backend_is_refused(require: Callable[[Any], Any], wrong: object) -> None:
    with pytest.raises(InvalidInput, match="lacks space, embed_documents, embed_query, embed_q"):
        require(wrong)


def test_a_backend_that_lacks_a_method_is_told_which() -> None:
    with pytest.raises(InvalidInput, match="lacks embed_queries;"):
        require_any(plain("embed_documents", "embed_query"))


# The canary


async def test_a_canary_has_both_directions() -> None:
    made = [make_canary(SyncBackend())]
    made += [await make_canary_async(backend) for backend in (SyncBackend(), AsyncBackend())]
    for canary in made:
        assert canary.documents.dtype == canary.queries.dtype == np.float16
        np.testing.assert_array_equal(canary.documents, [DOCUMENT] * len(CANARY_TEXTS))
        np.testing.assert_array_equal(canary.queries, [QUERY] * len(CANARY_TEXTS))


class _Cache:
    """A backend that says what is beneath it, and would answer nothing right itself."""

    def __init__(self, beneath: Any, space: EmbeddingSpace = SPACE) -> None:
        self.uncached, self.space, self.is_async = beneath, space, beneath.is_async

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        return np.array([(0.6, 0.8)] * len(texts), dtype=np.float32)

    embed_queries = embed_query = embed_documents


Cache: Any = _Cache  # its attributes are an instance's, as somebody's may be


async def test_a_canary_is_never_embedded_by_a_cache() -> None:
    for canary in (
        make_canary(Cache(Cache(SyncBackend()))),
        await make_canary_async(Cache(AsyncBackend())),
    ):
        np.testing.assert_array_equal(canary.documents, [DOCUMENT] * len(CANARY_TEXTS))
        np.testing.assert_array_equal(canary.queries, [QUERY] * len(CANARY_TEXTS))


async def test_an_error_about_the_canary_texts_names_no_text_of_the_caller() -> None:
    class Refusing(SyncBackend):
        def embed_documents(self, texts: Sequence[str]) -> Matrix:
            raise TokenLimitExceeded("text 0 is too long", indices=(0,))

    for proving in (
        lambda backend: embed_proving(backend, "documents", ["fine"]),
        lambda backend: asyncio.run(embed_proving_async(backend, "documents", ["fine"])),
    ):
        with pytest.raises(TokenLimitExceeded) as caught:
            await asyncio.to_thread(proving, Cache(Refusing()))
        assert caught.value.indices == ()
        assert "(the canary) was refused, and none of yours: text 0" in str(caught.value)


@pytest.mark.parametrize(("refused", "named"), [((3,), ()), ((1, 3), (1,)), ((0,), (0,)), ((), ())])
async def test_an_error_about_texts_and_the_canary_names_the_texts(
    refused: tuple[int, ...], named: tuple[int, ...]
) -> None:
    class Refusing(SyncBackend):
        def embed_documents(self, texts: Sequence[str]) -> Matrix:
            raise TokenLimitExceeded("too long", indices=refused)

    for proving in (
        lambda backend: embed_proving(backend, "documents", ["one", "two"]),
        lambda backend: asyncio.run(embed_proving_async(backend, "documents", ["one", "two"])),
    ):
        with pytest.raises(TokenLimitExceeded) as caught:
            await asyncio.to_thread(proving, Refusing())
        assert caught.value.indices == named
        assert ("none of yours: too long" in str(caught.value)) is (refused == (3,))


def test_what_is_beneath_caches_is_found_at_the_end() -> None:
    model = SyncBackend()
    assert uncached(model) is model
    assert uncached(Cache(Cache(model))) is model
    itself = Cache(model)
    itself.uncached = itself
    assert uncached(itself) is itself


def test_a_cache_in_front_of_another_kind_or_space_or_of_nothing_is_refused() -> None:
    around: Any = Cache(SyncBackend())
    around.uncached = Cache(around)
    asynchronous: Any = Cache(AsyncBackend())
    asynchronous.is_async = False
    for wrong in (
        Cache(SyncBackend(), EmbeddingSpace(model="own", dimensions=3)),
        asynchronous,
        around,
    ):
        with pytest.raises(InvalidInput, match="uncached"):
            uncached(wrong)


def test_a_canary_of_long_vectors_keeps_their_directions() -> None:
    class LongBackend(SyncBackend):
        @property
        def space(self) -> EmbeddingSpace:
            return EmbeddingSpace(model="own", dimensions=2, normalized=False)

        def _rows(self, row: tuple[float, float], texts: Sequence[str]) -> Matrix:
            return super()._rows((3e5 * (row[0] + row[1]), 4e5), texts)

    canary = make_canary(LongBackend())
    np.testing.assert_allclose(canary.documents, [(0.6, 0.8)] * len(CANARY_TEXTS), atol=1e-3)
