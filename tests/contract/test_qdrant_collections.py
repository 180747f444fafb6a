"""What only Qdrant has: vectors by name, metrics, ids, payloads, deferred graphs.

In local mode, and over REST and gRPC where the environment has a server.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from samespace import Document, EmbeddingSpace, Index, Layout, Parent, QdrantStore, field
from samespace.errors import (
    CollectionNotFound,
    InvalidInput,
    PartialWrite,
    SlotNotReady,
    SpaceMismatch,
    SpaceUnknown,
    StoreRejected,
    StoreUnavailable,
)
from samespace.filters import everything, matches
from samespace.guard import SlotState
from samespace.layout import TextQuery
from samespace.stores.qdrant import collection as shapes
from samespace.stores.qdrant.requests import RECORD, SLOTS, point_id
from samespace.testing.backends import UNLIKE, V3, TaskBackend
from samespace.testing.corpus import documents, texts

HAS_SERVER = "SAMESPACE_TEST_QDRANT" in os.environ
KINDS = ["local", "rest", "grpc"] if HAS_SERVER else ["local"]
ROWS = 4


class Place:
    """One way to a Qdrant: opens stores there, and a stranger's client."""

    def __init__(self, kind: str, client: QdrantClient, source: Any, **options: Any) -> None:
        self.kind = kind
        self.client = client
        self.name = f"t{uuid.uuid4().hex[:12]}"
        self._source = source
        self._options = options

    def open(self, **options: Any) -> QdrantStore:
        usual = {"collection": self.name, **self._options}
        given = {} if "space" in options else {"backend": TaskBackend()}
        return QdrantStore(self._source, **{**usual, **given, **options})

    def make(
        self,
        vectors: Any,
        payloads: list[dict[str, Any]],
        ids: list[Any] | None = None,
        **more: Any,
    ) -> None:
        """A collection that somebody else made, with the vectors of :func:`texts`."""
        self.client.create_collection(self.name, vectors_config=vectors, **more)
        made = TaskBackend().embed_documents(texts(len(payloads))).tolist()
        names = list(vectors) if isinstance(vectors, dict) else None
        points = [
            models.PointStruct(
                id=id, payload=payload, vector=dict.fromkeys(names, vector) if names else vector
            )
            for id, payload, vector in zip(ids or range(len(payloads)), payloads, made, strict=True)
        ]
        self.client.upsert(self.name, points, wait=True)

    def payload(self, id: Any) -> dict[str, Any]:
        """All that a point says."""
        return self.client.retrieve(self.name, [id])[0].payload or {}


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "local":
        request.getfixturevalue("qdrant_local")
        client = QdrantClient(":memory:")
        yield Place("local", client, client)
        client.close()
        return
    url = request.getfixturevalue("qdrant")
    client = QdrantClient(url, check_compatibility=False)
    more = {"grpc_port": request.getfixturevalue("qdrant_grpc")} if request.param == "grpc" else {}
    made = Place(request.param, client, url, **more)
    yield made
    client.delete_collection(made.name)
    client.close()


def vector(metric: models.Distance = models.Distance.COSINE, **more: Any) -> models.VectorParams:
    return models.VectorParams(size=64, distance=metric, **more)


# Our collections


def test_a_document_can_be_read_in_the_dashboard(place: Place) -> None:
    with place.open() as store:
        store.upsert([Document("a1", "text", {"lang": "en", "list": [1, 2.5, None]})])
    payload = place.payload("f55ff16f-66f4-5360-a66b-95db6f8fec01")
    assert payload["text"] == "text"
    assert payload["metadata"] == {"lang": "en", "list": [1, 2.5, None]}
    assert payload["samespace"]["id"] == "a1"
    assert '["lang"]="en"' in payload["samespace"]["terms"]
    assert list(payload[SLOTS]) == [V3.id]


def test_other_peoples_metadata_of_the_collection_stays(place: Place) -> None:
    with place.open() as store:
        store.create()
        place.client.update_collection(place.name, metadata={"owner": "somebody"})
        store.add_slot(UNLIKE)
        store.drop_slot(UNLIKE)
    metadata = place.client.get_collection(place.name).config.metadata
    assert metadata is not None
    assert metadata["owner"] == "somebody"
    assert len(metadata[RECORD]["slots"]) == 1


@pytest.mark.parametrize("named", ["", UNLIKE.id])
def test_the_server_refuses_vectors_of_another_name(place: Place, named: str) -> None:
    with place.open() as store:
        store.upsert(documents(1))
    made = TaskBackend().embed_documents(["x"])[0].tolist()
    struct: Any = {named: made} if named else made
    for request in (
        lambda: place.client.upsert(place.name, [models.PointStruct(id=1, vector=struct)]),
        lambda: place.client.query_points(place.name, query=made, using=named or None),
    ):
        with pytest.raises((UnexpectedResponse, ValueError)):
            request()


def test_a_folder_serves_handles_of_both_spaces_at_once(qdrant_local: None, tmp_path: Path) -> None:
    closed: list[str] = []
    store = QdrantStore(str(tmp_path / "folder"), collection="shared", backend=TaskBackend())
    store.on_close(lambda: closed.append("first"))
    store.upsert(documents(ROWS))
    store.add_slot(UNLIKE)
    with store.in_space(UNLIKE, backend=TaskBackend(UNLIKE, seed=5)) as other:
        other.on_close(lambda: closed.append("other"))
        assert other.upsert([Document("n", "new")]).pending == 1
    assert closed == ["other"]
    assert store.count() == ROWS + 1
    store.close()
    assert closed == ["other", "first"]


def test_a_strangers_point_is_read_and_pending(place: Place) -> None:
    with place.open() as store:
        store.upsert(documents(1))
        place.client.upsert(
            place.name, [models.PointStruct(id=7, vector={}, payload={"text": "hello"})], wait=True
        )
        assert [document.text for document in store.scan()] == ["hello", texts(1)[0]]
        rows, _ = store.pending(V3, limit=10)
        assert [(row.document.id, row.document.text) for row in rows] == [("7", "hello")]
        vectors = TaskBackend().embed_documents(["hello"])
        assert store.fill(V3, rows, vectors).filled == 1
        assert store.search("hello")[0].document == Document("7", "hello")
        assert store.update_metadata({"k": 1}, where=field.parent == None) == 2  # noqa: E711
        assert store.count(field("k") == 1) == 2


def test_a_crash_within_a_fill_leaves_the_row_pending(place: Place) -> None:
    with place.open() as store:
        store.upsert(documents(2))
        id = point_id("d0")
        for left in ({"claim": "dead"}, {"claim": "dead", "source": None}):
            place.client.set_payload(place.name, {SLOTS: {V3.id: left}}, points=[id], wait=True)
            rows, _ = store.pending(V3, limit=10)
            assert [row.document.id for row in rows] == ["d0"]
            assert store.fill(V3, rows, TaskBackend().embed_documents(texts(1))).filled == 1
            assert store.pending(V3, limit=10) == ([], None)
        assert store.stale(V3, limit=10) == ([], None)


def test_a_stale_vector_is_replaced_once(place: Place) -> None:
    with place.open() as store:
        store.upsert(documents(3))
        place.client.set_payload(
            place.name, {"text": "changed"}, points=[point_id("d1")], wait=True
        )
        rows, cursor = store.stale(V3, limit=10)
        assert ([row.document.id for row in rows], cursor) == (["d1"], None)
        made = TaskBackend().embed_documents(["changed"])
        place.client.set_payload(place.name, {"text": "again"}, points=[point_id("d1")], wait=True)
        assert store.fill(V3, rows, made).filled == 0
        place.client.set_payload(
            place.name, {"text": "changed"}, points=[point_id("d1")], wait=True
        )
        assert store.fill(V3, rows, made).filled == 1
        assert store.fill(V3, rows, made).filled == 0
        assert store.stale(V3, limit=10) == store.pending(V3, limit=10) == ([], None)
        (found,) = store.get(["d1"], with_vectors=True)
        assert found.vector is not None
        np.testing.assert_allclose(found.vector, made[0], atol=1e-6)


def test_a_filler_that_lost_its_claim_writes_nothing(place: Place) -> None:
    with place.open() as store:
        store.upsert(documents(1))
        store.add_slot(UNLIKE)
        rows, _ = store.pending(UNLIKE, limit=10)
        place.client.set_payload(
            place.name, {"claim": "another"}, key=f"{SLOTS}.{UNLIKE.id}", points=[point_id("d0")],
            wait=True,
        )  # fmt: skip
        made = TaskBackend(UNLIKE).embed_documents(texts(1))
        report = store.fill(UNLIKE, rows, made)
        assert (report.filled, report.changed) == (0, 1)
        assert len(store.pending(UNLIKE, limit=10)[0]) == 1


def test_a_slot_that_the_server_lacks_is_explained(place: Place) -> None:
    with place.open() as store:
        store.upsert(documents(1))
        store.add_slot(UNLIKE)
        place.client.delete_vector_name(place.name, UNLIKE.id)
    with place.open(backend=TaskBackend(UNLIKE)) as other:
        for refused in (lambda: other.search("x"), lambda: other.upsert(documents(1))):
            with pytest.raises((SpaceUnknown, SlotNotReady), match=f"{UNLIKE.id}.*lacks"):
                refused()


def test_a_slot_that_goes_while_a_query_is_embedded_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = TaskBackend()
    with place.open(backend=backend) as store:
        store.upsert(documents(2))
        store.add_slot(UNLIKE)
        embed = backend.embed_queries

        def meanwhile(texts: Any) -> Any:
            store.drop_slot(V3)
            return embed(texts)

        monkeypatch.setattr(backend, "embed_queries", meanwhile)
        with pytest.raises(SpaceMismatch):
            store.search("old maps")


def test_a_slot_that_the_record_lacks_is_not_believed(place: Place) -> None:
    with place.open() as store:
        store.upsert(documents(1))
        config = models.DenseVectorNameConfig(
            dense=models.DenseVectorConfig(size=64, distance=models.Distance.COSINE)
        )
        place.client.create_vector_name(place.name, UNLIKE.id, config)
        with place.open(backend=TaskBackend(UNLIKE)) as other, pytest.raises(SpaceMismatch):
            other.search("x")
        store.add_slot(UNLIKE)
        assert [slot.space for slot in store.info().slots] == [V3, UNLIKE]


def test_a_change_of_metadata_that_met_another_is_made_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with place.open() as store, place.open() as other:
        store.upsert([Document("a", "text", {"n": 0})])
        operate = store._transport.operate

        def interrupted(*arguments: Any) -> None:
            monkeypatch.setattr(store._transport, "operate", operate)
            other.update_metadata({"a": {"m": 1}}, merge=True)
            operate(*arguments)

        monkeypatch.setattr(store._transport, "operate", interrupted)
        assert store.update_metadata({"a": {"n": 1}}, merge=True) == 1
        assert store.get(["a"])[0].metadata == {"n": 1, "m": 1}
        assert store.count((field("n") == 1) & (field("m") == 1)) == 1


def test_a_slot_that_another_adds_meanwhile_is_not_lost(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    third = replace(V3, dimensions=32)
    with place.open() as store, place.open() as other:
        store.create()
        put = store._put_record

        def overtaken(record: Any) -> None:
            monkeypatch.setattr(store, "_put_record", put)
            put(record)
            other._put_record(before.with_slot(other._new_slot(third, None)))

        before = store._recorded(store._describe())
        monkeypatch.setattr(store, "_put_record", overtaken)
        store.add_slot(UNLIKE)
        assert {slot.space for slot in store._recorded(store._describe()).slots} == {
            V3, UNLIKE, third
        }  # fmt: skip


def test_more_queries_than_a_request_may_hold_are_answered(place: Place) -> None:
    space = replace(V3, dimensions=1024)
    with place.open(backend=TaskBackend(space)) as store:
        store.upsert(documents(3))
        found = store.search_many(texts(3) * 1000, limit=1)
        assert [hits[0].document.id for hits in found] == ["d0", "d1", "d2"] * 1000


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.add_slot(replace(V3, dimensions=32)),
        lambda store: store.drop_slot(UNLIKE),
        lambda store: store.mark(V3, SlotState.FILLING),
        lambda store: store.info(),
        lambda store: store.delete(where=everything),
        lambda store: store.update_metadata({"k": 1}, where=everything),
        lambda store: store.upsert(documents(1)),
    ],
)
def test_a_collection_that_goes_meanwhile_is_not_found(
    place: Place, monkeypatch: pytest.MonkeyPatch, call: Any
) -> None:
    with place.open() as store:
        store.upsert(documents(1))
        store.add_slot(UNLIKE)
        describe = store._describe

        def dropped_after() -> Any:
            monkeypatch.setattr(store, "_describe", describe)
            state = describe()
            place.client.delete_collection(place.name)
            return state

        monkeypatch.setattr(store, "_describe", dropped_after)
        with pytest.raises(CollectionNotFound, match="check the name"):
            call(store)


def test_dropping_an_alias_is_refused(place: Place) -> None:
    with place.open() as store:
        store.upsert(documents(2))
        alias = models.CreateAlias(collection_name=place.name, alias_name=f"{place.name}_alias")
        place.client.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)])
        with place.open(collection=alias.alias_name) as other:
            assert other.count() == 2
            with pytest.raises(InvalidInput, match="is an alias"):
                other.drop()
        assert store.count() == 2
        store.drop()


def test_ids_are_compared_whole(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with place.open() as store:
        store.upsert([Document("a", "text")])
        place.client.set_payload(
            place.name, {"id": "another"}, key="samespace", points=[point_id("a")], wait=True
        )
        assert store.get(["a"]) == []


# Collections of others


def test_an_adopted_collection_may_have_any_name_that_qdrant_takes(place: Place) -> None:
    place.name = f"Hand-bücher 2026 {uuid.uuid4().hex}".ljust(200, "x")
    place.make(vector(), [{"text": "some text"}])
    layout = Layout(id="id", text="text", slot="", metadata="*")
    with place.open(layout=layout) as store:
        store.adopt()
        assert store.count() == 1
    place.name, made = "", place.name
    with pytest.raises(InvalidInput, match="one of Qdrant"):
        place.open(layout=layout)
    place.name = made


@pytest.mark.parametrize("metric", [models.Distance.DOT, models.Distance.EUCLID])
def test_scores_are_cosines_whatever_the_metric(place: Place, metric: models.Distance) -> None:
    place.make(vector(metric), [{"text": text} for text in texts(ROWS)])
    layout = Layout(id="id", text="text", slot="", metadata="*")
    with place.open(layout=layout) as store:
        store.adopt()
        hits = store.search("old maps", limit=ROWS)
        backend = TaskBackend()
        cosines = backend.embed_documents(texts(ROWS)) @ backend.embed_query("old maps")
        found = [hit.score for hit in hits]
        assert found == pytest.approx(sorted(cosines, reverse=True), abs=1e-5)


def test_metrics_from_which_no_cosine_follows_are_refused(place: Place) -> None:
    place.make(vector(models.Distance.MANHATTAN), [{"text": "x"}])
    layout = Layout(id="id", text="text", slot="", metadata="*")
    with place.open(layout=layout) as store, pytest.raises(InvalidInput, match="Manhattan"):
        store.adopt()


def test_vectors_that_are_not_of_unit_norm_are_refused_on_adopting(place: Place) -> None:
    place.make(vector(models.Distance.DOT), [{"text": text} for text in texts(2)])
    place.client.upsert(place.name, [models.PointStruct(id=9, vector=[2.0] * 64)], wait=True)
    layout = Layout(id="id", text="text", slot="", metadata="*")
    with place.open(layout=layout) as store:
        with pytest.raises(InvalidInput, match=r"point '9' has norm 16"):
            store.adopt()
        assert place.client.get_collection(place.name).config.metadata is None
    raw = EmbeddingSpace(model="raw", dimensions=64, normalized=False)
    with place.open(layout=layout, space=raw) as store, pytest.raises(InvalidInput, match="Dot"):
        store.count()


def test_all_the_payload_may_be_metadata(place: Place) -> None:
    key = str(uuid.UUID(int=5))
    place.make(
        {"dense": vector()},
        [{"page": "x", "doc": "p", "at": 3, "k": {"l": [1, "a"]}, "z": None}, {"page": "y"}],
        ids=[3, key],
    )
    layout = Layout(id="id", text="page", slot="dense", metadata="*", parent="doc", order="at")
    with place.open(layout=layout) as store:
        store.adopt()
        first = Document("3", "x", {"k": {"l": [1, "a"]}, "z": None}, parent=Parent("p", 3))
        assert list(store.scan()) == [first, Document(key, "y")]
        assert store.count(field("k", "l") == "a") == store.count(field("k", "l") == 1.0) == 1
        assert store.count(field.parent == "p") == store.count(field.id == "3") == 1
        assert store.count(~field("k").exists()) == 1
        assert store.update_metadata({"3": {"m": 1}}) == 1
        assert place.payload(3) == {"page": "x", "doc": "p", "at": 3, "m": 1}
        with pytest.raises(InvalidInput, match="'page' has no key"):
            store.update_metadata({"3": {"page": "z"}})
        assert store.delete(parent="p") == 1


def test_filters_on_a_payload_mean_what_filters_mean(place: Place) -> None:
    values: list[Any] = [
        "x", ["x", None], None, [], [None], [None, None], {"o": 1}, {}, [[]], [{"o": 1}],
        0, 0.0, 1, 1.5, True, False, "1", -3, [2, "x"], 2**60, [[1]],
    ]  # fmt: skip
    payloads = [{"text": "t", "k": value} for value in values] + [{"text": "t"}]
    place.make(vector(), payloads)
    key = field("k")
    asked = [
        key.exists(), key == None, key == "x", key == 0, key == 1, key == 1.5, key == True,  # noqa: E711, E712
        key.in_(["x", 1, None]), key > 0, key >= 1, key < 1, key <= -3, key.in_([]), field("k", "o") == 1,
        ~(key == "x"), ~(key > 0), key.exists() & ~(key == "x"), (key == 1) | (key == False),  # noqa: E712
        (key == "x") & ~(key == "x"), field.id.in_(["1", "3", "x"]) & ~(field.id == "1"),
    ]  # fmt: skip
    with place.open(layout=Layout(id="id", text="text", slot="", metadata="*")) as store:
        for where in asked:
            expected = [
                str(n)
                for n, payload in enumerate(payloads)
                if matches(where, id=str(n), metadata={"k": payload.get("k")})
            ]
            assert [document.id for document in store.scan(where=where)] == expected, where


def test_an_object_may_be_metadata_and_the_rest_of_a_payload_stays(place: Place) -> None:
    place.make(vector(), [{"text": "x", "meta": {"a": 1, "b": 2}, "theirs": [1]}])
    layout = Layout(id="id", text="text", slot="", metadata="meta")
    with place.open(layout=layout) as store:
        store.adopt()
        assert store.update_metadata({"0": {"b": 3}}, merge=True) == 1
        assert store.get(["0"])[0].metadata == {"a": 1, "b": 3}
        assert store.update_metadata({"c": 4}, where=everything) == 1
        assert place.payload(0) == {"text": "x", "meta": {"c": 4}, "theirs": [1]}
        store.upsert([Document("0", "new", {"d": 5})])
        assert place.payload(0) == {"text": "new", "meta": {"d": 5}, "theirs": [1]}


def test_ids_may_be_in_the_payload_for_reading_and_filling(place: Place) -> None:
    place.make(vector(), [{"text": "x", "key": "a"}, {"text": "y", "key": 7}])
    layout = Layout(id="key", text="text", slot="", metadata=())
    with place.open(layout=layout) as store:
        store.adopt()
        assert store.get(["7", "none", "a"]) == [Document("7", "y"), Document("a", "x")]
        assert store.count(field.id.in_(["a", "b"])) == 1
        with pytest.raises(PartialWrite, match="does not keep unique"):
            store.upsert([Document("b", "text")])
        store.add_slot(UNLIKE)
        rows, _ = store.pending(UNLIKE, limit=10)
        vectors = TaskBackend(UNLIKE).embed_documents([row.document.text for row in rows])
        assert store.fill(UNLIKE, rows, vectors).filled == 2
        assert store.delete(ids=["7"]) == 1


def test_every_id_that_a_payload_has_is_found(place: Place) -> None:
    known = ["a", "", 7, -7, 2**63 - 1, str(2**64), None]
    place.make(
        vector(),
        [{"text": "x"} if key is None else {"text": "x", "key": key} for key in known],
        ids=[*range(100, 100 + len(known))],
    )
    with place.open(layout=Layout(id="key", text="text", slot="", metadata=())) as store:
        store.adopt()
        ids = [document.id for document in store.scan()]
        assert ids == ["a", "", "7", "-7", str(2**63 - 1), str(2**64), "106"]
        assert [document.id for document in store.get(ids)] == ids
        assert store.get([str(2**63), str(-(2**63) - 1), "0", "100"]) == []
        assert store.delete(ids=ids) == len(known)


def test_more_ids_than_a_request_may_hold_are_looked_for(place: Place) -> None:
    place.make(vector(), [{"k": str(n), "text": text} for n, text in enumerate(texts(ROWS))])
    layout = Layout(id="k", text="text", slot="", metadata="*")
    others = [f"{n:0500}" for n in range(70_000)]
    with place.open(layout=layout) as store:
        store.adopt()
        assert [document.id for document in store.get(["1", *others, "2"])] == ["1", "2"]
        assert store.delete(ids=["1", *others, "2"]) == 2
        assert store.count() == ROWS - 2


def test_texts_may_be_elsewhere(place: Place) -> None:
    place.make(vector(), [{}, {}])
    layout = Layout(id="id", text=lambda ids: [f"text {id}" for id in ids], slot="", metadata="*")
    with place.open(layout=layout) as store:
        store.adopt()
        assert [document.text for document in store.scan()] == ["text 0", "text 1"]
        store.add_slot(UNLIKE)
        rows, _ = store.pending(UNLIKE, limit=10)
        vectors = TaskBackend(UNLIKE).embed_documents([row.document.text for row in rows])
        assert store.fill(UNLIKE, rows, vectors).filled == 2
        assert store.stale(UNLIKE, limit=10) == ([], None)
    with place.open() as store, pytest.raises(InvalidInput, match="layout="):
        store.count()


def test_vectors_that_an_upsert_would_lose_stop_it(place: Place) -> None:
    place.make(
        {"dense": vector()},
        [{"text": "x"}],
        sparse_vectors_config={"words": models.SparseVectorParams()},
    )
    with place.open(layout=Layout(id="id", text="text", slot="dense", metadata="*")) as store:
        store.adopt()
        with pytest.raises(StoreRejected, match="'words'"):
            store.upsert([Document("0", "y")])
        assert store.search("x")[0].document.text == "x"


def test_another_models_vector_of_the_same_text_stays(place: Place) -> None:
    place.make({"a": vector(), "b": vector()}, [{"text": "x"}])
    with place.open(layout=Layout(id="id", text="text", slot="a", metadata="*")) as store:
        store.adopt()
        store.upsert([Document("0", "new")])
    vectors: Any = place.client.retrieve(place.name, [0], with_vectors=True)[0].vector
    kept = TaskBackend().embed_documents(texts(1))[0]
    np.testing.assert_allclose(vectors["b"], kept, atol=1e-6)
    np.testing.assert_allclose(vectors["a"], TaskBackend().embed_documents(["new"])[0], atol=1e-6)


@pytest.mark.parametrize(
    "layout",
    [
        Layout(id="id", text=TextQuery("a"), slot="", metadata="*"),
        Layout(id="id", text="text", slot="", metadata="*", scope=field("tenant") == "a"),
    ],
    ids=["a query for texts", "a scope"],
)
def test_what_qdrant_has_no_words_for_is_refused(place: Place, layout: Layout) -> None:
    with pytest.raises(InvalidInput):
        place.open(layout=layout)


@pytest.mark.parametrize("slot", ["none", "words"])
def test_a_slot_that_is_not_there_is_refused_by_name(place: Place, slot: str) -> None:
    place.make({"dense": vector()}, [{"text": "x"}])
    layout = Layout(id="id", text="text", slot=slot, metadata="*")
    with place.open(layout=layout) as store, pytest.raises(InvalidInput, match=f"{slot}.*'dense'"):
        store.count()


def test_a_collection_of_ours_has_its_record_again(place: Place) -> None:
    with place.open() as store:
        store.upsert([Document("a", "text", {"k": 1})])
        place.client.update_collection(place.name, metadata={RECORD: None})
    layout = Layout(id="id", text="text", slot=V3.id, metadata="metadata")
    with place.open(layout=layout) as store:
        store.adopt()
        assert store.info().layout is None
        assert store.get(["a"]) == [Document("a", "text", {"k": 1})]


def test_a_server_removes_the_unnamed_vector_over_grpc_alone(place: Place) -> None:
    place.make(vector(), [{"text": text} for text in texts(2)])
    with place.open(layout=Layout(id="id", text="text", slot="", metadata="*")) as old:
        old.adopt()
        old.add_slot(UNLIKE)
        rows, _ = old.pending(UNLIKE, limit=10)
        old.fill(UNLIKE, rows, TaskBackend(UNLIKE, seed=5).embed_documents(texts(2)))
        old.mark(UNLIKE, SlotState.READY)
        if place.kind == "rest":
            with pytest.raises(InvalidInput, match="grpc_port="):
                old.drop_slot(V3)
            assert [slot.space for slot in old.info().slots] == [V3, UNLIKE]
            return
        old.drop_slot(V3)
        with pytest.raises(SpaceMismatch):
            old.search("x")
    with place.open(backend=TaskBackend(UNLIKE, seed=5)) as new:
        assert len(new.search("old maps")) == 2
        assert list(place.client.get_collection(place.name).config.params.vectors or {}) == [
            UNLIKE.id
        ]


# Versions and graphs


@pytest.mark.parametrize("version", [(1, 16, 3), (1, 17, 0)])
def test_what_a_server_is_too_old_for_is_refused_by_version(
    place: Place, version: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    with place.open() as store:
        store.upsert(documents(1))
        monkeypatch.setattr(store._transport, "version", lambda: version)
        with pytest.raises(StoreRejected, match=r"1\.18 or newer, and this is 1\.1[67]"):
            store.add_slot(UNLIKE)
        if version < (1, 17):
            with pytest.raises(StoreRejected, match=r"1\.17 or newer"):
                store.upsert(documents(2), on_conflict="skip")
        assert store.upsert(documents(2)).written == 2


class TestGraphs:
    """Local mode has none."""

    __test__ = HAS_SERVER

    @pytest.fixture(params=["rest", "grpc"])
    def place(
        self, request: pytest.FixtureRequest, qdrant: str, qdrant_grpc: int
    ) -> Iterator[Place]:
        client = QdrantClient(qdrant, check_compatibility=False)
        more = {"grpc_port": qdrant_grpc} if request.param == "grpc" else {}
        made = Place(request.param, client, qdrant, **more)
        yield made
        client.delete_collection(made.name)
        client.close()

    @staticmethod
    def threshold(place: Place) -> int | None:
        return place.client.get_collection(place.name).config.optimizer_config.indexing_threshold

    def test_a_deferred_graph_is_built_when_asked(self, place: Place) -> None:
        with place.open(index=Index(build="manual")) as store:
            store.upsert(documents(300))
            assert self.threshold(place) == shapes.DEFERRED
            assert not store.info().index_built
            store.build_index()
            assert store.info().index_built
            assert self.threshold(place) == shapes.USUAL
        assert (place.client.get_collection(place.name).indexed_vectors_count or 0) >= 300

    def test_a_deferral_that_nobody_holds_ends_with_the_next_write(self, place: Place) -> None:
        with place.open(index=Index(build="manual")) as store:
            store.upsert(documents(2))
        with place.open() as reader:
            reader.search("x")
            assert self.threshold(place) == shapes.DEFERRED
            reader.upsert(documents(1))
            assert self.threshold(place) == shapes.USUAL

    def test_what_filters_look_at_is_indexed(self, place: Place) -> None:
        with place.open() as store:
            store.create()
        schema = place.client.get_collection(place.name).payload_schema
        assert {key.partition("samespace.")[2] for key in schema} == {
            "terms", "parent", "orders[].path", "orders[].high"
        }  # fmt: skip

    def test_indexes_that_a_crash_left_out_are_made_with_the_next_write(self, place: Place) -> None:
        with place.open() as store:
            store.create()
            whole = set(place.client.get_collection(place.name).payload_schema)
            place.client.delete_payload_index(place.name, "samespace.terms", wait=True)
            store.upsert(documents(1))
        assert set(place.client.get_collection(place.name).payload_schema) == whole

    def test_a_graph_that_qdrant_fails_on_is_not_waited_for(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with place.open(index=Index(build="manual")) as store:
            store.upsert(documents(300))
            read = store._read
            monkeypatch.setattr(
                store,
                "_read",
                lambda **asked: replace(read(**asked), settled=False, failed=True),
            )
            with pytest.raises(StoreUnavailable, match="look at its log"):
                store.build_index()

    def test_a_slot_is_kept_as_its_index_says(self, place: Place) -> None:
        index = Index(quantization="int8", m=8, ef_construction=32)
        with place.open(index=index) as store:
            store.create()
            store.add_slot(UNLIKE)
        params: Any = place.client.get_collection(place.name).config.params.vectors
        for name in (V3.id, UNLIKE.id):
            assert (params[name].hnsw_config.m, params[name].hnsw_config.ef_construct) == (8, 32)
            assert isinstance(params[name].quantization_config, models.ScalarQuantization)
        with (
            place.open(index=Index(kind="flat")) as flat,
            pytest.raises(InvalidInput, match="flat"),
        ):
            flat.build_index()
