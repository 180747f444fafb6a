"""Documents that go to Elasticsearch by the client's own bulk helpers, through the hook."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from elasticsearch import AsyncElasticsearch, Elasticsearch
from elasticsearch.helpers import async_bulk, bulk, parallel_bulk, streaming_bulk
from tests.contract.elasticsearch_client import TellingNode, telling_client

from samespace import (
    AsyncIngestHook,
    Document,
    ElasticsearchStore,
    IngestHook,
    JinaAPIBackend,
    Layout,
    field,
)
from samespace.errors import (
    CollectionNotFound,
    EmbeddingError,
    InvalidInput,
    SpaceMismatch,
    SpaceUnknown,
    StoreUnavailable,
)
from samespace.guard import CANARY_TEXTS
from samespace.space import EmbeddingSpace
from samespace.testing.backends import UNLIKE, V3, LyingBackend, RefusingBackend, TaskBackend
from samespace.testing.jina_server import JinaServer

LAYOUT = Layout(id="_id", text="body", slot="embedding", metadata=("lang", "year"))
NAMES = ("manuals", "notes", "foreign", "bystander")
HOSTILE: tuple[dict[str, Any], ...] = (
    {"_op_type": "delete", "_index": "bystander", "_id": "0"},
    {"routing": "r", "version": 7, "version_type": "external", "pipeline": "p"},
    {"doc": {"x": 1}, "script": "ctx.op = 'delete'", "upsert": {}, "doc_as_upsert": True},
    {"_source": {"_op_type": "delete"}, "_routing": "r", "if_seq_no": 0, "if_primary_term": 1},
    {"id": "0", "text": "t", "terms": ["x"], "metadata": {"_index": "bystander"}, "é'\"\\": "\n"},
)


@pytest.fixture
def client(elasticsearch: str) -> Iterator[Elasticsearch]:
    with telling_client(elasticsearch) as client:
        client.indices.delete(index=NAMES, ignore_unavailable=True)
        yield client
        client.indices.delete(index=NAMES, ignore_unavailable=True)


@pytest.fixture
def backend() -> TaskBackend:
    return TaskBackend()


def opened(url: str, name: str, backend: Any, **options: Any) -> ElasticsearchStore:
    return ElasticsearchStore(url, collection=name, backend=backend, **options)


@pytest.fixture
def manuals(elasticsearch: str, client: Elasticsearch, backend: TaskBackend) -> Any:
    with opened(elasticsearch, "manuals", backend) as store:
        store.create()
        backend.canaries = 0
        yield store


@pytest.fixture
def foreign(elasticsearch: str, client: Elasticsearch, backend: TaskBackend) -> Any:
    """An adopted index with a row of its maker's."""
    client.indices.create(
        index="foreign",
        mappings={
            "properties": {
                "body": {"type": "text"},
                "lang": {"type": "keyword"},
                "year": {"type": "integer"},
                "other": {"type": "object", "enabled": False},
                "embedding": {"type": "dense_vector", "dims": 64, "similarity": "cosine"},
            }
        },
    )
    vector = backend.embed_documents(["first text"])[0].tolist()
    client.index(index="foreign", id="0", document={"body": "first text", "embedding": vector})
    client.indices.refresh(index="foreign")
    with opened(elasticsearch, "foreign", backend, layout=LAYOUT) as store:
        store.adopt()
        backend.canaries = 0
        yield store


def pairs(count: int) -> list[dict[str, Any]]:
    return [
        {"_index": "manuals", "_id": f"{n}", "_source": {"body": f"text number {n}", "year": n}}
        for n in range(count)
    ]


class Mixed:
    """A stream of actions of all kinds on several indexes, and what must come of it."""

    def __init__(self, count: int) -> None:
        self.random = np.random.default_rng(7)
        self.rows: dict[str, dict[str, dict[str, Any]]] = {
            name: {} for name in ("manuals", "notes", "foreign")
        }
        self.actions = [self.action(n) for n in range(count)]

    def action(self, number: int) -> dict[str, Any]:
        index = self.one_of(list(self.rows))
        rows = self.rows[index]
        kinds = [*3 * ["index", "create", "update"], "metadata", "delete"] if rows else ["create"]
        kind = self.one_of(kinds)
        if kind == "metadata" and index != "foreign":
            kind = "update"
        id = f"new {number}" if kind == "create" else self.one_of([*rows, f"{number}"])
        target = {"_index": index, "_id": id if kind != "delete" else next(iter(rows))}
        return {**target, **getattr(self, kind)(rows, target["_id"], number)}

    def one_of(self, values: Sequence[Any]) -> Any:
        return values[int(self.random.integers(len(values)))]

    def document(self, rows: Any, id: str, number: int) -> dict[str, Any]:
        text = f"text number {number} of row {id}"
        extra = self.one_of([{}, {"year": number}, {"other": self.one_of(HOSTILE)}])
        rows[id] = {"body": text, **deepcopy(extra)}
        return deepcopy(rows[id])

    def index(self, rows: Any, id: str, number: int) -> dict[str, Any]:
        document = self.document(rows, id, number)
        return document if number % 2 else {"_op_type": "index", "_source": document}

    def create(self, rows: Any, id: str, number: int) -> dict[str, Any]:
        return {"_op_type": "create", "_source": self.document(rows, id, number)}

    def update(self, rows: Any, id: str, number: int) -> dict[str, Any]:
        text = f"changed text {number}"
        may_be_new = {"doc_as_upsert": True} if id not in rows or number % 2 else {}
        rows.setdefault(id, {})["body"] = text
        return {"_op_type": "update", "doc": {"body": text}, **may_be_new}

    def metadata(self, rows: Any, id: str, number: int) -> dict[str, Any]:
        id = next(iter(rows))
        rows[id]["lang"] = f"l{number}"
        return {"_op_type": "update", "_id": id, "doc": {"lang": f"l{number}"}}

    def delete(self, rows: Any, id: str, number: int) -> dict[str, Any]:
        del rows[id]
        return {"_op_type": "delete"}


def stored(client: Elasticsearch, index: str) -> dict[str, dict[str, Any]]:
    """What an index holds, vectors included."""
    client.indices.refresh(index=index)
    found = client.search(index=index, size=10_000, source_exclude_vectors=False)
    return {hit["_id"]: hit["_source"] for hit in found["hits"]["hits"]}


def check_mixed(client: Elasticsearch, mixed: Mixed, stores: Any, bystander: Any) -> None:
    """All that was sent is there, as it was meant, with the vector of its text."""
    reference = TaskBackend()
    for name, rows in mixed.rows.items():
        found = stored(client, name)
        assert found.keys() == rows.keys()
        assert stores[name].pending(V3, limit=10) == ([], None)
        assert stores[name].stale(V3, limit=10)[0] == []
        slot = "embedding" if name == "foreign" else V3.id
        texts = [rows[id]["body"] for id in rows]
        vectors = [found[id].pop(slot) for id in rows]
        np.testing.assert_allclose(vectors, reference.embed_documents(texts), atol=1e-6)
        if name == "foreign":
            assert found == rows
        else:
            documents = stores[name].get(list(rows))
            assert {d.id: {"body": d.text, **d.metadata} for d in documents} == rows
    assert stored(client, "bystander") == bystander
    assert not client.indices.exists(index="other")


@pytest.fixture
def mixed(
    *,
    request: pytest.FixtureRequest,
    elasticsearch: str,
    client: Elasticsearch,
    backend: TaskBackend,
    manuals: Any,
    foreign: Any,
) -> Iterator[tuple[Mixed, Any, Any]]:
    client.delete(index="foreign", id="0")
    for number in range(3):
        client.index(index="bystander", id=str(number), document={"note": number})
    with opened(elasticsearch, "notes", backend) as notes:
        notes.create()
        backend.canaries = 0
        stores = {"manuals": manuals, "notes": notes, "foreign": foreign}
        yield Mixed(request.param), stores, stored(client, "bystander")


@pytest.mark.parametrize("mixed", [5000], indirect=True)
def test_5000_mixed_actions_come_out_right(
    client: Elasticsearch, backend: TaskBackend, mixed: Any
) -> None:
    plan, stores, bystander = mixed
    before = deepcopy(plan.actions)
    TellingNode.asked.clear()
    done, errors = bulk(client, IngestHook(backend, client=client, text_field="body")(plan.actions))
    assert (done, errors) == (5000, [])
    assert plan.actions == before
    assert backend.canaries == len(CANARY_TEXTS)
    asked = [path for method, path in TellingNode.asked if method == "GET"]
    assert sorted(asked) == ["/", "/foreign", "/manuals", "/notes"]
    check_mixed(client, plan, stores, bystander)
    assert stores["notes"].count(field("year") >= 0) == sum(
        "year" in row for row in plan.rows["notes"].values()
    )


@pytest.mark.parametrize("mixed", [1500], indirect=True)
async def test_mixed_actions_come_out_right_through_the_async_helper(
    elasticsearch: str, client: Elasticsearch, backend: TaskBackend, mixed: Any
) -> None:
    plan, stores, bystander = mixed

    async def stream() -> AsyncIterator[dict[str, Any]]:
        for action in plan.actions:
            yield action

    async with AsyncElasticsearch(elasticsearch) as asynchronous:
        ahook = AsyncIngestHook(backend, client=asynchronous, text_field="body")
        done, errors = await async_bulk(asynchronous, ahook(stream()))
        assert (done, errors) == (1500, [])
        sent = [action async for action in ahook(pairs(3))]
    assert [action["_id"] for action in sent] == ["0", "1", "2"]
    check_mixed(client, plan, stores, bystander)


def test_actions_keep_their_order_and_are_read_as_they_are_needed(
    client: Elasticsearch, backend: TaskBackend, manuals: Any
) -> None:
    read = 0

    def source() -> Iterator[dict[str, Any]]:
        nonlocal read
        for action in pairs(2500):
            read += 1
            yield action

    hooked = IngestHook(backend, client=client, text_field="body")(source())
    assert read == 0
    assert next(hooked)["_id"] == "0"
    assert read == 1000
    assert [action["_id"] for action in hooked] == [str(n) for n in range(1, 2500)]


@pytest.mark.parametrize("helper", [streaming_bulk, parallel_bulk])
def test_the_other_helpers_take_it_too(
    client: Elasticsearch, backend: TaskBackend, manuals: Any, helper: Any
) -> None:
    hook = IngestHook(backend, client=client, text_field="body")
    done = [ok for ok, _ in helper(client, hook(pairs(2500)))]
    assert done == [True] * 2500
    assert stored(client, "manuals").keys() == {str(n) for n in range(2500)}
    assert backend.canaries == len(CANARY_TEXTS)


def test_a_search_finds_what_the_hook_wrote_and_the_store_reads_it_as_its_own(
    client: Elasticsearch, backend: TaskBackend, manuals: Any
) -> None:
    hook = IngestHook(backend, client=client, text_field="body", index="manuals")
    document = {"body": "the display is dark", "lang": ["en", "de"], "size": {"cm": 3.5}}
    bulk(client, hook([{"_id": "a", **document}, *pairs(5)]), refresh=True)
    expected = Document("a", "the display is dark", {"lang": ["en", "de"], "size": {"cm": 3.5}})
    where = (field("lang") == "de") & (field("size", "cm") > 3)
    (hit,) = manuals.search("dark display", where=where)
    assert hit.document == expected
    assert manuals.update_metadata({"a": {"lang": "fr"}}, merge=True) == 1
    assert manuals.count(field("lang") == "fr") == 1


def test_a_v2_hook_is_refused_by_a_v3_index_before_anything_is_sent(
    elasticsearch: str, client: Elasticsearch
) -> None:
    with JinaServer(keys=("test",)) as server:
        v3 = JinaAPIBackend(dimensions=768, api_key="test", base_url=server.url)
        v2 = JinaAPIBackend("jina-embeddings-v2-base-en", api_key="test", base_url=server.url)
        with v3, v2:
            with opened(elasticsearch, "manuals", v3) as store:
                store.create()
                bulk(client, IngestHook(v3, client=client, text_field="body")(pairs(20)))
            before = stored(client, "manuals")
            assert len(before) == 20
            embedded = len(server.requests)
            TellingNode.asked.clear()
            with pytest.raises(SpaceMismatch, match="jina-embeddings-v2-base-en") as refused:
                bulk(client, IngestHook(v2, client=client, text_field="body")(pairs(40)))
            assert TellingNode.asked == [("GET", "/manuals")]
            assert len(server.requests) == embedded
    assert {difference.field for difference in refused.value.differences} == {"model", "task"}
    assert stored(client, "manuals") == before


def test_a_hook_that_embeds_otherwise_is_refused_by_the_canary(
    client: Elasticsearch, manuals: Any
) -> None:
    lying = IngestHook(LyingBackend(), client=client, text_field="body")
    for _ in range(2):
        with pytest.raises(SpaceMismatch, match="cosine"):
            bulk(client, lying(pairs(3)))
    assert stored(client, "manuals") == {}


def test_an_index_without_a_record_or_without_existence_is_refused(
    client: Elasticsearch, backend: TaskBackend
) -> None:
    client.index(index="bystander", id="0", document={"body": "text"})
    hook = IngestHook(backend, client=client, text_field="body")
    with pytest.raises(SpaceUnknown, match="adopt"):
        bulk(client, hook([{**pairs(1)[0], "_index": "bystander"}]))
    with pytest.raises(CollectionNotFound, match="manuals"):
        bulk(client, hook(pairs(1)))
    assert not client.indices.exists(index="manuals")


def test_an_alias_means_its_write_index(
    client: Elasticsearch, backend: TaskBackend, manuals: Any, foreign: Any
) -> None:
    client.indices.put_alias(index="manuals", name="current")
    hook = IngestHook(backend, client=client, text_field="body", index="current")
    assert bulk(client, hook([{"_id": "a", "body": "through the alias"}])) == (1, [])
    client.indices.put_alias(index="foreign", name="current")
    with pytest.raises(InvalidInput, match="several indices"):
        bulk(client, hook([{"_id": "b", "body": "to which of them"}]))
    client.indices.put_alias(index="foreign", name="current", is_write_index=True)
    assert bulk(client, hook([{"_id": "c", "body": "to the foreign one"}])) == (1, [])
    assert stored(client, "manuals").keys() == {"a"}
    assert stored(client, "foreign").keys() == {"0", "c"}


def test_a_bad_action_ends_the_stream_and_is_named(
    client: Elasticsearch, backend: TaskBackend, manuals: Any
) -> None:
    stream = pairs(1500)
    stream[1200]["_source"]["body"] = " "
    hook = IngestHook(backend, client=client, text_field="body")
    with pytest.raises(InvalidInput, match=r"^action 1200 \(_id '1200'\): its 'body' is blank"):
        bulk(client, hook(stream))
    # A batch of 1,000 was yielded; the helper sends 500 at a time and holds back its last request.
    assert stored(client, "manuals").keys() == {str(n) for n in range(500)}
    del stream[1200]
    assert bulk(client, hook(stream), refresh=True) == (1499, [])
    assert manuals.count() == 1499


def test_a_text_that_the_backend_refuses_is_named_by_its_action(
    client: Elasticsearch, manuals: Any
) -> None:
    stream = pairs(10)
    stream[7]["_source"]["body"] = stream[3]["_source"]["body"] = "a forbidden text"
    hook = IngestHook(RefusingBackend("forbidden"), client=client, text_field="body")
    with pytest.raises(EmbeddingError, match=r"action 3 \(_id '3'\), action 7") as refused:
        bulk(client, hook(stream))
    assert refused.value.indices == (3, 7)


def test_equal_texts_are_embedded_once(
    client: Elasticsearch, backend: TaskBackend, manuals: Any
) -> None:
    hook = IngestHook(backend, client=client, text_field="body", index="manuals")
    backend.documents.clear()
    same = [{"_id": str(n), "body": "the same text"} for n in range(5)]
    update = {"_op_type": "update", "_id": "9", "doc": {"body": "another"}, "doc_as_upsert": True}
    assert bulk(client, hook([*same, update])) == (6, [])
    assert backend.documents == ["the same text", "another"]
    assert len(stored(client, "manuals")) == 6


def test_an_update_leaves_the_other_slot_to_be_filled_again(
    client: Elasticsearch, backend: TaskBackend, manuals: Any
) -> None:
    other = TaskBackend(UNLIKE, seed=5)
    hook = IngestHook(backend, client=client, text_field="body")
    bulk(client, hook(pairs(2)), refresh=True)
    manuals.add_slot(UNLIKE)
    rows, _ = manuals.pending(UNLIKE, limit=10)
    manuals.fill(UNLIKE, rows, other.embed_documents([row.document.text for row in rows]))
    update = {"_op_type": "update", "_index": "manuals", "_id": "1", "doc": {"body": "new text"}}
    bulk(client, hook([update]), refresh=True)
    (row,), _ = manuals.pending(UNLIKE, limit=10)
    assert row.document.text == "new text"
    assert manuals.pending(V3, limit=10) == ([], None)
    assert manuals.stale(UNLIKE, limit=10)[0] == []


def test_vectors_that_were_made_elsewhere_pass_if_their_space_is_claimed(
    client: Elasticsearch, backend: TaskBackend, manuals: Any
) -> None:
    vector = backend.embed_documents(["text number 0"])[0].tolist()
    (action,) = pairs(1)
    action["_source"][V3.id] = vector
    backend.documents.clear()
    with pytest.raises(InvalidInput, match="claimed="):
        bulk(client, IngestHook(backend, client=client, text_field="body")([action]))
    hook = IngestHook(backend, client=client, text_field="body", claimed=V3)
    assert bulk(client, hook([action]), refresh=True) == (1, [])
    assert backend.documents == []
    assert manuals.get(["0"], with_vectors=True)[0].vector == pytest.approx(vector, abs=1e-6)
    assert manuals.pending(V3, limit=1) == ([], None)
    with pytest.raises(SpaceMismatch):
        bulk(client, IngestHook(backend, client=client, claimed=UNLIKE)([action]))


def test_no_exception_of_the_client_leaves_the_hook(backend: TaskBackend) -> None:
    with Elasticsearch("http://127.0.0.1:1") as client:
        hook = IngestHook(backend, client=client, text_field="body", timeout=0.2)
        with pytest.raises(StoreUnavailable):
            list(hook(pairs(1)))


@pytest.mark.parametrize(
    "options",
    [{"text_field": ""}, {"text_field": 3}, {"index": "*"}, {"claimed": "v3"}, {"client": None}],
)
def test_a_hook_is_not_made_of_what_it_cannot_use(options: dict[str, Any]) -> None:
    with Elasticsearch("http://127.0.0.1:1") as client, pytest.raises(InvalidInput):
        IngestHook(TaskBackend(), **{"client": client, **options})


@pytest.mark.parametrize("actions", [{"_id": "a"}, "text", 3, None])
def test_what_is_no_stream_of_actions_is_refused(actions: Any) -> None:
    with Elasticsearch("http://127.0.0.1:1") as client, pytest.raises(InvalidInput, match="iter"):
        list(IngestHook(TaskBackend(), client=client)(actions))


def test_a_hook_tells_its_space() -> None:
    with Elasticsearch("http://127.0.0.1:1") as client:
        hook = IngestHook(TaskBackend(), client=client)
        assert isinstance(hook.space, EmbeddingSpace)
        assert repr(hook) == f"IngestHook(space={str(V3)!r})"
