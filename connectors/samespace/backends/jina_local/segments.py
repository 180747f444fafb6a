"""Runs of tokens as they go through the model, and which of them go together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
"""Token ids, one axis."""


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens ``start`` to ``stop`` of a segment count for the vector of ``owner``."""

    owner: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens that see one another and nothing else."""

    ids: Ids
    spans: tuple[Span, ...]

    def __len__(self) -> int:
        return len(self.ids)


def whole(ids: Ids, owner: int) -> Segment:
    """All tokens of one text, for one vector."""
    return Segment(ids, (Span(owner, 0, len(ids)),))


def batches(segments: Sequence[Segment], budget: int, *, padded: bool) -> Iterator[list[Segment]]:
    """All segments, longest first, in parts of at most ``budget`` tokens; a longer one goes alone.

    ``padded`` counts each as long as the longest of its part.
    """
    part: list[Segment] = []
    tokens = 0
    for segment in sorted(segments, key=len, reverse=True):
        longest = len(part[0]) if part and padded else len(segment)
        cost = (len(part) + 1) * longest if padded else tokens + len(segment)
        if part and cost > budget:
            yield part
            part, tokens = [], 0
        part.append(segment)
        tokens += len(segment)
    if part:
        yield part


def windows(ids: Ids, spans: Sequence[Span], *, size: int, overlap: int) -> Iterator[Segment]:
    """A document in windows of ``size`` tokens, each of which begins with ``overlap`` of the one before.

    Those count for nothing there: they are the context of what follows them. No window is made that would
    have only them. Every token of every span is counted once (Günther et al. 2024, the long form of late
    chunking).
    """
    start, counted = 0, 0
    while counted < len(ids):
        stop = min(start + size, len(ids))
        yield Segment(ids[start:stop], tuple(_within(spans, counted, stop, start)))
        counted, start = stop, stop - overlap


def _within(spans: Sequence[Span], first: int, stop: int, shift: int) -> Iterator[Span]:
    """The parts of spans that lie between two tokens, as they lie in a window that begins at ``shift``."""
    for span in spans:
        begin, end = max(span.start, first), min(span.stop, stop)
        if begin < end:
            yield Span(span.owner, begin - shift, end - shift)
