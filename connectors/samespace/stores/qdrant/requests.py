"""What is asked of Qdrant, and what its answers mean: points, payloads, conditions.

A point of a collection of ours has this payload; ``samespace`` and ``samespace_slots`` are reserved::

    text              as the document has it
    metadata          as the document has it, and in no index
    samespace         id, parent, ordinal, span, embed_text; the metadata's terms and orders, which
                      filters look at; version, which every write of ours changes; exact, the
                      metadata as text if it has floats that Qdrant does not read exactly
    samespace_slots   for each slot what its vector was made from (source) and who filled it (claim)

Metadata and terms change together in one request, which replaces both objects where the version is
as read. The slots are apart from them because a filler changes them meanwhile.
"""

from __future__ import annotations

import hashlib
import math
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Final

import orjson
from qdrant_client import models

from samespace.documents import (
    Document,
    Metadata,
    Parent,
    decode_metadata,
    dumps_tight,
    encode_metadata,
)
from samespace.errors import InvalidInput, excerpt
from samespace.filters import (
    And,
    Compares,
    Differs,
    Everything,
    Exists,
    Filter,
    In,
    Not,
    Or,
    Order,
    Target,
)
from samespace.protocols import Vector
from samespace.space import EmbeddingSpace
from samespace.stores import sources, terms

TEXT: Final = "text"
METADATA: Final = "metadata"
RESERVED: Final = "samespace"
SLOTS: Final = "samespace_slots"
RECORD: Final = "samespace"
"""The one key of the collection's metadata that is ours."""
EXACT: Final = 2**53
"""Up to here an integer and the float that Qdrant compares it as are one number."""
SHORT_FLOAT: Final = 16
"""Characters of a float that anybody reads as it was written."""
_INTEGER: Final = re.compile(r"0|[1-9][0-9]{0,19}")
_VARIANTS: Final = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}
_MOST_INTEGER: Final = 2**64 - 1

NEVER: Final = models.HasIdCondition(has_id=[])
"""True of no point, and no answer to a search by index.

Qdrant 1.18 walks the indexes of the conditions that it thinks rarest, and looks at no condition
any more if each is like one of those: of ``must=[a], must_not=[a]`` it finds all of a. With this
one among them it looks, unless this is one of the rarest itself: so a part that no point passes
is left out of alternatives, and makes what it is a part of the same, in :func:`every` and
:func:`any_of`.
"""
PointId = int | str
Condition = Any
"""One of ``models.Condition``, which is a union without a name for type checkers."""
Leaf = Callable[[Filter], models.Filter]


@dataclass(slots=True)
class Spelt:
    """An object or a list in many payloads, as JSON; ``wire`` is kept by who has made it.

    Kept for thousands of rows, its parts as Python's objects would take ten times the memory.
    """

    json: bytes
    wire: bytes | None = None

    @property
    def value(self) -> Any:
        """The object or list, anew for everyone who asks."""
        return orjson.loads(self.json)


@dataclass(slots=True)  # frozen takes four times as long to make
class Point:
    """A point as it is sent or read; ``score`` is that of a search."""

    id: PointId
    payload: dict[str, Any] = field(default_factory=dict)
    vectors: Mapping[str, Vector] = field(default_factory=dict)
    score: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """One query for the nearest points."""

    vector: Vector
    slot: str
    limit: int
    condition: models.Filter
    params: models.SearchParams
    with_vectors: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What is wanted of points: top keys of the payload (None: all of it), and vectors by name."""

    keys: tuple[str, ...] | None = None
    vectors: tuple[str, ...] = ()


WHOLE: Final = Read()


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotData:
    """What is kept of one slot of a row: from what, and by whom, its vector was made."""

    source: str | None = None
    claim: str | None = None
    norm: float | None = None
    """Of a vector whose space is not normalised: Qdrant keeps directions alone."""

    @classmethod
    def of(cls, point: Point, space: EmbeddingSpace) -> SlotData:
        """That of a point's slot, empty where there is none."""
        slots = point.payload.get(SLOTS)
        found = slots.get(space.id) if isinstance(slots, dict) else None
        if not isinstance(found, dict):
            return cls()
        norm = found.get("norm")
        return cls(
            source=_text_or_none(found.get("source")),
            claim=_text_or_none(found.get("claim")),
            norm=norm if isinstance(norm, float) else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """As it is kept; what is not known is left out."""
        kept = {"source": self.source, "claim": self.claim, "norm": self.norm}
        return {key: value for key, value in kept.items() if value is not None}


def point_id(id: str) -> str:
    """The UUID under which a document's id is kept, of the first 16 bytes of its SHA-256."""
    digest = hashlib.sha256(id.encode()).hexdigest()
    variant = _VARIANTS[digest[16]]
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"


def source_of(id: str, text: str) -> str:
    """What a vector was made from, in hex."""
    return sources.source_of(id, text).hex()


def after(id: PointId) -> PointId | None:
    """The least id that comes after this one in Qdrant's order, integers first; None at the end."""
    if isinstance(id, int):
        return id + 1 if id < _MOST_INTEGER else str(uuid.UUID(int=0))
    number = uuid.UUID(id).int
    return str(uuid.UUID(int=number + 1)) if number < 2**128 - 1 else None


def native_id(text: str) -> PointId | None:
    """The point's id that a string spells in its one way, or None."""
    if _INTEGER.fullmatch(text):
        return int(text) if int(text) <= _MOST_INTEGER else None
    try:
        return text if str(uuid.UUID(text)) == text else None
    except ValueError:
        return None


# Conditions


def compiled(where: Filter, leaf: Leaf) -> models.Filter:
    """A filter in as few levels as it has alternations: a message may be nested 100 deep."""
    if isinstance(where, Everything):
        return models.Filter()
    if isinstance(where, And):
        return every(*(compiled(part, leaf) for part in where.parts))
    if isinstance(where, Or):
        return any_of(compiled(part, leaf) for part in where.parts)
    if isinstance(where, Not):
        return opposite(compiled(where.part, leaf))
    return leaf(where)


def every(*parts: models.Filter) -> models.Filter:
    """What passes all of them, as one flat filter where that can be."""
    must: list[Condition] = []
    must_not: list[Condition] = []
    should: list[Condition] = []
    for part in parts:
        if _is_nothing(part):
            return part
        alternatives = _listed(part.should)
        if should and alternatives:
            must.append(models.Filter(should=alternatives))
        should = should or alternatives
        must += _listed(part.must)
        must_not += [condition for condition in _listed(part.must_not) if condition != NEVER]
    if bool(must) + bool(should) + bool(must_not) > 1:
        must_not.append(NEVER)
    return models.Filter(must=must or None, should=should or None, must_not=must_not or None)


def any_of(parts: Iterable[models.Filter]) -> models.Filter:
    """What passes one of them."""
    alternatives = [_one(part) for part in parts if not _is_nothing(part)]
    return models.Filter(should=alternatives) if alternatives else holds(NEVER)


def _is_nothing(part: models.Filter) -> bool:
    return _listed(part.must) == [NEVER]


def opposite(part: models.Filter) -> models.Filter:
    """What does not pass."""
    must, should, must_not = _listed(part.must), _listed(part.should), _listed(part.must_not)
    if should and not must and not must_not:
        return models.Filter(must_not=should)
    if len(must) == 1 and not should and not must_not:
        return models.Filter(must_not=must)
    if len(must_not) == 1 and not should and not must:
        return must_not[0] if isinstance(must_not[0], models.Filter) else holds(must_not[0])
    return models.Filter(must_not=[part])


def _listed(clause: Any) -> list[Condition]:
    if clause is None:
        return []
    return list(clause) if isinstance(clause, list) else [clause]


def _one(part: models.Filter) -> Condition:
    """A filter of a single condition as that condition."""
    must = _listed(part.must)
    return must[0] if len(must) == 1 and not part.should and not part.must_not else part


def holds(*conditions: Condition) -> models.Filter:
    """Where all these conditions are true."""
    return models.Filter(must=list(conditions))


def among(ids: Sequence[PointId]) -> models.Filter:
    """The points of these ids; none of them passes an empty list."""
    return holds(models.HasIdCondition(has_id=list(ids)))


def equals(key: str, value: str | bool) -> models.Filter:
    """Where an element of a key is this string or bool."""
    return holds(models.FieldCondition(key=key, match=models.MatchValue(value=value)))


def matches(key: str, values: Sequence[Any]) -> models.Filter:
    """Where an element of a key is one of these strings, or of these integers."""
    if not values:
        return among([])
    return holds(models.FieldCondition(key=key, match=models.MatchAny(any=list(values))))


def is_empty(key: str) -> models.Filter:
    """Where a key is missing, null or ``[]``."""
    return holds(models.IsEmptyCondition(is_empty=models.PayloadField(key=key)))


def is_null(key: str) -> models.Filter:
    """Where one of the values at a path is null."""
    return holds(models.IsNullCondition(is_null=models.PayloadField(key=key)))


def has_text(key: str, text: str | None) -> models.Filter:
    """Where a key has this text, of which None is nothing there, and the empty one either."""
    if text is None:
        return is_empty(key)
    return equals(key, text) if text else any_of([is_empty(key), equals(key, text)])


def slot_key(space: EmbeddingSpace, part: str = "") -> str:
    """The path of what is kept of a slot, or of a part of it."""
    return f"{SLOTS}.{space.id}" + (f".{part}" if part else "")


def has_vector(slot: str) -> models.Filter:
    """The points that have a vector in a slot."""
    return holds(models.HasVectorCondition(has_vector=slot))


def pending(slot: str, space: EmbeddingSpace) -> models.Filter:
    """The points whose slot is to be filled.

    A vector without its source counts as pending, but in a slot that somebody else made.
    """
    absent = opposite(has_vector(slot))
    if slot != space.id:
        return absent
    return any_of([absent, is_empty(slot_key(space, "source"))])


def as_read(data: SlotData, space: EmbeddingSpace) -> models.Filter:
    """Where a slot's source and claim are what they were."""
    return every(
        has_text(slot_key(space, "source"), data.source),
        has_text(slot_key(space, "claim"), data.claim),
    )


def has_source(space: EmbeddingSpace) -> models.Filter:
    """Where it is known what a slot's vector was made from."""
    return opposite(is_empty(slot_key(space, "source")))


def claimed(space: EmbeddingSpace, claim: str) -> models.Filter:
    """Where a slot is claimed by this attempt."""
    return equals(slot_key(space, "claim"), claim)


# Rows


class OwnRows:
    """Documents as the points of a collection of ours."""

    own: ClassVar[bool] = True
    layout: ClassVar[None] = None
    has_native_ids: ClassVar[bool] = True
    keeps_others: ClassVar[bool] = False
    """Whether points have a payload, or vectors, of which an upsert knows nothing."""

    def native(self, id: str) -> PointId | None:
        """The point's id of a document's."""
        return point_id(id)

    def id_of(self, point: Point) -> str:
        """The document's id; that of a point which a stranger put in is its own."""
        return _text_or_none(_reserved(point).get("id")) or str(point.id)

    def is_twin(self, point: Point) -> bool:
        """Whether a stranger gave a point the id of a document whose point is another one."""
        id = self.id_of(point)
        return str(point.id) not in {id, str(point_id(id))}

    def selected(self, ids: Sequence[str]) -> models.Filter:
        """The points of these documents."""
        return _own_selected(ids)

    def of_parent(self, parent: str) -> models.Filter:
        """The chunks of a document."""
        return equals(f"{RESERVED}.parent", parent)

    def condition(self, where: Filter | None) -> models.Filter:
        """What passes a filter."""
        return models.Filter() if where is None else compiled(where, _own_leaf)

    def check_document(self, document: Document) -> None:
        """Every document has a place."""

    def text_of(self, point: Point) -> str:
        """The document's text."""
        return _text_or_none(point.payload.get(TEXT)) or ""

    def metadata_of(self, point: Point) -> Metadata:
        """The document's metadata."""
        found = point.payload.get(METADATA)
        if not isinstance(found, dict):
            return {}
        exact = _text_or_none(_reserved(point).get("exact"))
        restored: Metadata = found if exact is None else _restored(found, decode_metadata(exact))
        return restored

    def document(self, point: Point, text: str, vector: Vector | None = None) -> Document:
        """The document of a point, with a text that was looked up."""
        reserved = _reserved(point)
        parent = _text_or_none(reserved.get("parent"))
        return Document(
            self.id_of(point),
            text,
            self.metadata_of(point),
            None if parent is None else _parent(parent, reserved),
            _text_or_none(reserved.get("embed_text")),
            vector,
        )

    def payload(self, document: Document, metadata: bytes, version: str) -> dict[str, Any]:
        """A document's payload, slots aside; its metadata, which is given as JSON too, as :class:`Spelt`."""
        reserved: dict[str, Any] = {"id": document.id}
        if document.embed_text is not None:
            reserved["embed_text"] = document.embed_text
        if document.parent is not None:
            reserved["parent"] = document.parent.id
            reserved["ordinal"] = document.parent.ordinal
            reserved["span"] = list(document.parent.span) if document.parent.span else None
        kept = {key: value for key, value in reserved.items() if value is not None}
        return {TEXT: document.text, **_with_metadata(kept, metadata, version)}

    def text_is(self, document: Document) -> models.Filter:
        """Where a point's vectors are to be made from what this document's are made from."""
        if document.embed_text is not None:
            return equals(f"{RESERVED}.embed_text", document.embed_text)
        return every(is_empty(f"{RESERVED}.embed_text"), has_text(TEXT, document.text))

    def changed(self, point: Point, patch: Metadata, version: str, *, merge: bool) -> Change:
        """What gives a point other metadata, if nobody of ours has written it since it was read."""
        metadata = {**self.metadata_of(point), **patch} if merge else patch
        reserved = _reserved(point)
        before = _text_or_none(reserved.get("version"))
        unchanged = has_text(f"{RESERVED}.version", before)
        return Change(
            payload=plain(_with_metadata(reserved, encode_metadata(metadata), version)),
            condition=every(among([point.id]), unchanged),
        )

    def is_changed(self, point: Point | None, version: str) -> bool:
        """Whether a change of this version is what a point has."""
        return point is not None and _reserved(point).get("version") == version


@dataclass(frozen=True, slots=True)
class Change:
    """A change of payload: the top keys to set, or those under ``key``, where a condition holds."""

    payload: dict[str, Any]
    condition: models.Filter
    key: str | None = None

    def operation(self) -> models.SetPayloadOperation:
        """As a part of a batch of changes."""
        return models.SetPayloadOperation(
            set_payload=models.SetPayload(payload=self.payload, filter=self.condition, key=self.key)
        )


def _with_metadata(reserved: dict[str, Any], metadata: bytes, version: str) -> dict[str, Any]:
    """Metadata and the reserved object that goes with it."""
    describe = _remembered if len(metadata) <= terms.REMEMBERED_BYTES else _described
    shown, found = describe(metadata)
    kept = {key: value for key, value in reserved.items() if key != "exact"}
    return {METADATA: shown, RESERVED: {**kept, **found, "version": version}}


def _described(metadata: bytes) -> tuple[Spelt, dict[str, Any]]:
    """Metadata and what the reserved object has of it."""
    decoded = decode_metadata(metadata)
    orders = [
        {"path": each.path, "high": each.high, "low": each.low} for each in terms.orders_of(decoded)
    ]
    found: dict[str, Any] = {
        "terms": Spelt(dumps_tight(terms.terms_of(decoded))),
        "orders": Spelt(dumps_tight(orders)),
    }
    if _has_long_float(decoded):
        found["exact"] = metadata.decode()
    return Spelt(metadata), found


_remembered: Final = lru_cache(maxsize=4096)(_described)
"""Of short metadata: many rows have the same, as have all chunks of a document."""


def plain(payload: dict[str, Any]) -> dict[str, Any]:
    """A payload with nothing in it that is :class:`Spelt`."""
    return {
        key: value.value
        if isinstance(value, Spelt)
        else plain(value)
        if isinstance(value, dict)
        else value
        for key, value in payload.items()
    }


def _has_long_float(value: object) -> bool:
    """Whether there is a float that Qdrant may not read as it was written.

    Its reader of JSON rounds twice where digits or exponent are many, so that one in five floats of
    17 digits comes back as its neighbour.
    """
    if isinstance(value, float):
        shown = repr(value)
        return len(shown) > SHORT_FLOAT or "e" in shown
    if isinstance(value, dict):
        return any(map(_has_long_float, value.values()))
    return isinstance(value, list) and any(map(_has_long_float, value))


def _restored(stored: Any, exact: Any) -> Any:
    """What is stored, with its floats as they were written."""
    if isinstance(stored, dict) and isinstance(exact, dict):
        return {key: _restored(value, exact.get(key)) for key, value in stored.items()}
    if isinstance(stored, list) and isinstance(exact, list) and len(stored) == len(exact):
        return [_restored(*pair) for pair in zip(stored, exact, strict=True)]
    if isinstance(stored, float) and isinstance(exact, float) and _is_near(stored, exact):
        return exact
    return stored


def _is_near(stored: float, exact: float) -> bool:
    return math.isclose(stored, exact, rel_tol=1e-12, abs_tol=1e-300)


def _reserved(point: Point) -> dict[str, Any]:
    found = point.payload.get(RESERVED)
    return found if isinstance(found, dict) else {}


def _parent(id: str, reserved: Mapping[str, Any]) -> Parent:
    span = reserved.get("span")
    return Parent(id, reserved.get("ordinal"), (span[0], span[1]) if span else None)


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


_TERMS: Final = f"{RESERVED}.terms"
_PARENT: Final = f"{RESERVED}.parent"
_ORDERS: Final = f"{RESERVED}.orders"
INDEXES: Final[Mapping[str, models.PayloadSchemaType]] = {
    _TERMS: models.PayloadSchemaType.KEYWORD,
    _PARENT: models.PayloadSchemaType.KEYWORD,
    f"{_ORDERS}[].path": models.PayloadSchemaType.KEYWORD,
    f"{_ORDERS}[].high": models.PayloadSchemaType.FLOAT,
}
"""The payload's indexes: what filters on a collection of ours look at."""


def _own_leaf(where: Filter) -> models.Filter:
    """One comparison as a condition on terms, orders, ids or parents."""
    if isinstance(where, Compares):
        return _ordered(where)
    if not isinstance(where, In | Differs | Exists):
        raise InvalidInput(f"{excerpt(where)} is not a filter")
    if where.target is Target.ID:
        return id_leaf(where, _own_selected)
    if where.target is Target.PARENT:
        return parent_leaf(where, _PARENT)
    if isinstance(where, Exists):
        return equals(_TERMS, terms.present(where.path))
    if isinstance(where, In):
        return matches(_TERMS, [terms.equals(where.path, value) for value in where.values])
    return every(
        equals(_TERMS, terms.present(where.path)),
        opposite(equals(_TERMS, terms.only(where.path, where.value))),
    )


def _own_selected(ids: Sequence[str]) -> models.Filter:
    """The points of these documents; one that a stranger put in has its own id."""
    ours = among([point_id(id) for id in ids])
    natives = [native for id in ids if (native := native_id(id)) is not None]
    if not natives:
        return ours
    return any_of([ours, every(is_empty(f"{RESERVED}.id"), among(natives))])


def id_leaf(
    where: In | Differs | Exists, selected: Callable[[list[str]], models.Filter]
) -> models.Filter:
    """A comparison of ids; every document has one."""
    if isinstance(where, Exists):
        return models.Filter()
    if isinstance(where, In):
        return selected([str(value) for value in where.values])
    return opposite(selected([str(where.value)]))


def parent_leaf(where: In | Differs | Exists, key: str) -> models.Filter:
    """A comparison of parents, which are under a key if there is one."""
    present = opposite(is_empty(key))
    if isinstance(where, Exists):
        return present
    if isinstance(where, In):
        return matches(key, where.values)
    return every(present, opposite(equals(key, str(where.value))))


_STRICT: Final[Mapping[Order, str]] = {"<": "lt", "<=": "lt", ">": "gt", ">=": "gt"}
_BOUND: Final[Mapping[Order, str]] = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}


def _ordered(where: Compares) -> models.Filter:
    """An element whose pair of numbers is in this order to the value's: the high one decides."""
    path, high, low = terms.pair(where.path, where.value)
    nearer = holds(field_condition("high", **{_STRICT[where.order]: high}))
    equal = every(
        holds(field_condition("high", gte=high, lte=high)),
        holds(field_condition("low", **{_BOUND[where.order]: low})),
    )
    element = every(equals("path", path), any_of([nearer, equal]))
    return holds(models.NestedCondition(nested=models.Nested(key=_ORDERS, filter=element)))


def field_condition(key: str, **bounds: float) -> Condition:
    """An element of a key that is a number within bounds: ``lt``, ``lte``, ``gt``, ``gte``."""
    return models.FieldCondition(key=key, range=models.Range(**bounds))
