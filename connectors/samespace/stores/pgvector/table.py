"""A table as its collection sees it, and the quoting of its names."""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson
from psycopg import sql
from psycopg.abc import AdaptContext

from samespace import filters
from samespace.documents import INT64_MAX, INT64_MIN, Document, Metadata, Parent
from samespace.errors import InvalidInput, excerpt
from samespace.filters import Scalar
from samespace.layout import Layout, TextQuery
from samespace.names import bounded
from samespace.rebuilding import is_slot_name
from samespace.space import EmbeddingSpace

OWN_COLUMNS: Final = ("embed_text", "parent_id", "ordinal", "span_start", "span_end")
_INTEGERS: Final = {"smallint": 15, "integer": 31, "bigint": 63}
_BOOLEANS: Final = {
    **dict.fromkeys(("t", "true", "yes", "on", "1"), True),
    **dict.fromkeys(("f", "false", "no", "off", "0"), False),
}
ID_TYPES: Final = (*_INTEGERS, "uuid", "text", "character varying")
_MODIFIER: Final = re.compile(r"\([0-9,-]+\)")
_COMPARED: Final = (*_INTEGERS, "uuid", "text", "character varying", "boolean")
"""Types of which two values are equal only if :func:`_canonical` writes them alike."""
_SPACE_ID = re.compile(r"[a-z0-9_]+_[0-9a-f]{8}\Z")
_SIZED_VECTOR = re.compile(r"(?:vector|halfvec)(?:\((\d+)\))?\Z")


class Name(sql.Identifier):
    """A quoted identifier for statements with parameters: its ``%`` are doubled."""

    def as_bytes(self, context: AdaptContext | None = None) -> bytes:
        """The identifier, quoted."""
        return super().as_bytes(context).replace(b"%", b"%%")


class Text(sql.Literal):
    """A string literal for statements with parameters: its ``%`` are doubled."""

    def as_bytes(self, context: AdaptContext | None = None) -> bytes:
        """The literal, quoted."""
        return super().as_bytes(context).replace(b"%", b"%%")


def raw(text: str) -> sql.SQL:
    """A type or an expression that the server or the caller's code gave, as it stands."""
    return sql.SQL(text.replace("%", "%%"))


def source_name(slot: str) -> str:
    """The column beside a slot that says what its vector was made from."""
    return bounded(slot, "__source")


def own_layout(space: EmbeddingSpace) -> Layout:
    """Where things are in a table of ours."""
    return Layout(
        id="id",
        text="text",
        slot=space.id,
        metadata="metadata",
        parent="parent_id",
        order="ordinal",
    )


def scope_key(layout: Layout | None, columns: Mapping[str, str]) -> str:
    """What tells collections of one table apart in the registry; empty for a whole table.

    Scopes of the same rows have one key, however their values are spelled or ordered.
    """
    if layout is None or layout.scope is None:
        return ""
    pinned = {
        column: _canonical_values(values, base_type(columns.get(column, "")))
        for column, values in filters.equalities(layout.scope).items()
    }
    return orjson.dumps(pinned, option=orjson.OPT_SORT_KEYS).decode()


def _canonical_values(values: Sequence[Scalar], kind: str) -> list[orjson.Fragment]:
    return [
        orjson.Fragment(each)
        for each in sorted({orjson.dumps(_canonical(value, kind)) for value in values})
    ]


def _canonical(value: Scalar, kind: str) -> Scalar:
    """A scope's value in the one spelling that it has in a column of this type."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    try:
        if kind in _INTEGERS:
            number = int(text)
            return number if INT64_MIN <= number <= INT64_MAX else value
        if kind == "uuid":
            return str(uuid.UUID(text))
    except ValueError:
        return value  # the server says that the column cannot have it
    if kind == "boolean":
        return _BOOLEANS.get(text.lower(), value)
    return text if kind in _COMPARED else value


def base_type(kind: str) -> str:
    """A type without its length or precision; an array's keeps its brackets."""
    return _MODIFIER.sub("", kind)


def slots_made_here(columns: Collection[str]) -> list[str]:
    """The slots of a table that has the columns which one of ours has; of another's none."""
    if not {"id", "text", "metadata", *OWN_COLUMNS} <= {*columns}:
        return []
    return [name for name in columns if is_slot_name(name) and source_name(name) in columns]


def scope_shown(key: str) -> str:
    """A key of the registry as ``--scope`` takes it."""
    pinned = orjson.loads(key) if key else {}
    spelled = [f"{column}={value}" for column, values in pinned.items() for value in values]
    return " ".join(spelled) or "the whole table"


def can_share_rows(one: str, other: str, columns: Mapping[str, str]) -> bool:
    """Whether rows may be in the scopes of both keys: no column's values say that none are."""
    scopes = [orjson.loads(key) if key else {} for key in (one, other)]
    apart = [
        column
        for column in set(scopes[0]) & set(scopes[1])
        if base_type(columns.get(column, "")) in _COMPARED
        and not set(scopes[0][column]) & set(scopes[1][column])
    ]
    return not apart


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One collection's table. ``columns`` maps each column's name to its SQL type."""

    schema: str
    name: str
    layout: Layout
    own: bool
    columns: Mapping[str, str]

    @property
    def qualified(self) -> sql.Composable:
        """The table's name with its schema."""
        return Name(self.schema, self.name)

    @property
    def id_type(self) -> str:
        """The key's SQL type, without its length."""
        return self.kind(self.layout.id)

    def kind(self, column: str) -> str:
        """A column's SQL type as :func:`base_type` has it."""
        return base_type(self.columns.get(column, "text"))

    @property
    def scope_key(self) -> str:
        """What tells this collection from others of its table; empty for the whole table."""
        return scope_key(self.layout, self.columns)

    @property
    def external_text(self) -> bool:
        """Whether texts come from a function of ids."""
        return not isinstance(self.layout.text, str | TextQuery)

    @property
    def scope(self) -> Mapping[str, tuple[Scalar, ...]]:
        """The columns that the layout's scope pins, each with its permitted values."""
        return filters.equalities(self.layout.scope) if self.layout.scope is not None else {}

    @property
    def owned(self) -> frozenset[str]:
        """Columns that say something else of a document, whatever its metadata has under their name."""
        parts = _parts(self.layout, None)
        pinned = [column for column, values in self.scope.items() if len(values) == 1]
        return frozenset([*parts, *pinned])

    def changed(self, keys: Collection[str], *, merge: bool) -> list[str]:
        """The columns that writing metadata with these keys changes; without ``merge`` others too.

        A column of the scope has no other value to go back to.
        """
        if isinstance(self.layout.metadata, str):
            return [self.layout.metadata] if keys or not merge else []
        columns = self.layout.metadata_columns
        emptied = set() if merge else set(columns) - set(self.scope)
        return [name for name in columns if name in emptied.union(keys) - self.owned]

    @property
    def sizes(self) -> Mapping[str, int | None]:
        """The columns of vectors with their dimensions, None where nothing fixes them."""
        found = {name: _SIZED_VECTOR.match(kind) for name, kind in self.columns.items()}
        return {name: int(of[1]) if of[1] else None for name, of in found.items() if of}

    def has_source(self, slot: str) -> bool:
        """Whether the slot's vectors say what they were made from."""
        return source_name(slot) in self.columns

    def is_foreign(self, slot: str, space: EmbeddingSpace) -> bool:
        """Whether somebody else made this slot, so that vectors in it have no source."""
        return slot != space.id

    def made_here(self, space: EmbeddingSpace) -> bool:
        """Whether this is a whole table as :func:`own_layout` describes it, with its own columns."""
        layout = replace(self.layout, parent="parent_id", order="ordinal")
        return (
            layout == own_layout(space)
            and self.has_source(space.id)
            and all(name in self.columns for name in OWN_COLUMNS)
        )

    def slots_by_name(self) -> list[str]:
        """The slots of a table that was made as ours are, whatever is recorded; of another's none."""
        return slots_made_here(self.columns)

    def canonical_ids(self, ids: Sequence[str]) -> list[str]:
        """Those ids that a key of this table's type can have, in their one spelling."""
        return [id for id in ids if self.has_id(id)]

    def has_id(self, id: str) -> bool:
        """Whether ``id`` is the text of a key of this table's type."""
        if self.id_type in _INTEGERS:
            return _is_integer(id, bits=_INTEGERS[self.id_type])
        return self.id_type != "uuid" or _is_uuid(id)

    def check_document(self, document: Document) -> None:
        """:class:`InvalidInput` if this table has no place for a part of the document."""
        if not self.has_id(document.id):
            raise InvalidInput(
                f"id {excerpt(document.id)} is no {self.id_type}, the type of column "
                f"{excerpt(self.layout.id)}; write it as PostgreSQL would print it"
            )
        if self.own:
            return
        self._check_text()
        self.check_metadata(document.metadata, document)
        if document.embed_text is not None:
            raise InvalidInput("embed_text has no column in an adopted table; leave it out")
        if document.parent is not None and self.layout.parent is None:
            raise InvalidInput("parent has no column in this layout; name one in Layout.parent")

    def _check_text(self) -> None:
        if self.external_text:
            raise InvalidInput(
                "texts are elsewhere in this layout, so a document's has no column: write row and "
                "text with your own code, then the vector with pending() and fill()"
            )
        if isinstance(self.layout.text, TextQuery):
            raise InvalidInput(
                "texts are made of columns in this layout, so a document's has none of its own: "
                "write those columns with your own code, then the vector with pending() and fill()"
            )

    def check_metadata(self, metadata: Metadata, document: Document | None) -> None:
        """:class:`InvalidInput` for a key without a column, or one that another part owns.

        What says the same as the document (None if it is not known) may stay.
        """
        columns = self.layout.metadata_columns
        unknown = set(metadata) - set(columns)
        if unknown and not isinstance(self.layout.metadata, str):
            raise InvalidInput(
                f"metadata {excerpt(min(unknown))} has no column in this layout; "
                f"known: {', '.join(columns) or 'none'}"
            )
        permitted = {**self.scope, **_parts(self.layout, document)}
        for column in self.owned.union(self.scope).intersection(columns, metadata):
            if _spelled(metadata[column]) not in map(_spelled, permitted.get(column, ())):
                raise InvalidInput(
                    f"metadata {excerpt(column)} cannot be {excerpt(metadata[column])}: the layout's "
                    "id, text, parent, order or scope is in that column; leave it out"
                )

    def check_layout(self, space: EmbeddingSpace) -> None:
        """:class:`InvalidInput` if the layout names what the table does not have."""
        for what, name in _named(self.layout):
            if name not in self.columns:
                raise InvalidInput(
                    f"Layout.{what} names column {excerpt(name)}, which table "
                    f"{excerpt(self.schema)}.{excerpt(self.name)} lacks; it has "
                    f"{', '.join(self.columns)}"
                )
        if self.id_type not in ID_TYPES:
            raise InvalidInput(f"keys of type {self.id_type} are not supported; use text or bigint")
        if self.layout.order and self.kind(self.layout.order) not in _INTEGERS:
            raise InvalidInput(
                f"column {excerpt(self.layout.order)} is of type {self.kind(self.layout.order)}; "
                "Layout.order names a column of integers"
            )
        self._check_slot(space)

    def check_key(self, *, unique: bool) -> None:
        """:class:`InvalidInput` if keys may occur twice, so that no upsert can find its row."""
        if unique:
            return
        index = sql.SQL("CREATE UNIQUE INDEX ON {} ({})").format(
            sql.Identifier(self.schema, self.name), sql.Identifier(self.layout.id)
        )
        raise InvalidInput(
            f"column {excerpt(self.layout.id)} of table {excerpt(self.name)} has no unique index, or "
            f"a deferrable one, or it may be NULL, so documents cannot be written by id; run "
            f"{index.as_string(None)} in place of what is there, and have the column NOT NULL"
        )

    def _check_slot(self, space: EmbeddingSpace) -> None:
        slot = self.layout.slot
        if slot != space.id and _SPACE_ID.match(slot) and self.has_source(slot):
            raise InvalidInput(
                f"column {excerpt(slot)} was made by samespace for the embedding space whose id it "
                f"is, and {space} has the id {space.id}; open the table with that space, or use "
                "another collection"
            )
        kind = self.columns[slot]
        match = _SIZED_VECTOR.match(kind)
        if not match or kind.startswith("halfvec"):
            raise InvalidInput(
                f"column {excerpt(self.layout.slot)} is of type {kind}, not vector; name the vectors' "
                "column in Layout.slot"
            )
        if match[1] and int(match[1]) != space.dimensions:
            raise InvalidInput(
                f"column {excerpt(self.layout.slot)} is {kind} and {space} has "
                f"{space.dimensions} dimensions; name the space of the stored vectors"
            )


def _named(layout: Layout) -> list[tuple[str, str]]:
    columns: list[tuple[str, Any]] = [("id", layout.id), ("slot", layout.slot)]
    columns += [("text", layout.text)] if isinstance(layout.text, str) else []
    metadata = (layout.metadata,) if isinstance(layout.metadata, str) else layout.metadata
    columns += [("metadata", name) for name in metadata]
    columns += [("parent", layout.parent), ("order", layout.order)]
    if layout.scope is not None:
        columns += [("scope", name) for name in filters.equalities(layout.scope)]
    return [(what, name) for what, name in columns if name is not None]


def _parts(layout: Layout, document: Document | None) -> dict[str, tuple[object, ...]]:
    """The columns of a document's other parts, each with what metadata may have under its name.

    A place in an order is of a chunk, which only a layout with parents knows.
    """
    order = layout.order if layout.parent is not None else None
    columns = (order, layout.parent, layout.text, layout.id)
    if document is None:
        return {column: () for column in columns if isinstance(column, str)}
    parent = document.parent or Parent("")
    texts = (document.text, document.text or None)
    values = ((parent.ordinal,), (parent.id or None,), texts, (document.id,))
    pairs = zip(columns, values, strict=True)
    return {column: permitted for column, permitted in pairs if isinstance(column, str)}


def _spelled(value: object) -> str | None:
    """A value as its column's text, whether JSON has it as a string or not."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return orjson.dumps(value).decode()


def _is_integer(text: str, *, bits: int) -> bool:
    if not re.fullmatch(r"0|-?[1-9][0-9]{0,18}", text):
        return False
    limit: int = 2**bits
    return -limit <= int(text) < limit


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
