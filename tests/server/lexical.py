"""A backend that can be served, without weights: the vectors of the test server, and known behaviour."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from samespace.errors import TokenLimitExceeded
from samespace.models import MODELS, Model
from samespace.protocols import Matrix
from samespace.server.servable import Stop
from samespace.testing.jina_vectors import LexicalModel, count_tokens, first_tokens

SLOW = "slow"


@dataclass(frozen=True)
class Words:
    means: Matrix
    counts: list[int]


class LexicalBackend:
    """Is its own servable. What has a text with ``slow`` in it waits for :attr:`go`."""

    def __init__(self, model: str = "jina-embeddings-v3", *, context: int | None = None) -> None:
        self._model = MODELS[model]
        self._lexical = LexicalModel(self._model)
        self._context = context or self._model.context
        self.calls: list[list[str]] = []
        self.urgent: list[str] = []
        self.entered = threading.Semaphore(0)
        self.go, self.stopped, self.may_load = (threading.Event() for _ in range(3))
        self.may_load.set()
        self.fault: BaseException | None = None

    @property
    def servable(self) -> LexicalBackend:
        return self

    @property
    def model(self) -> Model:
        return self._model

    def load(self, tasks: Sequence[str | None]) -> None:
        assert set(tasks) == {*self._model.tasks, None}
        self.may_load.wait(60)
        if self.fault:
            raise self.fault

    def texts(
        self,
        texts: Sequence[str],
        task: str | None,
        *,
        cuts: bool,
        stop: Stop = bool,
        urgent: bool = False,
    ) -> Words:
        self.calls.append(list(texts))
        if urgent:
            self.urgent += texts
        self._wait(texts, stop)
        if self.fault:
            raise self.fault
        counts = [count_tokens(text) for text in texts]
        long = [place for place, count in enumerate(counts) if count > self._context]
        if long and not cuts:
            raise TokenLimitExceeded(f"text {long[0]} is too long", indices=long)
        cut = [first_tokens(text, self._context) for text in texts]
        return Words(self._means(cut, task), [min(count, self._context) for count in counts])

    def chunks(
        self, documents: Sequence[Sequence[str]], task: str | None, *, stop: Stop = bool
    ) -> tuple[list[Matrix], int]:
        self.calls.append(["|".join(chunks) for chunks in documents])
        tokens = sum(self.count_together(chunks, task) for chunks in documents)
        return [self._means(chunks, task, late=True) for chunks in documents], tokens

    def count_together(self, chunks: Sequence[str], task: str | None) -> int:
        return sum(map(count_tokens, chunks))

    def _means(self, texts: Sequence[str], task: str | None, *, late: bool = False) -> Matrix:
        return self._lexical.embed(
            texts,
            task=task,
            dimensions=self._model.dimensions,
            normalized=False,
            late_chunking=late,
        )

    def _wait(self, texts: Sequence[str], stop: Stop) -> None:
        if not any(SLOW in text for text in texts):
            return
        self.entered.release()
        while not self.go.wait(0.01):
            if stop():
                self.stopped.set()
                raise InterruptedError


def unit(vectors: Matrix) -> Matrix:
    found: Matrix = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found
