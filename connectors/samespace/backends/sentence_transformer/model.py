"""Texts in, vectors out: what both backends are made of."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np
import sentence_transformers
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from samespace.backends.computing import Answer, Stop, Stopped
from samespace.backends.http.exchange import check_texts
from samespace.backends.model_options import checked_count
from samespace.backends.sentence_transformer import checking
from samespace.backends.sentence_transformer.checking import DOCUMENTS, QUERIES
from samespace.backends.sentence_transformer.loading import Loaded
from samespace.errors import EmbeddingError, InvalidInput, TokenLimitExceeded, excerpt
from samespace.protocols import Matrix, Usage
from samespace.space import EmbeddingSpace
from samespace.vectors import embedded

_TASKS: Final = {DOCUMENTS: "document", QUERIES: "query"}
"""What the library calls the sides."""
_WHOLE: Final = {
    "text": {"truncation": False, "padding": False, "verbose": False},
    "common": {"return_tensors": None},
}
"""How a text is prepared if nothing of it is to be lost."""


class Turns:
    """One at a time, and nobody twice while another waits."""

    def __init__(self) -> None:
        self._next, self._turn = threading.Lock(), threading.Lock()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """The turn, once it is the caller's."""
        with self._next:
            self._turn.acquire()
        try:
            yield
        finally:
            self._turn.release()


_TURNS: Final = WeakKeyDictionary[SentenceTransformer, Turns]()
"""A model may be in several backends; its tokenizer serves one thread."""
_TAKING: Final = threading.Lock()


class Model:
    """One space of a model. Any number of threads may use it."""

    def __init__(
        self,
        loaded: Loaded,
        space: EmbeddingSpace | None,
        *,
        prompts: checking.Prompts | None,
        dimensions: int | None,
        batch_size: int,
        cuts: bool,
    ) -> None:
        self._loaded, self._model = loaded, loaded.model
        self._batch_size, self._cuts = checked_count(batch_size, "batch_size"), cuts
        own = checking.own_prompts(self._model.prompts, self._model.default_prompt_name)
        self._prompts = checking.checked_prompts(prompts, own, declared=space is not None)
        with _TAKING:
            self._turns = _TURNS.setdefault(self._model, Turns())
        said, room = _limit(self._model), _positions(self._model)
        self._limit, self._uncut = min(said, room), _uncut(self._model)
        self._cutting: dict[str, Any] = (
            {"processing_kwargs": {"text": {"max_length": self._limit}}} if room < said else {}
        )
        self.space = checking.space_of(space, loaded.name, self._native(), dimensions)
        checking.check_sides(self.space, self._prompts)

    def documents(self, texts: Sequence[str], stop: Stop = bool) -> Answer:
        """Vectors of texts as documents."""
        return self._texts(texts, DOCUMENTS, stop)

    def queries(self, texts: Sequence[str], stop: Stop = bool) -> Answer:
        """Vectors of texts as queries."""
        return self._texts(texts, QUERIES, stop)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as a document: prompt and special ones included."""
        check_texts(texts)
        return self._counts(texts, DOCUMENTS, bool)

    def provenance(self) -> Mapping[str, str]:
        """What makes the vectors."""
        revision = self._loaded.revision
        return {
            "backend": "sentence-transformers",
            "model": self._loaded.name or self.space.model,
            **({"revision": revision} if revision else {}),
            "version": sentence_transformers.__version__,
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "truncation": "reported" if self._cuts else "never",
        }

    def _texts(self, texts: Sequence[str], side: str, stop: Stop) -> Answer:
        check_texts(texts)
        counts = self._counts(texts, side, stop)
        long = tuple(place for place, count in enumerate(counts) if self._is_long(count))
        if long and not self._cuts:
            raise self._too_long(long)
        vectors = self._sized(self._batches(texts, counts, side, stop))
        tokens = sum(self._limit if self._is_long(count) else count for count in counts)
        return Answer(vectors, Usage(int(tokens), long))

    def _is_long(self, count: int) -> bool:
        return count > self._limit

    def _counts(self, texts: Sequence[str], side: str, stop: Stop) -> list[int]:
        """Tokens of each text before anything is cut."""
        found: list[int] = []
        for start in range(0, len(texts), self._batch_size):
            with self._turn(stop):
                found += self._lengths(list(texts[start : start + self._batch_size]), side)
        return found

    def _lengths(self, texts: list[str], side: str) -> list[int]:
        if self._uncut is not None:
            prompted = [self._prompts.get(side, "") + text for text in texts]
            encodings = self._uncut.encode_batch_fast(prompted, add_special_tokens=False)
            return [len(each) for each in encodings]
        features = self._model.preprocess(
            texts,
            prompt=self._prompts.get(side),
            task=_TASKS[side],
            processing_kwargs=_WHOLE,
        )
        ids = features.get("input_ids")
        if isinstance(ids, list) and len(ids) == len(texts):
            return [len(each) for each in ids]
        raise InvalidInput(
            f"{type(self._model[0]).__name__}, the first part of the model, does not say how many tokens "
            "a text has, so that what is too long would be cut silently; use another model, or "
            "CallableBackend"
        )

    def _batches(
        self, texts: Sequence[str], counts: Sequence[int], side: str, stop: Stop
    ) -> NDArray[np.float32]:
        """What the model gives, shape ``(len(texts), …)``; the longest texts go first."""
        order = sorted(range(len(texts)), key=counts.__getitem__, reverse=True)
        found = np.empty((len(texts), self._native_size), np.float32)
        for start in range(0, len(order), self._batch_size):
            part = order[start : start + self._batch_size]
            with self._turn(stop):
                found[part] = self._encoded([texts[place] for place in part], side)
        return found

    @contextmanager
    def _turn(self, stop: Stop) -> Iterator[None]:
        """The model for one batch, unless nobody waits for it any more."""
        with self._turns.taken(), _explained():
            if stop():
                raise Stopped
            yield

    def _encoded(self, texts: list[str], side: str) -> Any:
        encode = self._model.encode_query if side == QUERIES else self._model.encode_document
        return encode(
            texts,
            prompt=self._prompts.get(side, ""),
            batch_size=len(texts),
            show_progress_bar=False,
            **self._cutting,
        )

    def _native(self) -> int:
        """How many components the model gives, by having it embed a word."""
        self._native_size = 0
        with self._turn(bool):
            self._lengths(["a"], DOCUMENTS)
            self._native_size = int(self._encoded(["a"], DOCUMENTS).shape[1])
        return self._native_size

    def _sized(self, found: NDArray[np.float32]) -> Matrix:
        """The first dimensions of each vector, of unit norm where the space's are."""
        first = found[:, : self.space.dimensions]
        if self.space.normalized:
            with np.errstate(divide="ignore", invalid="ignore"):  # found by the check that follows
                first = first / np.linalg.norm(first, axis=1, keepdims=True)
        return embedded(first, self.space, count=len(first))

    def _too_long(self, places: Sequence[int]) -> TokenLimitExceeded:
        others = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
        return TokenLimitExceeded(
            f"text {places[0]}{others}: longer than the {self._limit} tokens of {self.space.model}, prompt "
            "and special tokens included; cut it into passages (nothing was truncated), or pass "
            'on_too_long="truncate"',
            indices=places,
        )


_LIMITS: Final = ("max_seq_length", "query_length", "document_length")
"""Where a model says how many tokens it looks at; the least of them goes for both sides."""


def _limit(model: SentenceTransformer) -> float:
    """The most tokens of a text that the model looks at; infinite where it takes all of them."""
    limits = [getattr(model[0], name, None) for name in _LIMITS]
    tokenizer = getattr(model[0], "tokenizer", None)
    if getattr(tokenizer, "model_max_length", 0) is None:
        raise InvalidInput(
            "the model's max_seq_length is None, with which its tokenizer cannot be asked; set it to the "
            "tokens of a text that the model takes"
        )
    cutting = getattr(tokenizer, "truncation", None)
    if isinstance(cutting, Mapping):  # a bare tokenizer's, as static models have
        limits.append(cutting.get("max_length"))
    return min((limit for limit in limits if limit), default=float("inf"))


def _positions(model: SentenceTransformer) -> float:
    """The most tokens for which the model has learnt positions; infinite where it computes them."""
    found = [
        table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
        for name, table in model[0].named_modules()
        if name.rpartition(".")[2] == "position_embeddings"
        and isinstance(table, torch.nn.Embedding)
    ]
    return min(found, default=float("inf"))


def _uncut(model: SentenceTransformer) -> Any:
    """A copy of a static model's tokenizer that cuts nothing; None for other models."""
    tokenizer: Any = getattr(model[0], "tokenizer", None)
    if not isinstance(tokenizer, Tokenizer):
        return None
    copy: Any = Tokenizer.from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


@contextmanager
def _explained() -> Iterator[None]:
    """Say what to do where the device has no room."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise EmbeddingError(
            f"the device has no room for that much at once ({excerpt(str(error))}); lower batch_size="
        ) from error
