"""The distinct values of a field, counted by document; no I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from samespace.documents import Document
from samespace.filters import Target

_Rank = tuple[int, Any]
"""Equal for equal values, numbers by value; in the order in which values are listed."""


class Values:
    """Counts the values of one field, each once a document."""

    def __init__(self, target: Target, path: tuple[str, ...]) -> None:
        self._target = target
        self._path = path
        self._found: dict[_Rank, tuple[Any, int]] = {}

    def add(self, document: Document) -> None:
        """Count a document."""
        elements = {_rank(value): value for value in self._elements(document)}
        for rank, value in elements.items():
            first, count = self._found.get(rank, (value, 0))
            self._found[rank] = first, count + 1

    def listed(self, *, limit: int, after: Any = None) -> list[tuple[Any, int]]:
        """The first values in order, those behind ``after``; with how many documents have each."""
        ranks = sorted(self._found)
        if after is not None:
            last = _rank(after)
            ranks = [rank for rank in ranks if rank > last]
        return [self._found[rank] for rank in ranks[:limit]]

    def _elements(self, document: Document) -> Iterator[Any]:
        value: Any = document.metadata
        if self._target is Target.ID:
            value = document.id
        elif self._target is Target.PARENT:
            value = document.parent.id if document.parent else None
        for key in self._path:
            value = value.get(key) if isinstance(value, dict) else None
        yield from (
            item for item in (value if isinstance(value, list) else [value]) if item is not None
        )


def _rank(value: Any) -> _Rank:
    if isinstance(value, bool):
        return 0, value
    if isinstance(value, int | float):
        return 1, value
    if isinstance(value, str):
        return 2, value
    return 3, orjson.dumps(_canonical(value), option=orjson.OPT_SORT_KEYS).decode()


def _canonical(value: Any) -> Any:
    """A value in which equal numbers are spelled alike."""
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return int(value) if is_whole else value
