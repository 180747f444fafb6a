"""Late chunking: which chunks of a document go into one request, and whose vectors are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from samespace.errors import InvalidInput
from samespace.models import MODELS, Model

TOGETHER: Final = 8192
"""Tokens that the inputs of one request with late chunking have together, whatever the model."""
OVERLAP: Final = 512
"""Tokens of left context, at least, that a later window begins with."""


@dataclass(frozen=True, slots=True)
class Window:
    """Chunks ``first`` to ``stop`` see one another; the vectors from ``start`` on are kept."""

    first: int
    start: int
    stop: int

    @property
    def is_alone(self) -> bool:
        """Whether it is a single chunk, which could not be made smaller."""
        return self.stop - self.first == 1


def room_of(model: Model) -> int:
    """Tokens for all chunks of one request together."""
    return min(model.context, TOGETHER)


def overlap_of(*, exact: bool) -> int:
    """``OVERLAP`` as tokens are counted: estimates are up to three times too high."""
    return OVERLAP if exact else 3 * OVERLAP


def check_model(model: Model) -> None:
    """:class:`InvalidInput` for a model without late chunking names those that have it."""
    if not model.late_chunking:
        having = ", ".join(name for name, each in MODELS.items() if each.late_chunking)
        raise InvalidInput(
            f"{model.name} has no late chunking; use {having}, or embed_documents for chunks "
            "that do not see one another"
        )


def order(counts: Sequence[Sequence[int]], *, room: int) -> tuple[list[int], list[int]]:
    """The documents with a chunk that may be too long, which go first, and the others."""
    doubtful = [place for place, each in enumerate(counts) if each and max(each) > room]
    others = [place for place, each in enumerate(counts) if each and max(each) <= room]
    return doubtful, others


def window_from(start: int, counts: Sequence[int], *, room: int, overlap: int) -> Window:
    """The window in which chunk ``start`` and those after it are embedded.

    Before it come whole chunks until they have ``overlap`` tokens, so that it has its left context,
    as far as they and the chunk itself have room; after it, all that still fit.
    """
    first, context = start, 0
    while first and context < overlap and context + counts[first - 1] + counts[start] <= room:
        first -= 1
        context += counts[first]
    stop, left = start + 1, room - context - counts[start]
    while stop < len(counts) and counts[stop] <= left:
        left -= counts[stop]
        stop += 1
    return Window(first, start, stop)
