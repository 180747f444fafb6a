"""Metadata and filters made at random, of values that stores like to confuse."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import reduce
from operator import or_
from typing import Any

from samespace.documents import INT64_MAX, INT64_MIN, Document, Metadata
from samespace.filters import Field, Filter, field

KEYS = ("a", "b", "a.b", '"', "é", "$ne", "k" * 256)
PATHS = (*((key,) for key in KEYS), ("a", "b"), ("b", "a.b"), ("a", "a"), ("nowhere",))
NUMBERS = (
    *(-1, 0, 1, 2, 2020, 2**53, 2**53 + 1, INT64_MAX, INT64_MAX - 1, INT64_MIN),
    *(-0.0, 1.0, 2020.0, 2020.5, float(2**53), float(2**63), 5e-324, -1e300, 1e17),
)
INSTANTS = (
    "2020-01-01",
    "2020-01-01T00:00:00Z",
    "2020-01-01T01:30:00+02:00",
    "2019-12-31T23:59:59.999999",
    "0001-01-01",
    "9999-12-31T23:59:59.999999-14",
)
STRINGS = ("", "a", "A", "true", "1", "2020", "null", "2020-13-01", "e\u0301", "é", "x" * 300)
SCALARS = (*NUMBERS, *INSTANTS, *STRINGS, True, False)


def documents(count: int, *, seed: int) -> list[Document]:
    """Documents of random metadata: scalars, null, ``[]``, lists of all kinds, objects, nothing."""
    chance = random.Random(seed)  # noqa: S311  repeatable, not secret
    return [Document(f"r{n}", f"row {n}", _object(chance, 2)) for n in range(count)]


def _object(chance: random.Random, depth: int) -> Metadata:
    keys = chance.sample(KEYS, chance.randint(0, 4))
    return {key: _value(chance, depth) for key in keys}


def _value(chance: random.Random, depth: int) -> Any:
    kind = chance.random()
    if kind < 0.15:
        return chance.choice((None, [], [None], {}, [[]], [{"a": 1}]))
    if kind < 0.4:
        return [chance.choice((*SCALARS, None)) for _ in range(chance.randint(1, 3))]
    if kind < 0.65 and depth:
        return _object(chance, depth - 1)
    return chance.choice(SCALARS)


def _ordered(chance: random.Random) -> Any:
    return chance.choice(NUMBERS if chance.random() < 0.6 else INSTANTS)


def _some(chance: random.Random) -> list[Any]:
    return chance.choices((*SCALARS, None), k=chance.randint(0, 4))


KINDS: dict[str, Callable[[Field, random.Random], Filter]] = {
    "equal": lambda key, chance: key == chance.choice(SCALARS),
    "unequal": lambda key, chance: key != chance.choice(SCALARS),
    "less": lambda key, chance: key < _ordered(chance),
    "at most": lambda key, chance: key <= _ordered(chance),
    "greater": lambda key, chance: key > _ordered(chance),
    "at least": lambda key, chance: key >= _ordered(chance),
    "among": lambda key, chance: key.in_(_some(chance)),
    "contains": lambda key, chance: key.contains(chance.choice(SCALARS)),
    "exists": lambda key, _: key.exists(),
    "missing": lambda key, _: key.in_([None]),
    "combined": lambda key, chance: _combined(key, chance, 3),
}
"""Each makes a filter on a field."""


def filters(kind: str, count: int, *, seed: int) -> Iterator[Filter]:
    """Filters of a kind on any of the fields, each with its opposite."""
    chance = random.Random(f"{kind} {seed}")  # noqa: S311  repeatable, not secret
    for _ in range(count):
        where = KINDS[kind](field(*chance.choice(PATHS)), chance)
        yield where
        yield ~where


def _combined(key: Field, chance: random.Random, depth: int) -> Filter:
    if not depth:
        return KINDS[chance.choice([*KINDS][:-1])](key, chance)
    others = [field(*chance.choice(PATHS)) for _ in range(2)]
    parts = [_combined(each, chance, depth - 1) for each in (key, *others)]
    return (parts[0] & parts[1] | ~parts[2]) if chance.random() < 0.5 else reduce(or_, parts)
