"""Terms give every filter its meaning: looked up in a list of strings, or in pairs of numbers."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from samespace.filters import And, Compares, Differs, Exists, Filter, In, Not, Or, field, matches
from samespace.stores.terms import (
    READABLE_BYTES,
    between,
    equals,
    only,
    orders_of,
    pair,
    present,
    terms_of,
)

_ORDERS = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}
_SIGNS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
NUMBERS = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(2**53 - 2, 2**53 + 3),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-3, 3),
    st.sampled_from([0.0, -0.0, 2.0, 2.5, float(2**53), float(2**63), 1e300, 5e-324]),
)
INSTANTS = st.sampled_from(
    [
        "2020-01-01",
        "2020-01-01T00:00:00+00:00",
        "2019-12-31T23:59:59.999999Z",
        "2020-01-01T01:30:00+02:00",
        "0001-01-01",
        "9999-12-31T23:59:59.999999-14",
        "2020-13-01",
    ]
)
SCALARS = st.one_of(
    NUMBERS, INSTANTS, st.booleans(), st.sampled_from(["", "a", "A", "é", '"', "x" * 300, "true"])
)
KEYS = st.sampled_from(["a", "b", "a.b", '"', "]", "?", "k" * 256])
METADATA: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.dictionaries(KEYS, st.one_of(st.none(), SCALARS), max_size=3),
    lambda inner: st.dictionaries(
        KEYS,
        st.one_of(inner, SCALARS, st.lists(st.one_of(st.none(), SCALARS, inner), max_size=3)),
        max_size=3,
    ),
    max_leaves=6,
)
FIELDS = st.lists(KEYS, min_size=1, max_size=2).map(lambda keys: field(*keys))


def _found_by_terms(where: Filter, terms: set[str]) -> bool:
    """What a store with a list of strings answers."""
    if isinstance(where, Compares):
        bounds = between(where.path, where.order, where.value)
        return any(all(_ORDERS[n](t, b) for n, b in bounds.items()) for t in terms)
    if isinstance(where, Differs):
        return present(where.path) in terms and only(where.path, where.value) not in terms
    if isinstance(where, In):
        return any(equals(where.path, value) in terms for value in where.values)
    if isinstance(where, Exists):
        return present(where.path) in terms
    if isinstance(where, Not):
        return not _found_by_terms(where.part, terms)
    assert isinstance(where, And | Or)
    found = (_found_by_terms(part, terms) for part in where.parts)
    return all(found) if isinstance(where, And) else any(found)


def _found_by_pairs(where: Compares, metadata: Mapping[str, Any]) -> bool:
    """What a store with pairs of numbers answers."""
    wanted = pair(where.path, where.value)
    compare = _SIGNS[where.order]
    return any(
        one.path == wanted.path and compare((one.high, one.low), (wanted.high, wanted.low))
        for one in orders_of(metadata)
    )


def _says(where: Filter, metadata: Mapping[str, Any]) -> bool:
    return matches(where, id="a", metadata=metadata)


@given(METADATA, FIELDS, SCALARS)
@example({"a": 2**53 + 1}, field("a"), 2**53)
@example({"a": float(2**63)}, field("a"), 2**63 - 1)
@example({"a": [None, []]}, field("a"), 1)
@example({"a": {"b": 1}}, field('a","b'), 1)
def test_equality_presence_and_difference(
    metadata: dict[str, Any], key: Any, value: bool | float | str
) -> None:
    terms = terms_of(metadata)
    assert len(set(terms)) == len(terms)
    for where in (key == value, key != value, key.exists(), ~(key != value), key == None):  # noqa: E711
        assert _found_by_terms(where, set(terms)) == _says(where, metadata), where


@given(METADATA, FIELDS, st.one_of(NUMBERS, INSTANTS.filter(lambda text: "-13-" not in text)))
@example({"a": 2**53 + 1}, field("a"), 2**53)
@example({"a": [-(2**53) - 1]}, field("a"), float(-(2**53)))
@example({"a": -0.0}, field("a"), 0)
@example({"a": "2020-01-01"}, field("a"), 1577836800)
def test_order(metadata: dict[str, Any], key: Any, value: float | str) -> None:
    terms = set(terms_of(metadata))
    for where in (key < value, key <= value, key > value, key >= value):
        assert _found_by_terms(where, terms) == _says(where, metadata), where
        assert _found_by_pairs(where, metadata) == _says(where, metadata), where


@given(st.lists(NUMBERS, min_size=2, max_size=2))
def test_terms_of_numbers_are_in_their_order(numbers: list[Any]) -> None:
    low, high = sorted(numbers)
    assert (equals(["a"], low) <= equals(["a"], high)) is True
    assert (equals(["a"], low) == equals(["a"], high)) == (low == high)


def test_terms_can_be_read() -> None:
    assert terms_of({"lang": "en", "in": {"day": "2020-01-01"}}) == [
        '["lang"]?',
        '["lang"]="en"',
        '["lang"]!="en"',
        '["in"]?',
        '["in","day"]?',
        '["in","day"]="2020-01-01"',
        '["in","day"]!="2020-01-01"',
        '["in","day"]@40059b08c1fa4000',
    ]
    assert equals(["year"], 2020.0) == equals(["year"], 2020) == '["year"]<c09f9000000000000000'


def test_a_term_is_short_however_long_key_and_text_are() -> None:
    long = {"k" * 256: {"k" * 256: "x" * 100_000}}
    assert max(len(term.encode()) for term in terms_of(long)) <= 2 * READABLE_BYTES + 66
    assert len(terms_of(long)) == 4


@pytest.mark.parametrize(
    "zone", [UTC, timezone(timedelta(hours=-14)), timezone(timedelta(hours=14))]
)
def test_an_instant_is_one_in_every_zone(zone: timezone) -> None:
    noon = datetime(2020, 6, 1, 12, tzinfo=UTC)
    assert pair(["a"], noon.astimezone(zone)) == pair(["a"], noon)
    assert between(["a"], "<", noon.astimezone(zone)) == between(["a"], "<", noon)
