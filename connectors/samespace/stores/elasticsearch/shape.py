"""What an index looks like, ours or one that somebody else made, and documents in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from samespace.documents import Document, Metadata, Parent
from samespace.errors import InvalidInput, excerpt
from samespace.filters import Compares, Differs, Exists, In, Scalar, Target
from samespace.layout import Layout
from samespace.protocols import Vector
from samespace.rebuilding import is_slot_name
from samespace.space import EmbeddingSpace
from samespace.stores.elasticsearch import dsl
from samespace.stores.elasticsearch.conditions import (
    NOTHING,
    Query,
    either,
    exists,
    terms,
)
from samespace.stores.refusals import RowsRefused

_INTEGERS: Final = {"byte": 7, "short": 15, "integer": 31, "long": 63}
"""Types of whole numbers, each with the bits that it has beside the sign."""
_NUMBERS: Final = (*_INTEGERS, "double", "float")
_UNIT_METRICS: Final = ("cosine", "dot_product", "max_inner_product")
_ABSENT: Final = object()


def own_layout(space: EmbeddingSpace) -> Layout:
    """Where things are in a collection of ours."""
    return Layout(
        id=dsl.ID,
        text=dsl.TEXT,
        slot=space.id,
        metadata=dsl.METADATA,
        parent=dsl.PARENT,
        order=dsl.ORDINAL,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One collection's index. ``name`` is the index's own, ``collection`` may be an alias of it."""

    collection: str
    name: str
    layout: Layout
    own: bool
    mapping: Mapping[str, Any]
    aliases: frozenset[str]
    is_partial: bool = False
    """Whether the collection is an alias that shows some of the index's rows."""
    shards: int = 1

    # Fields

    @property
    def properties(self) -> Mapping[str, Any]:
        """The mapped fields by name."""
        found: Mapping[str, Any] = self.mapping.get("properties", {})
        return found

    def field(self, path: str) -> Mapping[str, Any] | None:
        """The mapping of a field, dots leading into objects or, without subobjects, being part of its name.

        None if it is not mapped.
        """
        return _mapped(self.mapping, path)

    def has(self, path: str) -> bool:
        """Whether a field is mapped; every row has an id."""
        return path == dsl.ROW_ID or self.field(path) is not None

    def holds(self, slot: str) -> bool:
        """Whether there is a field of vectors of this name."""
        found = self.field(slot)
        return found is not None and found.get("type") == "dense_vector"

    def has_source(self, slot: str) -> bool:
        """Whether the slot's vectors say what they were made from."""
        return dsl.source_name(slot) in self.properties

    def index_options(self, slot: str) -> Mapping[str, Any]:
        """How a slot is indexed."""
        found: Mapping[str, Any] = (self.field(slot) or {}).get("index_options", {})
        return found

    def is_indexed(self, slot: str) -> bool:
        """Whether there is a graph over a slot, which grows as vectors come."""
        return str(self.index_options(slot).get("type", "")).endswith("hnsw")

    def made_here(self, space: EmbeddingSpace) -> bool:
        """Whether this is an index of ours, as :func:`own_layout` describes it."""
        layout = replace(self.layout, id=dsl.ID, parent=dsl.PARENT, order=dsl.ORDINAL)
        mapped = (dsl.TERMS, *dsl.PARTS, dsl.source_name(space.id))
        return layout == own_layout(space) and all(name in self.properties for name in mapped)

    def slots_by_name(self) -> list[str]:
        """The slots of an index that was made as ours are, whatever is recorded; of another's none."""
        return slots_made_here(self.properties)

    # Places

    def through(self, slot: str) -> str:
        """The name by which handles of a slot ask: its alias, where it has one.

        Where the collection is an alias itself, its filter is to be kept, so there is none beside it.
        """
        alias = dsl.alias_of(self.collection, slot)
        return alias if alias in self.aliases else self.collection

    def is_alias(self, slot: str) -> bool:
        """Whether :meth:`through` is an alias, so that a write to it creates nothing."""
        return self.through(slot) != self.name

    @property
    def external_text(self) -> bool:
        """Whether texts come from a function of ids."""
        return not isinstance(self.layout.text, str)

    def parts(self) -> tuple[str, ...]:
        """The fields of a document, vectors aside."""
        if self.own:
            return dsl.PARTS
        layout = self.layout
        named = (layout.text, *self._metadata_fields(), layout.parent, layout.order)
        return tuple(name for name in named if isinstance(name, str))

    def _metadata_fields(self) -> tuple[str, ...]:
        """The fields that metadata is in."""
        metadata = self.layout.metadata
        return (metadata,) if isinstance(metadata, str) else tuple(metadata)

    def fields_of(self, target: Target) -> Sequence[str]:
        """The fields that a part of a document is in; none for its id."""
        if target is Target.METADATA:
            return self._metadata_fields()
        parent = self.layout.parent if target is Target.PARENT else None
        return [parent] if parent is not None else []

    # Documents

    def document(self, hit: Mapping[str, Any], vector: Vector | None) -> Document:
        """The document of a hit or of an answer to a get; without its text where that is elsewhere."""
        source = hit.get("_source", {})
        if self.own:
            return _own_document(hit["_id"], source, vector)
        layout = self.layout
        return Document(
            hit["_id"],
            _text(self._at(source, layout.text if isinstance(layout.text, str) else None)) or "",
            self.metadata(source),
            _parent(self._at(source, layout.parent), self._at(source, layout.order), None),
            None,
            vector,
        )

    @staticmethod
    def _at(source: Mapping[str, Any], path: str | None) -> Any:
        return value_at(source, path) if path is not None else None

    def metadata(self, source: Mapping[str, Any]) -> Metadata:
        """A row's metadata."""
        if isinstance(self.layout.metadata, str):
            return unwrapped(value_at(source, self.layout.metadata))
        pairs = ((name, value_at(source, name)) for name in self.layout.metadata_columns)
        return {name: value for name, value in pairs if value is not None}

    def changed(
        self, source: Mapping[str, Any], row: Document, vectors: Mapping[str, Any]
    ) -> dict[str, Any]:
        """An adopted row as it is after a document was written to it.

        What the layout does not name stays. A vector of another slot stays if it is of the same text.
        """
        made = self.with_metadata(source, row.metadata, merge=False)
        before, after = value_at(source, str(self.layout.text)), row.text
        put(made, str(self.layout.text), after)
        if self.layout.parent is not None:
            put(made, self.layout.parent, row.parent.id if row.parent else None)
        if self.layout.order is not None and row.parent is not None:
            put(made, self.layout.order, row.parent.ordinal)
        fresh = dsl.source_of(row.id, after)
        for slot in self.slots():
            named = dsl.source_name(slot)
            made_from = source.get(named)
            kept = made_from == fresh if made_from is not None else before == after
            if slot in vectors or not kept:
                remove(made, slot)
                made.pop(named, None)
        for slot, vector in vectors.items():
            put(made, slot, vector)
            if self.has_source(slot):
                made[dsl.source_name(slot)] = fresh
        return made

    def filled(self, source: Mapping[str, Any]) -> Iterator[str]:
        """The slots that a row has a vector in."""
        return (slot for slot in self.slots() if value_at(source, slot) is not None)

    def slots(self) -> Iterator[str]:
        """The slots of an adopted index; other vectors in it are none of ours."""
        yield self.layout.slot
        yield from (name for name in self.properties if self.has_source(name))

    def with_metadata(
        self, source: Mapping[str, Any], metadata: Metadata, *, merge: bool
    ) -> dict[str, Any]:
        """A row's source with other metadata."""
        made = dict(source)
        if isinstance(self.layout.metadata, str):
            before = self.metadata(source) if merge else {}
            put(made, self.layout.metadata, {**before, **metadata})
            return made
        owned = _parts(self.layout, None).keys()
        for name in (each for each in self.layout.metadata_columns if each not in owned):
            if name in metadata:
                put(made, name, metadata[name])
            elif not merge:
                remove(made, name)
        return made

    # Checks

    def check_document(self, document: Document) -> None:
        """:class:`InvalidInput` if this index has no place for a part of the document."""
        if self.own:
            return
        if self.external_text:
            raise InvalidInput(
                "texts are elsewhere in this layout, so a document's has no field: write row and text "
                "with your own code, then the vector with pending() and fill()"
            )
        if document.embed_text is not None:
            raise InvalidInput("embed_text has no field in an adopted index; leave it out")
        if document.parent is not None and self.layout.parent is None:
            raise InvalidInput("parent has no field in this layout; name one in Layout.parent")
        self.check_metadata(document.metadata, document)

    def check_metadata(self, metadata: Metadata, document: Document | None) -> None:
        """:class:`InvalidInput` for a key without a field, or one that another part owns.

        What says the same as the document (None if it is not known) may stay.
        """
        columns = self.layout.metadata_columns
        if not self.own and isinstance(self.layout.metadata, str):
            self._check_keys(metadata, self.layout.metadata)
        if self.own or not columns:
            return
        unknown = set(metadata) - set(columns)
        if unknown:
            raise InvalidInput(
                f"metadata {excerpt(min(unknown))} has no field in this layout; known: {', '.join(columns)}"
            )
        parts = _parts(self.layout, document)
        for name in parts.keys() & metadata.keys():
            if document is None or metadata[name] != parts[name]:
                raise InvalidInput(
                    f"metadata {excerpt(name)} cannot be {excerpt(metadata[name])}: the layout's text, "
                    "parent or order is in that field; leave it out"
                )

    def _check_keys(self, found: object, path: str) -> None:
        """:class:`InvalidInput` for a key with a dot where filters could not tell it from an object."""
        mapped = self.field(path) or {}
        if mapped.get("type", "object") != "object" or mapped.get("enabled") is False:
            return  # no filter is possible there
        if isinstance(found, list):
            for each in found:
                self._check_keys(each, path)
        for key, value in found.items() if isinstance(found, Mapping) else ():
            if "." in key:
                raise InvalidInput(
                    f"metadata key {excerpt(key)} has a dot, which Elasticsearch takes for an object in "
                    f"{excerpt(path)} of an adopted index; nest the value in objects, or name the key "
                    "without a dot"
                )
            self._check_keys(value, f"{path}.{key}")

    def check_layout(self, space: EmbeddingSpace) -> None:
        """:class:`InvalidInput` if the layout names what the index does not have."""
        check_layout(self.layout)
        named: list[tuple[str, object]] = [("text", self.layout.text), ("slot", self.layout.slot)]
        named += [("parent", self.layout.parent), ("order", self.layout.order)]
        named += [("metadata", name) for name in self._metadata_fields()]
        for what, name in named:
            if isinstance(name, str):
                self._check_field(what, name)
        self._check_slot(space)

    def _check_field(self, what: str, name: str) -> None:
        if self.field(name) is None:
            raise InvalidInput(
                f"Layout.{what} names field {excerpt(name)}, which index {excerpt(self.name)} "
                f"lacks; it has {', '.join(self.properties)}"
            )
        keys = name.split(".")
        for end in range(1, len(keys) + 1):
            if (self.field(".".join(keys[:end])) or {}).get("type") == "nested":
                raise InvalidInput(
                    f"Layout.{what} names field {excerpt(name)}, of which a nested field has several in "
                    "a row; reindex with one row for each"
                )

    def check_whole(self) -> None:
        """:class:`InvalidInput` if not all rows are seen, or cannot be read back whole to be written."""
        if self.is_partial:
            raise InvalidInput(
                f"{excerpt(self.collection)} is an alias that shows a part of index {excerpt(self.name)}, "
                "and a record is of all its rows: adopt the index by its own name, or an index for each "
                "part; with layout= the alias can be read as it is"
            )
        source = self.mapping.get("_source", {})
        if source.get("enabled") is False or source.get("excludes") or source.get("includes"):
            raise InvalidInput(
                f"index {excerpt(self.name)} does not keep all of a row's _source, so a change of the row "
                "would lose the rest: open it without adopt() to search it, or reindex with a whole _source"
            )

    def _check_slot(self, space: EmbeddingSpace) -> None:
        slot = self.layout.slot
        found = self.field(slot) or {}
        kind, metric = found.get("type"), found.get("similarity", "cosine")
        if kind != "dense_vector" or found.get("element_type", "float") not in {
            "float",
            "bfloat16",
        }:
            raise InvalidInput(
                f"field {excerpt(slot)} is of type {kind}, not a dense_vector of floats; name the "
                "vectors' field in Layout.slot"
            )
        if found.get("dims") != space.dimensions:
            raise InvalidInput(
                f"field {excerpt(slot)} has {found.get('dims')} dimensions and {space} has "
                f"{space.dimensions}; name the space of the stored vectors"
            )
        if found.get("index") is False:
            raise InvalidInput(
                f"field {excerpt(slot)} is not indexed, so nothing can be found by it; reindex with "
                '"index": true'
            )
        if metric not in _UNIT_METRICS or (metric == "max_inner_product" and not space.normalized):
            raise InvalidInput(
                f"field {excerpt(slot)} compares by {metric}, from which no cosine follows"
                + ("" if space.normalized else f" for vectors of any length, as {space} has them")
                + "; reindex with similarity cosine"
            )

    # Filters

    def condition(self, where: Any) -> Query:
        """One comparison as a query, or :class:`InvalidInput` where it cannot mean what it should."""
        if self.own:
            return dsl.own_condition(where)
        if isinstance(where, In | Differs | Exists) and where.target is Target.ID:
            return dsl.id_condition(where)
        if isinstance(where, In | Differs | Exists) and where.target is Target.PARENT:
            if self.layout.parent is None:
                raise InvalidInput("field.parent has no field in this layout; name Layout.parent")
            return self._on_field(where, self.layout.parent)
        return self._on_field(where, self._field_name(where.path))

    def _field_name(self, path: Sequence[str]) -> str:
        for key in path:
            if "." in key:
                raise InvalidInput(
                    f"the field {excerpt(key)} has a dot, which Elasticsearch takes for an object in an "
                    "adopted index; filter on another field"
                )
        if isinstance(self.layout.metadata, str):
            return ".".join((self.layout.metadata, *path))
        known = self.layout.metadata_columns
        name = next((each for each in known if each == ".".join(path[: each.count(".") + 1])), None)
        if name is None:
            return ""
        return ".".join((name, *path[name.count(".") + 1 :]))

    def _on_field(self, where: Any, name: str) -> Query:
        mapped = self.field(name) if name else None
        if mapped is None:
            self._check_mapped(name)
            return NOTHING
        if isinstance(where, Exists):
            self._check_searchable(name, mapped)
            return either([exists(name), _left_out(name)])
        kind = mapped.get("type", "object")
        if kind == "text":
            name, mapped = _keyword_of(name, mapped)
            kind = "keyword"
        self._check_searchable(name, mapped)
        if isinstance(where, Compares):
            return _ordered(where, name, kind)
        values = where.values if isinstance(where, In) else (where.value,)
        fitting = [_fitting(value, name, kind, mapped) for value in values]
        found = [value for value in fitting if value is not _ABSENT]
        if isinstance(where, In):
            return _among(name, kind, found)
        other = exists(name) if not found else _differing(name, kind, found[0])
        return either([other, _left_out(name)])

    def _check_mapped(self, name: str) -> None:
        """Nothing has an unmapped field, unless the mapping leaves new fields out of the index."""
        dynamic: Any = self.mapping.get("dynamic", "true")
        found: Any = self.mapping
        for key in name.split(".") if name else ():
            found = found.get("properties", {}).get(key) or {}
            dynamic = found.get("dynamic", dynamic)
            if found.get("enabled") is False or found.get("type") == "flattened":
                dynamic = "false"
        if str(dynamic).lower() in {"false", "runtime"}:
            raise InvalidInput(
                f"field {excerpt(name)} is not indexed in {excerpt(self.name)}, so nothing can be found "
                "by it; map it, or filter on another field"
            )

    def _check_searchable(self, name: str, mapped: Mapping[str, Any]) -> None:
        unusable = mapped.get("enabled") is False or mapped.get("index") is False
        if unusable or "null_value" in mapped or mapped.get("type") in {"flattened", "nested"}:
            raise InvalidInput(
                f"field {excerpt(name)} of {excerpt(self.name)} is not indexed so that filters mean what "
                "they should; map it as keyword, number, boolean or date, or filter on another field"
            )


def shows_a_part(alias: Mapping[str, Any]) -> bool:
    """Whether an alias, as the index describes it, shows some of the rows."""
    return bool(alias.keys() & {"filter", "search_routing", "index_routing"})


def slots_made_here(properties: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The slots of an index that has the fields which one of ours has; of another's none."""
    if not {dsl.TERMS, *dsl.PARTS} <= properties.keys():
        return []
    vectors = [name for name, field in properties.items() if field.get("type") == "dense_vector"]
    return [name for name in vectors if is_slot_name(name) and dsl.source_name(name) in properties]


def _parts(layout: Layout, document: Document | None) -> dict[str, Any]:
    """The fields of a document's other parts, with what they have."""
    parent = document.parent if document is not None else None
    named = (
        (layout.text, document.text if document is not None else None),
        (layout.parent, parent.id if parent else None),
        (layout.order, parent.ordinal if parent else None),
    )
    return {name: value for name, value in named if isinstance(name, str)}


def check_layout(layout: Layout) -> None:
    """:class:`InvalidInput` for what a layout cannot be on Elasticsearch."""
    if layout.id != dsl.ROW_ID:
        raise InvalidInput(
            f"Layout.id is {excerpt(layout.id)}; rows of Elasticsearch are found by {dsl.ROW_ID!r} alone"
        )
    if layout.scope is not None:
        raise InvalidInput(
            "Layout.scope is not available on Elasticsearch; use an index for each collection"
        )
    if not isinstance(layout.text, str) and not callable(layout.text):
        raise InvalidInput(
            "Layout.text is an SQL expression; name a field, or pass a function of ids"
        )


def _mapped(mapping: Mapping[str, Any], path: str) -> Mapping[str, Any] | None:
    """The field at a path below a mapping, whose properties may have dots in their names."""
    properties: Mapping[str, Mapping[str, Any]] = mapping.get("properties", {})
    if path in properties:
        return properties[path]
    ends = (place for place, character in enumerate(path) if character == ".")
    inside = (
        _mapped(properties[path[:end]], path[end + 1 :]) for end in ends if path[:end] in properties
    )
    return next((found for found in inside if found is not None), None)


def unwrapped(metadata: object) -> Metadata:
    """Metadata as it was written: we wrap it in a list, others do not."""
    inner = metadata[0] if isinstance(metadata, list) and len(metadata) == 1 else metadata
    return inner if isinstance(inner, dict) else {}


def value_at(source: Mapping[str, Any], path: str) -> Any:
    """The value of a field, its dots leading into objects or being part of its name."""
    if path in source:
        return source[path]
    head, _, rest = path.partition(".")
    inner = source.get(head)
    return value_at(inner, rest) if rest and isinstance(inner, Mapping) else None


def put(source: dict[str, Any], path: str, value: Any) -> None:
    """Set a field where it is, or where its dots lead; the objects on the way are copied.

    :class:`RowsRefused` where a list is on the way, of which the rest would be lost.
    """
    head, _, rest = path.partition(".")
    if path in source or not rest:
        source[path] = value
        return
    inner = source.get(head)
    if inner is not None and not isinstance(inner, Mapping):
        raise RowsRefused(
            f"the row has no single object in its field {excerpt(head)}, so that nothing can be put into "
            f"{excerpt(path)} there; make it an object"
        )
    source[head] = dict(inner or {})
    put(source[head], rest, value)


def remove(source: dict[str, Any], path: str) -> None:
    """Take a field away."""
    head, _, rest = path.partition(".")
    if path in source:
        del source[path]
    elif rest and isinstance(source.get(head), Mapping):
        source[head] = dict(source[head])
        remove(source[head], rest)


def _own_document(id: str, source: Mapping[str, Any], vector: Vector | None) -> Document:
    parent = source.get(dsl.PARENT)
    return Document(
        id,
        _text(source.get(dsl.TEXT)) or "",
        unwrapped(source.get(dsl.METADATA)),
        _parent(parent, source.get(dsl.ORDINAL), source.get(dsl.SPAN)),
        _text(source.get(dsl.EMBED_TEXT)),
        vector,
    )


def _text(found: object) -> str | None:
    """A text, if it is one: others may write anything that Elasticsearch can read as one."""
    return found if isinstance(found, str) else None


def _parent(id: object, ordinal: Any, span: Any) -> Parent | None:
    if not isinstance(id, str | int):
        return None
    pair = tuple(span) if isinstance(span, list) and len(span) == 2 else None
    return Parent(str(id), ordinal if isinstance(ordinal, int) else None, pair)


def _keyword_of(name: str, mapped: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The keyword beside a text, by which whole values are found."""
    for suffix, inner in mapped.get("fields", {}).items():
        if inner.get("type") == "keyword" and not inner.get("normalizer"):
            return f"{name}.{suffix}", inner
    raise InvalidInput(
        f"field {excerpt(name)} is a text without a keyword beside it, so its values cannot be "
        "compared; add one to the mapping, or filter on another field"
    )


def _fitting(value: Scalar, name: str, kind: str, mapped: Mapping[str, Any]) -> Any:
    """A value as the field has it; :data:`_ABSENT` if no field of this type has it."""
    if kind == "keyword" and isinstance(value, str):
        length = len(value.encode("utf-16-le")) // 2  # as Java counts
        if length > mapped.get("ignore_above", length) or mapped.get("normalizer"):
            raise InvalidInput(
                f"field {excerpt(name)} does not index such long or unchanged values; compare with a "
                "shorter one"
            )
        return value
    if kind == "boolean" and isinstance(value, bool):
        return value
    if kind == "boolean" or (kind in _NUMBERS and isinstance(value, str | bool)):
        return _ABSENT
    if kind in _INTEGERS:
        assert not isinstance(value, str)  # noqa: S101  no number is compared with one
        whole = isinstance(value, int) or value.is_integer()
        return int(value) if whole and _is_within(value, kind) else _ABSENT
    if kind in _NUMBERS:
        return value
    raise InvalidInput(
        f"field {excerpt(name)} is of type {kind}, which cannot be compared with {excerpt(value)} as a "
        "filter should; compare a keyword with a string, a number with a number"
    )


def _is_within(number: float, kind: str) -> bool:
    """Whether a field of this type of whole numbers may be compared with a number."""
    bound: int = 2 ** _INTEGERS[kind]
    return -bound <= number < bound


def _left_out(field: str) -> Query:
    """True where a field has a value that is not indexed: it is too long, or malformed."""
    return terms("_ignored", [field])


def _among(name: str, kind: str, values: Sequence[Any]) -> Query:
    if kind == "keyword":
        return terms(name, values)
    return either([{"term": {name: value}} for value in values])


def _differing(name: str, kind: str, value: Any) -> Query:
    """Some element differs: one of another value is below or above."""
    if kind == "boolean":
        return {"term": {name: not value}}
    return either([{"range": {name: {"lt": value}}}, {"range": {name: {"gt": value}}}])


def _ordered(where: Compares, name: str, kind: str) -> Query:
    bound = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}[where.order]
    if isinstance(where.value, datetime):
        if kind not in {"date", "date_nanos"}:
            raise InvalidInput(
                f"field {excerpt(name)} is of type {kind} in Elasticsearch; only a date can be compared "
                "with an instant"
            )
        instant = where.value.astimezone(UTC)
        if kind == "date" and (rest := instant.microsecond % 1000):  # it keeps milliseconds
            instant -= timedelta(microseconds=rest)
            bound = "lte" if where.order in {"<", "<="} else "gt"
        # All nine digits: what is left out may be rounded up.
        shown = instant.replace(tzinfo=None).isoformat(timespec="microseconds") + "000Z"
        return {"range": {name: {bound: shown, "format": "strict_date_optional_time_nanos"}}}
    if kind not in _NUMBERS:
        return NOTHING
    if kind in _INTEGERS and not _is_within(where.value, kind):  # which the server refuses
        is_below = bound in {"lt", "lte"}
        return exists(name) if is_below == (where.value > 0) else NOTHING
    return {"range": {name: {bound: where.value}}}
