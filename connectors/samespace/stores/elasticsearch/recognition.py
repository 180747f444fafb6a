"""What an index that somebody else made is, as its mapping and some rows show; no I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from samespace.errors import excerpt
from samespace.layout import Layout
from samespace.stores.elasticsearch import dsl
from samespace.stores.elasticsearch.shape import slots_made_here, value_at
from samespace.survey import (
    Choice,
    Column,
    Proposal,
    Survey,
    VectorSlot,
    column_of,
    guesses,
    lacking,
    records_of,
)

_TEXTS: Final = ("text", "keyword", "match_only_text", "wildcard", "semantic_text")
_OWN: Final = (dsl.CHANGES,)
_METADATA_NAMES: Final = ("metadata", "meta")
_UNIT_METRICS: Final = ("cosine", "dot_product", "max_inner_product")

Mapped = Mapping[str, Mapping[str, Any]]
"""The mappings of fields by their paths, dots leading into objects."""


def fields_of(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Mapping[str, Any]]:
    """Every mapped field by its path; objects and what is in them."""
    found: dict[str, Mapping[str, Any]] = {}
    for name, field in mapping.get("properties", {}).items():
        if name in _OWN:
            continue
        found[prefix + name] = field
        if field.get("type", "object") == "object":  # of a nested one a row has several
            found |= fields_of(field, prefix + name + ".")
    return found


def vectors_of(mapping: Mapping[str, Any]) -> list[str]:
    """The fields of vectors."""
    fields = fields_of(mapping)
    return [path for path, field in fields.items() if field.get("type") == "dense_vector"]


def survey_of(
    collection: str,
    mapping: Mapping[str, Any],
    *,
    sources: Sequence[Mapping[str, Any]],
    rows: int,
    is_partial: bool = False,
) -> Survey:
    """All that is known of an index, put together."""
    fields = fields_of(mapping)
    columns = [_column(path, field, sources) for path, field in fields.items()]
    columns = [column for column in columns if not column.name.endswith("__source")]
    slots = tuple(_slots(fields))
    record = (mapping.get("_meta") or {}).get(dsl.RECORD)
    known = {*fields, dsl.ROW_ID}
    written = [] if record is None else [record]
    held, untrue = records_of(written, collection=collection, slots=slots, has=known.__contains__)
    is_lost = record is None and bool(slots_made_here(mapping.get("properties", {})))
    kept = mapping.get("_source") or {}
    proposals = (
        [] if is_lost or kept.get("enabled") is False else list(_proposals(fields, columns, slots))
    )
    return Survey(
        store="elasticsearch",
        collection=collection,
        columns=tuple(columns),
        slots=slots,
        rows=rows,
        rows_estimated=False,
        key=dsl.ROW_ID,
        records=tuple(held),
        refused=_refused(kept, is_partial=is_partial),
        untrue=tuple(untrue),
        proposals=tuple(proposals),
        lost_record=is_lost,
        missing=tuple(_missing(mapping, columns, slots, proposals)),
    )


def _refused(source: Mapping[str, Any], *, is_partial: bool) -> str:
    """Why it cannot be written, whatever its layout is."""
    if is_partial:
        return "the name is that of an alias that shows a part of an index; name the index itself"
    if source.get("excludes") or source.get("includes"):
        return "its mapping keeps a part of _source only, so that a change would lose the rest of a row"
    return ""


def _missing(
    mapping: Mapping[str, Any],
    columns: Sequence[Column],
    slots: Sequence[VectorSlot],
    proposals: Sequence[Proposal],
) -> Iterator[str]:
    if (mapping.get("_source") or {}).get("enabled") is False:
        yield "its mapping switches _source off, so that no text can be read back; reindex it"
    if not proposals:
        yield from lacking(columns, slots, dsl.ROW_ID)


def _column(path: str, field: Mapping[str, Any], sources: Sequence[Mapping[str, Any]]) -> Column:
    kind = field.get("type", "object")
    seen = column_of(path, [value_at(source, path) for source in sources], kind)
    return Column(
        name=path,
        kind=kind,
        is_text=kind in _TEXTS and (seen.is_text or not seen.filled),
        is_object=kind in {"object", "flattened"},
        filled=seen.filled,
        length=seen.length,
    )


def _slots(fields: Mapped) -> Iterator[VectorSlot]:
    for path, field in fields.items():
        if field.get("type") != "dense_vector":
            continue
        is_indexed = field.get("index") is not False
        yield VectorSlot(
            name=path,
            dimensions=field.get("dims"),
            metric=field.get("similarity", "cosine") if is_indexed else None,
            element=field.get("element_type", "float"),
            indexed=is_indexed,
            unusable=_why_unusable(field),
            any_length=field.get("similarity", "cosine") == "cosine",
        )


def _why_unusable(field: Mapping[str, Any]) -> str:
    if field.get("element_type", "float") not in {"float", "bfloat16"}:
        return f"its elements are of type {field['element_type']}, not float"
    if field.get("dims") is None:
        return "it has no vector yet, so nothing says how many dimensions it has"
    if field.get("index") is False:
        return "it is not indexed, so nothing can be found by it"
    if field.get("similarity", "cosine") not in _UNIT_METRICS:
        return f"it compares by {field['similarity']}, from which no cosine follows"
    return ""


def _proposals(
    fields: Mapped, columns: Sequence[Column], slots: Sequence[VectorSlot]
) -> Iterator[Proposal]:
    known = _known(fields, slots)
    if known is not None:
        yield known
        return
    key = Choice(dsl.ROW_ID, "id '_id': the rows' own ids")
    yield from guesses(
        [column for column in columns if not _is_within_objects(column.name, fields)],
        slots,
        key,
        lambda text: _metadata(fields, text),
    )


def _is_within_objects(path: str, fields: Mapped) -> bool:
    """Whether a field belongs to what is probably metadata."""
    outer = path.partition(".")[0]
    return outer != path and outer in _METADATA_NAMES and outer in fields


def _known(fields: Mapped, slots: Sequence[VectorSlot]) -> Proposal | None:
    usable = {slot.name: slot for slot in slots if not slot.unusable}
    top = {path for path in fields if "." not in path}
    if "vector" in usable and _is_text(fields, "text") and top <= {"text", "vector", "metadata"}:
        has_metadata = "metadata" in fields
        return Proposal(
            maker="LangChain ElasticsearchStore",
            layout=Layout.langchain_elasticsearch(metadata="metadata" if has_metadata else ()),
            dimensions=usable["vector"].dimensions,
            reasons=(
                "LangChain's ElasticsearchStore has the fields 'text', 'vector' and 'metadata'",
                *(() if has_metadata else ("no row has metadata, so that field is not mapped",)),
            ),
        )
    return None


def _is_text(fields: Mapped, path: str) -> bool:
    return fields.get(path, {}).get("type") in _TEXTS


def _metadata(fields: Mapped, text: str) -> Choice:
    """The one object, or all plain fields by name."""
    top = [path for path in fields if "." not in path and path != text]
    plain = [path for path in top if _is_metadata(path, fields)]
    objects = [path for path in plain if fields[path].get("type", "object") == "object"]
    named = [path for path in objects if path in _METADATA_NAMES]
    if named or (len(objects) == 1 and len(plain) == 1):
        chosen = (named or objects)[0]
        beside = [path for path in plain if path != chosen]
        left = f"; not in it: {', '.join(map(excerpt, beside))}" if beside else ""
        return Choice(chosen, f"metadata {excerpt(chosen)}: the object{left}")
    shown = ", ".join(map(excerpt, plain)) or "none"
    return Choice(tuple(plain), f"metadata: {shown}, field by field")


def _is_metadata(path: str, fields: Mapped) -> bool:
    """Whether it can be read as one value a row; an object with vectors in it is a slot's."""
    kinds = {
        field.get("type", "object")
        for other, field in fields.items()
        if other == path or other.startswith(path + ".")
    }
    return not path.endswith("__source") and not kinds & {"dense_vector", "sparse_vector", "nested"}
