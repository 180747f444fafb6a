"""Functions as a backend: called as given, and not believed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from samespace import (
    AsyncCallableBackend,
    AsyncQdrantStore,
    CallableBackend,
    Document,
    EmbeddingSpace,
    HashingBackend,
)
from samespace.errors import BadResponse, InvalidInput
from samespace.protocols import Matrix

SPACE = EmbeddingSpace(model="own", dimensions=2)
V3 = EmbeddingSpace(model="jina-embeddings-v3", dimensions=2, task="retrieval.passage")


def test_documents_and_queries_go_to_their_own_functions() -> None:
    backend = CallableBackend(
        V3, lambda texts: [[1.0, 0.0] for _ in texts], lambda text: [0.0, 1.0]
    )
    assert backend.embed_documents(["a", "b"]).tolist() == [[1, 0], [1, 0]]
    assert backend.embed_queries(["a", "b"]).tolist() == [[0, 1], [0, 1]]
    assert backend.embed_query("a").tolist() == [0, 1]
    assert backend.embed_query("a").dtype == np.float32


def test_queries_are_embedded_as_documents_where_nothing_else_is_said() -> None:
    backend = CallableBackend(SPACE, lambda texts: [[0.6, 0.8] for _ in texts])
    assert backend.embed_query("a") == pytest.approx([0.6, 0.8])
    assert backend.embed_queries(["a", "b"]).shape == (2, 2)


def test_a_space_whose_queries_differ_needs_both() -> None:
    with pytest.raises(InvalidInput, match="embed_query"):
        CallableBackend(V3, lambda texts: [[1.0, 0.0] for _ in texts])


def test_a_ragged_answer_is_a_bad_one_for_queries_too() -> None:
    backend = CallableBackend(SPACE, lambda texts: [[1.0], [1.0, 0.0]])
    with pytest.raises(BadResponse, match="expected|regular array"):
        backend.embed_query("ab")
    for ask in (backend.embed_documents, backend.embed_queries):
        with pytest.raises(BadResponse, match="regular array"):
            ask(["a", "b"])


def filling(buffer: Matrix) -> Callable[[list[str]], Matrix]:
    """A function that answers with the same array each time, filled anew."""

    def embed(texts: list[str]) -> Matrix:
        angles = np.array([float(text) for text in texts])
        buffer[:] = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return buffer

    return embed


async def test_a_function_that_fills_one_array_again_changes_no_earlier_answer() -> None:
    embed = filling(np.zeros((2, 2), dtype=np.float32))

    async def embed_async(texts: list[str]) -> Matrix:
        return embed(texts)

    backend, twin = CallableBackend(SPACE, embed), AsyncCallableBackend(SPACE, embed_async)
    for first in (backend.embed_documents(["0", "0"]), await twin.embed_documents(["0", "0"])):
        backend.embed_documents(["1", "1"])
        assert first.tolist() == [[1, 0], [1, 0]]


def test_a_matrix_of_numpy_s_own_kind_is_an_array_here() -> None:
    def embed(texts: list[str]) -> Matrix:
        return np.array([[1.0, 0.0]] * len(texts), dtype=np.float32).view(np.matrix)

    assert CallableBackend(SPACE, embed).embed_query("a").shape == (2,)


def test_what_the_functions_return_is_checked() -> None:
    backend = CallableBackend(V3, lambda texts: [[1.0, 0.0]], lambda text: [3.0, 4.0])
    with pytest.raises(BadResponse, match="2 vector"):
        backend.embed_documents(["a", "b"])
    with pytest.raises(BadResponse, match="norm 5"):
        backend.embed_query("a")


def test_what_the_functions_raise_passes_through() -> None:
    def fail(texts: object) -> list[list[float]]:
        raise LookupError("no such model")

    with pytest.raises(LookupError, match="no such model"):
        CallableBackend(SPACE, fail).embed_query("a")


def test_a_space_is_asked_for() -> None:
    with pytest.raises(InvalidInput, match="EmbeddingSpace"):
        CallableBackend("jina-embeddings-v3", lambda texts: [])  # type: ignore[arg-type]


@pytest.mark.parametrize("function", [None, [[1.0, 0.0]], "embed"])
def test_a_function_is_asked_for(function: object) -> None:
    with pytest.raises(InvalidInput, match="embed_documents is .*pass a function"):
        CallableBackend(SPACE, function)  # type: ignore[arg-type]


class Embeddings:
    """Of the shape of LangChain's ``Embeddings``: lists in, lists out, each also async."""

    def __init__(self) -> None:
        self._backend = HashingBackend(16)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        assert type(texts) is list
        return [row.tolist() for row in self._backend.embed_documents(texts)]

    def embed_query(self, text: str) -> list[float]:
        return list(self._backend.embed_query(text).tolist())

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.embed_documents(texts)

    async def aembed_query(self, text: str) -> list[float]:
        return self.embed_query(text)


HASHED = EmbeddingSpace(model="hashed", dimensions=16)
TEXTS = ("red apples", "green pears")


def test_langchain_s_embeddings_are_a_backend() -> None:
    embeddings, true = Embeddings(), HashingBackend(16)
    backend = CallableBackend(HASHED, embeddings.embed_documents, embeddings.embed_query)
    np.testing.assert_array_equal(backend.embed_documents(TEXTS), true.embed_documents(TEXTS))
    np.testing.assert_array_equal(backend.embed_queries(TEXTS), true.embed_queries(TEXTS))
    np.testing.assert_array_equal(backend.embed_query(TEXTS[0]), true.embed_query(TEXTS[0]))


async def test_langchain_s_async_embeddings_are_an_async_backend() -> None:
    embeddings, true = Embeddings(), HashingBackend(16)
    backend = AsyncCallableBackend(HASHED, embeddings.aembed_documents, embeddings.aembed_query)
    np.testing.assert_array_equal(await backend.embed_documents(TEXTS), true.embed_documents(TEXTS))
    np.testing.assert_array_equal(await backend.embed_queries(TEXTS), true.embed_queries(TEXTS))
    np.testing.assert_array_equal(await backend.embed_query(TEXTS[0]), true.embed_query(TEXTS[0]))


async def test_async_functions_are_run_by_a_store() -> None:
    embeddings = Embeddings()
    backend = AsyncCallableBackend(HASHED, embeddings.aembed_documents, embeddings.aembed_query)
    async with AsyncQdrantStore(":memory:", collection="fruit", backend=backend) as store:
        await store.upsert([Document(text, text) for text in TEXTS])
        (best,) = await store.search("a red apple", limit=1)
    assert best.document.id == "red apples"


async def test_a_function_of_the_other_kind_is_refused_by_name() -> None:
    embeddings = Embeddings()
    given_async = CallableBackend(
        HASHED,
        embeddings.aembed_documents,  # type: ignore[arg-type]
        embeddings.aembed_query,  # type: ignore[arg-type]
    )
    with pytest.raises(InvalidInput, match="use its async twin"):
        given_async.embed_query("ab")
    with pytest.raises(InvalidInput, match="use its async twin"):
        given_async.embed_documents(list(TEXTS))
    given_plain = AsyncCallableBackend(
        HASHED,
        embeddings.embed_documents,  # type: ignore[arg-type]
        embeddings.embed_query,  # type: ignore[arg-type]
    )
    with pytest.raises(InvalidInput, match="use its sync twin"):
        await given_plain.embed_documents(list(TEXTS))
