"""The contract on backends that run no model here: lexical, functions, caches, and clients of servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from samespace import (
    AsyncCachingBackend,
    AsyncCallableBackend,
    AsyncJinaAPIBackend,
    AsyncOpenAICompatibleBackend,
    CachingBackend,
    CallableBackend,
    EmbeddingSpace,
    HashingBackend,
    JinaAPIBackend,
    OpenAICompatibleBackend,
)
from samespace.protocols import Matrix, Vector
from samespace.testing.answers import UNFIT
from samespace.testing.backend_contract import EmbeddingBackendContract
from samespace.testing.backend_contract_async import AsyncEmbeddingBackendContract
from samespace.testing.backends import TaskBackend
from samespace.testing.jina_server import JinaServer
from samespace.testing.openai_server import OpenAIServer

KEY, SERVED = "key-of-a-test", "served"
V3 = EmbeddingSpace(model="jina-embeddings-v3", dimensions=1024, task="retrieval.passage")
PROMPTS = {"documents": "passage: ", "queries": "query: "}
LONG = "word " * 60
"""Longer than a server takes whose context is 50 tokens."""


class Counted:
    """A lexical model whose calls are counted."""

    def __init__(self) -> None:
        self.model, self.calls = TaskBackend(), 0

    def documents(self, texts: list[str]) -> Matrix:
        self.calls += 1
        return self.model.embed_documents(texts)

    def query(self, text: str) -> Vector:
        self.calls += 1
        return self.model.embed_query(text)

    async def documents_async(self, texts: list[str]) -> Matrix:
        return self.documents(texts)

    async def query_async(self, text: str) -> Vector:
        return self.query(text)


@pytest.fixture
def counted() -> Counted:
    return Counted()


class TestHashing(EmbeddingBackendContract):
    @pytest.fixture
    def make(self) -> Any:
        return lambda: HashingBackend(64)


class OfFunctions:
    @pytest.fixture
    def sent(self, counted: Counted) -> Callable[[], int]:
        return lambda: counted.calls


class TestCallable(OfFunctions, EmbeddingBackendContract):
    @pytest.fixture
    def make(self, counted: Counted) -> Any:
        return lambda: CallableBackend(counted.model.space, counted.documents, counted.query)


class TestAsyncCallable(OfFunctions, AsyncEmbeddingBackendContract):
    @pytest.fixture
    def make(self, counted: Counted) -> Any:
        return lambda: AsyncCallableBackend(
            counted.model.space, counted.documents_async, counted.query_async
        )


class OfJina:
    """Asks a server that counts words, as nobody's tokenizer would."""

    too_long = LONG
    refuses = UNFIT

    @pytest.fixture
    def server(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[JinaServer]:
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
        with JinaServer(keys=(KEY,), context=50, shuffled=True) as server:
            yield server

    @pytest.fixture
    def sent(self, server: JinaServer) -> Callable[[], int]:
        return lambda: len(server.requests)


class TestJina(OfJina, EmbeddingBackendContract):
    @pytest.fixture
    def make(self, server: JinaServer) -> Any:
        return lambda: JinaAPIBackend(api_key=KEY, base_url=server.url)


class TestAsyncJina(OfJina, AsyncEmbeddingBackendContract):
    @pytest.fixture
    def make(self, server: JinaServer) -> Any:
        return lambda: AsyncJinaAPIBackend(api_key=KEY, base_url=server.url)


class TestCache(OfJina, EmbeddingBackendContract):
    @pytest.fixture
    def make(self, server: JinaServer) -> Any:
        return lambda: CachingBackend(JinaAPIBackend(api_key=KEY, base_url=server.url))


class TestAsyncCache(OfJina, AsyncEmbeddingBackendContract):
    @pytest.fixture
    def make(self, server: JinaServer) -> Any:
        return lambda: AsyncCachingBackend(AsyncJinaAPIBackend(api_key=KEY, base_url=server.url))


class OfOpenAI:
    too_long = LONG
    refuses = UNFIT

    @pytest.fixture
    def server(self) -> Iterator[OpenAIServer]:
        with OpenAIServer(model=SERVED, context=50, shuffled=True) as server:
            yield server

    @pytest.fixture
    def sent(self, server: OpenAIServer) -> Callable[[], int]:
        return lambda: len(server.requests)


class TestOpenAI(OfOpenAI, EmbeddingBackendContract):
    @pytest.fixture
    def make(self, server: OpenAIServer) -> Any:
        return lambda: OpenAICompatibleBackend(server.url, model=SERVED, space=V3, prompts=PROMPTS)


class TestAsyncOpenAI(OfOpenAI, AsyncEmbeddingBackendContract):
    @pytest.fixture
    def make(self, server: OpenAIServer) -> Any:
        return lambda: AsyncOpenAICompatibleBackend(
            server.url, model=SERVED, space=V3, prompts=PROMPTS
        )
