"""Filters on metadata, ids and parents: a tree of values with one meaning on every store.

``field("lang") == "de"`` builds a tree; a store turns it into bound parameters, never into text.

A field's value is a list of *elements*: a scalar is a list of one; nulls in a list do not count.
A comparison holds if any element satisfies it. Missing, null and ``[]`` have no elements:
``== None`` is true of them, every other comparison false. Numbers compare by value, int and float
alike; a bool is not a number. Order comparisons take numbers or ISO-8601 date-times (naive = UTC);
strings that are not one are never less or greater. :func:`matches` is the reference.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any, Final, Literal, NoReturn

from samespace.documents import INT64_MAX, INT64_MIN
from samespace.errors import InvalidInput, excerpt
from samespace.names import check_id, check_key, is_unstorable

Scalar = str | int | float | bool
Order = Literal["<", "<=", ">", ">="]

MAX_DEPTH: Final = 50
"""How deep ``&``, ``|`` and ``~`` may be nested; one of them over many parts is one level."""

ISO_8601: Final = (
    r"(?!0000)([0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    r"|02-(0[1-9]|1[0-9]|2[0-8]))"
    r"|([0-9][0-9](0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29)"
    r"([T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?"
    r"(Z|[+-](0[0-9]|1[0-4])(:?[0-5][0-9])?)?)?"
)
"""What counts as a date-time: only days that exist, so that no store fails on converting it.

A pattern for the whole string, in the syntax that Python, PostgreSQL and RE2 without its
lookahead share.
"""
_ISO_8601 = re.compile(ISO_8601, re.ASCII)
_ORDERS: Final[Mapping[Order, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Target(StrEnum):
    """What a comparison looks at."""

    METADATA = "metadata"
    ID = "id"
    PARENT = "parent"


class Filter:
    """A condition on documents. Combine with ``&``, ``|`` and ``~``."""

    __slots__ = ()

    depth = 1
    """How many levels of ``&``, ``|`` and ``~`` there are, this one included."""

    def __and__(self, other: Filter) -> Filter:
        return And((*_parts(self, And), *_parts(_check_filter(other), And)))

    def __or__(self, other: Filter) -> Filter:
        return Or((*_parts(self, Or), *_parts(_check_filter(other), Or)))

    def __invert__(self) -> Filter:
        return Not(self)

    def __bool__(self) -> NoReturn:
        raise InvalidInput(
            "a filter has no truth value: combine with & | ~ in parentheses, not with and, or, not "
            "or a chained comparison"
        )


@dataclass(frozen=True, slots=True)
class Everything(Filter):
    """True of every document."""


@dataclass(frozen=True, slots=True)
class And(Filter):
    """True where all parts are."""

    parts: tuple[Filter, ...]
    depth: int = dataclass_field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "depth", _depth_over(self.parts))


@dataclass(frozen=True, slots=True)
class Or(Filter):
    """True where any part is."""

    parts: tuple[Filter, ...]
    depth: int = dataclass_field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "depth", _depth_over(self.parts))


@dataclass(frozen=True, slots=True)
class Not(Filter):
    """True where the part is false; no third value, missing fields included."""

    part: Filter
    depth: int = dataclass_field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "depth", _depth_over((self.part,)))


@dataclass(frozen=True, slots=True)
class In(Filter):
    """Some element equals one of ``values``."""

    target: Target
    path: tuple[str, ...]
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Differs(Filter):
    """Some element differs from ``value``."""

    target: Target
    path: tuple[str, ...]
    value: Scalar


@dataclass(frozen=True, slots=True)
class Compares(Filter):
    """Some element is a number, or a date-time, in this order to ``value``."""

    path: tuple[str, ...]
    order: Order
    value: int | float | datetime


@dataclass(frozen=True, slots=True)
class Exists(Filter):
    """There is at least one element."""

    target: Target
    path: tuple[str, ...]


def _parts(where: Filter, kind: type[And | Or]) -> tuple[Filter, ...]:
    """What a filter joins, if it is of this kind: a long chain is wide, not deep."""
    return where.parts if isinstance(where, And | Or) and isinstance(where, kind) else (where,)


def _depth_over(parts: Iterable[Filter]) -> int:
    """The depth of a filter of these parts, :class:`InvalidInput` if recursion may not get down."""
    depth = 1 + max((_check_filter(part).depth for part in parts), default=0)
    if depth > MAX_DEPTH:
        raise InvalidInput(
            f"the filter nests & | ~ more than {MAX_DEPTH} deep; write it flatter, for example with "
            "in_([…]) or one | over all alternatives"
        )
    return depth


everything: Final = Everything()
"""The filter that every document passes: ``delete(where=everything)`` empties a collection."""


class Field:
    """A metadata field, or the id or parent of a document, to compare with values."""

    __slots__ = ("_path", "_target")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, target: Target, path: tuple[str, ...]) -> None:
        self._target = target
        self._path = path

    @property
    def path(self) -> tuple[str, ...]:
        """The keys that lead to the field, outermost first."""
        return self._path

    @property
    def target(self) -> Target:
        """What the field is a part of."""
        return self._target

    def __eq__(self, value: object) -> Filter:  # type: ignore[override]
        return self.in_([value])

    def __ne__(self, value: object) -> Filter:  # type: ignore[override]
        if value is None:
            return self.exists()
        return Differs(self._target, self._path, _check_scalar(self._target, value))

    def __lt__(self, value: object) -> Filter:
        return self._compare("<", value)

    def __le__(self, value: object) -> Filter:
        return self._compare("<=", value)

    def __gt__(self, value: object) -> Filter:
        return self._compare(">", value)

    def __ge__(self, value: object) -> Filter:
        return self._compare(">=", value)

    def in_(self, values: Iterable[object]) -> Filter:
        """Some element equals one of ``values``; None among them means ``== None``."""
        if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
            raise InvalidInput(f"in_ takes a list of values, not {excerpt(values)}")
        listed = list(values)
        scalars = tuple(_check_scalar(self._target, v) for v in listed if v is not None)
        found = In(self._target, self._path, scalars)
        if len(scalars) == len(listed):
            return found
        missing = Not(Exists(self._target, self._path))
        return missing if not scalars else Or((found, missing))

    def contains(self, value: object) -> Filter:
        """Some element equals ``value``: the same as ``==``, for lists."""
        return self == value

    def exists(self) -> Filter:
        """There is a value: not missing, not null, not ``[]``."""
        return Exists(self._target, self._path)

    def _compare(self, order: Order, value: object) -> Filter:
        if self._target is not Target.METADATA:
            raise InvalidInput(f"field.{self._target} has no order; use == or in_")
        return Compares(self._path, order, _check_ordered(value))


class _FieldFactory:
    """``field("address", "city")`` for metadata, ``field.id`` and ``field.parent`` for ids."""

    __slots__ = ()

    def __call__(self, key: str, *keys: str) -> Field:
        path = tuple(check_key(k, what="filter key") for k in (key, *keys))
        return Field(Target.METADATA, path)

    @property
    def id(self) -> Field:
        """The document's id."""
        return Field(Target.ID, ())

    @property
    def parent(self) -> Field:
        """The id of the document that a chunk was cut from."""
        return Field(Target.PARENT, ())


field: Final = _FieldFactory()


def id_in(ids: Iterable[str], where: Filter | None = None) -> Filter:
    """The documents of these ids, of those that pass."""
    among = field.id.in_(list(ids))
    return among if where is None else among & where


def target_of(named: object) -> tuple[Target, tuple[str, ...]]:
    """What a field, or the name of one, looks at; :class:`InvalidInput` for anything else."""
    found = field(named) if isinstance(named, str) else named
    if not isinstance(found, Field):
        raise InvalidInput(f"field is {excerpt(named)}; pass a name or field(…)")
    return found.target, found.path


def _check_filter(value: object) -> Filter:
    if not isinstance(value, Filter):
        raise InvalidInput(
            f"{excerpt(value)} is not a filter; write for example field('lang') == 'de'"
        )
    return value


def check_filter(where: object) -> Filter | None:
    """Return ``where`` if it is a filter or None; :class:`InvalidInput` otherwise."""
    if where is None or isinstance(where, Filter):
        return where
    raise InvalidInput(
        f"where is {excerpt(where)}, which is not a filter; build one: field('lang') == 'de'"
    )


def _check_scalar(target: Target, value: object) -> Scalar:
    if target is not Target.METADATA:
        return check_id(value, what=f"field.{target}")
    if isinstance(value, str):
        if is_unstorable(value):
            raise InvalidInput("filter value has a NUL or a lone surrogate; nothing can equal it")
        return str.__str__(value)  # a plain str of a StrEnum's member
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return _check_number(value)
    raise InvalidInput(
        f"filter value {excerpt(value)} is a {type(value).__name__}; compare with a string, a number, "
        "a bool or None (for a list use in_; for an instant use >= and <=)"
    )


def _check_number(value: float) -> int | float:
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput(f"filter value {value} is not a number that metadata can hold")
    if isinstance(value, int) and not INT64_MIN <= value <= INT64_MAX:
        raise InvalidInput("filter value is an integer beyond int64, which metadata cannot hold")
    return float(value) if isinstance(value, float) else int(value)


def _check_ordered(value: object) -> int | float | datetime:
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _check_number(value)
    instant = parse_instant(value) if isinstance(value, str) else None
    if instant is None:
        raise InvalidInput(
            f"{excerpt(value)} has no order: < <= > >= take a number, a datetime or an ISO-8601 string"
        )
    return instant


def parse_instant(text: str) -> datetime | None:
    """The instant that an ISO-8601 string names (naive = UTC), or None if it is not one."""
    if not _ISO_8601.fullmatch(text):
        return None
    instant = datetime.fromisoformat(text)
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def matches(
    where: Filter, *, id: str, metadata: Mapping[str, Any], parent: str | None = None
) -> bool:
    """Whether a document passes, evaluated in Python: the meaning that every store must have."""
    if isinstance(where, Everything):
        return True
    if isinstance(where, And):
        return all(matches(part, id=id, metadata=metadata, parent=parent) for part in where.parts)
    if isinstance(where, Or):
        return any(matches(part, id=id, metadata=metadata, parent=parent) for part in where.parts)
    if isinstance(where, Not):
        return not matches(where.part, id=id, metadata=metadata, parent=parent)
    if isinstance(where, Compares):
        return any(_holds(where, item) for item in _elements(_lookup(metadata, where.path)))
    if not isinstance(where, In | Differs | Exists):
        raise InvalidInput(f"{excerpt(where)} is not a filter")
    sources: dict[Target, object] = {Target.ID: id, Target.PARENT: parent}
    value = sources[where.target] if where.target in sources else _lookup(metadata, where.path)
    elements = _elements(value)
    if isinstance(where, Exists):
        return bool(elements)
    if isinstance(where, In):
        return any(_equal(item, value) for item in elements for value in where.values)
    return any(not _equal(item, where.value) for item in elements)


def _lookup(metadata: Mapping[str, Any], path: tuple[str, ...]) -> object:
    value: object = metadata
    for key in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def _elements(value: object) -> list[object]:
    items = value if isinstance(value, list) else [value]
    return [item for item in items if item is not None]


def _equal(element: object, value: Scalar) -> bool:
    if isinstance(element, bool) or isinstance(value, bool):
        return element is value
    if isinstance(element, str) or isinstance(value, str):
        return type(element) is type(value) and element == value
    return isinstance(element, int | float) and element == value


def _holds(where: Compares, element: object) -> bool:
    wants_instant = isinstance(where.value, datetime)
    if wants_instant and isinstance(element, str):
        instant = parse_instant(element)
        return instant is not None and _ORDERS[where.order](instant, where.value)
    if wants_instant or isinstance(element, bool) or not isinstance(element, int | float):
        return False
    return _ORDERS[where.order](element, where.value)


def to_json(where: Filter) -> dict[str, Any]:
    """A filter of equalities (a layout's scope) as JSON; :class:`InvalidInput` for any other."""
    return {key: list(values) for key, values in equalities(where).items()}


def of_json(pinned: Mapping[str, Sequence[Scalar]]) -> Filter:
    """The inverse of :func:`to_json`: all fields must hold, each one of its values."""
    parts = [field(key).in_(values) for key, values in pinned.items()]
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def equalities(where: Filter) -> dict[str, tuple[Scalar, ...]]:
    """The fields that a conjunction pins, each with its permitted values."""
    if isinstance(where, And):
        pinned = [pair for part in where.parts for pair in equalities(part).items()]
        if len(dict(pinned)) == len(pinned):
            return dict(pinned)
        raise InvalidInput(
            f"{excerpt(where)} pins a field twice; a scope has one condition a field"
        )
    if isinstance(where, In) and where.target is Target.METADATA and len(where.path) == 1:
        return {where.path[0]: where.values}
    raise InvalidInput(f"{excerpt(where)} cannot be a scope: use field('…') == value, joined by &")
