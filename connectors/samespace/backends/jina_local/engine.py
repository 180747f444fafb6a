"""Texts in, means over their tokens out: batches without padding, and windows of long documents."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, chain, pairwise
from typing import Any, Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from samespace.backends.computing import Stop, Stopped
from samespace.backends.jina_local import attention
from samespace.backends.jina_local.checkpoint import MODEL
from samespace.backends.jina_local.segments import Ids, Segment, Span, batches, whole, windows
from samespace.backends.jina_local.tokens import LIMIT, Tokens
from samespace.backends.jina_local.weights import Held, Weights
from samespace.errors import EmbeddingError, InvalidInput, TokenLimitExceeded
from samespace.models import MODELS

T = TypeVar("T")
Means = NDArray[np.float32]
"""Shape ``(n, 1024)``, not normalised."""
OVERLAP: Final = 512
"""Tokens of left context that each later window of a document begins with."""
SLICE: Final = 1024
"""Texts that are sorted by length together; the next so many are made tokens of meanwhile."""
CHUNKS: Final = 256
"""Chunks of documents that are made tokens of together, or those of one document that has more."""


class ChunkUnknown(EmbeddingError, InvalidInput):
    """A chunk has no tokens. ``indices`` name its document, without which the others can be embedded."""


@dataclass(frozen=True, slots=True)
class Pooled:
    """What was found, and what it took."""

    means: Means
    counts: list[int]
    """The tokens of each that went through the model."""
    cut: tuple[int, ...] = ()
    """Positions of the texts that were longer than the model takes."""

    @property
    def tokens(self) -> int:
        """All tokens."""
        return sum(self.counts)


class Engine:
    """The model of every task behind one tokenizer. Any number of threads may use it at once."""

    def __init__(self, weights: Weights, tokens: Tokens, *, budget: int) -> None:
        """``budget`` is how many tokens go through the model at once."""
        self.weights, self.tokens, self._budget = weights, tokens, budget
        self._stream: Any = None
        self._making = threading.Lock()

    def texts(
        self, texts: Sequence[str], task: str | None, *, cuts: bool, stop: Stop = bool
    ) -> Pooled:
        """The mean over each text's tokens; :class:`TokenLimitExceeded` unless too long ones are cut."""
        found, long, prompt = _Sums(len(texts)), list[int](), prompt_of(task)
        held = Held(self.weights, task)
        slices = [range(len(texts))[start : start + SLICE] for start in range(0, len(texts), SLICE)]
        encode = [partial(self._encoded, texts, part, prompt) for part in slices]
        encoded = _ahead(encode, stop)
        for part, ids in zip(slices, encoded if cuts else _fitting(encoded), strict=True):
            long += [place for place, each in zip(part, ids, strict=True) if len(each) > LIMIT]
            cut = [self.tokens.cut(each) if len(each) > LIMIT else each for each in ids]
            self._run(map(whole, cut, part), held, found, stop)
        return Pooled(found.means(), found.counts(), tuple(long))

    def _encoded(self, texts: Sequence[str], part: range, prompt: str) -> list[Ids]:
        return self.tokens.of([texts[place] for place in part], prompt)

    def chunks(
        self, documents: Sequence[Sequence[str]], task: str | None, *, stop: Stop = bool
    ) -> tuple[list[Means], int]:
        """For each document the mean over each chunk's tokens, which see the others; and all tokens.

        A document is the task's prompt and its chunks, one behind the other; the first counts the prompt
        as its own. One that is longer than the model takes goes through in windows.
        """
        starts = [0, *accumulate(map(len, documents))]
        found, tokens, held = _Sums(starts[-1]), 0, Held(self.weights, task)
        waiting: list[Segment] = []
        for ids, spans in self._documents(documents, starts, prompt_of(task).strip(), stop):
            for window in windows(ids, spans, size=LIMIT, overlap=OVERLAP):
                tokens += len(window)
                waiting.append(window)
                if sum(map(len, waiting)) >= self._budget:
                    self._run(waiting, held, found, stop)
                    waiting = []
        self._run(waiting, held, found, stop)
        means = found.means()
        return [means[a:b] for a, b in pairwise(starts)], tokens

    def _documents(
        self, documents: Sequence[Sequence[str]], starts: Sequence[int], prompt: str, stop: Stop
    ) -> Iterator[tuple[Ids, list[Span]]]:
        """Each that has chunks; :class:`ChunkUnknown` at the end for those that cannot be embedded."""
        unknown = dict[int, int]()
        groups = _groups([len(chunks) for chunks in documents])
        encode = [partial(self._parts, documents, group, prompt) for group in groups]
        for place, parts in enumerate(chain.from_iterable(_ahead(encode, stop))):
            empty = [number for number, part in enumerate(parts[1:]) if not len(part)]
            if empty:
                unknown[place] = empty[0]
            if len(parts) > 1 and not unknown:  # else only to name the others
                yield self._document(parts, starts[place])
        if unknown:
            raise _unknown(unknown)

    def _parts(
        self, documents: Sequence[Sequence[str]], group: range, prompt: str
    ) -> list[list[Ids]]:
        return [self.tokens.bare([prompt, *documents[place]]) for place in group]

    def _document(self, parts: Sequence[Ids], first: int) -> tuple[Ids, list[Span]]:
        """A prompt and chunks as one, and the tokens of each chunk; the first has the prompt's."""
        ids = self.tokens.framed(parts)
        ends = 1 + np.cumsum([len(part) for part in parts])
        stops = [*map(int, ends[1:-1]), len(ids)]
        begins = [0, *stops[:-1]]
        spans = [
            Span(first + number, begin, stop)
            for number, (begin, stop) in enumerate(zip(begins, stops, strict=True))
        ]
        return ids, spans

    def query(self, text: str, task: str | None, *, cuts: bool) -> Pooled:
        """As :meth:`texts` of one, by the shortest way: it waits for no batch of others."""
        ids = self.tokens.of([text], prompt_of(task))[0]
        is_long = len(ids) > LIMIT
        if is_long and not cuts:
            raise too_long([0])
        found, segment = _Sums(1), whole(self.tokens.cut(ids) if is_long else ids, 0)
        with self.aside():
            found.add([segment], self._forward([segment], Held(self.weights, task)))
        return Pooled(found.means(), found.counts(), (0,) if is_long else ())

    def aside(self) -> Any:
        """On a device with a queue of its own, one that goes before the batches'."""
        if self.weights.device.type != "cuda":
            return torch.inference_mode()
        with self._making:
            if self._stream is None:
                made: Any = torch.cuda.Stream
                self._stream = made(self.weights.device, priority=-1)
        return torch.cuda.stream(self._stream)

    def _run(self, segments: Iterable[Segment], held: Held, found: _Sums, stop: Stop) -> None:
        """Put segments through the model; a batch's sums are fetched while the next is under way."""
        before: tuple[list[Segment], torch.Tensor] | None = None
        padded = self.weights.way == "padded"
        for batch in batches(list(segments), self._budget, padded=padded):
            if stop():
                raise Stopped
            under_way = batch, self._forward(batch, held)
            if before is not None:
                found.add(*before)
            before = under_way
        if before is not None:
            found.add(*before)

    @torch.inference_mode()
    def _forward(self, batch: Sequence[Segment], held: Held) -> torch.Tensor:
        """The sum over the tokens of each owner of a batch, shape ``(owners, 1024)``, float32."""
        way = self.weights.way
        place = {owner: number for number, owner in enumerate(owners_of(batch))}
        owners = np.concatenate([_owners(segment, place) for segment in batch])
        hidden = self._padded(batch, held) if way == "padded" else self._packed(batch, held)
        sums = torch.zeros(len(place) + 1, hidden.shape[-1], device=self.weights.device)
        return sums.index_add_(0, self._sent(owners), hidden.float())[:-1]

    def _packed(self, batch: Sequence[Segment], held: Held) -> torch.Tensor:
        ids = np.concatenate([segment.ids for segment in batch])
        lengths = [len(segment) for segment in batch]
        positions = np.concatenate([np.arange(length) for length in lengths])
        ends = attention.ends_of(lengths, self.weights.device, self.weights.way)
        found = held.model(
            input_ids=self._sent(ids)[None],
            position_ids=self._sent(positions)[None],
            samespace_ends=ends,
        )
        hidden: torch.Tensor = found.last_hidden_state[0]
        return hidden

    def _padded(self, batch: Sequence[Segment], held: Held) -> torch.Tensor:
        lengths = np.array([len(segment) for segment in batch])
        mask = np.arange(lengths.max())[None] < lengths[:, None]
        ids = np.full(mask.shape, self.tokens.padding, np.int64)
        ids[mask] = np.concatenate([segment.ids for segment in batch])
        there = self._sent(mask.astype(np.int64))
        found = held.model(input_ids=self._sent(ids), attention_mask=there)
        hidden: torch.Tensor = found.last_hidden_state[there.bool()]
        return hidden

    def _sent(self, array: NDArray[Any]) -> torch.Tensor:
        """Integers on the device; nothing waits for them to get there."""
        tensor = torch.from_numpy(np.ascontiguousarray(array, np.int64))
        if self.weights.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.weights.device, non_blocking=True)


class _Sums:
    """Sums over the tokens of each vector that is to be made, and how many tokens they are of."""

    def __init__(self, count: int) -> None:
        self._sums: Means = np.zeros((count, MODELS[MODEL].dimensions), np.float32)
        self._counts = np.zeros(count, np.int64)

    def add(self, batch: Sequence[Segment], sums: torch.Tensor) -> None:
        """What one batch adds; in one copy from the device."""
        self._sums[owners_of(batch)] += sums.cpu().numpy()
        for segment in batch:
            for span in segment.spans:
                self._counts[span.owner] += span.stop - span.start

    def counts(self) -> list[int]:
        """The tokens of each vector."""
        return [int(count) for count in self._counts]

    def means(self) -> Means:
        """The sums divided."""
        return np.divide(self._sums, self._counts[:, None], dtype=np.float32)


def owners_of(batch: Sequence[Segment]) -> list[int]:
    """Each once, in the order in which they come."""
    return list(dict.fromkeys(span.owner for segment in batch for span in segment.spans))


def _owners(segment: Segment, place: dict[int, int]) -> NDArray[np.int64]:
    """For each token the place of its owner; one beyond all for tokens that are context only."""
    found = np.full(len(segment), len(place), np.int64)
    for span in segment.spans:
        found[span.start : span.stop] = place[span.owner]
    return found


def prompt_of(task: str | None) -> str:
    """What is put in front of a text."""
    return MODELS[MODEL].prompts.get(task or "", "")


def too_long(places: Sequence[int]) -> TokenLimitExceeded:
    """Names texts by their positions."""
    others = f" (and {len(places) - 1} more)" if len(places) > 1 else ""
    return TokenLimitExceeded(
        f"text {places[0]}{others}: longer than the {LIMIT} tokens of {MODEL}, prompt and special tokens "
        "included; cut it into passages (nothing was truncated)",
        indices=list(places),
    )


def _unknown(found: dict[int, int]) -> ChunkUnknown:
    """Names documents by their positions."""
    place, number = next(iter(found.items()))
    others = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return ChunkUnknown(
        f"document {place}{others}: text {number} has nothing that the model knows; leave it out",
        indices=list(found),
    )


def _groups(counts: Sequence[int]) -> list[range]:
    """Documents of these numbers of chunks, as they are made tokens of together."""
    groups, first, chunks = list[range](), 0, 0
    for place, count in enumerate(counts):
        if place > first and chunks + count > CHUNKS:
            groups.append(range(first, place))
            first, chunks = place, 0
        chunks += count
    return [*groups, range(first, len(counts))]


def _fitting(encoded: Iterable[list[Ids]]) -> list[list[Ids]]:
    """All slices; what is too long in any is refused before a text of the first is embedded."""
    slices = list(encoded)
    long = [place for place, ids in enumerate(chain.from_iterable(slices)) if len(ids) > LIMIT]
    if long:
        raise too_long(long)
    return slices


def _ahead(work: Sequence[Callable[[], list[T]]], stop: Stop) -> Iterator[list[T]]:
    """What each piece of work returns, in order; one piece is done while the caller has the last.

    None is begun for a caller that is gone.
    """
    if len(work) == 1:
        yield work[0]()
        return
    with ThreadPoolExecutor(1, "samespace-tokens") as thread:
        waiting = deque(map(thread.submit, work[:1]))
        for each in work[1:]:
            if stop():
                raise Stopped
            waiting.append(thread.submit(each))
            yield waiting.popleft().result()
        yield from (each.result() for each in waiting)
