"""The local backend and its own model by hand, as sentence-transformers and as a plain loop run it.

One process with one copy of the weights does all tasks in turn, so that what slows the machine slows all.
The model has v3's width, heads and inner size, random weights and fewer layers (each costs the same); its
vocabulary is the small tokenizer's, for rows that no text names cost nothing.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from tests.local.checkpoints import make_checkpoint
from tests.models.paragraphs import paragraphs

from benchmarks.local.lines import IN_ORDER, SORTED
from samespace import JinaLocalBackend
from samespace.backends.jina_local.attention import NAMES
from samespace.backends.jina_local.engine import prompt_of

MEAN, LONGEST, SPREAD = 159, 512, 0.8
"""Tokens of a text, log-normal: the mean, the most, and the deviation of their logarithms."""
BATCH: Final = 32
"""Texts at once where batches are counted in texts: sentence-transformers' default."""
QUESTION: Final = "display too dark"


def lengths(count: int, *, seed: int = 0) -> NDArray[np.int64]:
    """Log-normal, cut at the longest, with the mean that is meant all the same."""
    normal = np.random.default_rng(seed).standard_normal(count)
    low, high = 0.0, float(LONGEST)
    while high - low > 0.01:
        middle = (low + high) / 2
        mean = np.clip(middle * np.exp(SPREAD * normal), 8, LONGEST).mean()
        low, high = (middle, high) if mean < MEAN else (low, middle)
    found: NDArray[np.int64] = np.clip(low * np.exp(SPREAD * normal), 8, LONGEST).astype(np.int64)
    return found


class Contestants:
    """A backend, and its own model run by hand."""

    def __init__(
        self, folder: Path, texts: int, *, device: str = "cpu", token_budget: int | None = None
    ) -> None:
        self.backend = JinaLocalBackend(folder, device=device, token_budget=token_budget)
        self._engine: Any = self.backend._loaded.engine  # noqa: SLF001  the same weights for all
        self.texts = [self._text(int(length)) for length in lengths(texts)]
        self.tokens = sum(self.backend.count_tokens(self.texts))
        self.backend.load()

    def _text(self, tokens: int) -> str:
        """Words of so many tokens, about."""
        words = " ".join(paragraphs(60)).split()
        start = int(np.random.default_rng(tokens).integers(len(words)))
        words = words[start:] + words[:start]
        counts = self.backend.count_tokens([" ".join(words[:place]) for place in range(1, 40)])
        each = (counts[-1] - counts[0]) / 38
        return " ".join((words * 2)[: max(1, round((tokens - counts[0]) / each))])

    @property
    def way(self) -> str:
        """How the backend computes attention here."""
        return str(self._engine.weights.way)

    def packed(self) -> float:
        """Tokens a second of the backend."""
        return self.rate(lambda: self.backend.embed_documents(self.texts))

    def padded(self, *, by_length: bool) -> float:
        """Tokens a second of batches of so many texts, each as long as its longest."""
        texts = sorted(self.texts, key=len, reverse=True) if by_length else self.texts
        with self.by_hand(self.backend.space.task) as model:
            return self.rate(lambda: [self._batch(model, part) for part in _parts(texts)])

    def query(self) -> float:
        """Milliseconds of one query."""
        return self._milliseconds(lambda: self.backend.embed_query(QUESTION))

    def forward(self) -> float:
        """Milliseconds of the model alone, for as many tokens."""
        task = self.backend.space.query_task
        ids = self._engine.tokens.of([QUESTION], prompt_of(task))[0]
        given = torch.from_numpy(ids.astype(np.int64))[None].to(self._engine.weights.device)
        with self.by_hand(task) as model:

            def alone() -> None:
                model(input_ids=given).last_hidden_state.cpu()

            return self._milliseconds(alone)

    @contextmanager
    def by_hand(self, task: str | None) -> Iterator[Any]:
        """The backend's model with the attention that it comes with."""
        model, usual = self._engine.weights.of(task), NAMES[self._engine.weights.way]
        model.set_attn_implementation("sdpa")
        try:
            with torch.inference_mode():
                yield model
        finally:
            model.set_attn_implementation(usual)

    def _batch(self, model: Any, texts: Sequence[str]) -> Any:
        device = self._engine.weights.device
        ids = self._engine.tokens.of(texts, prompt_of(self.backend.space.task))
        there = np.arange(max(map(len, ids)))[None] < np.array([[len(each)] for each in ids])
        given = np.full(there.shape, self._engine.tokens.padding, np.int64)
        given[there] = np.concatenate(ids)
        mask = torch.from_numpy(there.astype(np.int64)).to(device)
        hidden = model(input_ids=torch.from_numpy(given).to(device), attention_mask=mask)
        sums = (hidden.last_hidden_state.float() * mask[..., None]).sum(1)
        means = sums / mask.sum(1, keepdim=True)
        return torch.nn.functional.normalize(means, dim=1).cpu().numpy()

    def rate(self, work: Callable[[], object]) -> float:
        """Tokens a second of a piece of work on all texts."""
        start = time.perf_counter()
        work()
        return self.tokens / (time.perf_counter() - start)

    def _milliseconds(self, work: Callable[[], object], times: int = 20) -> float:
        found = []
        for _ in range(times):
            start = time.perf_counter()
            work()
            found.append(time.perf_counter() - start)
        return 1000 * statistics.median(found)


def _parts(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    return (texts[start : start + BATCH] for start in range(0, len(texts), BATCH))


def main(texts: int, layers: int) -> None:
    """Answer tasks, a line each."""
    with TemporaryDirectory() as folder:
        made = make_checkpoint(Path(folder) / "v3", layers=layers, inner=4096)
        contestants = Contestants(made, texts)
        tasks: dict[str, Callable[[], float]] = {
            "packed": contestants.packed,
            IN_ORDER: lambda: contestants.padded(by_length=False),
            SORTED: lambda: contestants.padded(by_length=True),
            "query": contestants.query,
            "forward": contestants.forward,
        }
        contestants.query()
        print(json.dumps("ready"), flush=True)
        for task in map(str.strip, sys.stdin):
            print(json.dumps({"figure": tasks[task]()}), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
