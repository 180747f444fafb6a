"""What an examination found, and whether that can be used."""

from __future__ import annotations

import pytest

from samespace.errors import StoreUnavailable
from samespace.findings import Finding, Level, is_usable, numbers_of


def test_a_problem_alone_stands_in_the_way_of_use() -> None:
    harmless = [Finding(level, "said") for level in Level if level is not Level.PROBLEM]
    assert is_usable([])
    assert is_usable(harmless)
    assert not is_usable([*harmless, Finding(Level.PROBLEM, "said")])


def test_an_error_is_a_problem_with_what_mends_it() -> None:
    error = StoreUnavailable("it cannot be reached; check host and port; try again")
    assert Finding.of(error) == Finding(
        Level.PROBLEM, "it cannot be reached", "check host and port; try again"
    )
    assert Finding.of(StoreUnavailable("gone")) == Finding(Level.PROBLEM, "gone")


@pytest.mark.parametrize(
    ("version", "numbers"),
    [("0.8.5", (0, 8, 5)), ("9.4.3-SNAPSHOT", (9, 4, 3)), ("1.20.0+rc1", (1, 20, 0)), ("", ())],
)
def test_the_numbers_of_a_version(version: str, numbers: tuple[int, ...]) -> None:
    assert numbers_of(version) == numbers
