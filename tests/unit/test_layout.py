"""Layouts: where things are in somebody else's collection, and how that is recorded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samespace.errors import InvalidInput
from samespace.filters import Filter, equalities, everything, field
from samespace.layout import Layout, TextQuery

BIGINT_TABLE = Layout(
    id="chunk_id",
    text="body",
    slot="embedding",
    metadata=("lang", "year"),
    parent="doc_id",
    order="position",
    scope=(field("tenant") == "t1") & field("kind").in_(["manual", "faq"]),
)
RECORDED = {
    "id": "chunk_id",
    "text": "body",
    "slot": "embedding",
    "metadata": ["lang", "year"],
    "parent": "doc_id",
    "order": "position",
    "scope": {"tenant": ["t1"], "kind": ["manual", "faq"]},
}


def layout(**changes: Any) -> Layout:
    return Layout(**{"id": "id", "text": "text", "slot": "embedding", **changes})


def texts_by_id(ids: Sequence[str]) -> Sequence[str]:
    return [f"text of {id}" for id in ids]


# The record


def test_a_layout_is_recorded_as_plain_json() -> None:
    assert BIGINT_TABLE.to_dict() == RECORDED


def test_a_record_is_read_back() -> None:
    assert Layout.from_dict(json.loads(json.dumps(RECORDED))) == BIGINT_TABLE


IDENTIFIERS = st.text(min_size=1, max_size=15).filter(lambda name: "\x00" not in name)
SCALARS = st.text("ab", min_size=1) | st.integers(-5, 5) | st.booleans()
CONDITIONS = st.dictionaries(
    st.sampled_from("abc"), st.lists(SCALARS, min_size=1, max_size=2), min_size=1
)


def joined(conditions: dict[str, list[Any]]) -> Filter:
    first, *others = (field(key).in_(values) for key, values in conditions.items())
    for other in others:
        first = first & other
    return first


@given(
    st.builds(
        Layout,
        id=IDENTIFIERS,
        text=IDENTIFIERS,
        slot=st.sampled_from(("", 'The "vectors", 100%')),
        metadata=IDENTIFIERS | st.lists(IDENTIFIERS, max_size=3),
        parent=st.none() | IDENTIFIERS,
        order=st.none() | IDENTIFIERS,
        scope=st.none() | CONDITIONS.map(joined),
    )
)
def test_every_layout_survives_its_record(layout: Layout) -> None:
    again = Layout.from_dict(json.loads(json.dumps(layout.to_dict())))
    assert again.to_dict() == layout.to_dict()
    assert (again.scope is None) == (layout.scope is None)
    if layout.scope is not None and again.scope is not None:
        assert equalities(again.scope) == equalities(layout.scope)


@pytest.mark.parametrize("text", [TextQuery("title || body"), texts_by_id], ids=["query", "lookup"])
def test_a_text_that_is_no_column_is_recorded_as_external(text: Any) -> None:
    recorded = layout(text=text).to_dict()
    assert recorded["text"] is None
    assert Layout.from_dict(recorded, text=text) == layout(text=text)
    with pytest.raises(InvalidInput, match="pass layout= with the same text function"):
        Layout.from_dict(recorded)


@pytest.mark.parametrize(
    "recorded",
    [
        {},
        None,
        [],
        "layout",
        {**RECORDED, "colour": "red"},
        {key: value for key, value in RECORDED.items() if key != "id"},
        {**RECORDED, "id": 5},
        {**RECORDED, "text": 5},
        {**RECORDED, "metadata": None},
        {**RECORDED, "metadata": 5},
        {**RECORDED, "scope": ["tenant"]},
        {**RECORDED, "scope": {"tenant": "t1"}},
        {**RECORDED, "scope": {"tenant": [None]}},
    ],
    ids=str,
)
def test_a_record_that_is_no_layout_is_refused(recorded: Any) -> None:
    with pytest.raises(InvalidInput):
        Layout.from_dict(recorded)


def test_a_name_may_be_as_long_as_the_store_has_it() -> None:
    assert Layout(id="x" * 200, text="body", slot="vector").id == "x" * 200


# Bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": ""}, "Layout.id '' is not an identifier"),
        ({"id": None}, "Layout.id None"),
        ({"id": "a\x00"}, "has a NUL"),
        ({"text": ""}, "Layout.text ''"),
        ({"text": None}, "name a column or pass a function"),
        ({"slot": "\x00"}, "Layout.slot"),
        ({"metadata": ""}, "Layout.metadata"),
        ({"metadata": ("lang", "")}, "Layout.metadata ''"),
        ({"parent": ""}, "Layout.parent"),
        ({"order": 5}, "Layout.order 5"),
        ({"scope": everything}, "cannot be a scope"),
        ({"scope": field("tenant") != "t1"}, "cannot be a scope"),
        ({"scope": field.id == "a"}, "cannot be a scope"),
        ({"scope": (field("t") == "1") & (field("t") == "2")}, "pins a field twice"),
    ],
    ids=ascii,
)
def test_what_is_no_layout(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        layout(**changes)


# Forms


def test_metadata_is_one_json_column_or_several_plain_ones() -> None:
    assert layout().metadata_columns == ()
    assert layout(metadata=["lang", "year"]).metadata_columns == ("lang", "year")
    assert layout(metadata=["lang"]) == layout(metadata=("lang",))
    assert Layout.from_dict(layout(metadata=[]).to_dict()).metadata == ()


def test_the_unnamed_vector_is_a_slot() -> None:
    assert layout(slot="").slot == ""


def test_existing_columns_may_have_any_name() -> None:
    assert layout(id='say "id"', slot="größe", parent="Über Id").id == 'say "id"'


def test_langchains_tables() -> None:
    store = Layout.langchain_pgvectorstore()
    assert (store.id, store.text, store.slot, store.metadata) == (
        "langchain_id",
        "content",
        "embedding",
        "langchain_metadata",
    )
    older = Layout.langchain_pgvector(collection_id="b7e1")
    assert (older.id, older.text, older.metadata) == ("id", "document", "cmetadata")
    assert older.scope == (field("collection_id") == "b7e1")
    assert Layout.from_dict(older.to_dict()) == older


def test_vectors_are_no_metadata() -> None:
    with pytest.raises(InvalidInput, match="'e', which holds the vectors; leave it out"):
        Layout(id="id", text="text", slot="e", metadata=("lang", "e"))


def test_langchains_other_stores() -> None:
    assert Layout.langchain_qdrant() == Layout(
        id="id", text="page_content", slot="", metadata="metadata"
    )
    assert Layout.langchain_elasticsearch() == Layout(
        id="_id", text="text", slot="vector", metadata="metadata"
    )
    assert Layout.langchain_elasticsearch(metadata=()).metadata_columns == ()
