"""With the pipeline installed the server refuses other writers; what gets past it is written down."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from elasticsearch import ApiError, AsyncElasticsearch, Elasticsearch
from elasticsearch.helpers import bulk
from tests.contract.elasticsearch_client import TellingNode, telling_client

from samespace import AsyncIngestHook, Document, ElasticsearchStore, IngestHook, Layout
from samespace.errors import InvalidInput, SpaceMismatch, SpaceUnknown, StoreRejected
from samespace.hardening import Outcome, RawAct
from samespace.space import EmbeddingSpace
from samespace.stores.elasticsearch.dsl import source_name
from samespace.stores.elasticsearch.faults import Missing
from samespace.stores.elasticsearch.pipelines import forget_pipeline, read_index
from samespace.testing.backends import UNLIKE, V3, TaskBackend

NAME = "samespace--manuals"
INDEXES = ("manuals", "elsewhere", "foreign")
LAYOUT = Layout(id="_id", text="body", slot="embedding", metadata=("lang",))
VECTOR = [1.0, *[0.0] * 63]
V2 = EmbeddingSpace(model="jina-embeddings-v2-base-en", dimensions=768)


def clear(client: Elasticsearch) -> None:
    client.indices.delete(index=INDEXES, ignore_unavailable=True)
    quiet = client.options(ignore_status=404)
    for name in (*(f"samespace--{index}" for index in INDEXES), "theirs", "between"):
        quiet.ingest.delete_pipeline(id=name)


@pytest.fixture
def client(elasticsearch: str) -> Iterator[Elasticsearch]:
    with telling_client(elasticsearch) as client:
        clear(client)
        yield client
        clear(client)


@pytest.fixture
def store(elasticsearch: str, client: Elasticsearch) -> Iterator[ElasticsearchStore]:
    with ElasticsearchStore(elasticsearch, collection="manuals", backend=TaskBackend()) as store:
        store.upsert([Document("0", "the first text")])
        yield store


@pytest.fixture
def hook(client: Elasticsearch) -> IngestHook:
    return IngestHook(TaskBackend(), client=client)


@pytest.fixture
def adopted(elasticsearch: str, client: Elasticsearch) -> Iterator[ElasticsearchStore]:
    vectors = {"type": "dense_vector", "dims": 64, "similarity": "cosine"}
    properties = {"body": {"type": "text"}, "lang": {"type": "keyword"}, "curve": {"type": "float"}}
    client.indices.create(
        index="foreign", mappings={"properties": {**properties, "embedding": vectors}}
    )
    with ElasticsearchStore(
        elasticsearch, collection="foreign", backend=TaskBackend(), layout=LAYOUT
    ) as store:
        store.adopt()
        yield store


def raw(id: str = "9", /, **vectors: Any) -> dict[str, Any]:
    return {"id": id, "text": "raw", "metadata": [{}], "terms": [], **vectors}


def final(client: Elasticsearch, index: str = "manuals") -> str | None:
    settings: dict[str, Any] = client.indices.get_settings(index=index)[index]["settings"]["index"]
    return settings.get("final_pipeline")


def refused(client: Elasticsearch, document: dict[str, Any], index: str = "manuals") -> str:
    """Why the server does not take a document; it is stored otherwise."""
    with pytest.raises(ApiError) as caught:
        client.index(index=index, id="9", document=document)
    assert caught.value.error == "fail_processor_exception"
    assert not client.exists(index=index, id="9")
    return str(caught.value)


def stored(client: Elasticsearch, index: str, id: str, document: dict[str, Any]) -> None:
    """Put a document past the final pipeline, as one that was there before it."""
    now = final(client, index)
    client.indices.put_settings(index=index, settings={"index.final_pipeline": None})
    client.index(index=index, id=id, document=document, refresh=True)
    client.indices.put_settings(index=index, settings={"index.final_pipeline": now})


def packed(numbers: list[float]) -> str:
    return base64.b64encode(np.array(numbers, ">f4").tobytes()).decode()


def test_other_writers_are_told_what_the_index_holds(
    client: Elasticsearch, store: ElasticsearchStore, hook: IngestHook
) -> None:
    assert hook.install_pipeline("manuals").changes
    message = refused(client, raw())
    assert "no vector" in message
    assert V3.id in message
    assert str(V3) in message
    for bad in (VECTOR[1:], [*VECTOR, 0.0], packed(VECTOR[1:]), packed(VECTOR * 3), {"a": 1}, 3):
        assert "64 numbers" in refused(client, raw(**{V3.id: bad}))
    for good in (VECTOR, packed(VECTOR)):
        client.index(index="manuals", id="9", document=raw(**{V3.id: good}))


def test_our_own_writes_pass(
    client: Elasticsearch, store: ElasticsearchStore, hook: IngestHook
) -> None:
    hook.install_pipeline("manuals")
    documents = [Document("a", "text a", {"year": 1}), Document("b", "text b")]
    assert store.upsert(documents).written == 2
    assert store.upsert_vectors([Document("c", "pending")], [None], space=V3).written == 1
    assert store.update_metadata({"a": {"year": 2}, "c": {"year": 3}}) == 2
    (row,), _ = store.pending(V3, limit=10)
    assert store.fill(V3, [row], TaskBackend().embed_documents(["pending"])).filled == 1
    actions = [{"_index": "manuals", "_id": "d", "text": "text d"}]
    update = {"_op_type": "update", "_index": "manuals", "_id": "a", "doc": {"text": "changed"}}
    assert bulk(client, hook([*actions, update]), refresh=True) == (2, [])
    assert store.count() == 5
    assert store.pending(V3, limit=10) == ([], None)


def test_our_own_writes_to_an_adopted_index_pass(
    client: Elasticsearch, adopted: ElasticsearchStore, hook: IngestHook
) -> None:
    hook.install_pipeline("foreign")
    stored(client, "foreign", "old", {"body": "without a vector"})
    assert adopted.upsert([Document("a", "text a", {"lang": "en"})]).written == 1
    assert adopted.upsert_vectors([Document("b", "pending")], [None], space=V3).written == 1
    assert adopted.update_metadata({"b": {"lang": "de"}, "old": {"lang": "fr"}}) == 2
    rows, _ = adopted.pending(V3, limit=10)
    assert {row.document.id: row.document.metadata for row in rows} == {
        "b": {"lang": "de"}, "old": {"lang": "fr"},
    }  # fmt: skip
    vectors = TaskBackend().embed_documents([row.document.text for row in rows])
    assert adopted.fill(V3, rows, vectors).filled == 2
    assert bulk(client, hook([{"_index": "foreign", "_id": "c", "body": "text c"}])) == (1, [])


def test_a_vector_elsewhere_than_in_a_slot_is_refused_on_an_adopted_index(
    client: Elasticsearch, adopted: ElasticsearchStore, hook: IngestHook
) -> None:
    client.indices.put_mapping(
        index="foreign", properties={"image": {"type": "dense_vector", "dims": 4}}
    )
    hook.install_pipeline("foreign")
    ready = {"body": "raw", "embedding": VECTOR}
    assert "image" in refused(client, {**ready, "image": [0.5] * 4}, "foreign")
    long = [0.5] * 768
    for stray in ({"vector": long}, {"in": {"an": {"object": long}}}, {"in": [{"a list": long}]}):
        assert "would become a vector" in refused(client, {**ready, **stray}, "foreign")
    fine = {"curve": long, "numbers": [1] * 768, "short": [0.5] * 100}
    client.index(index="foreign", id="9", document={**ready, **fine})


def test_what_gets_past_the_pipeline(
    client: Elasticsearch, store: ElasticsearchStore, hook: IngestHook
) -> None:
    """The table in docs/elasticsearch-ingest.md."""
    client.index(index="elsewhere", id="1", document=raw("1"), refresh=True)
    client.index(index="elsewhere", id="2", document=raw("2", **{V3.id: VECTOR}), refresh=True)
    hook.install_pipeline("manuals")

    actions: list[dict[str, Any]] = [
        {"index": {"_id": "i"}}, raw("i"),
        {"create": {"_id": "c"}}, raw("c"),
        {"index": {"_id": "p", "pipeline": "_none"}}, raw("p"),
        {"index": {"_id": "v"}}, raw("v", **{V3.id: VECTOR}),
        {"index": {"_id": "n"}}, raw("n", **{V3.id: None}),
        {"update": {"_id": "0"}}, {"doc": {"text": "changed in place"}},
        {"update": {"_id": "u"}}, {"doc": raw("u"), "doc_as_upsert": True},
        {"update": {"_id": "s"}}, {"script": "ctx._source.text = 'x'", "upsert": raw("s")},
        {"update": {"_id": "0"}}, {"script": "ctx._source.text = 'by a script'"},
        {"update": {"_id": "0"}}, {"doc": {"text": "by an upsert"}, "doc_as_upsert": True},
        {"delete": {"_id": "v"}},
    ]  # fmt: skip
    answer = client.bulk(index="manuals", operations=actions, refresh=True)
    became = [next(iter(item.values()))["status"] for item in answer["items"]]
    assert became == [500, 500, 500, 201, 201, 200, 500, 500, 200, 500, 200]

    def text(id: str = "0") -> Any:
        return client.get(index="manuals", id=id)["_source"]["text"]

    client.update(index="manuals", id="0", doc={"text": "by update"}, refresh=True)
    assert text() == "by update"
    client.update(index="manuals", id="0", doc={V3.id: VECTOR}, refresh=True)
    assert [row.document.id for row in store.stale(V3, limit=10)[0]] == ["0"]

    with pytest.raises(ApiError, match="no vector"):
        client.update(index="manuals", id="0", script={"source": f"ctx._source.remove('{V3.id}')"})
    stored(client, "manuals", "e", raw("e"))
    with pytest.raises(ApiError, match="no vector"):
        client.update(index="manuals", id="e", doc={"text": "changed"})
    update = {"_op_type": "update", "_index": "manuals", "_id": "e", "doc": {"text": "changed"}}
    assert bulk(client, [update]) == (1, [])

    query = {"ids": {"values": ["0"]}}
    changed = client.update_by_query(
        index="manuals", query=query, script={"source": "ctx._source.text = 'by query'"}
    )
    assert (changed["updated"], text()) == (1, "by query")
    client.indices.refresh(index="manuals")
    emptied = client.options(ignore_status=500).update_by_query(
        index="manuals", query=query, script={"source": f"ctx._source.remove('{V3.id}')"}
    )
    assert [f["cause"]["type"] for f in emptied["failures"]] == ["fail_processor_exception"]

    copied = client.options(ignore_status=500).reindex(
        source={"index": "elsewhere"}, dest={"index": "manuals"}
    )
    assert [failure["id"] for failure in copied["failures"]] == ["1"]
    assert client.exists(index="manuals", id="2")
    deleted = client.delete_by_query(index="manuals", query=query, refresh=True)
    assert deleted["deleted"] == 1


def test_a_dry_run_changes_nothing_and_shows_what_would(
    client: Elasticsearch, store: ElasticsearchStore, hook: IngestHook
) -> None:
    TellingNode.asked.clear()
    change = hook.install_pipeline("manuals", dry_run=True)
    searches = {("POST", "/manuals/_refresh"), ("POST", "/manuals/_search")}
    assert {method for method, _ in set(TellingNode.asked) - searches} == {"GET"}
    assert not change.applied
    assert f"+index.final_pipeline: {NAME}" in str(change)
    assert final(client) is None
    applied = hook.install_pipeline("manuals")
    assert str(applied) == str(change)
    assert final(client) == NAME


def test_installing_again_changes_nothing_and_removing_again_neither(
    client: Elasticsearch, store: ElasticsearchStore, hook: IngestHook
) -> None:
    assert hook.install_pipeline("manuals").changes
    TellingNode.asked.clear()
    assert not hook.install_pipeline("manuals").changes
    assert {method for method, _ in TellingNode.asked} == {"GET"}
    assert not hook.remove_pipeline("manuals", dry_run=True).applied
    assert hook.remove_pipeline("manuals").changes
    assert final(client) is None
    assert client.options(ignore_status=404).ingest.get_pipeline(id=NAME).body == {}
    assert not hook.remove_pipeline("manuals").changes
    client.index(index="manuals", id="9", document=raw())


def test_a_final_pipeline_that_is_there_is_run_first_and_comes_back(
    client: Elasticsearch, store: ElasticsearchStore, hook: IngestHook
) -> None:
    add = {"set": {"field": "embed_text", "value": "set by theirs"}}
    client.ingest.put_pipeline(id="theirs", processors=[add])
    client.indices.put_settings(index="manuals", settings={"index.final_pipeline": "theirs"})
    for _ in range(2):
        hook.install_pipeline("manuals")
    assert final(client) == NAME
    refused(client, raw())
    client.index(index="manuals", id="9", document=raw(**{V3.id: VECTOR}))
    assert client.get(index="manuals", id="9")["_source"]["embed_text"] == "set by theirs"
    change = hook.remove_pipeline("manuals")
    assert (change.before, change.after) == (NAME, "theirs")
    assert final(client) == "theirs"
    client.indices.put_settings(index="manuals", settings={"index.final_pipeline": None})


def test_a_final_pipeline_that_calls_ours_makes_no_cycle(
    client: Elasticsearch, store: ElasticsearchStore, hook: IngestHook
) -> None:
    """Neither set after ours was installed, nor edited since; directly or by way of another."""
    hook.install_pipeline("manuals")
    client.ingest.put_pipeline(id="between", processors=[{"pipeline": {"name": NAME}}])
    client.ingest.put_pipeline(id="theirs", processors=[{"pipeline": {"name": "between"}}])
    client.indices.put_settings(index="manuals", settings={"index.final_pipeline": "theirs"})
    for dry_run in (True, False):
        with pytest.raises(InvalidInput, match=f"'theirs' calls '{NAME}'.*take that call out"):
            store.guard_install(dry_run=dry_run)
    assert final(client) == "theirs"
    refused(client, raw())
    client.ingest.put_pipeline(id="theirs", processors=[])
    assert store.guard_install()
    client.index(index="manuals", id="9", document=raw(**{V3.id: VECTOR}))
    hook.remove_pipeline("manuals")
    client.indices.put_settings(index="manuals", settings={"index.final_pipeline": None})


def test_documents_that_nobody_could_update_are_counted_and_nothing_is_installed(
    client: Elasticsearch, adopted: ElasticsearchStore, hook: IngestHook
) -> None:
    for id in ("x", "y"):
        client.index(index="foreign", id=id, document={"body": "without a vector"})
    for dry_run in (True, False):
        with pytest.raises(StoreRejected, match=r"2 documents .*'x'.*no vector.*samespace repair"):
            hook.install_pipeline("foreign", dry_run=dry_run)
    client.delete_by_query(index="foreign", query={"match_all": {}}, refresh=True)
    client.index(index="foreign", id="z", document={"body": "b", "embedding": [2.0] * 64})
    with pytest.raises(StoreRejected, match=r"1 documents .*'z'.*embedding.*unit norm"):
        adopted.guard_install()
    assert final(client, "foreign") is None
    assert client.options(ignore_status=404).ingest.get_pipeline(id="samespace--foreign").body == {}


def test_what_an_interruption_left_goes(
    client: Elasticsearch, store: ElasticsearchStore, hook: IngestHook
) -> None:
    for now in (None, "theirs"):
        hook.install_pipeline("manuals")
        client.ingest.put_pipeline(id="theirs", processors=[])
        client.indices.put_settings(index="manuals", settings={"index.final_pipeline": now})
        assert [change.after for change in store.guard_remove(dry_run=True)] == [""]
        assert hook.remove_pipeline("manuals").changes
        assert final(client) == now
        assert client.options(ignore_status=404).ingest.get_pipeline(id=NAME).body == {}
        assert not hook.remove_pipeline("manuals").changes
    client.indices.put_settings(index="manuals", settings={"index.final_pipeline": None})


def test_removing_at_once_takes_nothing_amiss(
    client: Elasticsearch, store: ElasticsearchStore, hook: IngestHook
) -> None:
    hook.install_pipeline("manuals")
    index = read_index(hook._transport, "manuals")
    client.indices.put_settings(index="manuals", settings={"index.final_pipeline": None})
    client.ingest.delete_pipeline(id=NAME)
    forget_pipeline(hook._transport, index)
    transport = hook._transport
    with pytest.raises(Missing):
        transport.ask("DELETE", f"/_ingest/pipeline/{NAME}")


def test_a_pipeline_of_our_name_that_is_not_ours_is_left_alone(
    client: Elasticsearch, store: ElasticsearchStore, hook: IngestHook
) -> None:
    client.ingest.put_pipeline(id=NAME, description="somebody's", processors=[])
    with pytest.raises(InvalidInput, match="not made here"):
        store.guard_install()
    client.indices.put_settings(index="manuals", settings={"index.final_pipeline": NAME})
    assert store.guard_remove() == ()
    store.add_slot(UNLIKE)
    store.drop()
    assert client.ingest.get_pipeline(id=NAME)[NAME]["description"] == "somebody's"


@pytest.mark.parametrize(
    "change",
    [
        {"on_failure": [{"set": {"field": "failed", "value": True}}]},
        {"processors": lambda ours: [{"drop": {}}, *ours]},
        {"processors": lambda ours: ours[1:]},
    ],
    ids=["on_failure", "drop", "without a check"],
)
def test_a_pipeline_that_was_changed_is_no_guard_and_is_put_back(
    client: Elasticsearch, adopted: ElasticsearchStore, change: dict[str, Any]
) -> None:
    adopted.guard_install()
    name = "samespace--foreign"
    body = {k: v for k, v in client.ingest.get_pipeline(id=name)[name].items() if "date" not in k}
    made = {
        key: each(body["processors"]) if callable(each) else each for key, each in change.items()
    }
    client.ingest.put_pipeline(id=name, body={**body, **made})
    told = {each.act: each.outcome for each in adopted.guard_check()}
    assert told[RawAct.NO_VECTOR] is Outcome.PENDING
    adopted.guard_install()
    told = {each.act: each.outcome for each in adopted.guard_check()}
    assert told[RawAct.NO_VECTOR] is Outcome.REFUSED


def test_a_pipeline_set_in_place_of_ours_is_left_alone(
    client: Elasticsearch, store: ElasticsearchStore, hook: IngestHook
) -> None:
    hook.install_pipeline("manuals")
    client.ingest.put_pipeline(id="theirs", processors=[{"pipeline": {"name": NAME}}])
    client.indices.put_settings(index="manuals", settings={"index.final_pipeline": "theirs"})
    assert not hook.remove_pipeline("manuals").changes
    assert final(client) == "theirs"
    refused(client, raw())
    client.indices.put_settings(index="manuals", settings={"index.final_pipeline": None})


def test_the_pipeline_follows_the_slots(
    client: Elasticsearch, store: ElasticsearchStore, hook: IngestHook
) -> None:
    hook.install_pipeline("manuals")
    store.add_slot(UNLIKE)
    client.index(index="manuals", id="9", document=raw(**{UNLIKE.id: VECTOR}), refresh=True)
    client.delete(index="manuals", id="9", refresh=True)
    store.drop_slot(UNLIKE)
    assert UNLIKE.id not in str(client.ingest.get_pipeline(id=NAME)[NAME]["processors"][0])
    assert "no vector" in refused(client, raw(**{UNLIKE.id: VECTOR}))
    both = {V3.id: VECTOR, UNLIKE.id: VECTOR}
    assert f"a vector in {UNLIKE.id}, which is no slot" in refused(client, raw(**both))
    client.index(index="manuals", id="9", document=raw(**{V3.id: VECTOR}))


def test_the_pipeline_goes_with_the_collection(
    client: Elasticsearch, store: ElasticsearchStore, hook: IngestHook
) -> None:
    hook.install_pipeline("manuals")
    store.drop()
    assert client.options(ignore_status=404).ingest.get_pipeline(id=NAME).body == {}
    store.upsert([Document("0", "in a collection made anew")])
    client.index(index="manuals", id="9", document=raw())


def test_slots_change_without_a_pipeline_as_before(
    client: Elasticsearch, store: ElasticsearchStore
) -> None:
    store.add_slot(UNLIKE)
    store.drop_slot(UNLIKE)
    assert final(client) is None
    assert client.options(ignore_status=404).ingest.get_pipeline(id=NAME).body == {}


def test_only_a_hook_of_a_recorded_space_installs_a_pipeline(
    client: Elasticsearch, store: ElasticsearchStore
) -> None:
    other = IngestHook(TaskBackend(V2), client=client)
    with pytest.raises(SpaceMismatch):
        other.install_pipeline("manuals")
    client.indices.create(index="elsewhere")
    with pytest.raises(SpaceUnknown):
        other.install_pipeline("elsewhere")
    assert final(client) is None


def test_a_field_of_any_name_is_only_a_name_in_the_pipeline(client: Elasticsearch) -> None:
    odd = "it's \\ odd') || true //"
    vectors = {"type": "dense_vector", "dims": 64, "similarity": "cosine"}
    properties = {"body": {"type": "text"}, "lang": {"type": "keyword"}, odd: vectors}
    properties["in"] = {"properties": {"side": vectors}}
    for slot in (odd, "in.side"):
        clear(client)
        client.indices.create(index="foreign", mappings={"properties": properties})
        layout = Layout(id="_id", text="body", slot=slot, metadata=("lang",))
        with ElasticsearchStore(
            client, collection="foreign", backend=TaskBackend(), layout=layout
        ) as store:
            store.adopt()
            hook = IngestHook(TaskBackend(), client=client)
            hook.install_pipeline("foreign")
            assert "no vector" in refused(client, {"body": "raw"}, "foreign")
            assert store.upsert([Document("a", "text a")]).written == 1
            assert bulk(client, hook([{"_index": "foreign", "_id": "b", "body": "b"}])) == (1, [])
            dotted = {"body": "raw", slot: VECTOR}
            client.index(index="foreign", id="c", document=dotted)


async def test_the_async_hook_installs_and_removes_it_too(
    elasticsearch: str, client: Elasticsearch, store: ElasticsearchStore
) -> None:
    async with AsyncElasticsearch(elasticsearch) as asynchronous:
        hook = AsyncIngestHook(TaskBackend(), client=asynchronous)
        assert (await hook.install_pipeline("manuals")).changes
        refused(client, raw())
        assert (await hook.remove_pipeline("manuals")).changes
    client.index(index="manuals", id="9", document=raw(**{source_name(V3.id): "x"}))
