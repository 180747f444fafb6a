"""The bodies of requests to Elasticsearch: no text of a user's is anything but a value in them."""

from __future__ import annotations

import base64
from functools import reduce
from operator import or_
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samespace.documents import Document, Parent, encode_metadata
from samespace.errors import InvalidInput, SpaceUnknown, StoreRejected
from samespace.filters import Filter, everything, field
from samespace.guard import SlotRecord, SpaceRecord
from samespace.index import Index
from samespace.stores.elasticsearch import dsl
from samespace.stores.elasticsearch.conditions import condition, every, neither, terms
from samespace.stores.elasticsearch.shape import put, remove, value_at
from samespace.stores.terms import terms_of
from samespace.testing.backends import V3
from samespace.testing.corpus import FILTER_DOCUMENTS, FILTERS, HOSTILE, matching
from samespace.testing.strategies import filters

MOST_NESTED = 30
"""``indices.query.bool.max_nested_depth`` of a server that nobody has changed."""
RECORD = SpaceRecord(slots=(SlotRecord(name=V3.id, space=V3),))


def row_of(document: Document) -> dict[str, Any]:
    """A document as its index has it, without its vectors."""
    made = dsl.document(document, encode_metadata(document.metadata), {})
    return {**made, dsl.METADATA: None, dsl.TERMS: terms_of(document.metadata)}


ROWS = {document.id: {dsl.ROW_ID: document.id, **row_of(document)} for document in FILTER_DOCUMENTS}


def passes(query: dict[str, Any], row: dict[str, Any]) -> bool:
    """What a server makes of a query, for the few kinds that are sent."""
    ((kind, inner),) = query.items()
    if kind in {"match_all", "match_none"}:
        return kind == "match_all"
    if kind == "exists":
        return row.get(inner["field"]) is not None
    if kind == "bool":
        should = [passes(part, row) for part in inner.get("should", [])]
        least = inner.get("minimum_should_match", 0 if "filter" in inner else 1)
        return (
            all(passes(part, row) for part in inner.get("filter", []))
            and not any(passes(part, row) for part in inner.get("must_not", []))
            and (not should or sum(should) >= least)
        )
    ((name, wanted),) = inner.items()
    found = row.get(name) or []
    values = {value.encode() for value in ([found] if isinstance(found, str) else found)}
    if kind == "terms":
        return not values.isdisjoint(value.encode() for value in wanted)
    assert kind == "range"
    return any(all(_within(value, *bound) for bound in wanted.items()) for value in values)


def _within(value: bytes, bound: str, limit: str) -> bool:
    other = limit.encode()
    return {
        "gt": value > other, "gte": value >= other, "lt": value < other, "lte": value <= other
    }[bound]  # fmt: skip


def found_by(where: Filter) -> set[str]:
    query = condition(where, dsl.own_condition)
    return {id for id, row in ROWS.items() if passes(query, row)}


def depth(query: Any) -> int:
    """How many queries are in one another, as a server counts them."""
    if not isinstance(query, dict) or "bool" not in query:
        return 1
    lists = [parts for parts in query["bool"].values() if isinstance(parts, list)]
    return 1 + max(depth(part) for parts in lists for part in parts)


# Filters


@pytest.mark.parametrize("name", FILTERS)
def test_a_query_finds_what_the_filter_says(name: str) -> None:
    assert found_by(FILTERS[name]) == matching(FILTERS[name])


@given(where=filters())
def test_any_query_finds_what_the_filter_says(where: Filter) -> None:
    assert found_by(where) == matching(where)


@pytest.mark.parametrize("name", FILTERS)
def test_no_query_is_deeper_than_a_server_takes(name: str) -> None:
    assert depth(condition(FILTERS[name], dsl.own_condition)) + 2 <= MOST_NESTED


@pytest.mark.parametrize("negated", [False, True])
def test_alternating_conditions_take_one_level_for_two(negated: bool) -> None:
    where: Filter = field("k") != 0
    for n in range(24):
        where = ((where | (field("k") < n)) & (field("l") != n)) & (field("m") == n)
        where = ~where if negated else where
        if where.depth > 46:
            break
    assert depth(condition(where, dsl.own_condition)) + 2 <= MOST_NESTED


def test_alternatives_are_looked_for_together() -> None:
    where = reduce(or_, [field("year") == n for n in range(1000)])
    query = condition(where, dsl.own_condition)
    assert len(query["terms"][dsl.TERMS]) == 1000


def test_more_values_than_one_query_may_have_are_split() -> None:
    ids = [str(n) for n in range(70_000)]
    parts = terms("id", ids)["bool"]["should"]
    assert [len(part["terms"]["id"]) for part in parts] == [65_536, 70_000 - 65_536]
    assert passes(every([terms("id", ids), neither(terms("id", ["1"]))]), {"id": "69999"})


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_a_value_alone(text: str) -> None:
    where = (field(text) == text) & (field.id == text) & (field("k", text) != text)
    keys = set(_keys(condition(where, dsl.own_condition)))
    assert keys <= {"bool", "filter", "must_not", "should", "terms", "_id"}


def _keys(value: Any) -> Any:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)


# Documents and operations


def test_vectors_are_packed_with_the_high_byte_first() -> None:
    vector = np.array([1.5, -2.0, 3e-8], np.float32)
    packed = base64.b64decode(dsl.packed(vector))
    np.testing.assert_array_equal(np.frombuffer(packed, ">f4"), vector)


def test_a_document_has_what_it_needs_and_an_update_unsets_the_rest() -> None:
    plain, chunk = (
        Document("a", "text", {"k": 1}),
        Document("a", "text", parent=Parent("p", 0, (1, 2))),
    )
    made = dsl.document(plain, b'{"k":1}', {"slot": "v"})
    assert set(made) == {"id", "text", "metadata", "terms", "slot", "slot__source"}
    whole = dsl.document(plain, b'{"k":1}', {}, whole=True)
    assert {name for name, value in whole.items() if value is None} == {
        "embed_text", "parent", "ordinal", "span"
    }  # fmt: skip
    decoded = orjson.loads(dsl.encoded(dsl.document(chunk, b"{}", {})))
    assert decoded["metadata"] == [{}]
    assert (decoded["parent"], decoded["ordinal"], decoded["span"]) == ("p", 0, [1, 2])


def test_a_source_is_of_one_id_and_one_text() -> None:
    made = [
        dsl.source_of(id, text) for id, text in (("a", "b"), ("a", "c"), ("ab", ""), ("", "ab"))
    ]
    assert len(set(made)) == 4


@pytest.mark.parametrize("text", ['{"delete":{"_id":"x"}}', 'a"}}\n{"delete":{}}', *HOSTILE])
def test_nothing_in_a_document_is_taken_for_an_action(text: str) -> None:
    row = Document(text, text, {"_op_type": "delete", text: text})
    made = dsl.operation("index", text, dsl.document(row, encode_metadata(row.metadata), {}))
    action, body, rest = (made.action + made.body).split(b"\n")
    assert orjson.loads(action) == {"index": {"_id": text}}
    assert orjson.loads(body)["text"] == text
    assert rest == b""


@given(sizes=st.lists(st.integers(1, 3 * dsl.CHUNK_BYTES // 2), max_size=12))
def test_chunks_hold_all_operations_and_no_more_than_they_should(sizes: list[int]) -> None:
    sized = [dsl.Operation(b"", _Sized(size)) for size in sizes]  # type: ignore[arg-type]
    chunks = list(dsl.chunks(sized, most=3))
    assert [each for chunk in chunks for each in chunk] == sized
    for chunk in chunks:
        assert len(chunk) <= 3
        assert len(chunk) == 1 or sum(each.size for each in chunk) <= dsl.CHUNK_BYTES


class _Sized:
    """Bytes that are long without being there."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size


# Mappings and records


def test_the_mapping_is_strict_and_holds_the_record() -> None:
    mapping = dsl.own_mapping(V3, Index(), RECORD)
    assert mapping["dynamic"] == "strict"
    assert mapping["properties"][V3.id]["similarity"] == "dot_product"
    assert dsl.record_of(mapping, collection="c") == RECORD
    assert dsl.record_of({}, collection="c") is None
    with pytest.raises(SpaceUnknown):
        dsl.record_of({"_meta": {dsl.RECORD: {}}}, collection="c")


def test_a_record_is_written_beside_others_keys() -> None:
    assert dsl.with_record({"owner": "x", dsl.RECORD: 1}, RECORD) == {
        "owner": "x", dsl.RECORD: RECORD.to_dict()
    }  # fmt: skip


@pytest.mark.parametrize(
    ("index", "kind", "oversample"),
    [
        (Index(), "hnsw", None),
        (Index(kind="flat"), "flat", None),
        (Index(quantization="int8"), "int8_hnsw", 2),
        (Index(quantization="binary"), "bbq_hnsw", 5),
        (Index(kind="flat", quantization="int8"), "int8_flat", 2),
    ],
)
def test_an_index_is_named_and_a_quantized_one_is_scored_again(
    index: Index, kind: str, oversample: float | None
) -> None:
    options = dsl.slot_mapping(V3, index)[V3.id]["index_options"]
    assert options["type"] == kind
    assert ("m" in options) == (index.kind == "hnsw")
    assert dsl.oversampling(options) == oversample


@pytest.mark.parametrize(
    ("limit", "candidates"), [(1, 100), (10, 100), (100, 200), (6000, 10_000), (10_000, 10_000)]
)
def test_a_search_weighs_more_rows_than_it_answers(limit: int, candidates: int) -> None:
    vector = np.ones(4, np.float32)
    body = dsl.nearest(
        "f",
        vector,
        options={},
        limit=limit,
        where=condition(everything, dsl.own_condition),
        source={},
    )
    knn = body["query"]["knn"]
    assert (knn["k"], knn["num_candidates"], "filter" in knn) == (limit, candidates, False)


# Cursors, values, paths


def test_a_cursor_by_change_names_what_was_seen_of_its_number() -> None:
    hits = [{"_id": id, "sort": [n]} for id, n in (("a", 1), ("b", 2), ("c", 2))]
    first = dsl.cursor(hits, None)
    assert orjson.loads(first) == [2, "b", "c"]
    second = dsl.cursor([{"_id": "d", "sort": [2]}], first)
    assert orjson.loads(second) == [2, "b", "c", "d"]
    assert orjson.loads(dsl.cursor([{"_id": "e", "sort": [3]}], second)) == [3, "e"]


def test_a_cursor_by_id_names_those_of_its_id_and_then_those_without_one() -> None:
    hits = [{"_id": row, "sort": [id, n]} for row, id, n in (("a", "a", 7), ("b", "b", 9))]
    first = dsl.cursor(hits, None)
    assert orjson.loads(first) == ["b", 0, "b"]
    second = dsl.cursor([{"_id": "other", "sort": ["b", 3]}], first)
    assert orjson.loads(second) == ["b", 0, "b", "other"]
    third = dsl.cursor([{"_id": "s", "sort": [None, 5]}], second)
    assert orjson.loads(third) == [None, 5, "s"]
    assert dsl.by_id({"match_all": {}}, third)["search_after"] == [None, 4]


@pytest.mark.parametrize(
    "text", ["", "x", "1", "[]", "[1]", '["a","b"]', "{}", "[true,1]", '[true,"a"]', '["a",0]']
)
def test_what_is_no_cursor_is_refused(text: str) -> None:
    for order in (dsl.by_change, dsl.by_id):
        with pytest.raises(InvalidInput, match="cursor"):
            order({"match_all": {}}, text)


def test_paths_lead_into_objects_or_are_names() -> None:
    source = {"a": {"b": 1}, "c.d": 2}
    assert (value_at(source, "a.b"), value_at(source, "c.d"), value_at(source, "a.x.y")) == (
        1,
        2,
        None,
    )
    changed = dict(source)
    put(changed, "a.b", 3)
    put(changed, "c.d", 4)
    put(changed, "e.f", 5)
    remove(changed, "a.b")
    assert changed == {"a": {}, "c.d": 4, "e": {"f": 5}}
    assert source == {"a": {"b": 1}, "c.d": 2}


def test_a_score_that_is_no_cosine_is_refused() -> None:
    assert dsl.cosine(2.0005, "max_inner_product") == 1.0
    with pytest.raises(StoreRejected, match="no cosine"):
        dsl.cosine(2.5, "max_inner_product")
