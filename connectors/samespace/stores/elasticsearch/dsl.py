"""Request bodies: mappings, documents, bulk lines, searches. Nothing here reaches a server."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson

from samespace.documents import Document
from samespace.errors import InvalidInput, excerpt
from samespace.filters import Compares, Differs, Exists, In, Target
from samespace.guard import SpaceRecord
from samespace.index import Index
from samespace.names import ID_BYTES, bounded, is_unstorable
from samespace.protocols import Vector
from samespace.space import EmbeddingSpace
from samespace.stores import sources
from samespace.stores.elasticsearch.conditions import (
    EVERYTHING,
    Query,
    every,
    exists,
    neither,
    terms,
)
from samespace.stores.refusals import RowsRefused, check_cosine
from samespace.stores.terms import between, equals, only, present, terms_as_json

RECORD: Final = "samespace"
"""The one key of a mapping's ``_meta`` that is ours."""
ROW_ID: Final = "_id"
ID: Final = "id"
TEXT: Final = "text"
METADATA: Final = "metadata"
TERMS: Final = "terms"
EMBED_TEXT: Final = "embed_text"
PARENT: Final = "parent"
ORDINAL: Final = "ordinal"
SPAN: Final = "span"
CHANGES: Final = "samespace_changes"
"""A field that no document has, whose parts count the changes of the record."""
PARTS: Final = (ID, TEXT, METADATA, EMBED_TEXT, PARENT, ORDINAL, SPAN)
"""The fields of a document of ours that are read back; vectors and their sources aside."""

Version = tuple[int, ...]
OLDEST: Final[Version] = (8, 15)
RESCORES: Final[Version] = (8, 18)
"""From here on a search compares candidates from a quantized index by their full vectors."""
LEAVES_VECTORS_OUT: Final[Version] = (9, 2)
"""From here on ``_source`` comes without vectors unless they are asked for."""
TAKES_BASE64: Final[Version] = (9, 3)
HAS_HALVES: Final[Version] = (9, 3)
"""From here on an element may be a bfloat16, which has 8 bits of precision."""

MOST_IDS: Final = 1000
"""Ids that are asked for together."""
MOST_CANDIDATES: Final = 10_000
LEAST_CANDIDATES: Final = 100
CHUNK_BYTES: Final = 8 * 2**20
"""Of one bulk request: far below ``http.max_content_length``, which is 100 MB unless changed."""
_NAME_BYTES: Final = 255
_FORBIDDEN: Final = re.compile(r"[\\/*?\"<>| ,#:%\x00-\x1f\x7f]")
_QUANTIZED: Final = {None: "", "half": "", "int8": "int8_", "binary": "bbq_"}
_OVERSAMPLE: Final = (("int8_", 2.0), ("int4_", 3.0), ("bbq_", 5.0))
"""How many times the limit a quantized index must offer for a recall of 0.97 and more."""


# Names


def check_name(name: object) -> str:
    """Return ``name`` if it can name an index or alias and nothing else: no pattern, no list."""
    if not isinstance(name, str) or not is_name(name):
        raise InvalidInput(
            f"collection {excerpt(name)} cannot be an index of Elasticsearch: no patterns, lists, "
            "spaces, slashes or control characters, no - _ + . in front, at most 255 bytes"
        )
    return name


def is_name(name: str) -> bool:
    """Whether an index or an alias can have this name, and no list or pattern."""
    return (
        name != ""
        and not is_unstorable(name)
        and not _FORBIDDEN.search(name)
        and name[0] not in "-_+."
        and len(name.encode()) <= _NAME_BYTES
    )


def alias_of(collection: str, slot: str) -> str:
    """The alias through which handles of a slot talk to a collection; it goes with the slot."""
    return f"{collection}--{slot}"


def source_name(slot: str) -> str:
    """The field beside a slot that says what its vector was made from."""
    return bounded(slot, "__source")


def source_of(id: str, text: str) -> str:
    """What a vector was made from, in hex."""
    return sources.source_of(id, text).hex()


# Mappings


def slot_mapping(space: EmbeddingSpace, index: Index) -> dict[str, Any]:
    """The fields of a slot.

    Where the space is normalized, similarity ``dot_product`` makes the engine itself refuse a vector
    whose squared norm is off by more than 0.001, whoever sends it.
    """
    options: dict[str, Any] = {"type": _QUANTIZED[index.quantization] + index.kind}
    if index.kind == "hnsw":
        options |= {"m": index.m, "ef_construction": index.ef_construction}
    return {
        space.id: {
            "type": "dense_vector",
            "element_type": "bfloat16" if index.quantization == "half" else "float",
            "dims": space.dimensions,
            "index": True,
            "similarity": "dot_product" if space.normalized else "cosine",
            "index_options": options,
        },
        source_name(space.id): {"type": "keyword", "index": False},
    }


def own_mapping(space: EmbeddingSpace, index: Index, record: SpaceRecord) -> dict[str, Any]:
    """The mapping of a collection of ours: it grows with slots, never with anybody's metadata.

    Texts are kept and not analysed: nothing here searches words, and who wants to can add a field.
    """
    unsearched = {"type": "text", "index": False, "norms": False}
    number = {"type": "integer", "index": False, "doc_values": False}
    return {
        "dynamic": "strict",
        "_meta": with_record({}, record),
        "properties": {
            ID: {"type": "keyword"},
            TEXT: unsearched,
            METADATA: {"type": "object", "enabled": False},
            TERMS: {"type": "keyword", "doc_values": False},
            EMBED_TEXT: unsearched,
            PARENT: {"type": "keyword"},
            ORDINAL: number,
            SPAN: number,
            **slot_mapping(space, index),
        },
    }


def own_index(
    collection: str, space: EmbeddingSpace, index: Index, record: SpaceRecord
) -> dict[str, Any]:
    """The create request: slot, record and alias are there with the index, or none of them."""
    return {
        "mappings": own_mapping(space, index, record),
        "aliases": {alias_of(collection, space.id): {"is_write_index": True}},
    }


def with_record(meta: Mapping[str, Any], record: SpaceRecord) -> dict[str, Any]:
    """A mapping's ``_meta`` with our record; others' keys stay."""
    return {**meta, RECORD: record.to_dict()}


def record_of(mapping: Mapping[str, Any], *, collection: str) -> SpaceRecord | None:
    """The record in a mapping's ``_meta``; :class:`SpaceUnknown` if it cannot be read."""
    meta = mapping.get("_meta") or {}
    return SpaceRecord.from_dict(meta[RECORD], collection=collection) if RECORD in meta else None


def next_change(properties: Mapping[str, Any], token: str) -> dict[str, Any]:
    """The field that makes a change of the record the next one, or none.

    A field's ``null_value`` stays what it is, so that the server refuses the whole request of whoever
    comes with a number that another token has: two who read one record cannot both replace it.
    """
    empty = {"type": "keyword", "index": False, "doc_values": False}
    number = len(properties.get(CHANGES, {}).get("fields", {})) + 1
    return {CHANGES: {**empty, "fields": {str(number): {**empty, "null_value": token}}}}


def check_index(index: Index) -> Index:
    """The index, or :class:`InvalidInput` that names what Elasticsearch lacks."""
    if index.build == "manual":
        raise InvalidInput(
            'Index.build="manual" is not available on Elasticsearch, which indexes every vector as it '
            'comes; use "auto", or Index(kind="flat") for none'
        )
    return index


def check_quantization(index: Index, version: Version) -> None:
    """:class:`InvalidInput` for an index that this server lacks, or cannot score by full vectors."""
    least = {None: OLDEST, "half": HAS_HALVES}.get(index.quantization, RESCORES)
    if version < least:
        raise InvalidInput(
            f'Index.quantization="{index.quantization}" needs Elasticsearch {least[0]}.{least[1]} or '
            "newer; use None"
        )


# Documents


def packed(vector: Vector) -> str:
    """A vector as base64 of big-endian float32."""
    return binascii.b2a_base64(vector.astype(">f4").tobytes(), newline=False).decode()


def unpacked(found: object) -> Vector:
    """A vector as a row has it: numbers, or the base64 that somebody sent."""
    if isinstance(found, str):
        return np.frombuffer(binascii.a2b_base64(found), dtype=">f4").astype(np.float32)
    return np.asarray(found, dtype=np.float32)


def sent(vector: Vector, version: Version) -> Any:
    """A vector as this server takes it."""
    return packed(vector) if version >= TAKES_BASE64 else np.ascontiguousarray(vector)


def metadata_parts(metadata: bytes) -> dict[str, Any]:
    """Metadata, which is JSON, as it is kept: raw, and as terms.

    It is wrapped in a list, because an update merges objects and replaces lists.
    """
    terms = orjson.Fragment(terms_as_json(metadata))
    return {METADATA: orjson.Fragment(b"[" + metadata + b"]"), TERMS: terms}


def document(
    row: Document, metadata: bytes, vectors: Mapping[str, Any], *, whole: bool = False
) -> dict[str, Any]:
    """A document of ours with its vectors by slot; ``whole`` names absent parts too, to unset them."""
    made: dict[str, Any] = {ID: row.id, TEXT: row.text, **metadata_parts(metadata)}
    optional = {} if row.parent is None and row.embed_text is None and not whole else _optional(row)
    made.update((name, v) for name, v in optional.items() if whole or v is not None)
    if vectors:
        source = source_of(row.id, row.embedded_text)
        for slot, vector in vectors.items():
            made[slot], made[source_name(slot)] = vector, source
    return made


def _optional(row: Document) -> dict[str, Any]:
    parent = row.parent
    return {
        EMBED_TEXT: row.embed_text,
        PARENT: parent.id if parent else None,
        ORDINAL: parent.ordinal if parent else None,
        SPAN: list(parent.span) if parent and parent.span is not None else None,
    }


# Bulk


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a request with several: its action's line, and its body's if it has one."""

    action: bytes
    body: bytes = b""

    @property
    def size(self) -> int:
        """Bytes of both lines."""
        return len(self.action) + len(self.body)


def operation(
    kind: str, id: str, body: Mapping[str, Any] | None = None, **conditions: Any
) -> Operation:
    """An operation on one document; ``conditions`` such as ``if_seq_no`` that are None are left out.

    The body has a line of its own, so that nothing in a document can be taken for an action.
    """
    named = {name: value for name, value in conditions.items() if value is not None}
    try:
        action = orjson.dumps({kind: {"_id": id, **named}}, option=orjson.OPT_APPEND_NEWLINE)
        return Operation(action, b"" if body is None else encoded(body) + b"\n")
    except orjson.JSONEncodeError as error:  # others' rows may have what ours must not
        raise RowsRefused(
            f"row {excerpt(id)} has a number beyond 64 bits or a lone surrogate, and so cannot be written "
            "again as it is; mend it with the tool that wrote it"
        ) from error


def encoded(body: object) -> bytes:
    """A request's body as JSON."""
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def search(body: object) -> Operation:
    """One search of several, which is to be answered by all shards."""
    return Operation(b'{"allow_partial_search_results":false}\n', encoded(body) + b"\n")


def lines(operations: Iterable[Operation]) -> bytes:
    """The body of a request with several operations."""
    return b"".join(line for each in operations for line in (each.action, each.body))


def chunks(
    operations: Iterable[Operation], *, most: int | None = None
) -> Iterator[list[Operation]]:
    """Lists of at most ``most`` operations and :data:`CHUNK_BYTES`, or of one that is larger."""
    chunk: list[Operation] = []
    size = 0
    for each in operations:
        if chunk and (len(chunk) == most or size + each.size > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(each)
        size += each.size
    if chunk:
        yield chunk


# Searches


def own_condition(where: In | Differs | Compares | Exists) -> Query:
    """One comparison on a collection of ours."""
    if isinstance(where, Compares):
        return {"range": {TERMS: between(where.path, where.order, where.value)}}
    if where.target is Target.ID:
        return id_condition(where)
    if where.target is Target.PARENT:
        return _parent_condition(where)
    if isinstance(where, Exists):
        return terms(TERMS, [present(where.path)])
    if isinstance(where, In):
        return terms(TERMS, [equals(where.path, value) for value in where.values])
    alike = terms(TERMS, [only(where.path, where.value)])
    return every([terms(TERMS, [present(where.path)]), neither(alike)])


def id_condition(where: In | Differs | Exists) -> Query:
    """A comparison of ids, which are the rows' own; every row has one, also one that others put in."""
    if isinstance(where, Exists):
        return EVERYTHING
    if isinstance(where, In):
        return terms(ROW_ID, map(str, where.values))
    return neither(terms(ROW_ID, [str(where.value)]))


def _parent_condition(where: In | Differs | Exists) -> Query:
    """A comparison of parents; not every row has one."""
    if isinstance(where, Exists):
        return exists(PARENT)
    if isinstance(where, In):
        return terms(PARENT, map(str, where.values))
    return every([exists(PARENT), neither(terms(PARENT, [str(where.value)]))])


def is_pending(slot: str, *, has_source: bool) -> Query:
    """True of rows without a vector in a slot, or with one that does not say what it was made from."""
    parts = [exists(slot), *([exists(source_name(slot))] if has_source else [])]
    return neither(every(parts))


def is_alone(slot: str, *, beside: str, has_source: bool) -> Query:
    """True of rows with a vector in a slot that are pending in another; whether that has a source."""
    return every([exists(slot), is_pending(beside, has_source=has_source)])


def shuffled(query: Query) -> Query:
    """The rows that pass, in an order that is another each time."""
    return {"function_score": {"query": query, "random_score": {}, "boost_mode": "replace"}}


def nearest(
    field: str,
    vector: Vector,
    *,
    options: Mapping[str, Any],
    limit: int,
    where: Query,
    source: Mapping[str, Any],
) -> dict[str, Any]:
    """A search for the nearest rows; ``options`` are the field's index options."""
    knn: dict[str, Any] = {
        "field": field,
        "query_vector": vector,
        "k": limit,
        "num_candidates": min(MOST_CANDIDATES, max(LEAST_CANDIDATES, 2 * limit)),
    }
    if where != EVERYTHING:
        knn["filter"] = where
    if oversample := oversampling(options):
        knn["rescore_vector"] = {"oversample": oversample}
    return {"size": limit, "track_total_hits": False, "_source": source, "query": {"knn": knn}}


def oversampling(options: Mapping[str, Any]) -> float | None:
    """How many times the limit is looked at where an index is quantized; None where it is not."""
    kind = str(options.get("type", ""))
    return next((factor for prefix, factor in _OVERSAMPLE if kind.startswith(prefix)), None)


def unit(vector: Vector) -> Vector:
    """A query of norm 1: its cosines are the same, and ``dot_product`` takes no other."""
    norm = np.linalg.norm(vector.astype(np.float64))
    scaled: Vector = (vector / norm).astype(np.float32)
    return scaled


def cosine(score: float, metric: str) -> float:
    """The cosine that a hit's ``_score`` says: ``(1 + cosine) / 2``, or an inner product's form."""
    if metric == "max_inner_product":
        found = score - 1.0 if score >= 1.0 else 1.0 - 1.0 / score
        check_cosine(found, metric=metric)
    else:
        found = 2.0 * score - 1.0
    return max(-1.0, min(1.0, found))


def reading(fields: Sequence[str], version: Version, *, vectors: bool) -> dict[str, Any]:
    """Which parts of a document a search answers with."""
    asked = {"exclude_vectors": False} if vectors and version >= LEAVES_VECTORS_OUT else {}
    return {"includes": list(fields), **asked}


def whole_source(version: Version) -> Any:
    """A source with everything in it, vectors included."""
    return {"exclude_vectors": False} if version >= LEAVES_VECTORS_OUT else True


def asked_for(source: Any) -> str:
    """What a get by ids answers with, as its parameters."""
    if source is False:
        return "_source=false"
    named = ",".join(source["includes"])
    vectors = "&_source_exclude_vectors=false" if "exclude_vectors" in source else ""
    return f"_source_includes={named}{vectors}"


def possible_ids(ids: Iterable[str]) -> list[str]:
    """Those that a row can have, each once."""
    return [id for id in dict.fromkeys(ids) if 0 < len(id.encode()) <= ID_BYTES]


def parts_of_ids(ids: Iterable[str]) -> Iterator[list[str]]:
    """Those that a row can have, in lists of at most :data:`MOST_IDS`."""
    listed = possible_ids(ids)
    return (listed[start : start + MOST_IDS] for start in range(0, len(listed), MOST_IDS))


def of_ids(ids: Iterable[str]) -> Query:
    """True of the rows with these ids; what can be none is left out.

    A query of ``ids`` takes no more than ``index.max_result_window``.
    """
    return terms(ROW_ID, possible_ids(ids))


def by_id(query: Query, after: str | None) -> dict[str, Any]:
    """The rows of ours that pass, in the order of their ids, behind a cursor.

    Strangers may have written rows without an id, or under one that another row has, too: the cursor names
    those that were seen. Rows without one come last, in the order of their last change.
    """
    sort = {"sort": [{ID: "asc"}, {"_seq_no": "asc"}]}
    if after is None:
        return {"query": query, **sort}
    id, number, *seen = _read_cursor(after, of_ids=True)
    return {
        "query": every([query, neither(of_ids(seen))]), **sort, "search_after": [id, number - 1]
    }  # fmt: skip


def by_change(query: Query, after: str | None) -> dict[str, Any]:
    """The rows that pass in the order of their last change, behind a cursor.

    Shards count alone, so that two rows may have one number: the cursor names those that were seen.
    """
    sort = {"sort": [{"_seq_no": "asc"}]}
    if after is None:
        return {"query": query, **sort}
    number, *seen = _read_cursor(after, of_ids=False)
    behind = [{"range": {"_seq_no": {"gte": number}}}, neither(of_ids(seen))]
    return {"query": every([query, *behind]), **sort}


def cursor(hits: Sequence[Mapping[str, Any]], after: str | None) -> str:
    """The cursor to go on from behind these rows."""
    place = _place(hits[-1])
    seen = [hit["_id"] for hit in hits if _place(hit) == place]
    before = _read_cursor(after, of_ids=len(place) > 1) if after is not None else []
    earlier = before[len(place) :] if before[: len(place)] == place else []
    return orjson.dumps([*place, *earlier, *seen]).decode()


def _place(hit: Mapping[str, Any]) -> list[Any]:
    """What rows behind this one are told by: an id, or the number of a change where there is none."""
    first, *rest = hit["sort"]
    if type(first) is int:
        return [first]
    return [first, 0] if first is not None else [None, rest[0]]


def _read_cursor(text: str, *, of_ids: bool) -> list[Any]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        found = None
    kinds: list[set[type]] = [{str, type(None)}, {int}] if of_ids else [{int}]
    if (
        isinstance(found, list)
        and len(found) > len(kinds)
        and all(type(each) in kind for each, kind in zip(found, kinds, strict=False))
        and all(isinstance(id, str) for id in found[len(kinds) :])
    ):
        return found
    raise InvalidInput(
        f"{excerpt(text)} is no cursor of this collection; pass what pending() returned"
    )
