"""Documents as the points of a collection that somebody else made; no I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from qdrant_client import models

from samespace.documents import Document, Metadata, Parent
from samespace.errors import InvalidInput, excerpt
from samespace.filters import Compares, Differs, Exists, Filter, In, Scalar, Target
from samespace.layout import Layout, TextQuery
from samespace.protocols import Vector
from samespace.stores.qdrant.requests import (
    EXACT,
    SLOTS,
    Change,
    Point,
    PointId,
    among,
    any_of,
    compiled,
    equals,
    every,
    field_condition,
    has_text,
    holds,
    id_leaf,
    is_empty,
    is_null,
    matches,
    native_id,
    opposite,
    parent_leaf,
)

_INTEGER: Final = re.compile(r"0|-?[1-9][0-9]{0,18}")
POINT: str = "id"
"""What :attr:`Layout.id` says where the point's own id is the document's."""
ALL: str = "*"
"""What :attr:`Layout.metadata` says where all the payload is metadata, other parts aside."""


@dataclass(frozen=True, slots=True)
class AdoptedRows:
    """Documents where a layout says that they are.

    ``Layout.id`` is ``"id"`` for the point's own id, an integer or a UUID, or a key of the payload;
    ``Layout.metadata`` is a key whose value is an object, keys by name, or ``"*"`` for all the
    payload but the other parts. Filters use the payload as it is: what Qdrant cannot compare with
    the one meaning that a filter has is refused by name.
    """

    layout: Layout
    own: ClassVar[bool] = False

    @property
    def keeps_others(self) -> bool:
        """Whether points may have a payload of which an upsert knows nothing."""
        return self.layout.metadata != ALL

    @property
    def has_native_ids(self) -> bool:
        """Whether documents have the ids of their points."""
        return self.layout.id == POINT

    @property
    def _parts(self) -> dict[str, str]:
        """The keys of the payload that are no metadata, with what they are."""
        named = {
            "id": None if self.has_native_ids else self.layout.id,
            "text": self.layout.text if isinstance(self.layout.text, str) else None,
            "parent": self.layout.parent,
            "order": self.layout.order,
        }
        return {key: part for part, key in named.items() if key is not None}

    # Ids

    def native(self, id: str) -> PointId | None:
        """The point's id that a document's spells, or None if none does."""
        return native_id(id) if self.has_native_ids else None

    def is_twin(self, point: Point) -> bool:  # noqa: ARG002  ours have one
        """Whether a point has the id of a document whose point is another one: no id says which is."""
        return False

    def id_of(self, point: Point) -> str:
        """The document's id; where the payload has none it is the point's own."""
        found = None if self.has_native_ids else point.payload.get(self.layout.id)
        return str(found) if type(found) in {str, int} else str(point.id)

    def selected(self, ids: Sequence[str]) -> models.Filter:
        """The points of these documents."""
        if self.has_native_ids:
            natives = (native_id(id) for id in ids)
            return among([native for native in natives if native is not None])
        key = _path(self.layout.id)
        unnamed = among([native for id in ids if (native := native_id(id)) is not None])
        return any_of(
            [
                matches(key, list(ids)),
                matches(key, _integers(ids)),
                every(is_empty(key), unnamed),
            ]
        )

    def of_parent(self, parent: str) -> models.Filter:
        """The chunks of a document."""
        return equals(self._parent_key(), parent)

    def _parent_key(self) -> str:
        if self.layout.parent is None:
            raise InvalidInput("this layout has no parents; name their key in Layout.parent")
        return _path(self.layout.parent)

    # Documents

    def text_of(self, point: Point) -> str:
        """The document's text, where the payload has it."""
        found = point.payload.get(self.layout.text) if isinstance(self.layout.text, str) else None
        return found if isinstance(found, str) else ""

    def metadata_of(self, point: Point) -> Metadata:
        """The document's metadata."""
        where = self.layout.metadata
        if where == ALL:
            hidden = {*self._parts, SLOTS}
            return {key: value for key, value in point.payload.items() if key not in hidden}
        if isinstance(where, str):
            found = point.payload.get(where)
            return found if isinstance(found, dict) else {}
        return {key: point.payload[key] for key in where if key in point.payload}

    def document(self, point: Point, text: str, vector: Vector | None = None) -> Document:
        """The document of a point, with a text that was looked up."""
        parent = point.payload.get(self.layout.parent) if self.layout.parent else None
        order = point.payload.get(self.layout.order) if self.layout.order else None
        return Document(
            self.id_of(point),
            text,
            self.metadata_of(point),
            None if parent is None else Parent(str(parent), order if type(order) is int else None),
            None,
            vector,
        )

    def check_document(self, document: Document) -> None:
        """:class:`InvalidInput` if such a collection has no place for a part of the document."""
        if not self.has_native_ids:
            raise InvalidInput(
                f"ids are in the payload's key {excerpt(self.layout.id)}, which Qdrant does not keep "
                'unique, so documents cannot be written by id; use Layout(id="id") where points have '
                "ids that you know"
            )
        if native_id(document.id) is None:
            raise InvalidInput(
                f"id {excerpt(document.id)} is neither an unsigned integer nor a UUID, which points "
                "have for ids; write it as Qdrant would print it"
            )
        if not isinstance(self.layout.text, str):
            raise InvalidInput(
                "texts are elsewhere in this layout, so a document's has no key: write point and text "
                "with your own code, then the vector with pending() and fill()"
            )
        if document.embed_text is not None:
            raise InvalidInput("embed_text has no key in an adopted collection; leave it out")
        if document.parent is not None and self.layout.parent is None:
            raise InvalidInput("parent has no key in this layout; name one in Layout.parent")
        self.check_metadata(document.metadata)

    def check_metadata(self, metadata: Metadata) -> None:
        """:class:`InvalidInput` for a key that the layout has no place for, or another part's."""
        if isinstance(self.layout.metadata, str):
            taken = {*self._parts, SLOTS} if self.layout.metadata == ALL else set()
            refused = taken.intersection(metadata)
        else:
            refused = set(metadata).difference(self.layout.metadata)
        if refused:
            raise InvalidInput(
                f"metadata {excerpt(min(refused))} has no key of its own in this layout; leave it out, "
                "or name it in Layout.metadata"
            )

    def payload(self, document: Document, metadata: bytes, version: str) -> dict[str, Any]:  # noqa: ARG002
        """A document's payload, slots aside."""
        parent = document.parent or Parent("")
        values = {"text": document.text, "parent": parent.id or None, "order": parent.ordinal}
        parts = {key: values[part] for key, part in self._parts.items()}
        kept = {key: value for key, value in parts.items() if value is not None}
        return {**self._as_payload(document.metadata), **kept}

    def _as_payload(self, metadata: Metadata) -> dict[str, Any]:
        where = self.layout.metadata
        return {where: metadata} if isinstance(where, str) and where != ALL else metadata

    def is_replaced(self, key: str) -> bool:
        """Whether a key of the payload is the document's, so that writing it leaves nothing of it."""
        where = self.layout.metadata
        named = (where,) if isinstance(where, str) else where
        return key in self._parts or key in named or where == ALL

    def has_text(self) -> models.Filter:
        """Where a point has something under the key of texts; everywhere if texts are elsewhere."""
        if not isinstance(self.layout.text, str):
            return models.Filter()
        return opposite(is_empty(_path(self.layout.text)))

    def text_is(self, document: Document) -> models.Filter:
        """Where a point's text is the document's; everywhere if texts are elsewhere."""
        if not isinstance(self.layout.text, str):
            return models.Filter()
        return has_text(_path(self.layout.text), document.text)

    def changed(self, point: Point, patch: Metadata, version: str, *, merge: bool) -> Change:  # noqa: ARG002
        """What gives a point other metadata; a null takes a key out, which to filters is the same."""
        self.check_metadata(patch)
        where = self.layout.metadata
        condition = among([point.id])
        if isinstance(where, str) and where != ALL:
            if merge:
                return Change(payload=patch, condition=condition, key=_path(where))
            return Change(payload={where: patch}, condition=condition)
        gone = {} if merge else dict.fromkeys(self.metadata_of(point))
        return Change(payload={**gone, **patch}, condition=condition)

    def is_changed(self, point: Point | None, version: str) -> bool:  # noqa: ARG002
        """Whether there is a point to have been changed."""
        return point is not None

    # Filters

    def condition(self, where: Filter | None) -> models.Filter:
        """What passes a filter, or :class:`InvalidInput` if Qdrant would find something else."""
        return models.Filter() if where is None else compiled(where, self._leaf)

    def _leaf(self, where: Filter) -> models.Filter:
        if isinstance(where, Compares):
            return _ordered(self._key(where.path), where)
        if not isinstance(where, In | Differs | Exists):
            raise InvalidInput(f"{excerpt(where)} is not a filter")
        if where.target is Target.ID:
            return id_leaf(where, self.selected)
        if where.target is Target.PARENT:
            return parent_leaf(where, self._parent_key())
        key = self._key(where.path)
        if isinstance(where, Exists):
            return _present(key)
        if isinstance(where, In):
            return _one_of(key, where.values)
        raise _inexpressible(
            "!= on metadata, which is also of lists of several types", "~(field == x)"
        )

    def _key(self, path: Sequence[str]) -> str:
        where = self.layout.metadata
        if not isinstance(where, str) and path[0] not in where:
            raise InvalidInput(
                f"metadata {excerpt(path[0])} has no key in this layout; known: "
                f"{', '.join(where) or 'none'}"
            )
        return _path(*(() if where == ALL or not isinstance(where, str) else (where,)), *path)


def _integers(ids: Sequence[str]) -> list[int]:
    """The integers that some ids spell, of those that Qdrant compares as such."""
    spelt = (int(id) for id in ids if _INTEGER.fullmatch(id))
    return [number for number in spelt if -(2**63) <= number < 2**63]


def _path(*keys: str) -> str:
    """Keys as Qdrant's path, each quoted; :class:`InvalidInput` where quoting cannot help."""
    for key in keys:
        if '"' in key or "\\" in key:
            raise _inexpressible(
                f"the key {excerpt(key)}, with a quote or a backslash in it", "another key"
            )
    return ".".join(f'"{key}"' for key in keys)


def _present(key: str) -> models.Filter:
    """There is a value that is not null; in a list too, but for one of nulls and empty lists alone."""
    elements = f"{key}[]"
    no_element = every(is_null(elements), is_empty(elements))
    return every(opposite(is_empty(key)), opposite(no_element))


def _inexpressible(what: str, instead: str) -> InvalidInput:
    return InvalidInput(
        f"Qdrant cannot filter by {what} in a collection that was not made here; use {instead}"
    )


def _one_of(key: str, values: Sequence[Scalar]) -> models.Filter:
    """Some element equals a value: numbers by value, for which Qdrant has ranges alone."""
    strings = [value for value in values if isinstance(value, str)]
    rest = [value for value in values if not isinstance(value, str)]
    parts = [matches(key, strings)] if strings or not rest else []
    parts += [
        equals(key, value) if isinstance(value, bool) else _number(key, value) for value in rest
    ]
    return any_of(parts)


def _number(key: str, value: float) -> models.Filter:
    _check_exact(value)
    return holds(field_condition(key, gte=value, lte=value))


_BOUNDS: Mapping[str, str] = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}


def _ordered(key: str, where: Compares) -> models.Filter:
    if not isinstance(where.value, int | float):
        raise _inexpressible("date-times, of which it reads other spellings", "a number")
    _check_exact(where.value)
    return holds(field_condition(key, **{_BOUNDS[where.order]: where.value}))


def _check_exact(value: float) -> None:
    if abs(value) >= EXACT:
        raise _inexpressible("numbers from 2**53 on, which it compares as floats", "a smaller one")


def check_text(layout: Layout) -> None:
    """:class:`InvalidInput` for what Qdrant has no place or no words for."""
    if isinstance(layout.text, TextQuery):
        raise InvalidInput(
            "Qdrant makes no texts; name the payload's key, or pass a function of ids"
        )
    if layout.scope is not None:
        raise InvalidInput("Layout.scope is not available on Qdrant; use a collection for each")
