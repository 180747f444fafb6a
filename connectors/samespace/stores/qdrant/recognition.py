"""What a collection that somebody else made is, as its description and some points show; no I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from qdrant_client import models

from samespace.errors import excerpt
from samespace.layout import Layout
from samespace.rebuilding import is_slot_name
from samespace.stores.qdrant.adopted import ALL, POINT
from samespace.stores.qdrant.requests import RECORD, RESERVED, SLOTS
from samespace.survey import (
    Choice,
    Column,
    Proposal,
    Survey,
    VectorSlot,
    guesses,
    lacking,
    observed,
    records_of,
)

_METRICS: Final = {
    models.Distance.COSINE: "cosine",
    models.Distance.DOT: "inner product",
    models.Distance.EUCLID: "l2",
    models.Distance.MANHATTAN: "l1",
}
_METADATA_NAMES: Final = ("metadata", "meta")
_HAYSTACK: Final = frozenset({"id", "content", "meta", "blob"})


def survey_of(
    collection: str,
    info: models.CollectionInfo,
    *,
    payloads: Sequence[Mapping[str, Any]],
    rows: int,
) -> Survey:
    """All that is known of a collection, put together."""
    columns = observed([_visible(payload) for payload in payloads])
    slots = tuple(_slots(info))
    record = (info.config.metadata or {}).get(RECORD)
    written = [] if record is None else [record]
    held, untrue = records_of(written, collection=collection, slots=slots)
    is_lost = record is None and _is_ours(slots, payloads)
    proposals = [] if is_lost else list(_proposals(columns, slots))
    return Survey(
        store="qdrant",
        collection=collection,
        columns=tuple(columns.values()),
        slots=slots,
        rows=rows,
        rows_estimated=False,
        key=POINT,
        records=tuple(held),
        untrue=tuple(untrue),
        proposals=tuple(proposals),
        lost_record=is_lost,
        missing=() if proposals else tuple(_missing(columns, slots, payloads)),
    )


def _is_ours(slots: Sequence[VectorSlot], payloads: Sequence[Mapping[str, Any]]) -> bool:
    """Whether vectors are named and points are written as in collections that were made here."""
    dense = [slot.name for slot in slots if slot.element != "sparse"]
    reserved = (payload.get(RESERVED) for payload in payloads)
    marked = any(isinstance(kept, Mapping) and "version" in kept for kept in reserved)
    return marked and bool(dense) and all(map(is_slot_name, dense))


def _visible(payload: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in payload.items() if key != SLOTS}


def _slots(info: models.CollectionInfo) -> Iterator[VectorSlot]:
    vectors: Any = info.config.params.vectors
    named = vectors if isinstance(vectors, dict) else {} if vectors is None else {"": vectors}
    indexed = bool(info.indexed_vectors_count)
    for name, params in named.items():
        yield VectorSlot(
            name=name,
            dimensions=params.size,
            metric=_METRICS[params.distance],
            element=str(params.datatype.value if params.datatype else "float32"),
            indexed=indexed,
            unusable=_why_unusable(params),
            any_length=params.distance is models.Distance.COSINE,
        )
    for name in info.config.params.sparse_vectors or {}:
        yield VectorSlot(
            name=name, dimensions=None, element="sparse", unusable="it is of sparse vectors"
        )


def _why_unusable(params: models.VectorParams) -> str:
    if params.multivector_config is not None:
        return "its points have several vectors each"
    if params.distance is models.Distance.MANHATTAN:
        return "it is compared by Manhattan distance, from which no cosine follows"
    return ""


def _missing(
    columns: Mapping[str, Column],
    slots: Sequence[VectorSlot],
    payloads: Sequence[Mapping[str, Any]],
) -> Iterator[str]:
    lacks = list(lacking(list(columns.values()), slots, POINT))
    if payloads:
        yield from lacks
        return
    yield "it has no points, so nothing shows where texts would be; name their key as the text"
    yield from (what for what in lacks if "vectors" in what)


def _proposals(columns: Mapping[str, Column], slots: Sequence[VectorSlot]) -> Iterator[Proposal]:
    usable = [slot for slot in slots if not slot.unusable]
    known = _maker(columns)
    if known is not None:
        maker, text, metadata, reason = known
        for slot in usable:
            layout = Layout(id=POINT, text=text, slot=slot.name, metadata=metadata)
            reasons = (reason, f"vector {excerpt(slot.name)}: {slot.dimensions} dimensions")
            yield Proposal(maker=maker, layout=layout, dimensions=slot.dimensions, reasons=reasons)
        return
    key = Choice(POINT, "id 'id': the points' own ids")
    yield from guesses(list(columns.values()), slots, key, lambda text: _metadata(columns, text))


def _maker(columns: Mapping[str, Column]) -> tuple[str, str, str, str] | None:
    """Maker, text, metadata and reason, where the payload's keys are those of a known one."""
    keys = {key for key, column in columns.items() if column.filled}
    if _is_text(columns, "page_content") and keys <= {"page_content", "metadata"}:
        reason = "LangChain's QdrantVectorStore has the keys 'page_content' and 'metadata'"
        layout = Layout.langchain_qdrant()
        return "LangChain QdrantVectorStore", str(layout.text), str(layout.metadata), reason
    if _is_text(columns, "content") and {"content", "meta"} <= keys and columns.keys() >= _HAYSTACK:
        reason = "Haystack's QdrantDocumentStore has the keys 'id', 'content', 'meta' and 'blob'"
        return "Haystack QdrantDocumentStore", "content", "meta", reason
    return None


def _is_text(columns: Mapping[str, Column], key: str) -> bool:
    return key in columns and columns[key].is_text


def _metadata(columns: Mapping[str, Column], text: str) -> Choice:
    """The one key that is an object beside the text, or all the payload."""
    others = {key: column for key, column in columns.items() if key != text}
    objects = [key for key, column in others.items() if column.is_object]
    named = [key for key in objects if key in _METADATA_NAMES] or objects
    if len(others) == 1 and named:
        return Choice(named[0], f"metadata {excerpt(named[0])}: the one object beside the text")
    return Choice(ALL, "metadata '*': all the payload but the text")
