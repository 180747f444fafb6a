"""What a threshold of an application becomes in another space, where scores are others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from samespace.migrate.ranking import Z, student

Scores = Sequence[Sequence[float]]
"""The scores of the first hits of each query."""
LEAST_QUERIES: Final = 10
"""Queries below which there is no interval."""
TRUSTED: Final = 20
"""Queries with a hit on one side of a threshold from which on they show how much that varies."""
_STEPS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A threshold of the old space, and the one of the new that keeps the share of hits.

    ``share`` of the old hits reach ``old``, and as many of the new ones ``new``. ``low`` and ``high`` bound
    that at 95 %; None is an open side: there no hit, or every one, is as far as these queries show.
    """

    old: float
    share: float
    new: float
    low: float | None
    high: float | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    def __str__(self) -> str:
        low = "no less" if self.low is None else f"{self.low:.4f}"
        high = "no more" if self.high is None else f"{self.high:.4f}"
        return (
            f"{self.old:g} becomes {self.new:.4f} ({low} to {high}): {self.share:.1%} of hits pass"
        )


def translated(threshold: float, old: Scores, new: Scores) -> Threshold:
    """The score of ``new`` that as large a share of hits reaches as ``threshold`` of ``old``.

    ``old[i]`` and ``new[i]`` are of one query; there is at least one hit on each side. The interval is
    that of Woodruff (*Journal of the American Statistical Association* 47, 1952): bounds for the share
    that passes, read off the new scores' order. The share's own are Wilson's (same journal, 22, 1927),
    for as many independent hits as would vary as much as the difference of the two shares does from query
    to query: the hits of one query are alike, and both spaces were asked the same. They are fewer still
    where few queries have a hit on one side.
    """
    before, after = _descending(old), _descending(new)
    share = sum(score >= threshold for score in before) / len(before)
    value = _reached_by(share, after)
    least, most = 0.0, 1.0
    if len(old) >= LEAST_QUERIES:
        variance = _moved(threshold, old, value, new)
        size = _worth(share, variance, hits=len(before), queries=len(old))
        most_size = min(_seen(share, threshold, old), _seen(share, value, new))
        least, most = _wilson(share, min(size, most_size))
    return Threshold(
        old=threshold,
        share=round(share, 6),
        new=value,
        low=None if _count(most, after) >= len(after) else _reached_by(most, after),
        high=None if _count(least, after) == 0 else _reached_by(least, after),
    )


def curve(old: Scores, new: Scores) -> list[tuple[float, float, float]]:
    """The share of hits that pass, and the threshold for that in the old and in the new space."""
    before, after = _descending(old), _descending(new)
    shares = [step / _STEPS for step in range(1, _STEPS + 1)]
    return [(share, _reached_by(share, before), _reached_by(share, after)) for share in shares]


def _descending(scores: Scores) -> list[float]:
    return sorted((score for each in scores for score in each), reverse=True)


def _count(share: float, scores: Sequence[float]) -> int:
    return round(share * len(scores))


def _reached_by(share: float, descending: Sequence[float]) -> float:
    """The score that this share of them reaches; above all of them for none."""
    count = _count(share, descending)
    return float(descending[count - 1] if count else math.nextafter(descending[0], math.inf))


def _moved(threshold: float, old: Scores, value: float, new: Scores) -> float:
    """The variance of the difference of both shares, by how it differs from query to query.

    Each share is a ratio of sums over queries, whose hits may be of different number: linearised (Cochran,
    *Sampling Techniques*, 1977, 6.4).
    """
    parts = zip(_linear(threshold, old), _linear(value, new), strict=True)
    moved = [after - before for before, after in parts]
    return sum(each * each for each in moved) * len(moved) / (len(moved) - 1)


def _linear(threshold: float, scores: Scores) -> list[float]:
    """What each query adds to the deviation of the share."""
    passing = [sum(score >= threshold for score in each) for each in scores]
    hits = sum(map(len, scores))
    share = sum(passing) / hits
    return [(count - share * len(each)) / hits for count, each in zip(passing, scores, strict=True)]


def _worth(share: float, variance: float, *, hits: int, queries: int) -> float:
    """How many independent hits would vary as much.

    Where none passes, or every one, nothing varies: then a query counts once.
    """
    spread = share * (1 - share)
    if not spread:
        return queries
    wider = (student(queries - 1) / Z) ** 2  # the variance is estimated from so many queries
    return min(hits, spread / (variance * wider)) if variance else hits


def _seen(share: float, threshold: float, scores: Scores) -> float:
    """The most that a share can be worth by how many queries have a hit on either side of a threshold.

    The variance between queries is too small where few of these have one: if the hits of a query are all
    alike, it is a chance whether any has. From :data:`TRUSTED` such queries on it is taken as it is.
    """
    passing = sum(any(score >= threshold for score in each) for each in scores)
    failing = sum(any(score < threshold for score in each) for each in scores)
    sides = ((passing, share), (failing, 1 - share))
    few = [count**2 / TRUSTED / part for count, part in sides if count < TRUSTED and part > 0]
    return max(1.0, min(few, default=math.inf))


def _wilson(share: float, size: float) -> tuple[float, float]:
    middle = share + Z**2 / (2 * size)
    spread = Z * math.sqrt(share * (1 - share) / size + (Z / (2 * size)) ** 2)
    whole = 1 + Z**2 / size
    return max(0.0, (middle - spread) / whole), min(1.0, (middle + spread) / whole)
