"""Two rankings of the same queries, compared: what they share, what moved, which is better."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from samespace.documents import Document, Hit
from samespace.errors import InvalidInput, excerpt

NEAREST: Final = 10
"""How much of a ranking is compared."""
TIED: Final = 1e-6
"""Scores that float32 does not tell apart."""
Z: Final = 1.959964
"""Of the normal distribution, for 95 % in the middle."""
MOST_GRADE: Final = 100
LEAST_PAIRS: Final = 10
"""Pairs below which an interval would say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """How well a row answers a query: a grade from 0, not at all, to 100."""

    query: str
    id: str
    grade: float

    def __post_init__(self) -> None:
        is_number = isinstance(self.grade, int | float) and not isinstance(self.grade, bool)
        if not is_number or not 0 <= self.grade <= MOST_GRADE:
            raise InvalidInput(
                f"the grade of row {excerpt(self.id)} is {excerpt(self.grade)}; pass a number from 0 to "
                f"{MOST_GRADE}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """The same thing measured twice: both means, and bounds at 95 % for their difference, new less old.

    The bounds are None of too few pairs.
    """

    pairs: int
    old: float
    new: float
    low: float | None
    high: float | None

    @property
    def difference(self) -> float:
        """New less old."""
        return self.new - self.old

    @property
    def is_worse(self) -> bool | None:
        """Whether the new one is significantly below the old; None of too few pairs."""
        return None if self.high is None else self.high < 0

    def to_dict(self) -> dict[str, float | int | None]:
        """JSON-ready."""
        bounds = {"low": self.low, "high": self.high}
        return {
            "pairs": self.pairs,
            "old": round(self.old, 6),
            "new": round(self.new, 6),
            "difference": round(self.difference, 6),
            **{name: None if each is None else round(each, 6) for name, each in bounds.items()},
        }


def finds_itself(hits: Sequence[Hit], own: Document) -> bool:
    """Whether a row is the first answer to its own text; what ties with it, or has its text, is excused."""
    first = [hit for hit in hits if hit.score >= hits[0].score - TIED]
    return any(
        hit.document.id == own.id or hit.document.embedded_text == own.embedded_text
        for hit in first
    )


def overlap(old: Sequence[str], new: Sequence[str]) -> float:
    """The share of the nearest by one ranking that are among those by the other."""
    longest = min(NEAREST, max(len(old), len(new)))
    return len({*old[:NEAREST]} & {*new[:NEAREST]}) / longest if longest else 1.0


def shifts(old: Sequence[str], new: Sequence[str]) -> list[int]:
    """By how many places each that is in both rankings has moved."""
    places = {id: place for place, id in enumerate(new)}
    return [abs(place - places[id]) for place, id in enumerate(old) if id in places]


def ndcg(ranking: Sequence[str], grades: Mapping[str, float]) -> float:
    """nDCG@10 with the grade as gain (Järvelin and Kekäläinen, *ACM TOIS* 20, 2002, as trec_eval has it).

    A row without a judgement counts as 0; some grade is above that.
    """
    best = _gain(sorted(grades.values(), reverse=True))
    return _gain([grades.get(id, 0) for id in ranking]) / best


def _gain(grades: Sequence[float]) -> float:
    return sum(grade / math.log2(place + 2) for place, grade in enumerate(grades[:NEAREST]))


def paired_shares(old: Sequence[bool], new: Sequence[bool]) -> Paired:
    """Two shares of the same rows.

    The bounds are those of Agresti and Min (*Statistics in Medicine* 24, 2005): half a row is added to
    each of the four kinds of pairs, and the difference is taken as normal.
    """
    pairs = len(old)
    lost = sum(a and not b for a, b in zip(old, new, strict=True))
    won = sum(b and not a for a, b in zip(old, new, strict=True))
    low, high = None, None
    if pairs >= LEAST_PAIRS:
        size, moved = pairs + 2, won - lost
        spread = Z * math.sqrt(max(won + lost + 1 - moved**2 / size, 0)) / size
        low, high = moved / size - spread, moved / size + spread
    return Paired(pairs=pairs, old=_mean(old), new=_mean(new), low=low, high=high)


def paired_means(old: Sequence[float], new: Sequence[float]) -> Paired:
    """Two means over the same queries, with the bounds of Student's paired t."""
    pairs = len(old)
    found = Paired(pairs=pairs, old=_mean(old), new=_mean(new), low=None, high=None)
    if pairs < LEAST_PAIRS:
        return found
    moved = [b - a for a, b in zip(old, new, strict=True)]
    spread = student(pairs - 1) * _error(moved)
    middle = found.difference
    return Paired(
        pairs=pairs, old=found.old, new=found.new, low=middle - spread, high=middle + spread
    )


def _error(values: Sequence[float]) -> float:
    """The standard error of their mean."""
    middle = _mean(values)
    squares = sum((value - middle) ** 2 for value in values)
    return math.sqrt(squares / (len(values) - 1) / len(values))


def student(freedom: int) -> float:
    """Student's t for 95 % in the middle (Abramowitz and Stegun, 26.7.5): to 0.001 from 9 degrees on."""
    return (
        Z
        + (Z**3 + Z) / (4 * freedom)
        + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * freedom**2)
        + (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / (384 * freedom**3)
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def judgements_from(lines: Iterable[str]) -> list[Judgement]:
    """Judgements of lines of JSON, each with query, id and grade; :class:`InvalidInput` names a wrong one."""
    return [
        _judgement(line, number)
        for number, line in enumerate(lines, 1)
        if line and not line.isspace()
    ]


def _judgement(line: str, number: int) -> Judgement:
    try:
        values = orjson.loads(line)
    except orjson.JSONDecodeError:
        values = None
    if not isinstance(values, dict):
        raise _no_judgement(number, line)
    named: dict[str, Any] = {name: values.get(name) for name in ("query", "id", "grade")}
    query, id, grade = named["query"], named["id"], named["grade"]
    if not (isinstance(query, str) and query.strip() and isinstance(id, str) and id):
        raise _no_judgement(number, line)
    try:
        return Judgement(query=query, id=id, grade=grade)
    except InvalidInput:
        raise _no_judgement(number, line) from None


def _no_judgement(number: int, line: str) -> InvalidInput:
    return InvalidInput(
        f"judgements, line {number}: {excerpt(line)} is no judgement; write "
        '{"query": "…", "id": "…", "grade": 2}, with a grade from 0 to 100'
    )
