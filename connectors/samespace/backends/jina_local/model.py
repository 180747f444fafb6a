"""v3 with one task and one size: what both backends are made of, and the server that is one."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Final, NamedTuple

import numpy as np
import torch

from samespace.backends.computing import Answer, Errand, Stop, Stopped
from samespace.backends.http.exchange import check_documents, check_texts
from samespace.backends.jina_local import checkpoint, options
from samespace.backends.jina_local.engine import Engine, Means, Pooled, prompt_of
from samespace.backends.jina_local.tokens import Tokens
from samespace.backends.jina_local.weights import Weights
from samespace.backends.model_options import checked_count
from samespace.errors import EmbeddingError, excerpt
from samespace.models import MODELS, Model
from samespace.protocols import Matrix, Usage
from samespace.space import EmbeddingSpace
from samespace.vectors import embedded

_SPECIAL: Final = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
"""What the model's configuration says where a file says nothing."""


@contextmanager
def _explained() -> Iterator[None]:
    """Say what to do where the device has no room."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise EmbeddingError(
            f"the device has no room for that much at once ({excerpt(str(error))}); lower token_budget=, "
            'or keep one copy of the model with weight_sets=1, or take dtype="bfloat16"'
        ) from error


class Loaded:
    """A checkpoint with its engine, made when it is first needed; several spaces may share it."""

    def __init__(
        self,
        model_or_folder: str | os.PathLike[str],
        *,
        device: str | None,
        dtype: str | None,
        token_budget: int | None,
        weight_sets: int,
        revision: str | None,
    ) -> None:
        self._folder = checkpoint.check_model(model_or_folder)
        self._revision = revision
        self.device = options.device_of(device)
        self.dtype = options.checked_dtype(dtype, self.device)
        self._budget = options.checked_budget(token_budget, self.device)
        self._sets = checked_count(weight_sets, "weight_sets")
        self._turn = threading.Lock()
        self._made: tuple[checkpoint.Checkpoint, Engine] | None = None
        self._fetch = Errand(lambda: checkpoint.found(None, revision))
        if self._folder is not None:
            checkpoint.found(self._folder, revision)  # what is missing is said at once

    def __repr__(self) -> str:
        return repr(str(self._folder)) if self._folder else repr(checkpoint.MODEL)

    @property
    def engine(self) -> Engine:
        """What embeds; without weights as yet."""
        return self._ready()[1]

    @property
    def revision(self) -> str:
        """The commit of the weights, empty for a folder's."""
        return self._ready()[0].revision

    def load(self, tasks: Sequence[str | None], stop: Stop = bool) -> None:
        """The weights of these tasks, as many as are kept."""
        weights = self._ready(stop)[1].weights
        for task in list(dict.fromkeys(tasks))[: self._sets]:
            if stop():
                raise Stopped
            weights.of(task)

    @property
    def model(self) -> Model:
        """The model whose checkpoint it is."""
        return MODELS[checkpoint.MODEL]

    def texts(
        self,
        texts: Sequence[str],
        task: str | None,
        *,
        cuts: bool,
        stop: Stop = bool,
        urgent: bool = False,
    ) -> Pooled:
        """Means of each text by itself; ``urgent`` goes before the batches that are under way."""
        check_texts(texts)
        engine = self._ready(stop)[1]
        with _explained():
            if urgent and len(texts) == 1:
                return engine.query(texts[0], task, cuts=cuts)
            with engine.aside() if urgent else nullcontext():
                return engine.texts(texts, task, cuts=cuts, stop=stop)

    def chunks(
        self, documents: Sequence[Sequence[str]], task: str | None, *, stop: Stop = bool
    ) -> tuple[list[Means], int]:
        """Means of the chunks of documents, each in sight of its document's others; and all tokens."""
        check_documents(documents)
        with _explained():
            return self._ready(stop)[1].chunks(documents, task, stop=stop)

    def count_tokens(self, texts: Sequence[str], task: str | None) -> list[int]:
        """Tokens of each text: prompt and special ones included."""
        check_texts(texts)
        return [len(ids) for ids in self.engine.tokens.of(texts, prompt_of(task))]

    def count_together(self, chunks: Sequence[str], task: str | None) -> int:
        """Tokens of the document that these are the chunks of: prompt and special ones included."""
        check_texts(chunks)
        tokens = self.engine.tokens
        return len(tokens.framed(tokens.bare([prompt_of(task).strip(), *chunks])))

    def drop(self) -> None:
        """Let the weights go."""
        if self._made is not None:
            self._made[1].weights.drop()

    def _ready(self, stop: Stop = bool) -> tuple[checkpoint.Checkpoint, Engine]:
        if self._made is not None:
            return self._made
        found = self._found(stop)
        with self._turn:
            if self._made is None:
                self._made = found, self._engine(found)
            return self._made

    def _found(self, stop: Stop) -> checkpoint.Checkpoint:
        if self._folder is None:
            return self._fetch.result(stop)  # minutes, perhaps
        return checkpoint.found(self._folder, self._revision)

    def _engine(self, found: checkpoint.Checkpoint) -> Engine:
        begin, end, padding = (found.config.get(name, usual) for name, usual in _SPECIAL.items())
        tokens = Tokens(found.folder / "tokenizer.json", begin=begin, end=end, padding=padding)
        weights = Weights(found, device=self.device, dtype=self.dtype, most=self._sets)
        return Engine(weights, tokens, budget=self._budget)


class ChunkAnswer(NamedTuple):
    """One matrix a document, and what they cost."""

    vectors: list[Matrix]
    usage: Usage


class LocalModel:
    """One space of a checkpoint."""

    def __init__(self, loaded: Loaded, space: EmbeddingSpace, *, cuts: bool) -> None:
        self.loaded, self.space, self._cuts = loaded, space, cuts

    def documents(self, texts: Sequence[str], stop: Stop = bool) -> Answer:
        """Vectors of texts with the space's task."""
        return self._texts(texts, self.space.task, stop)

    def queries(self, texts: Sequence[str], stop: Stop = bool) -> Answer:
        """Vectors of texts with its queries' task; a single one waits for no others."""
        check_texts(texts)
        return self._texts(texts, self.space.query_task, stop, urgent=len(texts) == 1)

    def chunks(self, documents: Sequence[Sequence[str]], stop: Stop = bool) -> ChunkAnswer:
        """Vectors of the chunks of documents, each in sight of its document's others."""
        found, tokens = self.loaded.chunks(documents, self.space.task, stop=stop)
        return ChunkAnswer([self._sized(means) for means in found], Usage(tokens))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as the space's task has it: prompt and special ones included."""
        return self.loaded.count_tokens(texts, self.space.task)

    def provenance(self) -> Mapping[str, str]:
        """What makes the vectors."""
        revision = self.loaded.revision
        return {
            "backend": "jina-local",
            "model": self.space.model,
            **({"revision": revision} if revision else {}),
            "dtype": str(self.loaded.dtype).removeprefix("torch."),
            "truncation": "reported" if self._cuts else "never",
        }

    def _texts(
        self, texts: Sequence[str], task: str | None, stop: Stop, *, urgent: bool = False
    ) -> Answer:
        found = self.loaded.texts(texts, task, cuts=self._cuts, stop=stop, urgent=urgent)
        return Answer(self._sized(found.means), Usage(found.tokens, found.cut))

    def _sized(self, means: Means) -> Matrix:
        """The first dimensions of each vector, of unit norm."""
        first = means[:, : self.space.dimensions]
        with np.errstate(divide="ignore", invalid="ignore"):  # found by the check that follows
            unit = first / np.linalg.norm(first, axis=1, keepdims=True)
        return embedded(unit, self.space, count=len(means))
