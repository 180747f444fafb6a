"""What a stored vector is, judged by the vector that its text has now."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from samespace.errors import excerpt
from samespace.space import EmbeddingSpace
from samespace.vectors import cosine_text

AGREEMENT: Final = 0.98
"""Smallest cosine at which a vector counts as made from its text by the model that it is compared with.

Measured with MiniLM (docs/canary.md): two honest runtimes of one model stay above 0.998, a crude
quantisation of weights and results above 0.987. Another task of v3 stays below 0.9; of texts whose prompt
was forgotten most are below 0.98, and those that are not cannot be told from honest ones by any bound.
"""
SAME_MODEL: Final = 0.45
"""From this cosine on a foreign vector resembles: v3 without a task is near 0.63, its query near 0.8."""
NORM: Final = 1e-2
"""How far the norm of a stored unit vector may be from 1: half precision is within 0.001."""
_EDGES: Final = (*(step / 20 for step in range(-20, 20)), 0.98, 0.99, 0.995, 0.999)
"""Where the bins of a histogram begin: every 0.05, and closer together where honest vectors are."""

ANOTHER_TASK: Final = "another task of the same model"
NONE_OF_THEM: Final = "none of the candidates"
NOT_NORMALISED: Final = "the same space, not normalised"
ANOTHER_LENGTH: Final = "the same direction, of another length"
AS_QUERIES: Final = "the same space, embedded as queries"


class Verdict(StrEnum):
    """What was found of a row."""

    AGREES = "agrees"
    FOREIGN = "foreign"
    """Its vector is none of the space."""
    STALE = "stale"
    """Its vector was made from another text than it has now."""
    DUPLICATE = "duplicate"
    """Another row has its id, which does not lead to this one: named by what the store calls it, or by
    the id where that leads to none of them alone."""
    CHANGED = "changed"
    """Written while it was being judged, or gone."""
    UNJUDGED = "unjudged"
    """There is nothing to embed, or the backend refuses the text."""
    SUSPECT = "suspect"
    """Out of place among the others, seen without a model."""
    UNSUSPECTED = "unsuspected"
    """In its place, seen without a model, which proves nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A row that does not agree. ``cosine`` is None where the two vectors cannot be compared.

    ``likely`` says what a foreign vector is, or why a row could not be judged; ``suspect`` whether it was
    out of place among the others. ``points`` is what the store calls the rows that have the id together,
    some of them if there are many.
    """

    id: str
    verdict: Verdict
    cosine: float | None = None
    likely: str = ""
    suspect: bool = False
    points: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "id": self.id,
            "verdict": str(self.verdict),
            "cosine": self.cosine,
            "likely": self.likely,
            "suspect": self.suspect,
            **({"points": list(self.points)} if self.points else {}),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Finding:
        """The inverse of :meth:`to_dict`; KeyError, TypeError or ValueError on anything else."""
        if not isinstance(values["id"], str) or not isinstance(values["likely"], str):
            raise TypeError("an id and what is likely are strings")
        return cls(
            id=values["id"],
            verdict=Verdict(values["verdict"]),
            cosine=None if values["cosine"] is None else float(values["cosine"]),
            likely=values["likely"],
            suspect=values["suspect"] is True,
            points=tuple(map(str, values.get("points", ()))),
        )


def judge(
    id: str,
    stored: NDArray[np.float32],
    own: NDArray[np.float32],
    space: EmbeddingSpace,
    *,
    threshold: float = AGREEMENT,
    may_be_unit: bool = False,
) -> Finding:
    """A row's stored vector against ``own``, that of its text, shape ``(dimensions,)``.

    ``may_be_unit`` says that the slot may have brought vectors to unit norm, as Qdrant does that compares
    by Cosine: those of a space that is not normalized are then only compared in their direction.
    """
    if stored.shape != own.shape:
        likely = f"a vector of {stored.shape[-1]} dimensions"
        return Finding(id=id, verdict=Verdict.FOREIGN, likely=likely)
    cosine = cosine_of(stored, own)
    if cosine is None:
        return Finding(id=id, verdict=Verdict.FOREIGN, likely="no direction: zero, or not finite")
    found = Finding(id=id, verdict=Verdict.AGREES, cosine=cosine)
    if cosine < threshold:
        resembles = cosine >= SAME_MODEL
        likely = ANOTHER_TASK if resembles else NONE_OF_THEM
        return replace(found, verdict=Verdict.FOREIGN, likely=likely)
    likely = _other_length(stored, own, space, threshold, may_be_unit=may_be_unit)
    return replace(found, verdict=Verdict.FOREIGN, likely=likely) if likely else found


def stretch_of(threshold: float) -> float:
    """How far from 1 the ratio of two lengths may be where cosines of ``threshold`` agree.

    An error that is a share e of a vector costs e²/2 of the cosine if it turns the vector, and changes its
    length by that share if it stretches it: 0.2 at 0.98, 0.1 at 0.995.
    """
    return float(np.sqrt(2 * (1 - threshold)))


def _other_length(
    stored: NDArray[np.float32],
    own: NDArray[np.float32],
    space: EmbeddingSpace,
    threshold: float,
    *,
    may_be_unit: bool,
) -> str:
    """What a vector of the right direction is whose length is not that of its space; empty if it is."""
    length, right = (float(np.linalg.norm(each.astype(np.float64))) for each in (stored, own))
    is_unit = abs(length - 1) <= NORM
    if space.normalized:
        return "" if is_unit else NOT_NORMALISED
    if (may_be_unit and is_unit) or abs(length / right - 1) <= stretch_of(threshold):
        return ""
    return ANOTHER_LENGTH


def cosine_of(left: NDArray[np.float32], right: NDArray[np.float32]) -> float | None:
    """Of two vectors of one size; None where one has no direction."""
    if left.shape != right.shape:
        return None
    a, b = left.astype(np.float64), right.astype(np.float64)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    if not norms or not np.isfinite(norms):
        return None
    return float(np.clip(np.dot(a, b) / norms, -1.0, 1.0))


def edges_of(threshold: float) -> tuple[float, ...]:
    """Where the bins of a histogram begin. One begins at the threshold: none is on both sides of it."""
    return tuple(sorted({*_EDGES, threshold}))


def bin_of(cosine: float, edges: Sequence[float]) -> int:
    """The place in the histogram; the last one includes 1."""
    return max(0, bisect_right(edges, cosine) - 1)


def bars(histogram: Sequence[int], threshold: float, *, width: int = 40) -> list[str]:
    """The histogram for a terminal: a line a bin, and one for any number of empty ones between.

    A bar of cosines below the threshold is drawn otherwise than those above.
    """
    lines: list[str] = []
    most, gap = max(histogram, default=0), False
    for edge, count in zip(edges_of(threshold), histogram, strict=False):
        if count:
            lines += ["  …"] if gap and lines else []
            bar = ("x" if edge < threshold else "#") * max(1, round(width * count / most))
            lines.append(f"{edge_text(edge):<6} {bar:<{width}} {count:,}")
        gap = not count
    return lines


def edge_text(edge: float) -> str:
    """``+0.95``, with as many digits more as it has."""
    return f"{edge:+.2f}" if edge == round(edge, 2) else f"{edge:+}"


def shown(cosine: float, threshold: float) -> str:
    """A cosine that reads like what it was judged to be."""
    return cosine_text(cosine, threshold) if cosine < threshold else f"{cosine:.3f}"


def named(finding: Finding, threshold: float) -> str:
    """A finding on one line."""
    cosine = "" if finding.cosine is None else f", cosine {shown(finding.cosine, threshold)}"
    likely = f", {finding.likely}" if finding.likely else ""
    return f"{finding.verdict} {excerpt(finding.id)}{cosine}{likely}"
