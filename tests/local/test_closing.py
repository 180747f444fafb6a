"""Weights beside a close: a call has its own until it is done, and nothing stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.local.naive import engine_of, farthest
from tests.models.paragraphs import paragraphs

from samespace.backends.jina_local.client import JinaLocalBackend
from samespace.backends.jina_local.engine import Engine
from samespace.backends.jina_local.weights import Weights


def test_what_is_closed_keeps_no_weights_though_a_call_goes_on(
    checkpoint: Path, local: JinaLocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = JinaLocalBackend(checkpoint, device="cpu", token_budget=1)
    weights, texts = engine_of(backend).weights, paragraphs(3)
    right = local.embed_documents(texts)
    forward, made, loads = Engine._forward, Weights._made, list[str | None]()

    def closing(*given: Any) -> Any:
        found = forward(*given)
        backend.close()
        return found

    def loading(self: Weights, task: str | None) -> Any:
        loads.append(task)
        return made(self, task)

    with monkeypatch.context() as patched:
        patched.setattr(Engine, "_forward", closing)
        patched.setattr(Weights, "_made", loading)
        assert farthest(backend.embed_documents(texts), right) <= 1e-4
    assert (loads, dict(weights._kept)) == (["retrieval.passage"], {})


def test_what_is_loaded_while_it_is_closed_is_not_kept(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, made = JinaLocalBackend(checkpoint, device="cpu"), Weights._made

    def closing(self: Weights, task: str | None) -> Any:
        backend.close()
        return made(self, task)

    with monkeypatch.context() as patched:
        patched.setattr(Weights, "_made", closing)
        assert backend.embed_query("a").shape == (1024,)
    assert not engine_of(backend).weights._kept
