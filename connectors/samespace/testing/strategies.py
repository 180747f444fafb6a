"""Hypothesis strategies for the contract: any filter on :data:`FILTER_DOCUMENTS`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from hypothesis import strategies as st

from samespace.filters import Field, Filter, field
from samespace.testing.corpus import FILTER_DOCUMENTS

_FIELDS: Final = (
    field("lang"),
    field("year"),
    field("flag"),
    field("day"),
    field("a"),
    field("a", "b"),
    field("a.b"),
    field("nowhere"),
)
_SCALARS: Final = ("en", "de", "", "2020", "true", 2020, 2020.5, 2021, 0, 1, -1e300, True, False)
_NUMBERS: Final = (-1, 0, 1, 2020, 2020.5, 2021, 1e300)
_INSTANTS: Final = (
    "2020-01-01",
    "2019-12-31T23:59:59.999999Z",
    "2020-01-01T01:30:00+02:00",
    datetime(2022, 1, 1, tzinfo=UTC),
)
_IDS: Final = tuple(document.id for document in FILTER_DOCUMENTS[:5])
_PARENTS: Final = ("p0", "p1", "p2", "missing")
_OPERATORS: Final = ("__lt__", "__le__", "__gt__", "__ge__")


def filters() -> st.SearchStrategy[Filter]:
    """Filters of up to about eight conditions."""
    return st.recursive(_conditions(), _combined, max_leaves=8)


def _conditions() -> st.SearchStrategy[Filter]:
    metadata = st.sampled_from(_FIELDS)
    values = st.sampled_from((*_SCALARS, None))
    return st.one_of(
        st.builds(_equal, metadata, values),
        st.builds(_differs, metadata, values),
        st.builds(Field.in_, metadata, st.lists(values, max_size=3)),
        st.builds(Field.exists, metadata),
        st.builds(
            lambda operator, key, value: getattr(key, operator)(value),
            st.sampled_from(_OPERATORS),
            metadata,
            st.sampled_from((*_NUMBERS, *_INSTANTS)),
        ),
        st.builds(_equal, st.just(field.id), st.sampled_from(_IDS)),
        st.builds(_differs, st.just(field.parent), st.sampled_from((*_PARENTS, None))),
        st.builds(Field.in_, st.just(field.parent), st.lists(st.sampled_from(_PARENTS))),
    )


def _combined(inner: st.SearchStrategy[Filter]) -> st.SearchStrategy[Filter]:
    return st.one_of(
        st.builds(lambda part: ~part, inner),
        st.builds(lambda left, right: left & right, inner, inner),
        st.builds(lambda left, right: left | right, inner, inner),
    )


def _equal(key: Field, value: object) -> Filter:
    return key == value


def _differs(key: Field, value: object) -> Filter:
    return key != value
