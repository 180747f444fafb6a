"""Texts for backends, and judging what they answer."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from samespace.protocols import Matrix
from samespace.space import EmbeddingSpace
from samespace.vectors import faults

TEXTS: Final = (
    "The ship left the harbour before dawn.",
    "Bread rises twice before it is baked, once in the bowl and once in the tin.",
    "A triangle has three corners.",
    "Snow",
    "Her violin was older than the orchestra, and so was the chair that she sat on while she played it.",
)
ODD_TEXTS: Final = {
    "empty": "",
    "blank": " \n\t",
    "NUL": "a\x00b",
    "lone surrogate": "a\ud800",
    "zero-width": "\u200b",
    "emoji": "🦊",
}
"""Strings that a backend may refuse, by what is odd about them."""
UNFIT: Final[tuple[str, ...]] = ("empty", "blank", "NUL", "lone surrogate")
"""Those that all backends of this library refuse which ask a model."""
NO_TEXTS: Final[dict[str, Any]] = {
    "one string": "abc",
    "bytes": b"abc",
    "nothing": None,
    "a number": 5,
    "a dict": {"a": 1},
    "a set": {"a"},
    "an iterator": iter(["a"]),
    "nothing in a list": ["a", None],
    "a number in a list": ["a", 3],
    "bytes in a list": ["a", b"b"],
    "a list in a list": ["a", ["b"]],
}
"""What is no list of strings."""


def check_sound(vectors: Matrix, space: EmbeddingSpace, *, count: int) -> None:
    """AssertionError unless it is float32 of shape ``(count, dimensions)``, each row one of the space."""
    assert isinstance(vectors, np.ndarray)
    assert vectors.dtype == np.float32
    assert vectors.shape == (count, space.dimensions)
    assert faults(vectors, space) == {}


def apart(left: Matrix, right: Matrix) -> Matrix:
    """How far the rows of two matrices are apart, as a share of the right one's length."""
    assert left.shape == right.shape
    found: Matrix = np.linalg.norm(left - right, axis=1) / np.linalg.norm(right, axis=1)
    return found


def farthest(left: Matrix, right: Matrix) -> float:
    """The greatest of these distances, 0 where there is no row."""
    return float(apart(left, right).max(initial=0))
