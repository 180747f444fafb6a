"""The distinct values of a field, counted by document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

Key = tuple[int, Any]


def lookup(metadata: Mapping[str, Any], path: Sequence[str]) -> Any:
    """The value of a field; None where there is none."""
    value: Any = metadata
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


class Count:
    """Values seen so far; numbers are one value if they are equal, whatever their type."""

    def __init__(self) -> None:
        self._documents: Counter[Key] = Counter()
        self._values: dict[Key, Any] = {}

    def add(self, value: object) -> None:
        """Count one document, whose field has this value or, in a list, these."""
        items = value if isinstance(value, list) else [value]
        found = {_key(item): item for item in items if item is not None}
        self._documents.update(found.keys())
        for key, item in found.items():
            self._values.setdefault(key, item)

    def page(self, limit: int, after: object) -> list[tuple[Any, int]]:
        """The first values behind ``after``: strings, then numbers, false and true, anything else."""
        least = _key(after) if after is not None else (-1, None)
        later = sorted(key for key in self._values if key[0] > least[0] or _is_behind(key, least))
        return [(self._values[key], self._documents[key]) for key in later[:limit]]


def _is_behind(key: Key, least: Key) -> bool:
    return bool(key[0] == least[0] and key[1] > least[1])


def _key(value: Any) -> Key:
    if isinstance(value, str):
        return 0, value
    if isinstance(value, bool):
        return 2, value
    if isinstance(value, int | float):
        return 1, value
    return 3, orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
