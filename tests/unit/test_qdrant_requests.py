"""What is asked of Qdrant: ids, payloads, conditions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from qdrant_client import grpc, models
from qdrant_client.local.payload_filters import check_filter

from samespace import Document, Index, Layout, Parent, everything, field
from samespace.documents import encode_metadata
from samespace.errors import InvalidInput
from samespace.filters import Filter, matches
from samespace.space import EmbeddingSpace
from samespace.stores.qdrant import collection, packing, requests
from samespace.stores.qdrant.adopted import AdoptedRows
from samespace.stores.qdrant.requests import OwnRows, Point
from samespace.testing.corpus import FILTER_DOCUMENTS, FILTERS, HOSTILE
from samespace.testing.strategies import filters

SPACE = EmbeddingSpace(model="m", dimensions=3)
OWN = OwnRows()


def payload(document: Document) -> dict[str, Any]:
    """A document's payload, of version v."""
    spelt = OWN.payload(document, encode_metadata(document.metadata), "v")
    return requests.plain(spelt)


PAYLOADS = [(document, payload(document)) for document in FILTER_DOCUMENTS]


def found(where: Filter) -> list[str]:
    """The ids whose payload passes, as Qdrant's client evaluates conditions."""
    condition = OWN.condition(where)
    return [
        document.id
        for document, payload in PAYLOADS
        if check_filter(condition, payload, requests.point_id(document.id), {})
    ]


def expected(where: Filter) -> list[str]:
    return [
        document.id
        for document in FILTER_DOCUMENTS
        if matches(
            where,
            id=document.id,
            metadata=document.metadata,
            parent=document.parent.id if document.parent else None,
        )
    ]


def depth(condition: Any) -> int:
    """How many filters are in one another."""
    if not isinstance(condition, models.Filter):
        return 0
    inner = [*(condition.must or []), *(condition.should or []), *(condition.must_not or [])]
    return 1 + max((depth(part) for part in inner), default=0)


# Ids


def test_a_documents_id_is_hashed_into_a_uuid_for_good() -> None:
    assert requests.point_id("a1") == "f55ff16f-66f4-5360-a66b-95db6f8fec01"


def test_a_source_is_of_id_and_text() -> None:
    made = {requests.source_of(*pair) for pair in (("a", "b"), ("b", "a"), ("a", "c"), ("ab", ""))}
    assert {len(source) for source in made} == {32}
    assert len(made) == 4


@pytest.mark.parametrize(
    ("text", "id"),
    [
        ("0", 0),
        ("18446744073709551615", 2**64 - 1),
        ("f55ff16f-66f4-5360-a66b-95db6f8fec01", "f55ff16f-66f4-5360-a66b-95db6f8fec01"),
    ],
)
def test_a_points_id_has_one_spelling(text: str, id: object) -> None:
    assert requests.native_id(text) == id


@pytest.mark.parametrize(
    "text",
    [
        "",
        "01",
        "1.0",
        "-1",
        "18446744073709551616",
        "F55FF16F-66F4-5360-A66B-95DB6F8FEC01",
        "x",
        "٣",
    ],
)
def test_other_spellings_are_no_ids(text: str) -> None:
    assert requests.native_id(text) is None


def test_after_the_last_integer_comes_the_first_uuid() -> None:
    assert requests.after(7) == 8
    assert requests.after(2**64 - 1) == "00000000-0000-0000-0000-000000000000"
    assert requests.after("00000000-0000-0000-0000-0000000000ff") == (
        "00000000-0000-0000-0000-000000000100"
    )


# Documents


def test_a_document_is_read_from_its_payload() -> None:
    document = Document(
        "a#1", "text", {"k": [1, None]}, parent=Parent("a", 1, (0, 4)), embed_text="title: text"
    )
    point = Point(requests.point_id("a#1"), payload(document))
    assert OWN.document(point, OWN.text_of(point)) == document


def test_a_point_that_a_stranger_put_in_is_read_as_far_as_it_goes() -> None:
    for payload in ({}, {"text": 7, "metadata": [], "samespace": "x", "samespace_slots": 1}):
        point = Point(7, payload)
        assert OWN.document(point, OWN.text_of(point)) == Document("7", "")
        assert requests.SlotData.of(point, SPACE) == requests.SlotData()


# Conditions


@pytest.mark.parametrize("name", FILTERS)
def test_a_condition_finds_what_the_filter_means(name: str) -> None:
    assert found(FILTERS[name]) == expected(FILTERS[name])


@settings(max_examples=200, deadline=None, database=None)
@given(where=filters())
def test_any_condition_finds_what_its_filter_means(where: Filter) -> None:
    assert found(where) == expected(where)


def test_the_deepest_filter_fits_into_a_message() -> None:
    deepest = OWN.condition(FILTERS["as deep as can be"])
    assert depth(deepest) <= 27
    data = packing.message_filter(deepest).SerializeToString()
    assert grpc.Filter.FromString(data).SerializeToString() == data


def test_strings_are_values_of_a_condition_and_never_a_path() -> None:
    for text in HOSTILE:
        condition = OWN.condition((field(text) == text) & (field.parent == text))
        keys = {part.key for part in condition.must}  # type: ignore[union-attr]
        assert keys == {"samespace.terms", "samespace.parent"}


def test_every_is_flat_and_keeps_alternatives_apart() -> None:
    a, b, c, d = (requests.equals(key, "x") for key in "abcd")
    both = requests.every(requests.any_of([a, b]), requests.any_of([c, d]))
    assert both.should == [*a.must, *b.must]  # type: ignore[misc]
    assert both.must == [models.Filter(should=[*c.must, *d.must])]  # type: ignore[misc]


def test_what_contradicts_itself_has_one_more_condition() -> None:
    condition = OWN.condition(field("k").exists() & ~field("k").exists())
    assert requests.NEVER in condition.must_not  # type: ignore[operator]
    assert OWN.condition(field("k").exists()).must_not is None


# Vectors


def test_a_vector_is_sent_as_its_bytes() -> None:
    vector = np.arange(300, dtype=np.float32) / np.float32(7)
    message = packing.message_vectors([Point(1, vectors={"x": vector})])[0]
    dense = message.vectors.vectors.vectors["x"].dense
    np.testing.assert_array_equal(np.asarray(dense.data, np.float32), vector)


def test_a_vector_is_read_from_its_bytes() -> None:
    vector = np.arange(300, dtype=np.float32) / np.float32(7)
    output = grpc.VectorOutput(dense=grpc.DenseVector(data=vector.tolist()))
    named = grpc.NamedVectorsOutput(vectors={"x": output})
    message = grpc.RetrievedPoint(id=grpc.PointId(num=1), vectors=grpc.VectorsOutput(vectors=named))
    point = packing.point_of_message(message)
    np.testing.assert_array_equal(point.vectors["x"], vector)
    assert (point.id, point.payload) == (1, {})


def test_vectors_of_other_kinds_are_left_out() -> None:
    record = {"id": 1, "payload": None, "vector": {"x": [1.0], "m": [[1.0]], "s": {"indices": []}}}
    assert list(packing.point_of_json(record).vectors) == ["x"]


# Adopted collections


def adopted(**changes: Any) -> AdoptedRows:
    values: dict[str, Any] = {"id": "id", "text": "body", "slot": "", "metadata": "*"}
    return AdoptedRows(Layout(**{**values, **changes}))


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (field("k") != 1, "!="),
        (field("k") >= "2020-01-01", "date-times"),
        (field("k") > 2**53, "floats"),
        (field("k") == -(2**60), "floats"),
        (field('a"b') == 1, "quote"),
        (field("a", "b\\") == 1, "backslash"),
        (field.parent == "p", "Layout.parent"),
    ],
)
def test_what_an_adopted_collection_cannot_find_is_refused_by_name(
    where: Filter, words: str
) -> None:
    for asked in (where, ~where, where | everything):
        with pytest.raises(InvalidInput, match=words):
            adopted().condition(asked)


def test_metadata_is_all_of_the_payload_or_an_object_or_keys() -> None:
    payload = {"body": "text", "doc": "p", "k": 1, "meta": {"l": 2}, "samespace_slots": {}}
    point = Point(1, payload)
    assert adopted(parent="doc").metadata_of(point) == {"k": 1, "meta": {"l": 2}}
    assert adopted(metadata="meta").metadata_of(point) == {"l": 2}
    assert adopted(metadata=("k", "none")).metadata_of(point) == {"k": 1}
    assert adopted(metadata=()).metadata_of(point) == {}


@pytest.mark.parametrize(
    ("metadata", "key"), [("*", '"a.b"."c"'), (("a.b",), '"a.b"."c"'), ("m", '"m"."a.b"."c"')]
)
def test_paths_are_quoted(metadata: Any, key: str) -> None:
    condition: Any = adopted(metadata=metadata).condition(field("a.b", "c") == "x")
    assert condition.should[0].key == key


# Slots


def test_an_index_is_mapped_and_said_to_be_what_it_is() -> None:
    for quantization in (None, "int8", "binary"):
        params = collection.vector_params(SPACE, Index(quantization=quantization))
        shape = collection.VectorShape.of(params)
        assert (shape.size, shape.quantization, shape.in_graph) == (3, quantization, True)
        wider = shape.search_params().quantization
        assert (wider.oversampling if wider else None) == {None: None, "int8": 2, "binary": 8}[
            quantization
        ]
    flat = collection.VectorShape.of(collection.vector_params(SPACE, Index(kind="flat")))
    assert not flat.in_graph
    assert flat.search_params().exact


@pytest.mark.parametrize(
    ("metric", "given", "cosine"),
    [("Cosine", 0.5, 0.5), ("Dot", 1.0000002, 1.0), ("Euclid", 0.0, 1.0), ("Euclid", 2.0, -1.0)],
)
def test_a_score_is_a_cosine(metric: str, given: float, cosine: float) -> None:
    shape = collection.VectorShape(3, models.Distance(metric))
    assert shape.score(given) == pytest.approx(cosine)


def test_rows_with_the_same_metadata_share_what_is_made_of_it_and_nothing_else() -> None:
    one, other = (OWN.payload(Document(id, id), b'{"n":1}', "v") for id in "ab")
    assert one["metadata"] is other["metadata"]
    assert one["samespace"]["terms"] is other["samespace"]["terms"]
    assert one["samespace"]["id"] == "a"
    assert type(payload(Document("c", "x", {"n": 1.0}))["metadata"]["n"]) is float
