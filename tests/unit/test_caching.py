"""A cache in front of a backend: what is asked, what is remembered, what is handed through."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from samespace import AsyncCachingBackend, CachingBackend, CallableBackend
from samespace.embedding import provenance_of, uncached
from samespace.errors import EmbeddingError, InvalidInput
from samespace.protocols import (
    CountsTokens,
    Matrix,
    SupportsLateChunking,
    TakesCallsAtOnce,
    Usage,
    Vector,
)
from samespace.testing.backends import V3, AwaitableBackend, RefusingBackend, TaskBackend


class ManyTalents(TaskBackend):
    """Has every optional method, and something to close."""

    calls_at_once = 3
    closed = False

    def embed_chunks(self, documents: Sequence[Sequence[str]]) -> list[Matrix]:
        return [self.embed_documents(chunks) for chunks in documents]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text) for text in texts]

    def provenance(self) -> dict[str, str]:
        return {"backend": "many talents"}

    def close(self) -> None:
        self.closed = True


def test_a_text_is_asked_for_once_a_direction() -> None:
    model = TaskBackend()
    cache = CachingBackend(model)
    first = cache.embed_documents(["a", "b c", "a"])
    again = cache.embed_documents(["b c", "d", "a"])
    np.testing.assert_array_equal(first[[1, 0]], again[[0, 2]])
    np.testing.assert_array_equal(cache.embed_query("a"), TaskBackend().embed_query("a"))
    np.testing.assert_array_equal(cache.embed_queries(["a"])[0], cache.embed_query("a"))
    assert (model.documents, model.queries) == (["a", "b c", "d"], ["a"])
    assert cache.embed_documents([]).shape == (0, 64)


def test_usage_is_of_what_was_asked_and_cuts_are_remembered() -> None:
    cache = CachingBackend(TaskBackend(truncated=["far too long"]))
    cache.embed_documents(["far too long", "b c"])
    assert cache.usage() == Usage(5, (0,))
    cache.embed_documents(["d", "far too long"])
    assert cache.usage() == Usage(1, (1,))
    cache.embed_documents(["b c"])
    assert cache.usage() == Usage(0)
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(cache.usage).result() == Usage(0)


def test_what_was_not_used_for_longest_is_forgotten() -> None:
    model = TaskBackend()
    cache = CachingBackend(model, size=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        cache.embed_documents([text])
    assert model.documents == ["a", "b", "c", "b"]


def test_what_it_gives_may_be_changed() -> None:
    cache = CachingBackend(TaskBackend())
    cache.embed_documents(["a"])[:] = 0
    np.testing.assert_allclose(np.linalg.norm(cache.embed_documents(["a"])), 1, atol=1e-6)


def test_a_refusal_names_the_places_of_this_call_and_nothing_is_kept_of_it() -> None:
    cache = CachingBackend(RefusingBackend("poison", charged=4))
    cache.embed_documents(["a"])
    with pytest.raises(EmbeddingError) as caught:
        cache.embed_documents(["a", "poison", "b", "poison"])
    assert caught.value.indices == (1, 3)
    assert cache.usage() == Usage(4)
    assert cache.embed_documents(["a", "b"]).shape == (2, 64)
    assert cache.usage() == Usage(1)


def test_threads_share_it() -> None:
    model = TaskBackend()
    cache = CachingBackend(model, size=3)
    texts = [f"text {n % 7}" for n in range(200)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(cache.embed_query, texts))
    np.testing.assert_array_equal(found, [TaskBackend().embed_query(text) for text in texts])


def test_what_else_a_backend_can_do_is_handed_through() -> None:
    model = ManyTalents()
    with CachingBackend(model) as cache:
        assert isinstance(cache, SupportsLateChunking)
        assert isinstance(cache, CountsTokens)
        assert isinstance(cache, TakesCallsAtOnce)
        assert provenance_of(cache) == {"backend": "many talents"}
        assert cache.calls_at_once == 3
        assert cache.count_tokens(["abc"]) == [3]
        for _ in range(2):  # their vectors depend on one another
            assert [len(each) for each in cache.embed_chunks([["a", "b"], ["c"]])] == [2, 1]
        assert model.documents == ["a", "b", "c"] * 2
        assert uncached(CachingBackend(cache)) is model
    assert model.closed
    plain = CachingBackend(TaskBackend())
    for protocol in (SupportsLateChunking, CountsTokens, TakesCallsAtOnce):
        assert not isinstance(plain, protocol)
    assert provenance_of(plain) == {"backend": "TaskBackend"}


async def test_the_async_one_is_the_same() -> None:
    model = TaskBackend()
    async with AsyncCachingBackend(AwaitableBackend(model)) as cache:
        await cache.embed_documents(["a", "b"])
        await cache.embed_documents(["b", "c"])
        assert model.documents == ["a", "b", "c"]
        assert cache.space == V3


@pytest.mark.parametrize("size", [0, -1, True, 2.5, None])
def test_a_size_counts_texts(size: Any) -> None:
    with pytest.raises(InvalidInput, match="^size is"):
        CachingBackend(TaskBackend(), size=size)


def test_it_stands_in_front_of_its_own_kind() -> None:
    for wrong in (None, AwaitableBackend(TaskBackend()), object()):
        with pytest.raises(InvalidInput):
            CachingBackend(wrong)  # type: ignore[arg-type]
    for wrong in (None, TaskBackend()):
        with pytest.raises(InvalidInput):
            AsyncCachingBackend(wrong)  # type: ignore[arg-type]


def test_functions_with_a_cache_name_a_backend_without() -> None:
    model = TaskBackend()
    plain = CallableBackend(V3, model.embed_documents, model.embed_query)
    cached = CallableBackend(V3, model.embed_documents, model.embed_query, uncached=plain)
    assert uncached(plain) is plain
    assert uncached(cached) is plain
    with pytest.raises(InvalidInput, match="lacks"):
        CallableBackend(V3, model.embed_documents, model.embed_query, uncached=object())  # type: ignore[arg-type]


class CacheOfOthers:
    """Methods and attribute as LangChain's ``CacheBackedEmbeddings`` has them."""

    def __init__(self, beneath: object) -> None:
        self.underlying_embeddings = beneath

    def embed_documents(self, texts: list[str]) -> Matrix:
        return TaskBackend().embed_documents(texts)

    def embed_query(self, text: str) -> Vector:
        return TaskBackend().embed_query(text)


@pytest.mark.parametrize("caches", [1, 2])
def test_what_is_beneath_the_cache_of_another_library_is_found(caches: int) -> None:
    model = TaskBackend()
    cache: Any = model
    for _ in range(caches):
        cache = CacheOfOthers(cache)
    found = uncached(CallableBackend(V3, cache.embed_documents, cache.embed_query))
    found.embed_documents(["a"])
    found.embed_query("b")
    assert (model.documents, model.queries) == (["a"], ["b"])


@pytest.mark.parametrize("cached", ["documents", "queries"])
def test_a_cache_of_one_kind_alone_is_seen_through(cached: str) -> None:
    model = TaskBackend()
    cache: Any = CacheOfOthers(model)
    asked = (cache, model) if cached == "documents" else (model, cache)
    found = uncached(CallableBackend(V3, asked[0].embed_documents, asked[1].embed_query))
    found.embed_documents(["a"])
    found.embed_query("b")
    assert (model.documents, model.queries) == (["a"], ["b"])
