"""Which rows have been seen, where there may be more of them than memory has room for as texts."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

from samespace.documents import Document

_RECENT: Final = 1_024
"""How many are kept as they come, at least, before they are sorted in among the others."""


class Fingerprints:
    """A set of numbers of 8 bytes that takes hardly more than these do."""

    def __init__(self) -> None:
        self._sorted: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._recent: set[int] = set()

    def __len__(self) -> int:
        return len(self._sorted) + len(self._recent)

    def __contains__(self, number: int) -> bool:
        if number in self._recent:
            return True
        place = int(np.searchsorted(self._sorted, np.uint64(number)))
        return place < len(self._sorted) and int(self._sorted[place]) == number

    def add(self, number: int) -> None:
        """Add one; it may be there already."""
        if number in self:
            return
        self._recent.add(number)
        if len(self._recent) > max(_RECENT, len(self._sorted) // 16):
            recent = np.fromiter(self._recent, np.uint64, len(self._recent))
            self._sorted = np.sort(np.concatenate([self._sorted, recent]))
            self._recent = set()

    def discard(self, number: int) -> None:
        """Take one out, if it is there."""
        self._recent.discard(number)
        place = int(np.searchsorted(self._sorted, np.uint64(number)))
        if place < len(self._sorted) and int(self._sorted[place]) == number:
            self._sorted = np.delete(self._sorted, place)


def fingerprint_of_chunks(chunks: Sequence[Document]) -> int:
    """What tells a document's chunks, in their order, with texts and places, from others."""
    places = (chunk.parent.span if chunk.parent else None for chunk in chunks)
    return fingerprint_of(
        "".join(
            f"{fingerprint(chunk)}:{place};" for chunk, place in zip(chunks, places, strict=True)
        )
    )


def fingerprint(document: Document) -> int:
    """What tells a row with its text from others: 8 bytes of their BLAKE2b hash."""
    return fingerprint_of(f"{len(document.id)}:{document.id}{document.embedded_text}")


def fingerprint_of(text: str) -> int:
    """8 bytes of a text's BLAKE2b hash."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
