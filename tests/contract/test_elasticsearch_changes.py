"""Following an index by its log of changes, in which nothing that others write is missed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from elasticsearch import Elasticsearch
from tests.contract.test_elasticsearch_contract import AsyncHarness, Harness

from samespace import Document, ElasticsearchStore
from samespace.errors import InvalidInput
from samespace.protocols import AsyncFollowsChanges, FollowsChanges
from samespace.testing.backends import UNLIKE, V3, TaskBackend
from samespace.testing.corpus import documents

ROWS = 12
WRITERS = 3
FULL = [pytest.mark.soak, pytest.mark.timeout(3600)]


@pytest.fixture
def raw(elasticsearch: str) -> Iterator[Harness]:
    """A stranger with the client, whose indices have two shards."""
    harness = Harness(elasticsearch)
    indices = harness.client.indices
    with harness.client:
        indices.put_index_template(
            name=harness.prefix,
            index_patterns=[f"{harness.prefix}*"],
            template={"settings": {"number_of_shards": 2}},
        )
        yield harness
        harness.clear()
        indices.delete_index_template(name=harness.prefix)


@pytest.fixture
def store(raw: Harness) -> Iterator[ElasticsearchStore]:
    """A collection with a second slot, which is filled."""
    with raw.open("log", backend=TaskBackend()) as handle:
        handle.upsert(documents(ROWS))
        handle.add_slot(UNLIKE)
        fill(handle, handle.pending(UNLIKE, limit=100)[0])
        yield handle


def fill(store: Any, rows: Any) -> None:
    vectors = TaskBackend(UNLIKE, seed=5).embed_documents([row.document.text for row in rows])
    store.fill(UNLIKE, rows, vectors)


def follow(store: Any, since: str, *, limit: int = 50) -> str:
    """Fill what has changed until now."""
    while True:
        rows, since = store.changed(UNLIKE, since=since, limit=limit)
        fill(store, rows)
        if len(rows) < limit:
            return since


def ids(rows: Any) -> list[str]:
    return sorted(row.document.id for row in rows)


def test_what_has_changed_comes_once_page_by_page(raw: Harness, store: ElasticsearchStore) -> None:
    assert isinstance(store, FollowsChanges)
    since = store.position()
    assert store.changed(UNLIKE, since=since, limit=5)[0] == []
    for number in range(7):
        raw.set_text("log", f"d{number}", f"changed {number}")
    store.update_metadata({"d8": {"kept": True}}, merge=True)
    store.delete(ids=["d6", "d9"])
    store.upsert([Document("n", "new")])
    found: list[Any] = []
    position = since
    for _ in range(4):
        rows, position = store.changed(UNLIKE, since=position, limit=2)
        found += rows
    assert ids(found) == ["d0", "d1", "d2", "d3", "d4", "d5", "n"]
    fill(store, found)
    assert store.changed(UNLIKE, since=position, limit=5)[0] == []
    assert store.changed(UNLIKE, since=since, limit=5)[0] == []
    assert ids(store.changed(V3, since=since, limit=50)[0]) == ids(found)[:-1]


def test_a_row_that_lost_its_vectors_and_kept_its_sources_is_found(
    raw: Harness, store: ElasticsearchStore
) -> None:
    since = store.position()
    name = raw.named("log")
    source = dict(raw.client.get(index=name, id="d3")["_source"])
    for slot in (UNLIKE.id, V3.id):
        source.pop(slot, None)
    raw.client.index(index=name, id="d3", document=source)
    assert ids(store.changed(UNLIKE, since=since, limit=5)[0]) == ["d3"]


def test_an_index_made_anew_is_looked_at_from_its_beginning(store: ElasticsearchStore) -> None:
    since = store.position()
    store.drop()
    store.upsert(documents(3))
    store.add_slot(UNLIKE)
    rows, since = store.changed(UNLIKE, since=since, limit=50)
    assert ids(rows) == ["d0", "d1", "d2"]
    assert store.changed(UNLIKE, since=since, limit=50)[0] == []


@pytest.mark.parametrize("since", ["", "x", '["h", 1]'])
def test_what_is_no_position_is_refused(store: ElasticsearchStore, since: str) -> None:
    with pytest.raises(InvalidInput, match="position"):
        store.changed(UNLIKE, since=since, limit=5)


class Stranger(threading.Thread):
    """Writes in bulk what it will: new rows, other texts in place, whole rows, deletions."""

    def __init__(self, raw: Harness, number: int, writes: int) -> None:
        super().__init__()
        self._writes = writes
        self._url, self._index, self._number = raw.url, raw.named("log"), number

    def run(self) -> None:
        with Elasticsearch(self._url) as client:
            for turn in range(self._writes):
                operations = list(self._operations(turn))
                answer = client.bulk(index=self._index, operations=operations)
                assert answer["items"]

    def _operations(self, turn: int) -> Iterator[dict[str, Any]]:
        for place in range(10):
            id = f"{self._number}-{turn}-{place}"
            yield {"index": {"_id": id}}
            yield {"id": id, "text": f"new {id}"}
        shared = f"d{(turn + self._number) % ROWS}"
        yield {"update": {"_id": shared, "retry_on_conflict": 9}}
        yield {"doc": {"text": f"in place by {self._number} in turn {turn}"}}
        if turn > 0:
            yield {"update": {"_id": f"{self._number}-{turn - 1}-0", "retry_on_conflict": 9}}
            yield {"doc": {"text": f"in place in turn {turn}"}}
            yield {"delete": {"_id": f"{self._number}-{turn - 1}-1"}}


@pytest.mark.parametrize("writes", [10, pytest.param(300, id="full", marks=FULL)])
def test_nothing_that_others_write_meanwhile_is_missed(
    raw: Harness, store: ElasticsearchStore, writes: int
) -> None:
    since = store.position()
    strangers = [Stranger(raw, number, writes) for number in range(WRITERS)]
    for stranger in strangers:
        stranger.start()
    while any(stranger.is_alive() for stranger in strangers):
        since = follow(store, since)
    for stranger in strangers:
        stranger.join()
    follow(store, since)
    assert store.count() == ROWS + WRITERS * (writes * 9 + 1)
    assert store.pending(UNLIKE, limit=100) == ([], None)
    assert store.stale(UNLIKE, limit=100) == ([], None)


async def test_an_async_store_follows_too(raw: Harness, store: ElasticsearchStore) -> None:
    async with AsyncHarness(raw).open("log", backend=TaskBackend()) as handle:
        assert isinstance(handle, AsyncFollowsChanges)
        since = await handle.position()
        raw.set_text("log", "d1", "changed")
        rows, since = await handle.changed(UNLIKE, since=since, limit=5)
        assert ids(rows) == ["d1"]
        fill(store, rows)
        assert (await handle.changed(UNLIKE, since=since, limit=5))[0] == []
