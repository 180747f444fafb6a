"""An Elasticsearch node that dies while rows are written, and comes back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from tests.servers.elasticsearch import Node

from samespace import Document, ElasticsearchStore, WriteReport
from samespace.errors import StoreUnavailable
from samespace.stores.base import BATCH_DOCUMENTS
from samespace.testing.backends import UNLIKE, V3, TaskBackend
from samespace.testing.corpus import documents

QUEUE = 700
KILLS = [
    pytest.param(1, id="small"),
    pytest.param(20, id="full", marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
]


def restart(node: Node, died: threading.Event) -> None:
    """Kill it; what comes back is the same one, with its settings."""
    url = node.url
    node.kill()
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)
    died.set()
    node.start()
    assert node.url == url
    pool = httpx.get(f"{url}/_nodes/thread_pool").json()["nodes"].popitem()[1]["thread_pool"]
    assert pool["write"]["queue_size"] == QUEUE


def killing(
    node: Node, rows: list[Document], died: threading.Event | None = None
) -> Iterator[Document]:
    """The rows; when the second batch is on its way the node dies, and is started again."""
    yield from rows[: 2 * BATCH_DOCUMENTS]
    restart(node, died or threading.Event())
    yield from rows[2 * BATCH_DOCUMENTS :]


def meeting(
    died: threading.Event, under_way: threading.Event, rows: list[Document]
) -> Iterator[Document]:
    """The rows; the last ones are written to a node that has died."""
    yield from rows[: 2 * BATCH_DOCUMENTS]
    under_way.set()  # the first batch is written: only such requests are to come
    died.wait()
    yield from rows[2 * BATCH_DOCUMENTS :]


def write_through(store: ElasticsearchStore, node: Node, rows: list[Document]) -> WriteReport:
    """What was written where the node dies; a second writer, who has the time, hears nothing of it."""
    patient = ElasticsearchStore(node.url, collection="patient", space=V3, timeout=120)
    died, under_way = threading.Event(), threading.Event()
    ready = TaskBackend().embed_documents([row.text for row in rows])
    with patient, ThreadPoolExecutor(1) as thread:
        patient.create()
        writing = thread.submit(
            patient.upsert_vectors, meeting(died, under_way, rows), ready, space=V3
        )
        under_way.wait()
        report = attempt(store, killing(node, rows, died))
        assert writing.result().written == len(rows)
        assert patient.get([row.id for row in rows]) == rows
    return report


def attempt(store: ElasticsearchStore, rows: Iterator[Document]) -> WriteReport:
    """What was written, by a call that was cut short too: it waits a dozen seconds for a server."""
    try:
        return store.upsert(rows)
    except StoreUnavailable as error:
        return error.report or WriteReport()


@pytest.mark.parametrize("kills", KILLS)
def test_every_row_is_written_once_though_the_node_dies(
    start_node: Callable[..., Node], kills: int
) -> None:
    node = start_node({"thread_pool.write.queue_size": str(QUEUE)})
    with ElasticsearchStore(node.url, collection="killed", backend=TaskBackend()) as store:
        for kill in range(kills):
            rows = documents(2 * BATCH_DOCUMENTS + 100, prefix=f"k{kill}-")
            ids = [row.id for row in rows]
            report = write_through(store, node, rows)
            assert store.get(ids[: report.written]) == rows[: report.written]
            if report.written < len(rows):
                report = store.upsert(rows)
            assert (report.written, report.rejected) == (len(rows), ())
            assert store.get(ids) == rows
            assert store.count() == (kill + 1) * len(rows)


def follow(store: ElasticsearchStore, since: str) -> str:
    """Fill the second slot of what has changed until now."""
    backend = TaskBackend(UNLIKE, seed=5)
    while True:
        rows, since = store.changed(UNLIKE, since=since, limit=500)
        store.fill(UNLIKE, rows, backend.embed_documents([row.document.text for row in rows]))
        if len(rows) < 500:
            return since


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_who_follows_the_log_misses_nothing_though_the_node_dies(
    start_node: Callable[..., Node],
) -> None:
    node = start_node({"thread_pool.write.queue_size": str(QUEUE)})
    with ElasticsearchStore(node.url, collection="killed", backend=TaskBackend()) as store:
        store.create()
        store.add_slot(UNLIKE)
        since = store.position()
        for kill in range(5):
            rows = documents(2 * BATCH_DOCUMENTS + 100, prefix=f"k{kill}-")
            attempt(store, killing(node, rows))
            since = follow(store, since)
            assert store.pending(UNLIKE, limit=10) == ([], None)
        assert store.stale(UNLIKE, limit=10) == ([], None)
