"""What Elasticsearch does for collections of ours, strangers included."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from elasticsearch import BadRequestError, Elasticsearch

from samespace import Document, ElasticsearchStore, EmbeddingSpace, Index, Layout
from samespace.audit import audit
from samespace.audit.verdicts import Verdict
from samespace.errors import CollectionNotFound, InvalidInput, StoreRejected, StoreUnavailable
from samespace.filters import everything, field
from samespace.stores.elasticsearch import dsl
from samespace.testing.backends import UNLIKE, V3, TaskBackend
from samespace.testing.corpus import documents
from samespace.testing.together import elsewhere


@pytest.fixture
def client(elasticsearch: str) -> Iterator[Elasticsearch]:
    with Elasticsearch(elasticsearch) as client:
        yield client


@pytest.fixture
def store(client: Elasticsearch, elasticsearch: str) -> Iterator[ElasticsearchStore]:
    with ElasticsearchStore(
        elasticsearch, collection=f"t{uuid.uuid4().hex[:12]}", backend=TaskBackend()
    ) as store:
        store.create()
        yield store
        client.indices.delete(index=store.collection)


def unit(rows: int, dimensions: int) -> Any:
    made = np.random.default_rng(7).normal(size=(rows, dimensions)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


# Strangers


@pytest.mark.parametrize(
    "body",
    [
        {"text": "x", "unknown": 1},
        {"text": "x", UNLIKE.id: [0.125] * 64},
        {"text": "x", V3.id: [1.0] * 64},
        {"text": "x", V3.id: [0.0] * 64},
        {"text": "x", V3.id: [1.0] + [0.0] * 31},
    ],
    ids=["a field", "another space", "not of unit norm", "zero", "half the dimensions"],
)
def test_the_server_itself_refuses_what_is_not_of_the_space(
    client: Elasticsearch, store: ElasticsearchStore, body: dict[str, Any]
) -> None:
    with pytest.raises(BadRequestError):
        client.index(index=store.collection, id="x", document=body)
    assert store.count() == 0


def test_rows_without_an_id_of_ours_are_listed_whatever_the_page_ends_in(
    client: Elasticsearch, store: ElasticsearchStore
) -> None:
    """Nor is one of two rows passed over that a stranger has given one id."""
    ours = [Document(f"d{n}", f"text {n}") for n in range(5)]
    store.upsert(ours)
    vectors = unit(8, 64).tolist()
    strange = {f"s{n}": {V3.id: vectors[n]} for n in range(5)}
    strange |= {f"t{n}": {V3.id: vectors[n], "id": "d2"} for n in range(5, 8)}
    for id, body in strange.items():
        client.index(index=store.collection, id=id, document=body)
    client.index(index=store.collection, id="u", document={"text": "without a vector"})
    client.indices.refresh(index=store.collection)
    ids = {row.id for row in ours} | strange.keys()
    for size in range(1, 6):
        scanned = [row.id for row in store.scan(batch_size=size)]
        assert (len(scanned), set(scanned)) == (14, ids | {"u"})
        filled, pending = listed(store.filled, size), listed(store.pending, size)
        assert (len(filled), set(filled)) == (13, ids)
        assert (len(pending), set(pending)) == (9, strange.keys() | {"u"})
    assert {row.document.id for row in store.sample(V3, size=20)} == ids


def listed(method: Callable[..., Any], size: int) -> list[str]:
    """The ids that come page by page."""
    found: list[str] = []
    after = None
    while True:
        rows, after = method(V3, limit=size, after=after)
        found += [row.document.id for row in rows]
        if after is None:
            return found


def test_an_audit_names_rows_that_have_nothing_of_ours(
    client: Elasticsearch, store: ElasticsearchStore
) -> None:
    store.upsert(documents(20))
    for n, vector in enumerate(unit(7, 64).tolist()):
        client.index(index=store.collection, id=f"s{n}", document={V3.id: vector})
    found = audit(store, sample="all", batch_size=1)
    assert (found.complete, found.looked_at) == (True, 27)
    unjudged = {each.id for each in found.findings if each.verdict is Verdict.UNJUDGED}
    assert unjudged == {f"s{n}" for n in range(7)}


def test_what_a_stranger_has_written_is_pending_and_stale_at_once(
    client: Elasticsearch, store: ElasticsearchStore
) -> None:
    name = store.collection
    client.indices.put_settings(index=name, settings={"index": {"refresh_interval": "-1"}})
    store.upsert(documents(2))
    client.index(index=name, id="new", document={"id": "new", "text": "written by a stranger"})
    client.update(index=name, id="d1", doc={"text": "changed by a stranger"})
    assert [row.document.id for row in store.pending(V3, limit=10)[0]] == ["new"]
    client.update(index=name, id="d0", doc={"text": "changed too"})
    assert {row.document.id for row in store.stale(V3, limit=10)[0]} == {"d0", "d1"}


def test_a_mapping_does_not_grow_with_metadata(
    client: Elasticsearch, store: ElasticsearchStore
) -> None:
    before = client.indices.get_mapping(index=store.collection)
    store.upsert(Document(str(n), "text", {f"key {n}": {"in": [n]}}) for n in range(50))
    store.update_metadata({"0": {"another": 1}})
    assert client.indices.get_mapping(index=store.collection) == before
    assert store.count(field("key 7", "in") == 7) == 1


def test_others_keys_of_meta_stay(client: Elasticsearch, store: ElasticsearchStore) -> None:
    mapping = client.indices.get_mapping(index=store.collection)[store.collection]["mappings"]
    client.indices.put_mapping(index=store.collection, meta={**mapping["_meta"], "owner": "me"})
    store.add_slot(UNLIKE)
    store.drop_slot(UNLIKE)
    mapping = client.indices.get_mapping(index=store.collection)[store.collection]["mappings"]
    assert mapping["_meta"]["owner"] == "me"


def test_metadata_that_a_stranger_wrote_plainly_is_read(
    client: Elasticsearch, store: ElasticsearchStore
) -> None:
    body = {"id": "s", "text": "by a stranger", "metadata": {"k": 1}}
    client.index(index=store.collection, id="s", document=body, refresh=True)
    assert store.get(["s"]) == [Document("s", "by a stranger", {"k": 1})]
    assert store.update_metadata({"s": {"l": 2}}, merge=True) == 1
    assert store.get(["s"])[0].metadata == {"k": 1, "l": 2}
    rows, _ = store.pending(V3, limit=10)
    assert [row.document.id for row in rows] == ["s"]


def test_a_number_that_a_stranger_wrote_as_text_is_none(
    client: Elasticsearch, store: ElasticsearchStore
) -> None:
    body = {"id": "s", "text": 5, "embed_text": [1], V3.id: [0.125] * 64}
    body[dsl.source_name(V3.id)] = "of another text"
    client.index(index=store.collection, id="s", document=body, refresh=True)
    assert store.get(["s"]) == [Document("s", "")]
    assert [row.document.id for row in store.stale(V3, limit=10)[0]] == ["s"]


def test_an_alias_of_a_collection_is_the_collection(
    client: Elasticsearch, store: ElasticsearchStore, elasticsearch: str
) -> None:
    alias = f"{store.collection}_alias"
    client.indices.put_alias(index=store.collection, name=alias)
    with ElasticsearchStore(elasticsearch, collection=alias, backend=TaskBackend()) as other:
        other.upsert(documents(2))
        with pytest.raises(InvalidInput, match="alias"):
            other.drop()
    assert store.count() == 2


def test_a_block_on_writes_is_said_to_be_one(
    client: Elasticsearch, store: ElasticsearchStore
) -> None:
    store.upsert(documents(3))
    client.indices.put_settings(index=store.collection, settings={"index.blocks.write": True})
    with pytest.raises(StoreRejected, match="the index is blocked"):
        store.delete(ids=["d0"])
    with pytest.raises(StoreRejected, match="the index is blocked"):
        store.update_metadata({"d0": {}})


def test_who_writes_what_another_drops_hears_that_it_is_gone(store: ElasticsearchStore) -> None:
    def repeated(act: Callable[[], object]) -> list[BaseException]:
        return [error for error in (elsewhere(act) for _ in range(40)) if error is not None]

    def write() -> None:
        store.upsert(documents(1))

    with ThreadPoolExecutor(4) as threads:
        acts = [write, write, write, store.drop]
        heard = [error for found in threads.map(repeated, acts) for error in found]
    assert {type(error) for error in heard} <= {CollectionNotFound, StoreUnavailable}
    store.create()


# Slots


def test_a_stale_handle_is_refused_by_the_server_in_the_same_round_trip(
    client: Elasticsearch, store: ElasticsearchStore
) -> None:
    store.add_slot(UNLIKE)
    alias = dsl.alias_of(store.collection, UNLIKE.id)
    assert client.indices.exists_alias(name=alias)
    store.drop_slot(UNLIKE)
    assert not client.indices.exists_alias(name=alias)


def test_stale_rows_are_found_on_every_page(
    client: Elasticsearch, store: ElasticsearchStore
) -> None:
    store.upsert_vectors(documents(1200), unit(1200, 64), space=V3)
    changed = {"d3", "d777", "d1001", "d999"}
    for id in changed:
        client.update(index=store.collection, id=id, doc={"text": "changed"}, refresh=True)
    found: list[str] = []
    since: str | None = None
    for _ in range(10):
        rows, since = store.stale(V3, since=since, limit=2)
        found += [row.document.id for row in rows]
        if since is None:
            break
    assert sorted(found) == sorted(changed)


def test_pages_by_change_over_several_shards_cover_everything_once(
    client: Elasticsearch, elasticsearch: str
) -> None:
    name = f"t{uuid.uuid4().hex[:12]}"
    vectors = {"type": "dense_vector", "dims": 64, "similarity": "cosine"}
    properties = {"vector": vectors, "text": {"type": "text"}, "metadata": {"type": "object"}}
    client.indices.create(
        index=name, mappings={"properties": properties}, settings={"number_of_shards": 5}
    )
    for row, vector in zip(documents(40), unit(40, 64), strict=True):
        client.index(index=name, id=row.id, document={"text": row.text, "vector": vector.tolist()})
    client.indices.refresh(index=name)
    layout = Layout(id="_id", text="text", slot="vector")
    with ElasticsearchStore(elasticsearch, collection=name, space=V3, layout=layout) as store:
        store.adopt()
        store.add_slot(UNLIKE)
        for limit in (1, 3, 7):
            assert _paged(store, limit) == Counter(row.id for row in documents(40))
        parts = [_paged(store, 7, shard=(n, 3)) for n in range(3)]
        assert sum(parts, Counter[str]()) == Counter(row.id for row in documents(40))
        assert all(parts)
    client.indices.delete(index=name)


def _paged(store: ElasticsearchStore, limit: int, **options: Any) -> Counter[str]:
    seen: Counter[str] = Counter()
    after: str | None = None
    while True:
        rows, after = store.pending(UNLIKE, limit=limit, after=after, **options)
        seen.update(row.document.id for row in rows)
        if after is None:
            return seen


# Indexes


@pytest.mark.parametrize("quantization", [None, "half", "int8", "binary"])
def test_as_many_hits_as_can_be_asked_for(
    elasticsearch: str, client: Elasticsearch, quantization: Any
) -> None:
    space = EmbeddingSpace(model="m", dimensions=64)
    index = Index(quantization=quantization)
    name = f"t{uuid.uuid4().hex[:12]}"
    vectors = unit(3000, 64)
    with ElasticsearchStore(elasticsearch, collection=name, space=space, index=index) as store:
        store.upsert_vectors(documents(3000), vectors, space=space)
        cosines = vectors @ vectors[5]
        best = store.search_vector(vectors[5], space=space, limit=10)
        expected = {f"d{n}" for n in np.argsort(-cosines)[:10]}
        assert best[0].document.id == "d5"
        least = 2 if quantization == "binary" else 9  # of few dimensions, a bit each says little
        assert len(expected & {hit.document.id for hit in best}) >= least
        assert len(store.search_vector(vectors[5], space=space, limit=10_000)) >= 2950
        some = store.search_vector(
            vectors[5], space=space, limit=10_000, where=field("year") < 2400
        )
        assert len(some) == 400
        client.indices.delete(index=name)


def test_a_slot_without_a_graph_cannot_be_given_one(elasticsearch: str, store: Any) -> None:
    flat = ElasticsearchStore(
        elasticsearch, collection=f"{store.collection}f", space=V3, index=Index(kind="flat")
    )
    flat.create()
    with ElasticsearchStore(elasticsearch, collection=flat.collection, space=V3) as other:
        with pytest.raises(InvalidInput, match="flat"):
            other.build_index()
        assert not other.info().index_built
    flat.drop()
    flat.close()


# Sizes


def test_long_texts_and_long_values_and_long_batches(store: ElasticsearchStore) -> None:
    long = "ö" * 2_000_000
    rows = [Document(str(n), long, {"value": long, "n": n}) for n in range(6)]
    assert store.upsert(rows).written == 6
    assert store.get(["3"]) == [rows[3]]
    assert store.count(field("value") == long) == 6
    many = [f"id {n}" for n in range(3000)]
    store.upsert_vectors((Document(id, "x") for id in many), unit(3000, 64), space=V3)
    assert [document.id for document in store.get(many)] == many
    assert store.delete(where=everything) == 3006
