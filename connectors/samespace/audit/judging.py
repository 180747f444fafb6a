"""Whose vectors those are: figures and verdicts; no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from samespace.audit.verdicts import AGREEMENT
from samespace.protocols import Matrix
from samespace.space import EmbeddingSpace
from samespace.vectors import cosines

MAJORITY: Final = 0.5
"""More than this share of the rows must agree with the candidate that is named."""
MARGIN: Final = 0.005
"""Two candidates nearer to one another than runtimes differ cannot be told apart."""
LEAST_ROWS: Final = 3
"""Rows of different texts and vectors, below which agreement may be chance or a constant answer."""
UNIT: Final = 1e-3
"""How far from 1 a norm may be that counts as 1."""


class Verdict(StrEnum):
    """What comparing a sample with all candidates says."""

    IDENTIFIED = "identified"
    NONE = "none of these"
    UNCLEAR = "too little to tell"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """How the stored vectors compare with one candidate's of the same texts.

    ``candidate`` is its place in the list, ``proposal`` that of the layout. ``space`` is that of the
    compared vectors: the candidate's own, or it cut to the slot's dimensions. ``cosine`` is the median
    over ``rows`` rows, ``agreeing`` the share of at least :data:`AGREEMENT`. Where nothing could be
    compared, ``failed`` says why.
    """

    candidate: int
    proposal: int
    space: EmbeddingSpace
    rendering: str = ""
    cosine: float = float("nan")
    agreeing: float = 0.0
    rows: int = 0
    failed: str = ""


def compared(
    stored: Matrix, made: Matrix, *, candidate: int, proposal: int, space: EmbeddingSpace,
    rendering: str,
) -> Evidence:  # fmt: skip
    """The figures of two ``(n, dimensions)`` matrices, row i of both for one text; n ≥ 1."""
    found = cosines(stored, made)
    return Evidence(
        candidate=candidate,
        proposal=proposal,
        space=space,
        rendering=rendering,
        cosine=float(np.median(found)),
        agreeing=float(np.mean(found >= AGREEMENT)),
        rows=len(found),
    )


def ranked(evidence: Sequence[Evidence]) -> list[Evidence]:
    """What could be compared, the best first; of equals what was asked for first."""
    usable = [each for each in evidence if not each.failed]
    return sorted(usable, key=lambda each: (-each.agreeing, -each.cosine))


def runner_up(evidence: Sequence[Evidence]) -> Evidence | None:
    """The best of another space than the best's."""
    order = ranked(evidence)
    return next((each for each in order if each.space != order[0].space), None)


def judged(evidence: Sequence[Evidence]) -> Verdict:
    """Whether one candidate made the vectors, none did, or that cannot be told."""
    order = ranked(evidence)
    if not order:
        return Verdict.UNCLEAR
    best, second = order[0], runner_up(evidence)
    if best.agreeing <= MAJORITY:
        return Verdict.NONE
    if second is not None and second.agreeing > MAJORITY and best.cosine - second.cosine < MARGIN:
        return Verdict.UNCLEAR
    return Verdict.IDENTIFIED


def tells_too_little(texts: Sequence[str], vectors: Matrix, *, is_all: bool = False) -> str:
    """Why such a sample shows nothing, whoever is compared with it; empty if it shows something.

    ``is_all``: there is no other row that a larger one could have.
    """
    if len(texts) < LEAST_ROWS:
        rows = "1 row" if len(texts) == 1 else f"{len(texts)} rows"
        needed = f"at least {LEAST_ROWS} are needed"
        if is_all:
            return (
                f"only {rows} of the collection can be compared, and {needed}; if you know what made it, "
                "adopt it without (samespace adopt --unproved)"
            )
        return (
            f"only {rows} of the sample can be compared, and {needed}; take a larger one (--sample)"
        )
    alike = min(len(set(texts)), len(np.unique(vectors, axis=0)))
    if alike < LEAST_ROWS:
        return f"the rows are all alike: {alike} different texts or vectors among {len(texts)}"
    return ""


def is_normalized(vectors: Matrix) -> bool:
    """Whether all of ``(n, dimensions)`` vectors are of unit norm."""
    return bool(np.all(np.abs(np.linalg.norm(vectors, axis=1) - 1.0) <= UNIT))
