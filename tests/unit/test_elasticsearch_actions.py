"""Bulk actions are read as the client's helpers read them, and none is taken for another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
from elasticsearch.helpers import expand_action
from hypothesis import given
from hypothesis import strategies as st

from samespace.errors import InvalidInput, SamespaceError, SpaceMismatch
from samespace.guard import SlotRecord, SpaceRecord
from samespace.index import Index
from samespace.layout import Layout
from samespace.space import EmbeddingSpace
from samespace.stores.elasticsearch import dsl
from samespace.stores.elasticsearch.actions import Prepared, Target, index_named, read
from samespace.stores.elasticsearch.shape import Shape, own_layout
from samespace.testing.backends import UNLIKE, V3, TaskBackend

VERSION = (9, 4)
HOSTILE = {"_op_type": "delete", "_index": "other", "_id": "x", "routing": "r", "pipeline": "p"}


def record_of(*spaces: EmbeddingSpace, layout: Layout | None = None) -> SpaceRecord:
    slots = [SlotRecord(name=space.id, space=space) for space in spaces]
    if layout is not None:
        slots[0] = replace(slots[0], name=layout.slot)
    return SpaceRecord(slots=tuple(slots), layout=None if layout is None else layout.to_dict())


def own(*spaces: EmbeddingSpace, claimed: EmbeddingSpace | None = None) -> Target:
    record = record_of(V3, *spaces)
    mapping = dsl.own_mapping(V3, Index(), record)
    for space in spaces:
        mapping["properties"] |= dsl.slot_mapping(space, Index())
    shape = Shape(
        collection="manuals", name="manuals", layout=own_layout(V3), own=True,
        mapping=mapping, aliases=frozenset(),
    )  # fmt: skip
    return Target.of(shape, record, V3, text_field="body", claimed=claimed)


def adopted(*, slot: str = "embedding", claimed: EmbeddingSpace | None = None) -> Target:
    layout = Layout(id="_id", text="body", slot=slot, metadata=("lang",))
    vectors = {"type": "dense_vector", "dims": V3.dimensions}
    properties: dict[str, Any] = {
        "body": {"type": "text"}, "lang": {"type": "keyword"}, "image": vectors,
        "curve": {"type": "float"},
    }  # fmt: skip
    head, _, rest = slot.partition(".")
    properties[head] = {"properties": {rest: vectors}} if rest else vectors
    shape = Shape(
        collection="chunks", name="chunks", layout=layout, own=False,
        mapping={"properties": properties}, aliases=frozenset(),
    )  # fmt: skip
    record = record_of(V3, layout=layout)
    return Target.of(shape, record, V3, text_field=None, claimed=claimed)


def prepared(data: object, target: Target) -> Prepared:
    made = target.prepare(read(data, index="manuals"), 0)
    drafts = list(made.unembedded())
    vectors = TaskBackend().embed_documents([draft.text or "" for draft in drafts] or ["none"])
    for draft, vector in zip(drafts, vectors, strict=False):
        draft.vector = vector
    return made


def sent(data: object, target: Target | None = None) -> tuple[str, dict[str, Any], Any]:
    """Kind, action and body as the helper of the client understands what the hook yields."""
    header, body = expand_action(prepared(data, target or own()).made(VERSION))
    ((kind, action),) = header.items()
    assert isinstance(body, dict | None)
    return kind, action, body


def test_a_document_in_either_form_becomes_one_of_ours() -> None:
    flat = {"_id": "a", "body": "some text", "lang": "en"}
    enclosed = {"_id": "a", "_source": {"body": "some text", "lang": "en"}}
    kind, action, body = sent(flat)
    assert (kind, action) == ("index", {"_id": "a", "_index": "manuals"})
    assert body == sent(enclosed)[2]
    assert body["id"] == "a"
    assert body["text"] == "some text"
    assert body["metadata"] == [{"lang": "en"}]
    assert body["terms"] == ['["lang"]?', '["lang"]="en"', '["lang"]!="en"']
    assert body[dsl.source_name(V3.id)] == dsl.source_of("a", "some text")
    assert isinstance(body[V3.id], str)


def test_an_older_server_is_sent_lists_of_numbers() -> None:
    made = prepared({"_id": "a", "body": "some text"}, own()).made((8, 15))
    assert len(made["_source"][V3.id]) == V3.dimensions
    assert type(made["_source"][V3.id][0]) is float


@pytest.mark.parametrize("target", [own(), adopted()])
def test_what_a_document_says_is_only_data(target: Target) -> None:
    document = {"body": "some text", **HOSTILE, "lang": HOSTILE}
    kind, action, body = sent({"_id": "a", "_index": "chunks", "_source": document}, target)
    assert (kind, action) == ("index", {"_id": "a", "_index": "chunks"})
    kept = body["metadata"][0] if target.shape.own else body
    assert {key: kept[key] for key in HOSTILE} == HOSTILE
    assert kept["lang"] == HOSTILE


@pytest.mark.parametrize("key", ["routing", "version", "pipeline", "if_seq_no"])
def test_a_key_of_a_flat_document_that_could_be_the_actions_is_refused(key: str) -> None:
    with pytest.raises(InvalidInput, match="under _source"):
        read({"_id": "a", "body": "some text", key: 1}, index="manuals")
    action = read({"_id": "a", "_source": {"body": "some text"}, key: 1}, index="manuals")
    assert action.parameters == {key: 1}


def test_an_update_names_its_options_in_either_form() -> None:
    flat = {"_op_type": "update", "_id": "a", "doc": {"lang": "de"}, "retry_on_conflict": 3}
    kind, action, body = sent({**flat, "detect_noop": False, "_source": ["lang"]}, adopted())
    assert (kind, action["retry_on_conflict"]) == ("update", 3)
    assert body == {"doc": {"lang": "de"}, "detect_noop": False, "_source": ["lang"]}


def test_a_delete_stays_as_it_is() -> None:
    for extra in ({}, {"_score": 1.0, "_source": {"body": "a hit's"}}):
        kind, action, body = sent({"_op_type": "delete", "_id": "a", **extra})
        assert (kind, action, body) == ("delete", {"_id": "a", "_index": "manuals"}, None)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("raw json", "an action is a dict"),
        ({"_op_type": "drop", "_id": "a"}, "_op_type"),
        ({"_op_type": ["index"], "_id": "a"}, "_op_type"),
        ({"body": "some text"}, "no _id"),
        ({"_id": "", "body": "some text"}, "_id"),
        ({"_id": True, "body": "some text"}, "_id"),
        ({"_id": "é" * 257, "body": "some text"}, "512 bytes"),
        ({"_id": "a", "_index": "*", "body": "some text"}, "collection"),
        ({"_id": "a", "_index": "a,b", "body": "some text"}, "collection"),
        ({"_id": "a", "_index": ["manuals"], "body": "some text"}, "collection"),
        ({"_id": "a", "_source": {"body": "some text"}, "lang": "en"}, "beside _source"),
        ({"_op_type": "delete", "_id": "a", "body": "some text"}, "under _source"),
        ({"_op_type": "update", "_id": "a", "script": "ctx.op = 'none'"}, "script"),
        ({"_op_type": "update", "_id": "a", "doc": {}, "lang": "de"}, "beside doc"),
        ({"_op_type": "update", "_id": "a", "doc": "text"}, "doc is"),
        ({"_id": "a", "lang": "en"}, "no 'body'"),
        ({"_id": "a", "body": None}, "no 'body'"),
        ({"_id": "a", "body": 3}, "'body' is 3"),
        ({"_id": "a", "body": " \n"}, "blank"),
        ({"_id": "a", "body": "nul \x00"}, "NUL"),
        ({"_op_type": "create", "_id": "a", "body": ""}, "blank"),
        ({"_op_type": "update", "_id": "a", "doc": {"body": ""}}, "blank"),
        ({"_op_type": "update", "_id": "a", "doc": {"body": None}}, "no 'body'"),
        ({"_op_type": "update", "_id": "a", "doc": {"lang": "de"}}, "update_metadata"),
        ({"_op_type": "update", "_id": "a", "doc": {}, "doc_as_upsert": True}, "no 'body'"),
        ({"_id": "a", "body": "some text", "year": 2**63}, "int64"),
        ({"_id": "a", "body": "some text", "_routing": "r"}, "routing"),
        ({"_id": "a", "body": "some text", V3.id: [0.0] * 64}, "claimed="),
        ({"_id": "a", "body": "some text", "embedding": [0.1] * 64}, "looks like a vector"),
        ({"_id": "a", "body": "some text", "embedding": [0.1] * 768}, "looks like a vector"),
        ({"_id": "a", "body": "some text", "v": {"w": np.zeros(3)}}, "looks like a vector"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused(data: object, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        prepared(data, own())


def test_a_changed_text_empties_the_slots_that_it_is_not_written_to() -> None:
    update = {"_op_type": "update", "_id": "a", "doc": {"body": "new text"}}
    _, _, body = sent(update, own(UNLIKE))
    made = body["doc"]
    assert isinstance(made.pop(V3.id), str)
    assert made == {
        "text": "new text",
        "embed_text": None,
        dsl.source_name(V3.id): dsl.source_of("a", "new text"),
        UNLIKE.id: None,
        dsl.source_name(UNLIKE.id): None,
    }


def test_an_upsert_stores_a_whole_document_where_there_is_no_row() -> None:
    update = {"_op_type": "update", "_id": "a", "doc": {"body": "new text"}, "doc_as_upsert": True}
    _, _, body = sent(update)
    assert "doc_as_upsert" not in body
    whole = sent({"_id": "a", "body": "new text"})[2]
    assert isinstance(body["upsert"].pop(V3.id), str)
    assert body["upsert"] == {name: v for name, v in whole.items() if name != V3.id}
    given = {"_op_type": "update", "_id": "a", "doc": {"body": "new"}, "upsert": {"body": "first"}}
    _, _, body = sent(given)
    assert (body["doc"]["text"], body["upsert"]["text"]) == ("new", "first")
    assert body["doc"][V3.id] != body["upsert"][V3.id]


def test_an_adopted_document_gets_a_vector_and_stays_as_it_is() -> None:
    document = {"body": "some text", "lang": "en", "curve": [0.1] * 200, "note": {"a": [1]}}
    before = orjson.dumps(document)
    _, _, body = sent({"_id": "a", "_index": "chunks", "_source": document}, adopted())
    assert isinstance(body.pop("embedding"), str)
    assert body == document
    assert orjson.dumps(document) == before
    with pytest.raises(InvalidInput, match="'image' looks like a vector"):
        prepared({"_id": "a", **document, "image": [0.5] * 64}, adopted())


def test_an_update_may_empty_a_slot() -> None:
    update = {"_op_type": "update", "_id": "a", "doc": {"lang": "de", "embedding": None}}
    assert sent(update, adopted())[2] == {"doc": {"lang": "de", "embedding": None}}
    update["doc"] = {"body": "new text", "embedding": None}
    assert isinstance(sent(update, adopted())[2]["doc"]["embedding"], str)


def test_a_slot_in_an_object_is_filled_there() -> None:
    document = {"body": "some text", "vectors": {"kept": 1, "v3": None}}
    _, _, body = sent({"_id": "a", "_source": document}, adopted(slot="vectors.v3"))
    assert isinstance(body["vectors"].pop("v3"), str)
    assert body["vectors"] == {"kept": 1}


@pytest.mark.parametrize("make", [own, adopted])
def test_a_vector_passes_only_as_the_claimed_space(make: Any) -> None:
    vector = TaskBackend().embed_documents(["some text"])[0]
    slot = make().slot.name
    data = {"_id": "a", "_source": {"body": "some text", slot: vector.tolist()}}
    with pytest.raises(InvalidInput, match="claimed="):
        prepared(data, make())
    target = make(claimed=V3)
    assert not list(target.prepare(read(data, index="manuals"), 0).unembedded())
    assert sent(data, target)[2][slot] == dsl.packed(vector)
    for bad in ([0.0] * 64, [float("nan")] * 64, vector[:32].tolist(), (2 * vector).tolist()):
        with pytest.raises(InvalidInput):
            prepared({"_id": "a", "_source": {"body": "some text", slot: bad}}, target)
    update = {"_op_type": "update", "_id": "a", "doc": {slot: vector.tolist()}}
    with pytest.raises(InvalidInput, match="the text that it was made from"):
        prepared(update, target)


def test_a_vector_claimed_for_another_slot_is_refused() -> None:
    vector = TaskBackend().embed_documents(["some text"])[0].tolist()
    carrying = {"_id": "a", "_source": {"body": "some text", V3.id: vector}}
    with pytest.raises(SpaceMismatch):
        prepared(carrying, own(UNLIKE, claimed=UNLIKE))
    with pytest.raises(SpaceMismatch):
        own(claimed=UNLIKE)


def test_another_space_and_another_text_field_are_refused() -> None:
    ours = adopted()
    with pytest.raises(SpaceMismatch):
        Target.of(ours.shape, ours.record, UNLIKE, text_field=None, claimed=None)
    with pytest.raises(InvalidInput, match="'body'"):
        Target.of(ours.shape, ours.record, V3, text_field="content", claimed=None)


def test_of_an_aliass_indexes_the_write_index_is_meant() -> None:
    plain: dict[str, Any] = {"aliases": {"all": {}}}
    writable: dict[str, Any] = {"aliases": {"all": {"is_write_index": True}}}
    assert index_named({"one": plain}, "all") == ("one", plain)
    assert index_named({"one": plain, "two": writable}, "all")[0] == "two"
    for found in ({"one": plain, "two": plain}, {"one": {**plain, "data_stream": "all"}}):
        with pytest.raises(InvalidInput, match="several indices"):
            index_named(found, "all")


KEYS = st.sampled_from(
    ["_op_type", "_index", "_id", "_routing", "routing", "doc", "upsert", "body", "script",
     "doc_as_upsert", "_source", "version", "pipeline", "lang", "_score"]
)  # fmt: skip
VALUES = st.sampled_from(
    ["index", "update", "delete", "other", "manuals", "some text", True, 3, None]
) | st.dictionaries(KEYS, st.sampled_from(["delete", "some text", "other"]), max_size=3)


@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_whatever_an_action_is_its_kind_and_target_are_those_it_names(data: dict[str, Any]) -> None:
    try:
        kind, action, body = sent(data)
    except SamespaceError:
        return
    assert kind == data.get("_op_type", "index")
    assert action["_index"] == data.get("_index", "manuals")
    assert action["_id"] == str(data["_id"])
    assert action.keys() <= {"_index", "_id", "version", "pipeline", "routing"}
    assert body is None or body.keys() <= {"doc", "upsert", "_source", *dsl.PARTS, "terms", *SLOT}


SLOT = {V3.id, dsl.source_name(V3.id)}
