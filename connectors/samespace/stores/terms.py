"""Metadata as terms: what a store keeps beside the raw object so that filters find it.

Every store can look for a string in one list. Kept as such a list, metadata needs no field of its
own for any key, whatever the key is, and every filter has the meaning that
:func:`samespace.filters.matches` gives it. A term is a path as JSON, a sign, and what the sign says::

    ["year"]?            the field has an element
    ["lang"]="en"        an element equals the string or bool
    ["year"]<c09f9000…   an element is this number; in byte order, numbers are in theirs
    ["day"]@4000b1c5…    an element is this instant; likewise
    ["lang"]!="en"       no element is anything else

Long paths and strings are replaced by their SHA-256, so that a term has at most 450 bytes.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from math import inf, nextafter
from typing import Any, Final, NamedTuple

import orjson

from samespace.documents import dumps_tight
from samespace.filters import Order, Scalar, parse_instant

REMEMBERED_BYTES: Final = 256
"""Metadata up to here, as JSON, is worked on once for many rows."""
READABLE_BYTES: Final = 192
"""Longest path or string that a term spells out."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_BIAS: Final = 2**62
"""Makes the microseconds of any instant since the epoch positive."""
_HALF: Final = 2**40
_PRESENT, _EQUAL, _NUMBER, _INSTANT, _ONLY = "?=<@!"
_BOUNDS: Final[Mapping[Order, str]] = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}

Path = Sequence[str]
"""The keys that lead to a field, outermost first."""


class Ordered(NamedTuple):
    """A number or an instant of one field as two integers that compare, in turn, as it does.

    ``path`` tells the field and which of the two it is. ``high`` and ``low`` are from 0 to 2**53,
    so that a store may compare them as floats, and read them from JSON carelessly.
    """

    path: str
    high: int
    low: int


def terms_of(metadata: Mapping[str, Any]) -> list[str]:
    """All terms of a metadata object, each once."""
    terms: list[str] = []
    for path, value in _fields(metadata, ()):
        terms += _field_terms(_spelt(path), value)
    return terms


def terms_as_json(metadata: bytes) -> bytes:
    """:func:`terms_of` as a JSON list; the metadata is JSON too."""
    make = _remembered_json if len(metadata) <= REMEMBERED_BYTES else _as_json
    return make(metadata)


def _as_json(metadata: bytes) -> bytes:
    return dumps_tight(terms_of(orjson.loads(metadata)))


_remembered_json: Final = lru_cache(maxsize=4096)(_as_json)
"""Of short metadata: many rows have the same, as have all chunks of a document."""


def orders_of(metadata: Mapping[str, Any]) -> list[Ordered]:
    """All numbers and instants of a metadata object, each of a field once."""
    found: list[Ordered] = []
    for path, value in _fields(metadata, ()):
        for element in value if isinstance(value, list) else (value,):
            if _is_short(element):
                found += _remembered_orders(path, element)
    return list(dict.fromkeys(found)) if len(found) > 1 else found


@lru_cache(maxsize=4096, typed=True)  # True is no 1
def _remembered_orders(path: Path, element: object) -> Sequence[Ordered]:
    """The number or instant that a short element is; many rows have the same."""
    ordered = _as_ordered(element)
    return () if ordered is None else (pair(path, ordered),)


def present(path: Path) -> str:
    """The term that is there if, and only if, the field has an element."""
    return _spelt(tuple(path)) + _PRESENT


def equals(path: Path, value: Scalar) -> str:
    """The term that is there if, and only if, an element equals ``value``."""
    return _spelt(tuple(path)) + _valued(value)


def only(path: Path, value: Scalar) -> str:
    """The term that is there if, and only if, there are elements and all equal ``value``."""
    return _spelt(tuple(path)) + _ONLY + _valued(value)


def between(path: Path, order: Order, value: float | datetime) -> dict[str, str]:
    """The bounds, in byte order, of the terms of elements that are in this order to ``value``.

    The keys are those of a range query: ``gt`` or ``gte``, and ``lt`` or ``lte``.
    """
    field = _spelt(tuple(path))
    sign = _INSTANT if isinstance(value, datetime) else _NUMBER
    named = {_BOUNDS[order]: field + _ordered(value)}
    if order in {"<", "<="}:
        return {"gte": field + sign, **named}
    return {**named, "lt": field + chr(ord(sign) + 1)}


def pair(path: Path, value: float | datetime) -> Ordered:
    """A value as :func:`orders_of` gives it."""
    sign, place = (
        (_INSTANT, _microseconds(value) + _BIAS)
        if isinstance(value, datetime)
        else (_NUMBER, _place(value))
    )
    return Ordered(_spelt(tuple(path)) + sign, *divmod(place, _HALF))


def _fields(values: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[Any, Any]]:
    for key, value in values.items():
        inner = (*path, key)
        yield inner, value
        if type(value) is dict:
            yield from _fields(value, inner)


def _elements(value: object) -> list[Any]:
    items = value if isinstance(value, list) else [value]
    return [item for item in items if item is not None]


def _field_terms(field: str, value: object) -> Sequence[str]:
    if isinstance(value, list):
        return _list_terms(field, value)
    if value is None:
        return ()
    if _is_short(value):
        return _remembered_terms(field, value)
    return (field + _PRESENT, *_scalar_terms(field, value))


@lru_cache(maxsize=4096, typed=True)  # True is no 1
def _remembered_terms(field: str, value: object) -> Sequence[str]:
    """The terms of a field with one short element: many rows have the same."""
    return (field + _PRESENT, *_scalar_terms(field, value))


def _list_terms(field: str, values: list[object]) -> Sequence[str]:
    elements = _elements(values)
    found = [_scalar_terms(field, element) for element in elements]
    terms = {term: None for terms in found for term in terms}
    if len({tuple(terms) for terms in found}) > 1:  # they differ, so no value is the only one
        terms = {term: None for term in terms if not term.startswith(field + _ONLY)}
    return (field + _PRESENT, *terms) if elements else ()


def _scalar_terms(field: str, element: object) -> list[str]:
    """The terms of a field with this element alone, none of an object or a list."""
    if isinstance(element, dict | list):
        return []
    value = _valued(element)  # type: ignore[arg-type]
    terms = [field + value, field + _ONLY + value]
    if isinstance(element, str) and (instant := parse_instant(element)) is not None:
        terms.append(field + _ordered(instant))
    return terms


def _is_short(value: object) -> bool:
    """Whether a value may be kept: no longer than an instant can be, and no list or object."""
    if isinstance(value, str):
        return len(value) <= READABLE_BYTES
    return not isinstance(value, dict | list)


def _as_ordered(element: object) -> float | datetime | None:
    if isinstance(element, str):
        return parse_instant(element)
    if isinstance(element, int | float) and not isinstance(element, bool):
        return element
    return None


@lru_cache(maxsize=4096)
def _spelt(path: tuple[str, ...]) -> str:
    return _short(orjson.dumps(path))


def _short(spelt: bytes) -> str:
    if len(spelt) <= READABLE_BYTES:
        return spelt.decode()
    return "#" + hashlib.sha256(spelt).hexdigest()


def _valued(value: Scalar) -> str:
    """The part of a term that says what an element equals."""
    if isinstance(value, str | bool):
        return _EQUAL + _short(orjson.dumps(value))
    return _ordered(value)


def _ordered(value: float | datetime) -> str:
    """The part of a term that says which number or instant an element is."""
    if isinstance(value, datetime):
        return f"{_INSTANT}{_microseconds(value) + _BIAS:016x}"
    return f"{_NUMBER}{_place(value):020x}"


def _microseconds(instant: datetime) -> int:
    return (instant - _EPOCH) // _MICROSECOND


def _place(number: float) -> int:
    """An integer below 2**80 that is in the order of the numbers.

    Its low 16 bits are what an int64 is above the greatest float64 that is not above it.
    """
    high = float(number) + 0.0  # no negative zero
    if not isinstance(number, int):
        return _sortable(high) << 16
    if high > number:  # Python compares int and float exactly
        high = nextafter(high, -inf)
    return (_sortable(high) << 16) + number - int(high)


def _sortable(number: float) -> int:
    """The bits of a float64, turned so that they are in the order of the numbers."""
    bits: int = struct.unpack(">Q", struct.pack(">d", number))[0]
    return bits ^ (2**64 - 1) if bits >> 63 else bits | 1 << 63
