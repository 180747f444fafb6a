"""Vectors: what is checked before a byte of them is sent, and after a backend's answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from samespace.errors import BadResponse, InvalidInput
from samespace.space import EmbeddingSpace
from samespace.vectors import (
    LONGEST,
    NORM_TOLERANCE,
    SHORTEST,
    Matrix,
    as_matrix,
    as_vector,
    cosine_text,
    cosines,
    embedded,
    faults,
    stack,
)

UNIT = EmbeddingSpace(model="own", dimensions=3)
RAW = EmbeddingSpace(model="own", dimensions=3, normalized=False)
ROWS: Matrix = np.eye(3, dtype=np.float32)
FLOATS = st.floats(-1e3, 1e3, width=32)
MATRICES = arrays(np.float32, (4, 3), elements=FLOATS)


def with_row(row: list[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Three vectors of which the middle one is ``row``."""
    return np.array([[1, 0, 0], row, [0, 0, 1]], dtype=np.float64)


@pytest.mark.parametrize(
    "vectors",
    [
        ROWS,
        ROWS.tolist(),
        list(ROWS),
        ROWS.astype(np.float64),
        ROWS.astype(np.float16),
        ROWS.astype(">f4"),
        ROWS.astype(np.int64),
        ROWS.astype(np.uint8),
        np.asfortranarray(ROWS),
        tuple(map(tuple, ROWS.tolist())),
    ],
    ids=lambda vectors: f"{type(vectors).__name__} {getattr(vectors, 'dtype', '')}",
)
def test_real_numbers_of_any_type_become_float32(vectors: object) -> None:
    matrix = as_matrix(vectors, UNIT, count=3)
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, ROWS)


def test_float32_is_not_copied() -> None:
    assert as_matrix(ROWS, UNIT, count=3) is ROWS


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (None, "vectors is None"),
        ("abc", "of type str"),
        ([["1", "0", "0"]] * 3, "of type str"),
        ([["a", "b", "c"]] * 3, "of type str"),
        (ROWS > 0, "of type bool"),
        (ROWS.astype(complex), "of type complex"),
        ([[None, 0, 0]] * 3, "of type object"),
        ([{"a": 1}] * 3, "of type object"),
        ([[1, 0, 0], [1, 0]], "not numbers in a regular array"),
        (5, r"3 vector\(s\) expected, shape \(3, 3\); got \(\)"),
        (ROWS[0], r"got \(3,\)"),
        (ROWS[:2], r"got \(2, 3\)"),
        (np.ones((3, 3, 3)), r"got \(3, 3, 3\)"),
        ([], r"got \(0,\)"),
        (ROWS[:, :2], "have 2 dimensions, the space own@3 has 3"),
        (np.ones((3, 768)), "have 768 dimensions"),
        (with_row([np.nan, 0, 0]), "vector 1 has a component that is not finite in float32"),
        (with_row([np.inf, 0, 0]), "not finite"),
        (with_row([-np.inf, np.inf, 0]), "not finite"),
        (with_row([1e39, 0, 0]), "not finite in float32"),
        (with_row([0, 0, 0]), "vector 1 is zero"),
        (with_row([1e-60, 0, 0]), "is zero"),
        (with_row([2, 0, 0]), "vector 1 has norm 2 where the space is normalised"),
        (with_row([0.5, 0, 0]), "has norm 0.5"),
        (with_row([1 + 2 * NORM_TOLERANCE, 0, 0]), "has norm 1.002"),
        (with_row([3e38, 3e38, 0]), "has norm 4.24"),
    ],
)
def test_what_cannot_be_of_a_normalised_space(vectors: object, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        as_matrix(vectors, UNIT, count=3)


@pytest.mark.parametrize("norm", [1 - NORM_TOLERANCE / 2, 1, 1 + NORM_TOLERANCE / 2])
def test_a_norm_may_be_a_little_off(norm: float) -> None:
    assert faults(ROWS * np.float32(norm), UNIT) == {}


@pytest.mark.parametrize("scale", [1e-17, 0.1, 1, 1e3, 1e17])
def test_any_length_is_good_where_the_space_is_not_normalised(scale: float) -> None:
    assert faults(ROWS * np.float32(scale), RAW) == {}


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_a_length_whose_square_float32_cannot_hold_is_of_no_space(scale: float) -> None:
    found = faults(ROWS * np.float32(scale), RAW)
    assert set(found) == {0, 1, 2}
    assert "no store can compare it" in found[0]


@pytest.mark.parametrize("row", [[0, 0, 0], [np.nan, 0, 0], [np.inf, 1, 1]], ids=str)
def test_zero_and_infinite_vectors_are_of_no_space(row: list[float]) -> None:
    assert set(faults(with_row(row).astype(np.float32), RAW)) == {1}


@given(MATRICES)
def test_the_faults_are_the_rows_that_are_not_of_unit_norm(matrix: Matrix) -> None:
    norms = np.linalg.norm(matrix.astype(np.float64), axis=1)
    off = {i for i, norm in enumerate(norms) if not abs(norm - 1) < NORM_TOLERANCE}
    assert set(faults(matrix, UNIT)) == off
    beyond = {i for i, norm in enumerate(norms) if not SHORTEST <= norm <= LONGEST}
    assert set(faults(matrix, RAW)) == beyond


def test_no_vectors_have_no_faults() -> None:
    assert as_matrix(np.empty((0, 3)), UNIT, count=0).shape == (0, 3)


# One vector


def test_one_vector_has_one_axis() -> None:
    vector = as_vector([0.6, 0.8, 0.0], UNIT)
    assert vector.shape == (3,)
    assert vector.dtype == np.float32


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (ROWS, "one axis, not 2"),
        (1.0, "one axis, not 0"),
        ([1.0, 0.0], "have 2 dimensions"),
        ([1.0, 1.0, 0.0], "has norm 1.414"),
        ([0.0, 0.0, 0.0], "is zero"),
        ("abc", "of type str"),
        (None, "of type object"),
    ],
)
def test_what_is_no_vector(vector: object, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        as_vector(vector, UNIT)


# What a backend answers


def test_a_good_answer_is_passed_on() -> None:
    np.testing.assert_array_equal(embedded(ROWS.tolist(), UNIT, count=3), ROWS)


@pytest.mark.parametrize("answer", [None, "no", ROWS[:2], ROWS[:, :2], [[1, 0], [1]]], ids=repr)
def test_an_answer_of_another_shape_is_a_bad_response(answer: object) -> None:
    with pytest.raises(BadResponse, match="the backend answered wrongly") as caught:
        embedded(answer, UNIT, count=3)
    assert caught.value.indices == ()


def test_a_bad_response_names_every_text_concerned() -> None:
    answer = np.array([[1, 0, 0], [0, 0, 0], [0, 1, 0], [np.nan, 0, 0]])
    with pytest.raises(BadResponse, match="vector 1 is zero") as caught:
        embedded(answer, UNIT, count=4)
    assert caught.value.indices == (1, 3)


# Arithmetic


def test_cosines_go_row_by_row() -> None:
    left = np.array([[1, 0], [1, 0], [3, 0], [1, 1]], dtype=np.float32)
    right = np.array([[1, 0], [0, 1], [-2, 0], [1, 0]], dtype=np.float32)
    np.testing.assert_allclose(cosines(left, right), [1, 0, -1, np.sqrt(0.5)], atol=1e-12)


@given(arrays(np.float32, (2, 4), elements=st.floats(0.125, 100, width=32)))
def test_a_vector_is_most_like_itself(matrix: Matrix) -> None:
    np.testing.assert_allclose(cosines(matrix, matrix * 2), 1, atol=1e-9)
    assert np.all(np.abs(cosines(matrix, matrix[::-1])) <= 1 + 1e-9)


def test_stacking_keeps_the_shape_of_nothing() -> None:
    assert stack([], 5).shape == (0, 5)
    assert stack([], 5).dtype == np.float32
    np.testing.assert_array_equal(stack(list(ROWS), 3), ROWS)


@pytest.mark.parametrize(
    ("cosine", "text"),
    [(0.9947, "0.9947"), (0.99499999, "0.99499999"), (0.9944, "0.994"), (float("nan"), "nan")],
)
def test_a_cosine_never_reads_like_a_bound_that_it_misses(cosine: float, text: str) -> None:
    assert cosine_text(cosine, 0.995) == text
