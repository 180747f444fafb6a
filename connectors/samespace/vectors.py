"""Checks of vectors before anything is sent, and their binary forms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeGuard

import numpy as np
from numpy.typing import NDArray

from samespace.errors import BadResponse, InvalidInput, SamespaceError, excerpt
from samespace.space import EmbeddingSpace

NORM_TOLERANCE: Final = 1e-3
"""How far the norm of a normalised vector may be from 1."""
SHORTEST: Final = 1e-18
LONGEST: Final = 1e18
"""Norms within which a store's sums of squares in float32 neither vanish nor overflow."""

Matrix = NDArray[np.float32]


def as_matrix(vectors: object, space: EmbeddingSpace, *, count: int) -> Matrix:
    """Ready-made vectors as float32, shape ``(count, space.dimensions)``.

    :class:`InvalidInput` names the first one that cannot be of this space: wrong count or
    dimension, not finite in float32, zero, or not of unit norm where the space is normalised.
    """
    if vectors is None:
        raise InvalidInput("vectors is None; pass an array of shape (n, dimensions)")
    matrix = _as_float32(vectors)
    _check_shape(matrix, space, count)
    for place, reason in faults(matrix, space).items():
        raise InvalidInput(f"vector {place} {reason}")
    return matrix


def as_vector(vector: object, space: EmbeddingSpace) -> Matrix:
    """One ready-made vector as float32, shape ``(space.dimensions,)``; errors as above."""
    if _is_ready(vector, space) and _is_unit(vector):
        return vector
    array = _as_float32(vector)
    if array.ndim != 1:
        raise InvalidInput(f"one vector has one axis, not {array.ndim}; pass shape (dimensions,)")
    checked: Matrix = as_matrix(array[np.newaxis, :], space, count=1)[0]
    return checked


def as_vectors(
    vectors: Sequence[object], space: EmbeddingSpace
) -> list[Matrix | InvalidInput | None]:
    """:func:`as_vector` of each, or the error that says what is wrong with it; None stays None."""
    ready = [vector for vector in vectors if _is_ready(vector, space)]
    if ready and len(ready) == len(vectors):
        matrix = np.concatenate(ready).reshape(len(ready), -1)  # np.stack is slow for many
        if not faults(matrix, space):
            return list(matrix)
    return [None if vector is None else _judged(vector, space) for vector in vectors]


def _is_ready(vector: object, space: EmbeddingSpace) -> TypeGuard[Matrix]:
    return (
        isinstance(vector, np.ndarray)
        and vector.dtype == np.float32
        and vector.shape == (space.dimensions,)
    )


def _is_unit(vector: Matrix) -> bool:
    """Whether a vector certainly has unit norm: false for what is to be looked at closely."""
    wide = vector.astype(np.float64)  # no square overflows
    return abs(float(np.dot(wide, wide)) - 1.0) < NORM_TOLERANCE


def _judged(vector: object, space: EmbeddingSpace) -> Matrix | InvalidInput:
    try:
        return as_vector(vector, space)
    except InvalidInput as error:
        return error


def embedded(answer: object, space: EmbeddingSpace, *, count: int) -> Matrix:
    """What a backend answered as float32, shape ``(count, space.dimensions)``.

    :class:`BadResponse` with the ``indices`` concerned if it cannot be of this space.
    """
    try:
        matrix = _as_float32(answer)
        _check_shape(matrix, space, count)
    except SamespaceError as error:
        raise BadResponse(f"the backend answered wrongly: {error}") from error
    found = faults(matrix, space)
    if found:
        place, reason = next(iter(found.items()))
        raise BadResponse(
            f"the backend answered wrongly: vector {place} {reason}", indices=tuple(found)
        )
    return matrix


def faults(matrix: Matrix, space: EmbeddingSpace) -> dict[int, str]:
    """The rows of a float32 matrix that cannot be of this space, each with the reason."""
    squares = np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64)
    norms = np.sqrt(squares)
    if space.normalized:
        good = np.abs(norms - 1.0) < NORM_TOLERANCE
    else:
        good = (norms >= SHORTEST) & (norms <= LONGEST)
    if good.all():
        return {}
    return {int(row): _reason(float(norms[row]), space) for row in np.flatnonzero(~good)}


def _reason(norm: float, space: EmbeddingSpace) -> str:
    if not np.isfinite(norm):
        return "has a component that is not finite in float32"
    if norm == 0:
        return "is zero, so it has no direction"
    if not space.normalized:
        return f"has norm {norm:.4g}, whose square float32 cannot hold, so no store can compare it"
    return (
        f"has norm {norm:.4g} where the space is normalised; divide it by its norm where it is made, or "
        "declare the space with normalized=False"
    )


def _as_float32(values: object) -> Matrix:
    if isinstance(values, np.ndarray) and values.dtype == np.float32:
        return values
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"vectors are not numbers in a regular array ({excerpt(str(error))})"
        ) from error
    if array.dtype.kind not in "fiu":
        raise InvalidInput(f"vectors are of type {array.dtype.name}; pass real numbers")
    with np.errstate(over="ignore"):
        converted: Matrix = array.astype(np.float32)
    return converted


def _check_shape(matrix: Matrix, space: EmbeddingSpace, count: int) -> None:
    if matrix.ndim != 2 or matrix.shape[0] != count:
        raise InvalidInput(
            f"{count} vector(s) expected, shape ({count}, {space.dimensions}); got {matrix.shape}"
        )
    if matrix.shape[1] != space.dimensions:
        raise InvalidInput(
            f"vectors have {matrix.shape[1]} dimensions, the space {space} has {space.dimensions}"
        )


def cosines(left: Matrix, right: Matrix) -> NDArray[np.float64]:
    """Row by row cosine similarity of two ``(n, d)`` matrices, shape ``(n,)``."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    products: NDArray[np.float64] = np.einsum("ij,ij->i", a, b)
    norms: NDArray[np.float64] = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.divide(products, norms)


def cosine_text(cosine: float, least: float) -> str:
    """A cosine below ``least`` with three digits, or so many that it does not read like that bound."""
    texts = (f"{cosine:.{digits}f}" for digits in range(3, 17))
    return next((text for text in texts if not float(text) >= least), str(cosine))


def stack(vectors: Sequence[Matrix], dimensions: int) -> Matrix:
    """Vectors of shape ``(dimensions,)`` as one matrix, shape ``(n, dimensions)``."""
    return np.stack(vectors) if vectors else np.empty((0, dimensions), dtype=np.float32)
