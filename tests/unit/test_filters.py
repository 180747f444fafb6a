"""Filters: one meaning everywhere, of which ``matches`` is the reference."""

from __future__ import annotations

import functools
import math
import operator
import pickle
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samespace.errors import InvalidInput
from samespace.filters import (
    ISO_8601,
    MAX_DEPTH,
    And,
    Compares,
    Differs,
    Exists,
    Field,
    Filter,
    In,
    Not,
    Or,
    Target,
    check_filter,
    equalities,
    everything,
    field,
    matches,
    parse_instant,
    to_json,
)

x = field("x")


def named(value: object) -> str:
    """The same in every process that runs a part of the tests."""
    return "a field" if isinstance(value, Field) else ascii(value)


NOTHING: list[dict[str, Any]] = [{}, {"x": None}, {"x": []}, {"x": [None]}, {"y": 1}]


class Language(StrEnum):
    GERMAN = "de"


class Rank(IntEnum):
    FIRST = 1


def holds(where: Filter, *values: object, id: str = "a1", parent: str | None = None) -> bool:
    """Whether a document with this value, if any, under the key ``x`` passes."""
    metadata = {"x": values[0]} if values else {}
    return matches(where, id=id, metadata=metadata, parent=parent)


# Equality


@pytest.mark.parametrize(
    ("value", "same"),
    [
        ("de", "de"),
        ("", ""),
        (1, 1),
        (1, 1.0),
        (1.0, 1),
        (0, -0.0),
        (2**63 - 1, 2**63 - 1),
        (True, True),
        (["de", "en"], "en"),
        ([1, "1", None, True], "1"),
        ([1, {"k": 1}], 1),
        ("de", Language.GERMAN),
        ("de", np.str_("de")),
        (1, Rank.FIRST),
        (0.5, np.float64(0.5)),
    ],
    ids=repr,
)
def test_equal(value: object, same: object) -> None:
    assert holds(x == same, value)
    assert holds(x.contains(same), value)
    assert holds(x.in_([same]), value)
    assert not holds(~(x == same), value)


@pytest.mark.parametrize(
    ("value", "other"),
    [
        ("de", "DE"),
        ("de", "d"),
        ("de ", "de"),
        ("é", "e\u0301"),
        ("1", 1),
        (1, "1"),
        (1, True),
        (True, 1),
        (0, False),
        (False, 0),
        (1.0, True),
        ("true", True),
        (2**53 + 1, float(2**53)),
        (["de", ["en"]], "en"),
        ({"k": "de"}, "de"),
        ([], "de"),
        ([None], "de"),
    ],
    ids=repr,
)
def test_not_equal(value: object, other: object) -> None:
    assert not holds(x == other, value)
    assert holds(~(x == other), value)


@pytest.mark.parametrize(
    ("value", "differs"),
    [
        ("en", True),
        ("de", False),
        (1, True),
        (["de"], False),
        (["de", "en"], True),
        (["de", None], False),
        ([["de"]], True),
        ({"k": "de"}, True),
        ({}, True),
    ],
    ids=repr,
)
def test_differs_if_any_element_does(value: object, differs: bool) -> None:
    assert holds(x != "de", value) is differs


def test_in_takes_any_of_its_values() -> None:
    where = x.in_(["de", 1, True])
    assert [holds(where, value) for value in ("de", 1, True, 1.0)] == [True] * 4
    assert [holds(where, value) for value in ("en", 0, False, 2)] == [False] * 4
    assert holds(x.in_(value for value in ("de", "en")), ["fr", "en"])


# Missing, null and the empty list are one thing


@pytest.mark.parametrize("metadata", NOTHING, ids=repr)
def test_nothing_there(metadata: dict[str, Any]) -> None:
    def passes(where: Filter) -> bool:
        return matches(where, id="a1", metadata=metadata)

    assert passes(x == None)  # noqa: E711
    assert passes(x.contains(None))
    assert passes(x.in_([None]))
    assert passes(x.in_(["de", None]))
    assert not passes(x.exists())
    assert not passes(x != None)  # noqa: E711
    assert not any(passes(w) for w in (x == "de", x != "de", x < 1, x >= 1, x.in_(["de"])))
    assert passes(~(x == "de"))  # so this differs from x != "de"


@pytest.mark.parametrize("value", ["", 0, False, {}, [[]], "null", [None, 0]], ids=repr)
def test_something_there(value: object) -> None:
    assert holds(x.exists(), value)
    assert holds(x != None, value)  # noqa: E711
    assert not holds(x == None, value)  # noqa: E711


def test_in_nothing_matches_nothing() -> None:
    assert not holds(x.in_([]), "de")
    assert not holds(x.in_([]), None)
    assert holds(~x.in_([]), "de")


# Order


@pytest.mark.parametrize(
    ("where", "inside", "outside"),
    [
        (x < 3, [2, 2.9, -(2**63), [9, 1]], [3, 3.0, 4, "2", True, None, [], [9], {"k": 1}]),
        (x <= 3, [3, 3.0], [3.1, 4, "3"]),
        (x > 0, [0.1, 1, 2**63 - 1], [0, -1, True, "1", "2024-01-01"]),
        (x >= 0.5, [0.5, 1], [0, 0.4]),
        (3 <= x, [3], [2]),  # noqa: SIM300
        (
            x >= "2024-03-01",
            ["2024-03-01", "2024-03-01T00:00", "2025-01-01T00:00:00Z", "2024-03-01T01:00+01:00"],
            ["2024-02-29", "2024-03-01T00:59+01:00", "later", "2024", 2024, 1e12, True],
        ),
        (x < datetime(2024, 3, 1), ["2024-02-29 23:59:59.999999"], ["2024-03-01T00:00:00Z"]),  # noqa: DTZ001
        (x <= date(2024, 3, 1), ["2024-03-01", "2024-03-01T01:00:00+01"], ["2024-03-01T00:01"]),
        (
            x > datetime(2024, 3, 1, 12, tzinfo=timezone(timedelta(hours=2))),
            ["2024-03-01T10:00:01Z", "2024-03-01T12:00:01+0200"],
            ["2024-03-01T10:00:00", "2024-03-01T12:00:00+02:00"],
        ),
    ],
    ids=repr,
)
def test_order(where: Filter, inside: list[object], outside: list[object]) -> None:
    assert [value for value in inside if not holds(where, value)] == []
    assert [value for value in outside if holds(where, value)] == []


def test_naive_means_utc() -> None:
    assert (x < datetime(2024, 1, 1)) == (x < datetime(2024, 1, 1, tzinfo=UTC))  # noqa: DTZ001
    assert (x < "2024-01-01") == (x < date(2024, 1, 1)) == (x < "2024-01-01T00:00Z")


@pytest.mark.parametrize(
    "text",
    [
        "2024",
        "2024-01",
        "2024-1-1",
        "20240101",
        "2024-01-01T",
        "2024-01-01T10",
        "2024-01-01T24:00",
        "2024-01-01T10:60",
        "2024-01-01T10:00:60",
        "2024-01-01T10:00:00.",
        "2024-01-01T10:00:00.1234567",
        "2024-01-01T10:00+15:00",
        "2024-01-01T10:00+01:60",
        "2024-01-01T10:00 +01:00",
        "2024-01-01Z",
        "2024-01-01t10:00",
        "2024-01-01T10:00z",
        "2023-02-29",
        "1900-02-29",
        "2024-02-30",
        "2024-04-31",
        "2024-13-01",
        "2024-00-01",
        "2024-01-00",
        "0000-01-01",
        "-2024-01-01",
        "2024-W01-1",
        "2024-01-01\n",
        " 2024-01-01",
        "٢٠٢٤-01-01",
        "",
        "now",
    ],
    ids=ascii,
)
def test_what_is_no_instant(text: str) -> None:
    assert parse_instant(text) is None
    with pytest.raises(InvalidInput, match="has no order"):
        x < text  # noqa: B015
    assert not holds(x < "9999-12-31", text)


@given(st.from_regex(ISO_8601, fullmatch=True))
def test_whatever_the_pattern_allows_is_an_instant(text: str) -> None:
    instant = parse_instant(text)
    assert instant is not None
    assert instant.tzinfo is not None


@given(st.datetimes(timezones=st.none() | st.just(UTC)))
def test_an_instant_in_print_is_read_back(instant: datetime) -> None:
    expected = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
    assert parse_instant(instant.isoformat()) == expected
    assert parse_instant(str(instant)) == expected


@given(st.datetimes(timezones=st.just(UTC)), st.datetimes(timezones=st.just(UTC)))
def test_strings_compare_as_the_instants_they_name(left: datetime, right: datetime) -> None:
    assert holds(x < right, left.isoformat()) == (left < right)
    assert holds(x >= right.isoformat(), left.isoformat()) == (left >= right)


@given(st.dates())
def test_a_day_is_its_first_instant(day: date) -> None:
    assert parse_instant(day.isoformat()) == datetime(day.year, day.month, day.day, tzinfo=UTC)


# Nested keys, ids and parents


def test_each_key_is_one_step_inwards() -> None:
    metadata = {"address": {"city": ["Bonn", "Ulm"]}, "a.b": 1, "a": {"b": 2}}

    def passes(where: Filter) -> bool:
        return matches(where, id="a1", metadata=metadata)

    assert passes(field("address", "city") == "Ulm")
    assert passes(field("a.b") == 1)
    assert passes(field("a", "b") == 2)
    assert passes(field("address").exists())
    assert not passes(field("address", "city", "x").exists())
    assert not passes(field("address", "0").exists())


def test_objects_in_lists_are_elements_and_not_entered() -> None:
    metadata = {"people": [{"name": "Ada"}]}
    assert not matches(field("people", "name").exists(), id="a1", metadata=metadata)
    assert matches(field("people").exists(), id="a1", metadata=metadata)


def test_ids_and_parents() -> None:
    assert holds(field.id == "a1", id="a1")
    assert holds(field.id.in_(["a1", "a2"]), id="a2")
    assert holds(field.id != "a1", id="A1")
    assert holds(field.parent == "p", parent="p")
    assert not holds(field.parent == "p")
    assert not holds(field.parent != "p")
    assert holds(field.parent == None)  # noqa: E711
    assert holds(field.parent.exists(), parent="p")


def test_metadata_called_id_or_parent_is_metadata() -> None:
    metadata = {"id": "m", "parent": "n"}
    assert matches(field("id") == "m", id="a1", metadata=metadata)
    assert not matches(field.id == "m", id="a1", metadata=metadata)
    assert not matches(field.parent == "n", id="a1", metadata=metadata)


# Laws

SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0, "a", "b", ""])
INSTANTS = st.sampled_from(["2024-01-01", "2024-06-01T12:00Z", "2025-01-01T00:00:00.5+02:00"])
KEYS = st.sampled_from(["x", "y"])
METADATA = st.dictionaries(
    KEYS,
    SCALARS | INSTANTS | st.lists(SCALARS | INSTANTS, max_size=3) | st.dictionaries(KEYS, SCALARS),
)
FIELDS = st.lists(KEYS, min_size=1, max_size=2).map(lambda keys: field(*keys))
SIMPLE = st.one_of(
    st.builds(Field.in_, FIELDS, st.lists(SCALARS | INSTANTS, max_size=3)),
    st.builds(Field.__ne__, FIELDS, SCALARS),
    st.builds(Field.__lt__, FIELDS, st.integers(-3, 3) | INSTANTS),
    st.builds(Field.__le__, FIELDS, st.integers(-3, 3) | INSTANTS),
    st.builds(Field.__gt__, FIELDS, st.integers(-3, 3) | INSTANTS),
    st.builds(Field.__ge__, FIELDS, st.integers(-3, 3) | INSTANTS),
    st.builds(Field.exists, FIELDS),
    st.just(everything),
)
FILTERS: st.SearchStrategy[Filter] = st.recursive(
    SIMPLE,
    lambda inner: st.one_of(
        st.builds(Filter.__and__, inner, inner),
        st.builds(Filter.__or__, inner, inner),
        st.builds(Filter.__invert__, inner),
    ),
    max_leaves=6,
)
Passes = Callable[[Filter], bool]


def on(metadata: dict[str, Any]) -> Passes:
    return lambda where: matches(where, id="a1", metadata=metadata, parent="p")


@given(FILTERS, FILTERS, METADATA)
def test_and_or_not_are_those_of_logic(a: Filter, b: Filter, metadata: dict[str, Any]) -> None:
    passes = on(metadata)
    assert passes(a & b) == (passes(a) and passes(b))
    assert passes(a | b) == (passes(a) or passes(b))
    assert passes(~a) == (not passes(a))


@given(FILTERS, FILTERS, METADATA)
def test_de_morgan(a: Filter, b: Filter, metadata: dict[str, Any]) -> None:
    passes = on(metadata)
    assert passes(~(a & b)) == passes(~a | ~b)
    assert passes(~(a | b)) == passes(~a & ~b)


@given(FILTERS, FILTERS, FILTERS, METADATA)
def test_and_distributes_over_or(a: Filter, b: Filter, c: Filter, metadata: dict[str, Any]) -> None:
    passes = on(metadata)
    assert passes(a & (b | c)) == passes((a & b) | (a & c))


@given(FILTERS, METADATA)
def test_everything_is_neutral(a: Filter, metadata: dict[str, Any]) -> None:
    passes = on(metadata)
    assert passes(a & everything) == passes(a)
    assert passes(a | everything)
    assert not passes(a & ~everything)
    assert passes(~~a) == passes(a)


@given(FIELDS, st.lists(SCALARS, max_size=4), METADATA)
def test_in_is_a_chain_of_equals(
    where: Field, values: list[object], metadata: dict[str, Any]
) -> None:
    passes = on(metadata)
    assert passes(where.in_(values)) == any(passes(where == value) for value in values)


@given(FIELDS, st.integers(-3, 3), METADATA)
def test_at_most_is_less_or_equal(where: Field, value: int, metadata: dict[str, Any]) -> None:
    passes = on(metadata)
    assert passes(where <= value) == (passes(where < value) or passes(where == value))
    assert passes(where >= value) == (passes(where > value) or passes(where == value))


@given(FIELDS, SCALARS.filter(lambda value: value is not None), METADATA)
def test_whatever_exists_equals_or_differs(
    where: Field, value: object, metadata: dict[str, Any]
) -> None:
    passes = on(metadata)
    assert passes(where.exists()) == (passes(where == value) or passes(where != value))
    assert passes(where == None) == (not passes(where.exists()))  # noqa: E711


# Trees of values


def test_a_filter_is_a_tree_of_plain_values() -> None:
    assert (x == Language.GERMAN) == In(Target.METADATA, ("x",), ("de",))
    assert (x != "de") == Differs(Target.METADATA, ("x",), "de")
    assert (x >= 3) == Compares(("x",), ">=", 3)
    assert (field.id == "a") == In(Target.ID, (), ("a",))
    missing = Not(Exists(Target.METADATA, ("x",)))
    assert x.in_([None]) == missing
    assert x.in_([1, None]) == Or((In(Target.METADATA, ("x",), (1,)), missing))
    assert (everything & everything) == And((everything, everything))


def test_values_lose_their_subclass() -> None:
    values = x.in_([Language.GERMAN, Rank.FIRST, np.float64(0.5), np.str_("a")])
    assert isinstance(values, In)
    assert [type(value) for value in values.values] == [str, int, float, str]


@given(FILTERS)
def test_filters_can_be_pickled(where: Filter) -> None:
    assert pickle.loads(pickle.dumps(where)) == where  # noqa: S301  our own bytes


CHAINS: dict[str, tuple[Callable[[Filter, Filter], Filter], type[And | Or]]] = {
    "and": (operator.and_, And),
    "or": (operator.or_, Or),
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_is_one_level_however_it_is_put_together(name: str) -> None:
    join, kind = CHAINS[name]
    parts = tuple(x == number for number in range(2000))
    from_the_left = functools.reduce(join, parts)
    from_the_right = functools.reduce(lambda right, left: join(left, right), reversed(parts))
    assert from_the_left == from_the_right == kind(parts)
    assert holds(from_the_left, 1999) is (kind is Or)


def test_a_chain_of_one_kind_keeps_those_of_the_other_whole() -> None:
    a, b, c = x == 1, x == 2, x == 3
    assert (a | b) & c == And((Or((a, b)), c))
    assert c | (a & b) == Or((c, And((a, b))))
    assert to_json((field("a") == 1) & ((field("b") == 2) & (field("c") == 3))) == {
        "a": [1],
        "b": [2],
        "c": [3],
    }


def nested(depth: int) -> Filter:
    """``~a & (b | ~(…))``, where nothing can be flattened."""
    where: Filter = x == 0
    for number in range(depth):
        where = ~(x == number) & ((x == -number) | ~where)
    return where


# What is refused


def test_what_is_nested_too_deep_is_refused_where_it_is_written() -> None:
    deepest = nested(16)
    assert (deepest.depth, (~deepest).depth) == (MAX_DEPTH - 1, MAX_DEPTH)
    assert pickle.loads(pickle.dumps(deepest)).depth == deepest.depth  # noqa: S301  our own bytes
    assert holds(~deepest, 0) is not holds(deepest, 0)
    with pytest.raises(InvalidInput, match="more than 50 deep; write it flatter"):
        nested(500)


@pytest.mark.parametrize(
    "value",
    [
        ["de"],
        ("de",),
        {"de"},
        {"k": 1},
        b"de",
        datetime(2024, 1, 1, tzinfo=UTC),
        date(2024, 1, 1),
        Decimal(1),
        1j,
        np.int64(1),
        np.array([1]),
        object(),
        math.nan,
        math.inf,
        -math.inf,
        2**63,
        -(2**63) - 1,
        "a\x00b",
        "\ud800",
        x,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_field_cannot_equal(value: object) -> None:
    for compare in (x.__eq__, x.__ne__, x.contains, lambda v: x.in_(["ok", v])):
        with pytest.raises(InvalidInput):
            compare(value)


def test_equal_to_a_list_points_to_in() -> None:
    with pytest.raises(InvalidInput, match="for a list use in_"):
        x == ["de"]  # noqa: B015


@pytest.mark.parametrize(
    "value",
    ["de", "", "10", None, True, [1], {"k": 1}, math.nan, math.inf, 2**63, b"2024-01-01", 1j, x],
    ids=named,
)
def test_what_has_no_order(value: object) -> None:
    for compare in (x.__lt__, x.__le__, x.__gt__, x.__ge__):
        with pytest.raises(InvalidInput):
            compare(value)


@pytest.mark.parametrize("values", ["de", b"de", {"de": 1}, 5, None, True], ids=repr)
def test_in_takes_a_list(values: Any) -> None:
    with pytest.raises(InvalidInput, match="in_ takes a list of values"):
        x.in_(values)


@pytest.mark.parametrize("key", ["", 5, None, "a\x00", "\udc00", "k" * 257, ["a"]], ids=ascii)
def test_bad_keys(key: Any) -> None:
    for keys in ((key,), ("good", key)):
        with pytest.raises(InvalidInput, match="filter key"):
            field(*keys)


@pytest.mark.parametrize("value", ["", 5, True, "a\x00", "x" * 513, ["a"]], ids=ascii)
def test_ids_are_compared_with_ids(value: object) -> None:
    for place in (field.id, field.parent):
        with pytest.raises(InvalidInput, match=r"field\.(id|parent)"):
            place == value  # noqa: B015


def test_ids_have_no_order() -> None:
    with pytest.raises(InvalidInput, match=r"field\.id has no order"):
        field.id < "a"  # noqa: B015


@pytest.mark.parametrize("other", [True, None, {"lang": "de"}, "lang = 'de'", x], ids=named)
def test_only_filters_combine(other: Any) -> None:
    for combine in (Filter.__and__, Filter.__or__):
        with pytest.raises(InvalidInput, match="is not a filter"):
            combine(everything, other)


@pytest.mark.parametrize(
    "slip",
    [
        lambda: (x == 1) and (x > 2),
        lambda: (x == 1) or (x > 2),
        lambda: not x.exists(),
        lambda: 1 < x < 3,
        lambda: bool(everything),
    ],
)
def test_a_filter_has_no_truth_value(slip: Callable[[], object]) -> None:
    with pytest.raises(InvalidInput, match=r"combine with & \| ~ in parentheses"):
        slip()


def test_a_field_is_no_key() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        {x: 1}  # noqa: B018


def test_where_is_a_filter_or_none() -> None:
    assert check_filter(None) is None
    assert check_filter(everything) is everything
    with pytest.raises(InvalidInput, match="is not a filter"):
        check_filter({"lang": "de"})
    with pytest.raises(InvalidInput, match="is not a filter"):
        matches(True, id="a1", metadata={})  # type: ignore[arg-type]


# Scopes


def test_equalities_are_what_a_scope_is_recorded_as() -> None:
    scope = (field("tenant") == "t1") & field("kind").in_(["a", 2]) & (field("live") == True)  # noqa: E712
    assert equalities(scope) == {"tenant": ("t1",), "kind": ("a", 2), "live": (True,)}
    assert to_json(scope) == {"tenant": ["t1"], "kind": ["a", 2], "live": [True]}


@pytest.mark.parametrize(
    "where",
    [
        everything,
        x > 1,
        x != 1,
        x.exists(),
        x == None,  # noqa: E711
        ~(x == 1),
        (x == 1) | (x == 2),
        (x == 1) & (x > 0),
        (x == 1) & (x == 2),
        field.id == "a",
        field.parent == "p",
        field("x", "y") == 1,
    ],
    ids=repr,
)
def test_nothing_else_is_a_scope(where: Filter) -> None:
    with pytest.raises(InvalidInput):
        equalities(where)
