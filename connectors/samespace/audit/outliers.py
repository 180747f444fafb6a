"""Which vectors look out of place among the others: what can be seen without a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from samespace.space import EmbeddingSpace

SAMPLE: Final = 2_000
"""How many vectors a collection's centre is taken from."""
STEPS: Final = 20
FENCE: Final = 5.0
"""How many ``1 / sqrt(d)`` from 0 a cosine to the centre is no news for a vector of another space.

Against a direction that it has nothing to do with, a vector's cosine deviates by ``1 / sqrt(d)``, and so does
that of the direction which all of another model's share: together by less than ``1.5 / sqrt(d)``.
"""
REACH: Final = 1.5
"""How far beyond the fence a centre's own vectors must be, for others to be out of place."""
SPREAD: Final = 5.0
"""How many interquartile ranges beyond the quartiles a norm may be, where no vector has unit norm."""
LEAST: Final = 20
"""Fewer vectors than these have no centre worth the name."""
NORM: Final = 1e-2
"""How far the norm of a stored unit vector may be from 1."""


def fence_of(dimensions: int) -> float:
    """The cosine to a centre below which a vector is out of place."""
    return float(FENCE / np.sqrt(dimensions))


@dataclass(frozen=True, slots=True, kw_only=True)
class Centre:
    """Where most of a collection's vectors point, and how far from there they may.

    ``direction`` has shape ``(dimensions,)`` and unit norm, ``middle`` is the median cosine to it of the
    vectors that it is the mean of, or of those that are known. A vector whose cosine is below the
    fence is a suspect, where that says something, and so is one whose norm is outside ``norms``.
    """

    direction: NDArray[np.float64]
    middle: float
    norms: tuple[float, float]

    @property
    def fence(self) -> float:
        """Below this cosine a vector is out of place."""
        return fence_of(len(self.direction))

    @property
    def sees(self) -> bool:
        """Whether the vectors share enough direction for one of another space to be out of place."""
        return self.middle > REACH * self.fence

    def suspects(self, vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which of these are out of place; shape ``(n,)`` for ``(n, dimensions)``."""
        wide = vectors.astype(np.float64)
        norms = np.linalg.norm(wide, axis=1)
        low, high = self.norms
        cosines = wide @ self.direction / np.where(norms > 0, norms, 1)
        placed = (cosines >= self.fence) | (not self.sees)
        odd: NDArray[np.bool_] = ~((norms >= low) & (norms <= high) & placed)
        return odd

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "direction": self.direction.tolist(),
            "middle": self.middle,
            "norms": list(self.norms),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Centre:
        """The inverse of :meth:`to_dict`."""
        low, high = map(float, values["norms"])
        direction = np.array(values["direction"], dtype=np.float64)
        return cls(direction=direction, middle=float(values["middle"]), norms=(low, high))


def centre_of(
    vectors: NDArray[np.float32],
    space: EmbeddingSpace,
    *,
    known: NDArray[np.float16] | None = None,
) -> Centre | None:
    """The centre of a sample, shape ``(n, dimensions)``; None of too few vectors.

    ``known`` are vectors that are surely of the space, those of a canary: they decide which side of two
    is the own one.

    Concentration steps (P. J. Rousseeuw and K. Van Driessen, *Technometrics* 41, 1999): the centre is the
    mean of the vectors that are nearest to it. Where some are known these are all within the fence, however
    few; else it is that half of all, so that less than a half of another space does not move it.
    """
    wide = vectors.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1)
    usable = np.isfinite(norms) & (norms > 0)
    if usable.sum() < LEAST:
        return None
    units = wide[usable] / norms[usable, np.newaxis]
    if known is None:
        medians = np.median(units @ units.T, axis=1)
        direction, chosen = _concentrated(units, units[int(np.argmax(medians))], _nearest_half)
        middle = float(np.median(units[chosen] @ direction))
    else:
        direction, chosen = _concentrated(units, known.astype(np.float64).mean(axis=0), _within)
        middle = float(np.median(known.astype(np.float64) @ direction)) if len(chosen) else 0.0
    return Centre(direction=direction, middle=middle, norms=_norms(norms[usable], space))


Places = NDArray[np.int64]


def _concentrated(
    units: NDArray[np.float64],
    direction: NDArray[np.float64],
    choose: Callable[[NDArray[np.float64], int], Places],
) -> tuple[NDArray[np.float64], Places]:
    chosen: Places = np.empty(0, dtype=np.int64)
    direction = direction / np.linalg.norm(direction)
    for _ in range(STEPS):
        nearest = choose(units @ direction, units.shape[1])
        if np.array_equal(nearest, chosen) or not len(nearest):
            break
        chosen = nearest
        mean = units[chosen].mean(axis=0)
        direction = mean / np.linalg.norm(mean)
    return direction, chosen


def _nearest_half(cosines: NDArray[np.float64], _dimensions: int) -> Places:
    return np.sort(np.argsort(cosines)[len(cosines) // 2 :])


def _within(cosines: NDArray[np.float64], dimensions: int) -> Places:
    return np.flatnonzero(cosines >= fence_of(dimensions))


def _norms(norms: NDArray[np.float64], space: EmbeddingSpace) -> tuple[float, float]:
    """Between which a norm is no news."""
    if space.normalized:
        return 1 - NORM, 1 + NORM
    low, high = np.quantile(norms, (0.25, 0.75))
    reach = SPREAD * (high - low)
    return float(low - reach), float(high + reach)
