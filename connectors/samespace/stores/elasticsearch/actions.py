"""Bulk actions as the client's helpers take them, read and made anew. Nothing here reaches a server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from samespace.documents import Document, decode_metadata, encode_metadata
from samespace.errors import InvalidInput, SamespaceError, SpaceMismatch, SpaceUnknown, excerpt
from samespace.guard import SlotRecord, SpaceRecord
from samespace.names import check_id, check_storable
from samespace.protocols import Vector
from samespace.space import EmbeddingSpace
from samespace.stores.elasticsearch import dsl
from samespace.stores.elasticsearch.shape import Shape, put, remove, value_at
from samespace.stores.terms import terms_of
from samespace.vectors import as_vector

SHOWN: Final = 5
"""Most actions that one error names."""
KINDS: Final = ("index", "create", "update", "delete")
SHORTEST_DYNAMIC: Final = 128
"""From this length on Elasticsearch maps a list of numbers in an unmapped field as vectors."""
_PARAMETERS: Final = {
    "routing": "routing",
    "if_seq_no": "if_seq_no",
    "if_primary_term": "if_primary_term",
    "retry_on_conflict": "retry_on_conflict",
    "version": "version",
    "version_type": "version_type",
    "pipeline": "pipeline",
    "_routing": "routing",
    "_if_seq_no": "if_seq_no",
    "_if_primary_term": "if_primary_term",
    "_retry_on_conflict": "retry_on_conflict",
    "_version": "version",
    "_version_type": "version_type",
}
"""What an action says beside its target, each under the name that the server knows."""
_OF_UPDATES: Final = ("doc", "upsert", "doc_as_upsert", "detect_noop", "script", "scripted_upsert")
_TARGET: Final = frozenset({"_op_type", "_index", "_id", "_source"})
_OF_HITS: Final = frozenset({"_score", "_type", "_ignored", "_seq_no", "_primary_term", "sort"})
"""What a search answers beside a document, which an action may have and nobody reads."""


@dataclass(frozen=True, slots=True)
class Action:
    """One action, with its document apart from what it says itself.

    ``document`` is what an index or create stores, or the partial document of an update;
    ``upsert`` is stored in its place where there is no row. ``options`` are an update's own.
    """

    kind: str
    index: str
    id: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    document: Mapping[str, Any] | None = None
    upsert: Mapping[str, Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Draft:
    """A document on its way: its fields but for vectors, and the text to embed if it has one.

    ``carried`` are vectors that came with it, by slot. ``whole`` documents replace what is stored.
    """

    id: str
    text: str | None
    fields: dict[str, Any]
    carried: Mapping[str, Vector]
    whole: bool
    vector: Vector | None = None


@dataclass(slots=True)
class Prepared:
    """An action with its documents as drafts, which only lack vectors; the ``place``-th of a stream."""

    place: int
    action: Action
    target: Target
    document: Draft | None = None
    upsert: Draft | None = None

    def unembedded(self) -> Iterator[Draft]:
        """The drafts whose text is to be embedded."""
        for draft in (self.document, self.upsert):
            if draft is not None and draft.text and self.target.slot.name not in draft.carried:
                yield draft

    def made(self, version: dsl.Version) -> dict[str, Any]:
        """The action to send: all that is the document's is under ``_source``, where it is only data."""
        action = self.action
        made = {"_op_type": action.kind, "_index": action.index, "_id": action.id}
        made |= action.parameters
        if action.kind == "delete":
            return made
        assert self.document is not None  # noqa: S101  all others have one
        document = self.target.written(self.document, version)
        if action.kind != "update":
            return {**made, "_source": document}
        body = {**action.options, "doc": document}
        if self.upsert is not None:
            body["upsert"] = self.target.written(self.upsert, version)
        return {**made, "_source": body}


# Reading


def read(data: object, *, index: str | None) -> Action:
    """An action in any form that the helpers take; ``index`` is for those that name none.

    A flat action's keys with ``_`` in front are its own, as in the helpers. :class:`InvalidInput`
    where a key could be the action's or the document's.
    """
    if not isinstance(data, Mapping):
        raise InvalidInput(f"an action is a dict, not {excerpt(type(data).__name__)}")
    kind = data.get("_op_type", "index")
    if kind not in KINDS:
        raise InvalidInput(f"_op_type is {excerpt(kind)}; use {', '.join(KINDS)}")
    target = dsl.check_name(data.get("_index", index))
    id = _id_of(data.get("_id"))
    enclosed = isinstance(data.get("_source"), Mapping)
    if not enclosed and kind in {"index", "create"}:
        _check_clear(data)
    parameters = {_PARAMETERS[key]: value for key, value in data.items() if key in _PARAMETERS}
    rest = {key: v for key, v in data.items() if key not in _PARAMETERS and key not in _TARGET}
    body = _enclosed(data["_source"], rest) if enclosed else rest
    if kind == "delete":
        _check_empty({} if enclosed else rest)
        return Action(kind, target, id, parameters)
    if kind == "update":
        return _update(target, id, parameters, body, None if enclosed else data.get("_source"))
    return Action(kind, target, id, parameters, body)


def _id_of(value: object) -> str:
    if value is None:
        raise InvalidInput(
            "it has no _id; give each document one, so that a bulk request that is sent again stores "
            "it once"
        )
    return check_id(str(value) if type(value) is int else value, what="_id")


def _check_clear(data: Mapping[str, Any]) -> None:
    for key in data:
        if key in _PARAMETERS and not key.startswith("_"):
            raise InvalidInput(
                f"{excerpt(key)} could be the action's or a field of the document; put the document "
                "under _source"
            )


def _enclosed(body: Mapping[str, Any], rest: Mapping[str, Any]) -> Mapping[str, Any]:
    """The document under ``_source``; nothing may be lost that is beside it."""
    for key in rest:
        if key not in _OF_HITS:
            raise InvalidInput(
                f"{excerpt(key)} is beside _source, where it would be lost; put it inside"
            )
    return body


def _check_empty(rest: Mapping[str, Any]) -> None:
    for key in rest:
        raise InvalidInput(
            f"a delete has a document's field {excerpt(key)}; if _op_type is a field of the document "
            "too, put the document under _source"
        )


def _update(
    index: str, id: str, parameters: Mapping[str, Any], body: Mapping[str, Any], answer: object
) -> Action:
    for key in body:
        if key not in _OF_UPDATES and key != "_source":
            raise InvalidInput(
                f"an update has {excerpt(key)} beside doc, which the server refuses; put it inside"
            )
    for key in ("script", "scripted_upsert"):
        if key in body:
            raise InvalidInput(
                "a script may change the text unseen by who embeds; send the changed fields as doc"
            )
    document, upsert = body.get("doc"), body.get("upsert")
    if not isinstance(document, Mapping) or not isinstance(upsert, Mapping | None):
        raise InvalidInput(f"an update's doc is {excerpt(document)}; pass the changed fields")
    options = {key: body[key] for key in ("detect_noop", "_source") if key in body}
    if answer is not None:
        options["_source"] = answer
    if body.get("doc_as_upsert"):
        upsert = document
    return Action("update", index, id, parameters, document, upsert, options)


# Preparing


@dataclass(frozen=True, slots=True)
class Target:
    """An index that actions name, and where text and vectors are in its documents.

    ``text_field`` is where an action's document has its text, ``claimed`` the space of vectors
    that documents carry, if they may.
    """

    shape: Shape
    record: SpaceRecord
    slot: SlotRecord
    text_field: str
    claimed: EmbeddingSpace | None

    @classmethod
    def of(
        cls,
        shape: Shape,
        record: SpaceRecord,
        space: EmbeddingSpace,
        *,
        text_field: str | None,
        claimed: EmbeddingSpace | None,
    ) -> Target:
        """The index as its record says; or the refusal that the record asks for."""
        slot = record.require(space, collection=shape.collection)
        if not shape.holds(slot.name):
            raise SpaceUnknown(
                f"the record of {excerpt(shape.collection)} names the field {excerpt(slot.name)}, which "
                "the index lacks; restore it from a snapshot, or delete it"
            )
        if claimed is not None:
            record.require(claimed, collection=shape.collection)
        if shape.own:
            return cls(shape, record, slot, text_field or dsl.TEXT, claimed)
        text = shape.layout.text
        if not isinstance(text, str):
            raise InvalidInput(
                f"the texts of {excerpt(shape.collection)} are elsewhere, so its documents have none to "
                "embed: write them with your own code, then the vectors with pending() and fill()"
            )
        if text_field not in {None, text}:
            raise InvalidInput(
                f"the record of {excerpt(shape.collection)} says that texts are in the field "
                f"{excerpt(text)}, and text_field= says {excerpt(text_field)}; leave text_field out"
            )
        return cls(shape, record, slot, text, claimed)

    def prepare(self, action: Action, place: int) -> Prepared:
        """The action's documents as drafts; :class:`InvalidInput` for what cannot be written so."""
        if self.shape.own and "routing" in action.parameters:
            raise InvalidInput(
                f"{excerpt(self.shape.collection)} is a collection of ours, whose rows are found by "
                "their ids alone; leave routing out"
            )
        if action.document is None:
            return Prepared(place, action, self)
        is_update = action.kind == "update"
        document = self._draft(action.id, action.document, whole=not is_update)
        if action.upsert is None:
            return Prepared(place, action, self, document)
        upsert = self._draft(action.id, action.upsert, whole=True)
        return Prepared(place, action, self, document, upsert)

    def _draft(self, id: str, document: Mapping[str, Any], *, whole: bool) -> Draft:
        carried = self._carried(document)
        text = value_at(document, self.text_field)
        if whole or self._names_text(document):
            self._check_text(text)
        elif carried:
            raise InvalidInput(
                f"an update has a vector and no {excerpt(self.text_field)}; send the text that it was "
                "made from with it"
            )
        fields = dict(document)
        for name in self._slots():
            if whole or name in carried:  # an update may say that a slot is to be empty
                remove(fields, name)
            fields.pop(dsl.source_name(name), None)
        self._check_stray(fields)
        if self.shape.own:
            fields = self._own_fields(id, text, fields, whole=whole)
        return Draft(id, text, fields, carried, whole)

    def _names_text(self, document: Mapping[str, Any]) -> bool:
        """Whether a partial document has the text's field, be it with nothing in it."""
        if value_at(document, self.text_field) is not None:
            return True
        head, _, rest = self.text_field.partition(".")
        inner = document.get(head)
        return self.text_field in document or (isinstance(inner, Mapping) and rest in inner)

    def _check_text(self, text: object) -> None:
        if text is None:
            raise InvalidInput(
                f"it has no {excerpt(self.text_field)}, so there is nothing to embed; give it a text, or "
                "name the text's field in text_field="
            )
        if not isinstance(text, str):
            raise InvalidInput(f"its {excerpt(self.text_field)} is {excerpt(text)}; pass a string")
        if not text or text.isspace():
            raise InvalidInput(
                f"its {excerpt(self.text_field)} is blank, so there is nothing to embed; leave it out"
            )
        check_storable(text, what="text")

    def _carried(self, document: Mapping[str, Any]) -> dict[str, Vector]:
        """The vectors that a document has in slots, checked."""
        found = {}
        for slot in self.record.slots:
            vector = value_at(document, slot.name)
            if vector is None:
                continue
            self._check_claim(slot)
            found[slot.name] = as_vector(vector, slot.space)
        return found

    def _check_claim(self, slot: SlotRecord) -> None:
        if self.claimed is None:
            raise InvalidInput(
                f"it carries a vector in {excerpt(slot.name)}; say of which space such vectors are with "
                "claimed=, or leave the field out and let the hook embed"
            )
        if self.claimed != slot.space:
            raise SpaceMismatch(
                f"it carries a vector in {excerpt(slot.name)}, which is for {slot.space}, and claimed= "
                f"says {self.claimed}; put it into the field of its own space",
                stored=slot.space,
                offered=self.claimed,
            )

    def _check_stray(self, fields: Mapping[str, Any]) -> None:
        """:class:`InvalidInput` for a vector in a field that is no slot."""
        sizes = {slot.space.dimensions for slot in self.record.slots}
        for name, value in _leaves(fields):
            mapped = None if self.shape.own else self.shape.field(name)
            kind = None if mapped is None else mapped.get("type")
            if value is None or kind not in {None, "dense_vector"}:
                continue
            if kind == "dense_vector" or is_like_vector(value, sizes):
                raise InvalidInput(
                    f"its field {excerpt(name)} looks like a vector and is no slot of "
                    f"{excerpt(self.shape.collection)}, which has "
                    f"{', '.join(slot.name for slot in self.record.slots)}; leave it out"
                )

    def _own_fields(
        self, id: str, text: str | None, document: dict[str, Any], *, whole: bool
    ) -> dict[str, Any]:
        """A document in our form: all fields beside the text are its metadata."""
        metadata = dict(document)
        remove(metadata, self.text_field)
        if whole:
            decoded = decode_metadata(encode_metadata(metadata))
            made = dsl.document(Document(id, text or ""), b"{}", {})
            return {**made, dsl.METADATA: [decoded], dsl.TERMS: terms_of(decoded)}
        for name, _ in _leaves(metadata):
            raise InvalidInput(
                f"an update has the field {excerpt(name)}, which is metadata in "
                f"{excerpt(self.shape.collection)} and can only be merged by the store: call "
                "update_metadata(), or index the whole document"
            )
        return {} if text is None else {dsl.TEXT: text, dsl.EMBED_TEXT: None}

    def _slots(self) -> list[str]:
        return [slot.name for slot in self.record.slots]

    def written(self, draft: Draft, version: dsl.Version) -> dict[str, Any]:
        """A draft with its vectors, and what they were made from.

        A text that changes in place empties the slots that it is not written to.
        """
        made = dict(draft.fields)
        vectors = dict(draft.carried)
        if draft.vector is not None:
            vectors[self.slot.name] = draft.vector
        if draft.text is not None and not draft.whole:
            for name in self._slots():
                self._put(made, name, None, None)
        source = dsl.source_of(draft.id, draft.text or "")
        for name, vector in vectors.items():
            self._put(made, name, _plain(dsl.sent(vector, version)), source)
        return made

    def _put(self, made: dict[str, Any], slot: str, vector: Any, source: str | None) -> None:
        put(made, slot, vector)
        if self.shape.has_source(slot):
            made[dsl.source_name(slot)] = source


def _plain(vector: Any) -> Any:
    """A vector that any serializer takes."""
    return vector.tolist() if isinstance(vector, np.ndarray) else vector


def _leaves(fields: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """All fields that are no objects, with the dots that lead there."""
    for key, value in fields.items():
        name = f"{path}{key}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value


def is_like_vector(value: object, sizes: set[int]) -> bool:
    """Whether a value can hardly be anything but a vector: of a slot's size, or long."""
    if isinstance(value, np.ndarray):
        return True
    if not isinstance(value, list) or not value or type(value[0]) is not float:
        return False
    long = len(value) in sizes or len(value) >= SHORTEST_DYNAMIC
    return long and all(type(number) in {float, int} for number in value)


@contextmanager
def at(place: int, data: object) -> Iterator[None]:
    """Errors of one action begin with its place in the stream and its id."""
    try:
        yield
    except SamespaceError as error:
        id = data.get("_id") if isinstance(data, Mapping) else None
        raise located(error, [(place, id)]) from error.__cause__


def located(error: SamespaceError, places: Sequence[tuple[int, object]]) -> SamespaceError:
    """The error with the actions that it speaks of in front."""
    shown = ", ".join(
        f"action {place}" + ("" if id is None else f" (_id {excerpt(id)})")
        for place, id in places[:SHOWN]
    )
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    error.args = (f"{shown}{more}: {error}",)
    return error


def index_named(found: Mapping[str, Any], name: str) -> tuple[str, Mapping[str, Any]]:
    """The one index that is written to under a name, of all that the name stands for."""
    writable = {
        physical: index
        for physical, index in found.items()
        if len(found) == 1 or index["aliases"].get(name, {}).get("is_write_index")
    }
    if len(writable) != 1 or any(index.get("data_stream") for index in writable.values()):
        raise InvalidInput(
            f"{excerpt(name)} stands for several indices and none of them is its write index, or for a "
            "data stream; name one index"
        )
    return next(iter(writable.items()))
