"""How much of a population a sample tells: exact bounds for a share, without replacement."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from samespace.errors import InvalidInput

CONFIDENCE: Final = 0.95
SMALL: Final = 256
"""Below this number factorials are looked up."""
_EXACT: Final = np.array([math.lgamma(number + 1) for number in range(SMALL + 1)])


def share_interval(
    found: int, drawn: int, population: int, *, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Bounds for the share of marked rows, by ``found`` marked ones among ``drawn``.

    ``drawn`` rows are a simple random sample without replacement of ``population``. Exact, by inverting
    the hypergeometric tails with half of the error on each side (J. P. Buonaccorsi, *The American
    Statistician* 41, 1987; T. Wright, *Exact Confidence Bounds when Sampling from Small Finite Universes*,
    1991): for a large population these are the bounds of Clopper and Pearson. They hold the true share at
    least as often as ``confidence`` says. Of a sample that is the population, both are the truth.
    """
    _check(found, drawn, population)
    if not population:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    least, most = found, population - (drawn - found)

    def too_few(marked: int) -> bool:
        return _at_least(found, drawn, marked, population) <= tail

    def too_many(marked: int) -> bool:
        return _at_least(drawn - found, drawn, population - marked, population) <= tail

    low = _first(least, most, lambda marked: not too_few(marked))
    high = _first(least, most + 1, too_many) - 1
    return low / population, max(low, high) / population


def _check(found: int, drawn: int, population: int) -> None:
    if not 0 <= found <= drawn <= population:
        raise InvalidInput(
            f"{found} found of {drawn} drawn of {population} rows; each may at most be the next"
        )


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The first number from ``low`` on for which ``holds``, which then stays true; else ``high``."""
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _at_least(count: int, drawn: int, marked: int, population: int) -> float:
    """The chance of at least ``count`` marked rows in a draw."""
    begin, end = max(0, drawn - (population - marked)), min(drawn, marked)
    if count <= begin:
        return 1.0
    if count > end:
        return 0.0
    taken = np.arange(count, end + 1)
    left = drawn - taken
    logs = _log_choices(marked, taken) + _log_choices(population - marked, left)
    return float(np.exp(logs - _log_choices(population, np.array([drawn]))).sum())


def _log_choices(of: int, taken: NDArray[np.int64]) -> NDArray[np.float64]:
    """The logarithm of how many ways there are to take so many."""
    return _log_factorials(np.array([of])) - _log_factorials(taken) - _log_factorials(of - taken)


def _log_factorials(numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """The logarithm of each number's factorial."""
    wide = np.maximum(numbers, SMALL).astype(np.float64)
    # Stirling's series; from SMALL on its third term is beyond double precision.
    series = (wide + 0.5) * np.log(wide) - wide + 0.5 * math.log(2 * math.pi)
    series += 1 / (12 * wide) - 1 / (360 * wide**3)
    return np.where(numbers < SMALL, _EXACT[np.minimum(numbers, SMALL)], series)
