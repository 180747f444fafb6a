"""Indexes that somebody else made: what is kept, what is refused, and by which name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from elasticsearch import Elasticsearch

from samespace import Document, ElasticsearchStore, Layout, Parent
from samespace.errors import (
    CollectionNotFound,
    InvalidInput,
    PartialWrite,
    SpaceMismatch,
    SpaceUnknown,
    StoreRejected,
    StoreUnavailable,
)
from samespace.filters import Filter, everything, field, matches
from samespace.guard import SlotState
from samespace.stores.elasticsearch import dsl
from samespace.testing.backends import UNLIKE, V3, TaskBackend
from samespace.testing.corpus import documents

NAME = "adopted"
OTHER = "adopted-2"
FILTERED = "adopted-filtered"
LAYOUT = Layout(id="_id", text="text", slot="vector", metadata="metadata")
RAW = replace(V3, normalized=False)


def _vectors(**options: Any) -> dict[str, Any]:
    return {"type": "dense_vector", "dims": 64, "similarity": "cosine", **options}


@pytest.fixture
def client(elasticsearch: str) -> Iterator[Elasticsearch]:
    with Elasticsearch(elasticsearch) as client:
        names = [NAME, OTHER, "adopted_own"]
        client.indices.delete(index=names, ignore_unavailable=True)
        yield client
        client.indices.delete(index=names, ignore_unavailable=True)


def make(client: Elasticsearch, name: str = NAME, **options: Any) -> None:
    """An index as a vector store of others makes it, with eight documents."""
    given = {"vector": _vectors(), **options.pop("fields", {})}
    meta = {"owner": "somebody"}
    client.indices.create(index=name, mappings={"_meta": meta, "properties": given}, **options)
    put(client, documents(8), name)


def put(client: Elasticsearch, rows: list[Document], name: str = NAME, **more: Any) -> None:
    vectors = TaskBackend().embed_documents([row.text for row in rows])
    for row, vector in zip(rows, vectors, strict=True):
        body = {"text": row.text, "metadata": row.metadata, "vector": vector.tolist(), **more}
        client.index(index=name, id=row.id, document=body)
    client.indices.refresh(index=name)


@pytest.fixture
def opened(client: Elasticsearch, elasticsearch: str) -> Iterator[ElasticsearchStore]:
    make(client)
    with open_store(elasticsearch) as store:
        yield store


def open_store(url: str, name: str = NAME, **options: Any) -> ElasticsearchStore:
    given: dict[str, Any] = {"backend": TaskBackend(), "layout": LAYOUT, **options}
    return ElasticsearchStore(url, collection=name, **given)


def source_of(client: Elasticsearch, id: str, **options: str) -> Any:
    found = client.perform_request(
        "GET",
        f"/{NAME}/_doc/{quote(id)}",
        params={"_source_exclude_vectors": "false", **options},
        headers={"accept": "application/json"},
    )
    return found.body["_source"]


# What is kept


def test_adopting_writes_one_key_of_meta_and_nothing_else(
    client: Elasticsearch, opened: ElasticsearchStore
) -> None:
    before = client.indices.get(index=NAME)[NAME]
    opened.adopt()
    after = client.indices.get(index=NAME)[NAME]
    meta = after["mappings"].pop("_meta")
    assert meta.pop("samespace")["slots"][0]["name"] == "vector"
    assert meta == before["mappings"].pop("_meta") == {"owner": "somebody"}
    assert after == before


def test_fields_that_the_layout_does_not_name_stay(
    client: Elasticsearch, opened: ElasticsearchStore
) -> None:
    put(client, documents(1), owner="somebody")
    opened.adopt()
    opened.upsert([Document("d0", "another text", {"k": 1})])
    assert source_of(client, "d0")["owner"] == "somebody"
    assert opened.get(["d0"]) == [Document("d0", "another text", {"k": 1})]
    opened.update_metadata({"d0": {"l": 2}})
    assert source_of(client, "d0")["owner"] == "somebody"
    assert opened.get(["d0"]) == [Document("d0", "another text", {"l": 2})]


def test_a_change_of_metadata_leaves_the_vector_as_it_was(
    client: Elasticsearch, opened: ElasticsearchStore
) -> None:
    opened.adopt()
    before = source_of(client, "d3")
    assert opened.update_metadata({"seen": True}, where=field("year") == 2003, merge=True) == 1
    after = source_of(client, "d3")
    assert after.pop("metadata") == {**before.pop("metadata"), "seen": True}
    assert after == before


@pytest.mark.parametrize(
    "kept",
    [{"enabled": False}, {"excludes": ["vector"]}, {"includes": ["text", "vector"]}],
    ids=["nothing", "all but vectors", "what was named"],
)
def test_an_index_that_keeps_rows_in_part_is_not_adopted(
    client: Elasticsearch, elasticsearch: str, kept: Any
) -> None:
    fields = {"text": {"type": "text"}, "metadata": {"type": "object"}, "vector": _vectors()}
    client.indices.create(index=NAME, mappings={"_source": kept, "properties": fields})
    put(client, documents(2))
    with open_store(elasticsearch) as store:
        with pytest.raises(InvalidInput, match="_source"):
            store.adopt()
        assert store.count() == 2


def test_vectors_of_which_a_row_has_several_are_refused(
    client: Elasticsearch, elasticsearch: str
) -> None:
    parts = {"type": "nested", "properties": {"vector": _vectors()}}
    make(client, fields={"parts": parts})
    layout = replace(LAYOUT, slot="parts.vector")
    with (
        open_store(elasticsearch, layout=layout) as store,
        pytest.raises(InvalidInput, match="nested"),
    ):
        store.adopt()


def test_what_is_in_a_list_of_objects_is_refused_not_replaced(
    client: Elasticsearch, elasticsearch: str
) -> None:
    make(client, fields={"part": {"properties": {"text": {"type": "text"}, "vector": _vectors()}}})
    row = {"part": [{"text": "a", "owner": "somebody"}], "text": "x", "metadata": {}}
    client.index(index=NAME, id="d0", document=row, refresh=True)
    with open_store(elasticsearch, layout=replace(LAYOUT, text="part.text")) as store:
        store.adopt()
        report = store.upsert([Document("d0", "b"), Document("new", "b")], on_error="report")
        assert (report.written, [rejected.id for rejected in report.rejected]) == (1, ["d0"])
        assert source_of(client, "d0") == row


def test_vectors_in_lists_of_objects_are_not_adopted(
    client: Elasticsearch, elasticsearch: str
) -> None:
    make(client, fields={"part": {"properties": {"vector": _vectors()}}})
    row = {"part": [{"vector": [0.125] * 64}], "text": "x", "metadata": {}}
    client.index(index=NAME, id="d0", document=row, refresh=True)
    layout = replace(LAYOUT, slot="part.vector")
    with (
        open_store(elasticsearch, layout=layout) as store,
        pytest.raises(InvalidInput, match="list"),
    ):
        store.adopt()


def test_a_layout_may_name_no_metadata(client: Elasticsearch, elasticsearch: str) -> None:
    make(client)
    with open_store(elasticsearch, layout=replace(LAYOUT, metadata=())) as store:
        store.adopt()
        assert store.get(["d0"]) == [replace(documents(1)[0], metadata={})]


def test_vectors_of_others_stay(client: Elasticsearch, elasticsearch: str) -> None:
    make(client, fields={"image": {"type": "dense_vector", "dims": 2}})
    put(client, documents(1), image=[0.0, 1.0])
    with open_store(elasticsearch) as store:
        store.adopt()
        store.upsert([Document("d0", "another text")])
        assert source_of(client, "d0")["image"] == [0.0, 1.0]


def test_vectors_that_are_kept_as_base64_are_read(
    client: Elasticsearch, elasticsearch: str
) -> None:
    make(client, settings={"index.mapping.exclude_source_vectors": False})
    vector = TaskBackend().embed_documents(["text"])[0]
    row = {"text": "text", "metadata": {}, "vector": dsl.packed(vector)}
    client.index(index=NAME, id="packed", document=row, refresh=True)
    with open_store(elasticsearch) as store:
        store.adopt()
        np.testing.assert_array_equal(store.get(["packed"], with_vectors=True)[0].vector, vector)


@pytest.mark.parametrize(
    ("field", "value"), [("raw", str(10**30)), ("text", r'"\ud800"')], ids=["number", "surrogate"]
)
def test_a_row_that_cannot_be_written_as_it_is_is_refused_alone(
    client: Elasticsearch, elasticsearch: str, field: str, value: str
) -> None:
    make(client, fields={"raw": {"type": "object", "enabled": False}})
    body = f'{{"metadata": {{}}, "{field}": {value}}}'.encode()
    headers = {"content-type": "application/json", "accept": "application/json"}
    client.perform_request("PUT", f"/{NAME}/_doc/d0?refresh", headers=headers, body=body)
    with open_store(elasticsearch) as store:
        store.adopt()
        with pytest.raises(StoreRejected, match="d0"):
            store.update_metadata({"d0": {"k": 1}})
        if field == "raw":
            report = store.upsert(documents(2), on_error="report")
            assert (report.written, [each.id for each in report.rejected]) == (1, ["d0"])


def test_rows_keep_their_routing(client: Elasticsearch, elasticsearch: str) -> None:
    make(client, settings={"number_of_shards": 3})
    row = documents(9)[8]
    vector = TaskBackend().embed_documents([row.text])[0].tolist()
    for place in ("one", "two", "three"):
        body = {"text": row.text, "metadata": {"place": place}, "vector": vector}
        client.index(index=NAME, id=f"at {place}", document=body, routing=place, refresh=True)
    with open_store(elasticsearch) as store:
        store.adopt()
        ids = ["at one", "at two", "at three"]
        assert [document.id for document in store.get(ids)] == ids
        store.upsert(Document(id, "moved", {"place": "elsewhere"}) for id in ids)
        store.add_slot(UNLIKE)
        rows, _ = store.pending(UNLIKE, limit=100)
        texts = [row.document.text for row in rows]
        assert store.fill(UNLIKE, rows, TaskBackend(UNLIKE).embed_documents(texts)).filled == 11
        assert store.update_metadata({id: {"k": 1} for id in ids}) == 3
        for place in ("one", "two", "three"):
            assert source_of(client, f"at {place}", routing=place)["metadata"] == {"k": 1}
        assert store.count() == 11
        assert store.delete(ids=ids) == 3
        assert store.count() == 8


def test_a_slot_whose_path_rows_spell_in_one_is_emptied(
    client: Elasticsearch, elasticsearch: str, caplog: pytest.LogCaptureFixture
) -> None:
    make(client, fields={"of": {"properties": {"text": _vectors()}}})
    flat: dict[str, Any] = {"of.text": [0.125] * 64}
    put(client, documents(3), **flat)
    with open_store(elasticsearch, layout=replace(LAYOUT, slot="of.text")) as old:
        old.adopt()
        old.delete(where=~field.id.in_(["d0", "d1", "d2"]))
        old.add_slot(UNLIKE)
    with open_store(elasticsearch, backend=TaskBackend(UNLIKE)) as new:
        new.mark(UNLIKE, SlotState.READY)
        new.drop_slot(V3)
        assert "of.text" not in source_of(client, "d0")
    assert "'of.text' stay in that of index 'adopted'" in caplog.text
    assert client.count(index=NAME, query={"exists": {"field": "of.text"}})["count"] == 0


def test_an_index_whose_name_leaves_no_room_for_an_alias_has_slots(
    client: Elasticsearch, elasticsearch: str
) -> None:
    name = "adopted-" + "n" * 240
    client.indices.delete(index=name, ignore_unavailable=True)
    make(client, name)
    with open_store(elasticsearch, name) as old:
        old.adopt()
        old.add_slot(UNLIKE)
        with open_store(elasticsearch, name, backend=TaskBackend(UNLIKE)) as new:
            assert new.upsert(documents(2)).written == 2
            assert len(new.pending(UNLIKE, limit=10)[0]) == 6
    client.indices.delete(index=name)


def test_a_slot_filled_from_another_text_is_emptied_and_one_of_the_same_text_stays(
    opened: ElasticsearchStore, elasticsearch: str
) -> None:
    opened.adopt()
    opened.add_slot(UNLIKE)
    rows, _ = opened.pending(UNLIKE, limit=100)
    opened.fill(UNLIKE, rows, TaskBackend(UNLIKE).embed_documents([r.document.text for r in rows]))
    opened.mark(UNLIKE, SlotState.READY)
    same, other = documents(1)[0], Document("d1", "another text")
    assert opened.upsert([same, other]).pending == 1
    with open_store(elasticsearch, backend=TaskBackend(UNLIKE), layout=None) as new:
        assert new.upsert([documents(3)[2], Document("d3", "of the new one")]).pending == 1
        rows, _ = new.pending(V3, limit=100)
        assert [row.document.id for row in rows] == ["d3"]
        rows, _ = new.pending(UNLIKE, limit=100)
        assert [row.document.id for row in rows] == ["d1"]
        new.drop_slot(V3)
        assert len(new.search("text", limit=100)) == 7
    with pytest.raises(SpaceMismatch):
        opened.search("text")


UNINDEXED: dict[str, dict[str, Any]] = {
    "flattened": {"type": "flattened"},
    "disabled": {"type": "object", "enabled": False},
}
OBJECTS: dict[str, dict[str, Any]] = {
    "object": {"type": "object"},
    "without subobjects": {"type": "object", "subobjects": False},
}


@pytest.mark.parametrize("kind", UNINDEXED)
def test_keys_with_dots_come_back_where_no_filter_could_mistake_them(
    client: Elasticsearch, elasticsearch: str, kind: str
) -> None:
    make(client, fields={"metadata": UNINDEXED[kind]})
    row = Document("x", "a text", {"a.b": 1, "a": {"b": 2, "c.d": [{"e.f": 3}]}})
    with open_store(elasticsearch) as store:
        store.adopt()
        store.upsert([row])
        assert store.get(["x"]) == [row]
        assert row in list(store.scan())
        for where in (field("a.b") == 1, field("a", "b") == 2):
            with pytest.raises(InvalidInput, match="filter on another field"):
                store.count(where)


@pytest.mark.parametrize("kind", OBJECTS)
def test_keys_with_dots_are_refused_where_they_would_be_taken_for_objects(
    client: Elasticsearch, elasticsearch: str, kind: str
) -> None:
    make(client, fields={"metadata": OBJECTS[kind]})
    with open_store(elasticsearch) as store:
        store.adopt()
        row = Document("x", "a text", {"a": {"b": 1, "c": [{"d": 2}]}})
        store.upsert([row])
        before = source_of(client, "x")
        for metadata in ({"a.b": 1}, {"a": {"b.c": 1}}, {"a": {"c": [{"d.e": 1}]}}):
            with pytest.raises(PartialWrite, match="has a dot"):
                store.upsert([replace(row, metadata=metadata)])
            with pytest.raises(InvalidInput, match="has a dot"):
                store.update_metadata({"x": metadata}, merge=True)
        assert source_of(client, "x") == before
    with open_store(elasticsearch) as store:
        assert store.get(["x"]) == [row]
        assert [each.id for each in store.scan(where=field("a", "b") == 1)] == ["x"]
        assert [each.id for each in store.scan(where=field("a", "c", "d") == 2)] == ["x"]


def test_fields_of_an_index_without_subobjects_are_found_by_their_names(
    client: Elasticsearch, elasticsearch: str
) -> None:
    spelled = {"vector": _vectors(), "meta.lang": {"type": "keyword"}}
    client.indices.create(index=NAME, mappings={"subobjects": False, "properties": spelled})
    put(client, documents(2), **{"meta.lang": "de"})
    with open_store(elasticsearch, layout=replace(LAYOUT, metadata=("meta.lang",))) as store:
        store.adopt()
        row = Document("x", "a text", {"meta.lang": "de"})
        store.upsert([row])
        assert store.get(["x"]) == [row]
        found = {each.id for each in store.scan(where=field("meta", "lang") == "de")}
        assert found == {"d0", "d1", "x"}


def test_metadata_may_be_in_fields_of_their_own(client: Elasticsearch, elasticsearch: str) -> None:
    properties = {
        "body": {"properties": {"text": {"type": "text"}}},
        "doc": {"type": "keyword"},
        "nth": {"type": "integer"},
        "lang": {"type": "keyword"},
        "emb": {"properties": {"v3": _vectors()}},
    }
    client.indices.create(index=NAME, mappings={"dynamic": "strict", "properties": properties})
    layout = Layout(
        id="_id",
        text="body.text",
        slot="emb.v3",
        metadata=("lang", "doc"),
        parent="doc",
        order="nth",
    )
    with open_store(elasticsearch, layout=layout) as store:
        store.adopt()
        chunk = Document("a#1", "some text", {"lang": "en", "doc": "a"}, parent=Parent("a", 1))
        store.upsert([chunk])
        assert source_of(client, "a#1")["body"] == {"text": "some text"}
        assert store.get(["a#1"]) == [chunk]
        assert store.search("text", where=field.parent == "a")[0].document == chunk
        assert store.update_metadata({"a#1": {"lang": "de"}}) == 1
        assert store.get(["a#1"])[0].metadata == {"lang": "de", "doc": "a"}
        for wrong in ({"year": 1}, {"doc": "b"}):
            with pytest.raises(PartialWrite, match=next(iter(wrong))):
                store.upsert([Document("b", "text", wrong)])
            with pytest.raises(InvalidInput, match=next(iter(wrong))):
                store.update_metadata({"a#1": wrong})
        assert store.delete(parent="a") == 1


def test_texts_may_be_elsewhere(opened: ElasticsearchStore, elasticsearch: str) -> None:
    texts = {document.id: f"outside {document.id}" for document in documents(8)}
    layout = replace(LAYOUT, text=lambda ids: [texts[id] for id in ids])
    with open_store(elasticsearch, layout=layout) as store:
        store.adopt()
        assert store.get(["d1"])[0].text == "outside d1"
        assert {hit.document.text for hit in store.search("text")} <= {*texts.values()}
        with pytest.raises(PartialWrite, match="elsewhere"):
            store.upsert([Document("x", "text")])
        assert store.stale(V3, limit=10) == ([], None)
    with (
        open_store(elasticsearch, layout=None) as store,
        pytest.raises(InvalidInput, match="function"),
    ):
        store.count()


# Names


def test_an_alias_of_one_index_is_the_index(client: Elasticsearch, elasticsearch: str) -> None:
    make(client)
    client.indices.put_alias(index=NAME, name=OTHER, filter={"term": {"metadata.year": 2003}})
    with open_store(elasticsearch) as whole:
        whole.adopt()
    with open_store(elasticsearch, OTHER) as store:
        assert store.count() == 1
        store.upsert([documents(4)[3]])
        store.add_slot(UNLIKE)
        assert len(store.search("text")) == 1
        client.indices.delete_alias(index=NAME, name=OTHER)
        with pytest.raises(CollectionNotFound):
            store.upsert([documents(4)[3]])
    assert not client.indices.exists(index=OTHER)


def test_an_alias_of_two_indices_is_refused(client: Elasticsearch, elasticsearch: str) -> None:
    make(client)
    make(client, "adopted_own")
    for index in (NAME, "adopted_own"):
        client.indices.put_alias(index=index, name=OTHER)
    with open_store(elasticsearch, OTHER) as store, pytest.raises(InvalidInput, match="several"):
        store.count()


@pytest.mark.parametrize(
    "name",
    ["*", "adopted*", "adopted,other", "_all", "-adopted", "<adopted-{now/d}>", "a b", "a/b", "../x",
     "a?b", "a#b", "a%2fb", ".", "..", "", "x" * 256, "a\nb", "remote:adopted", "a\ud800"],
)  # fmt: skip
def test_what_stands_for_several_indices_or_another_path_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be an index"):
        open_store("http://127.0.0.1:9", name)


def test_an_index_that_is_gone_is_not_made_again_by_a_write(
    client: Elasticsearch, opened: ElasticsearchStore
) -> None:
    opened.adopt()
    opened.add_slot(UNLIKE)
    rows, _ = opened.pending(UNLIKE, limit=2)
    vectors = TaskBackend(UNLIKE).embed_documents(["a", "b"])
    client.indices.delete(index=NAME)
    for change in (
        lambda: opened.fill(UNLIKE, rows, vectors),
        lambda: opened.update_metadata({"d0": {}}),
        lambda: opened.upsert(documents(1)),
    ):
        with pytest.raises(CollectionNotFound):
            change()
        assert not client.indices.exists(index=NAME)


# Refused


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (replace(LAYOUT, id="key"), "_id"),
        (replace(LAYOUT, scope=field("k") == 1), "an index for each"),
        (replace(LAYOUT, text="nowhere"), "Layout.text"),
        (replace(LAYOUT, slot="nowhere"), "Layout.slot"),
        (replace(LAYOUT, slot="text", text="metadata.lang"), "not a dense_vector"),
        (replace(LAYOUT, metadata=("lang", "nowhere")), "Layout.metadata"),
    ],
)
def test_a_layout_that_cannot_be_is_refused(
    opened: ElasticsearchStore, elasticsearch: str, wrong: Layout, match: str
) -> None:
    with pytest.raises(InvalidInput, match=match), open_store(elasticsearch, layout=wrong) as store:
        store.count()


@pytest.mark.parametrize(
    ("vector", "match"),
    [
        (_vectors(similarity="l2_norm"), "l2_norm"),
        (_vectors(index=False, similarity=None), "not indexed"),
        (_vectors(dims=32), "32 dimensions"),
        (_vectors(element_type="byte"), "floats"),
    ],
)
def test_vectors_that_no_cosine_follows_from_are_refused(
    client: Elasticsearch, elasticsearch: str, vector: dict[str, Any], match: str
) -> None:
    vector = {name: value for name, value in vector.items() if value is not None}
    properties = {"vector": vector, "text": {"type": "text"}, "metadata": {"type": "object"}}
    client.indices.create(index=NAME, mappings={"properties": properties})
    with open_store(elasticsearch) as store, pytest.raises(InvalidInput, match=match):
        store.adopt()


def test_a_row_that_is_not_of_unit_norm_cannot_be_of_a_normalized_space(
    client: Elasticsearch, opened: ElasticsearchStore, elasticsearch: str
) -> None:
    client.update(index=NAME, id="d5", doc={"vector": [2.0] * 64}, refresh=True)
    with pytest.raises(InvalidInput, match="'d5'.*normalized=False"):
        opened.adopt()
    with open_store(elasticsearch, backend=None, space=RAW) as store:
        store.adopt()
        assert store.search_vector(np.ones(64, np.float32), space=RAW, limit=1)[0].score == 1.0


@pytest.mark.parametrize("metric", ["cosine", "dot_product", "max_inner_product"])
@pytest.mark.parametrize(
    "kind", ["hnsw", "int8_hnsw", "int4_hnsw", "bbq_hnsw", "flat", "int8_flat"]
)
def test_scores_are_cosines_whatever_the_index(
    client: Elasticsearch, elasticsearch: str, metric: str, kind: str
) -> None:
    make(client, fields={"vector": _vectors(similarity=metric, index_options={"type": kind})})
    backend = TaskBackend()
    with open_store(elasticsearch) as store:
        hits = store.search("old maps", limit=8)
    cosines = backend.embed_documents([d.text for d in documents(8)]) @ backend.embed_query(
        "old maps"
    )
    expected = sorted(cosines, reverse=True)
    assert [hit.score for hit in hits] == pytest.approx(expected, abs=1e-5)


# Filters


FIELDS = {
    "metadata": {
        "properties": {
            "lang": {"type": "keyword"},
            "title": {"type": "text", "fields": {"raw": {"type": "keyword", "ignore_above": 9}}},
            "body": {"type": "text"},
            "year": {"type": "integer"},
            "size": {"type": "double"},
            "flag": {"type": "boolean"},
            "day": {"type": "date"},
            "flat": {"type": "flattened"},
            "shut": {"type": "keyword", "index": False, "doc_values": False},
            "in": {"properties": {"deep": {"type": "keyword"}}},
            "code": {"type": "keyword", "ignore_above": 5},
            "odd": {"type": "long", "ignore_malformed": True},
            "null": {"type": "keyword", "null_value": "none"},
            "small": {"type": "byte"},
        }
    }
}
ROWS: tuple[dict[str, Any], ...] = (
    {},
    {"lang": "en", "year": 2020, "flag": True, "size": 0.5, "day": "2020-01-01"},
    {"lang": ["en", "de"], "year": [2019, 2021], "flag": [True, False]},
    {"lang": "de", "title": "short", "size": -1.0, "in": {"deep": "x"}},
    {"lang": None, "title": "a long title", "day": "2020-01-01T01:30:00.001+02:00"},
    {"lang": [], "year": -1, "in": {"deep": ["x", "y"]}},
    {"code": "ab", "odd": 1, "small": 100},
    {"code": "longer", "odd": "one", "small": [-100, 1]},
    {"code": ["ab", "longer"], "odd": [1, "one"]},
)
GOOD = {
    "equal": field("lang") == "en",
    "not equal": ~(field("lang") == "en"),
    "some other": field("lang") != "en",
    "among": field("lang").in_(["de", "fr"]),
    "missing": field("lang") == None,  # noqa: E711  a filter
    "exists": field("lang").exists(),
    "text": field("title") == "short",
    "text exists": field("title").exists(),
    "number": field("year") == 2020.0,
    "fraction of a whole": field("year") == 2020.5,
    "other number": field("year") != 2019,
    "less": field("year") < 2020,
    "at least a fraction": field("year") >= 2019.5,
    "double": field("size") == 0.5,
    "bool": field("flag") == True,  # noqa: E712  a filter
    "other bool": field("flag") != True,  # noqa: E712  a filter
    "text is no number": field("year") == "2020",
    "instant": field("day") >= "2020-01-01",
    "instant between milliseconds": field("day") > "2019-12-31T23:30:00.0005Z",
    "instant before": field("day") < "2019-12-31T23:30:00.0015Z",
    "deep": field("in", "deep") == "y",
    "other than what is too long": field("code") != "ab",
    "too long a value": field("code").exists(),
    "no value, too long or not": ~field("code").exists(),
    "other than what is malformed": field("odd") != 1,
    "malformed": field("odd").exists(),
    "equal to more than it holds": field("small") == 300,
    "other than more than it holds": field("small") != 300,
    "less than more than it holds": field("small") < 300,
    "more than more than it holds": field("small") > 1e300,
    "more than less than it holds": field("small") >= -300,
    "less than less than it holds": field("year") <= -(2**40),
    "nowhere": field("nowhere") == "x",
    "not nowhere": ~field("nowhere").exists(),
    "id": field.id.in_(["r1", "r5"]),
    "not id": field.id != "r1",
    "both": (field("lang") == "en") & ~(field("year") > 2020),
    "everything": everything,
}
BAD = {
    "a text alone": field("body") == "x",
    "a longer value than is indexed": field("title") == "a long title",
    "a value that is longer in UTF-16": field("code") == "\N{GRINNING FACE}" * 3,
    "what is put for null": field("null").exists(),
    "a number for a keyword": field("lang") == 7,
    "an instant for a keyword": field("lang") > "2020-01-01",
    "a date's text": field("day") == "2020-01-01",
    "flattened": field("flat", "x") == "y",
    "not indexed": field("shut") == "x",
    "a dot": field("in.deep") == "x",
    "no parent": field.parent == "p",
}


@pytest.fixture(scope="module")
def filtered(elasticsearch: str) -> Iterator[ElasticsearchStore]:
    with Elasticsearch(elasticsearch) as client:
        client.indices.delete(index=FILTERED, ignore_unavailable=True)
        make(client, FILTERED, fields=FIELDS)
        client.delete_by_query(index=FILTERED, query={"match_all": {}}, refresh=True)
        rows = [Document(f"r{n}", f"text {n}", dict(row)) for n, row in enumerate(ROWS)]
        put(client, rows, FILTERED)
        with open_store(elasticsearch, FILTERED) as store:
            yield store
        client.indices.delete(index=FILTERED)


@pytest.mark.parametrize("name", GOOD)
def test_filters_mean_what_they_mean_everywhere(filtered: ElasticsearchStore, name: str) -> None:
    where: Filter = GOOD[name]
    expected = {f"r{n}" for n, row in enumerate(ROWS) if matches(where, id=f"r{n}", metadata=row)}
    assert {document.id for document in filtered.scan(where=where)} == expected
    assert filtered.count(where) == len(expected)
    assert {hit.document.id for hit in filtered.search("text", where=where)} == expected


@pytest.mark.parametrize("name", BAD)
def test_a_filter_that_cannot_mean_that_is_refused_by_name(
    filtered: ElasticsearchStore, name: str
) -> None:
    with pytest.raises(InvalidInput):
        filtered.count(BAD[name])


def test_more_ids_may_be_asked_for_than_a_search_answers(opened: ElasticsearchStore) -> None:
    opened.adopt()
    ids = [f"d{n}" for n in range(12_000)]
    assert opened.count(field.id.in_(ids)) == len(opened.get(ids)) == 8
    assert opened.update_metadata({id: {"k": 1} for id in ids}) == 8
    assert opened.delete(ids=ids) == 8


# Snapshots, and collections of ours


def test_a_scan_whose_snapshot_ended_says_so(
    client: Elasticsearch, opened: ElasticsearchStore
) -> None:
    scan = opened.scan(batch_size=2)
    next(scan)
    client.indices.close(index=NAME)
    client.indices.open(index=NAME)
    with pytest.raises(StoreUnavailable, match="snapshot"):
        list(scan)


def test_a_collection_of_ours_that_lost_its_record_gets_it_back(
    client: Elasticsearch, elasticsearch: str
) -> None:
    with open_store(elasticsearch, "adopted_own", layout=None) as store:
        store.upsert([Document("a", "text", {"k": 1}, embed_text="title")])
        record = client.indices.get_mapping(index="adopted_own")["adopted_own"]["mappings"]["_meta"]
        client.indices.put_mapping(index="adopted_own", meta={})
        with pytest.raises(SpaceUnknown, match="adopt"):
            store.create()
        layout = replace(LAYOUT, slot=V3.id)
        with open_store(elasticsearch, "adopted_own", layout=layout) as mender:
            mender.adopt(canary=False)
        found = client.indices.get_mapping(index="adopted_own")["adopted_own"]["mappings"]["_meta"]
        assert found["samespace"]["layout"] is None
        assert found["samespace"]["slots"][0]["space"] == record["samespace"]["slots"][0]["space"]
    with open_store(elasticsearch, "adopted_own", layout=None) as store:
        assert store.get(["a"]) == [Document("a", "text", {"k": 1}, embed_text="title")]


def test_an_alias_that_was_lost_is_there_again_after_a_write(
    client: Elasticsearch, elasticsearch: str
) -> None:
    with open_store(elasticsearch, "adopted_own", layout=None) as store:
        store.upsert(documents(2))
        alias = dsl.alias_of("adopted_own", V3.id)
        client.indices.delete_alias(index="adopted_own", name=alias)
    with open_store(elasticsearch, "adopted_own", layout=None) as store:
        assert store.count() == 2
        store.upsert(documents(3))
        assert client.indices.exists_alias(name=alias)
