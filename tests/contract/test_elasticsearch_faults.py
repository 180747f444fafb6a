"""What the Elasticsearch store does about faults, of the network and of a busy server."""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stamina
from elasticsearch import AsyncElasticsearch, Elasticsearch
from tests.cli.running import run
from tests.servers.elasticsearch import Node
from tests.servers.proxy import Proxy, changes, cuts, loses_the_answer, says

from samespace import AsyncElasticsearchStore, Document, ElasticsearchStore, Index
from samespace.errors import (
    CollectionNotFound,
    InvalidInput,
    SamespaceError,
    StoreRejected,
    StoreUnavailable,
)
from samespace.filters import everything, field
from samespace.stores.elasticsearch import doctor, dsl
from samespace.stores.elasticsearch.transport import ATTEMPTS, ATTEMPTS_TO_MEET
from samespace.testing.backends import UNLIKE, V3, TaskBackend
from samespace.testing.corpus import documents

NAME = "faults"
SECRET = "geheim-4711"


@pytest.fixture
def proxy(elasticsearch: str) -> Iterator[Proxy]:
    with Elasticsearch(elasticsearch) as client, Proxy(elasticsearch) as proxy:
        client.indices.delete(index=NAME, ignore_unavailable=True)
        yield proxy
        client.indices.delete(index=NAME, ignore_unavailable=True)


@pytest.fixture
def store(proxy: Proxy) -> Iterator[ElasticsearchStore]:
    with ElasticsearchStore(proxy.url, collection=NAME, backend=TaskBackend(), timeout=20) as store:
        store.create()
        yield store


@pytest.fixture
def unpaused() -> Iterator[None]:
    """Between the attempts nothing is waited for."""
    with stamina.set_testing(True, attempts=100, cap=True):
        yield


# Answers that are lost


@pytest.mark.parametrize("on_conflict", ["overwrite", "skip", "fail"])
def test_a_batch_whose_answer_is_lost_is_written_once_and_reported_as_written(
    proxy: Proxy, store: ElasticsearchStore, on_conflict: Any
) -> None:
    proxy.set("_bulk", loses_the_answer)
    report = store.upsert(documents(20), on_conflict=on_conflict)
    assert (report.written, report.skipped, report.rejected) == (20, 0, ())
    assert store.count() == 20
    assert len(proxy.to("_bulk")) == 2


def test_what_another_wrote_meanwhile_is_not_taken_for_ours(
    proxy: Proxy, store: ElasticsearchStore, elasticsearch: str
) -> None:
    with ElasticsearchStore(elasticsearch, collection=NAME, backend=TaskBackend()) as other:

        def overtaken(*_: object) -> None:
            other.upsert([Document("d0", "another text")])

        proxy.set("_bulk", overtaken)
        report = store.upsert(documents(2), on_conflict="fail", on_error="report")
    assert [rejected.id for rejected in report.rejected] == ["d0"]
    assert report.written == 1
    assert store.get(["d0"])[0].text == "another text"


@pytest.mark.parametrize("fault", [loses_the_answer, cuts])
def test_a_collection_whose_creation_is_not_heard_of_is_there(proxy: Proxy, fault: Any) -> None:
    proxy.set(f"/{NAME}", says(404, "index_not_found_exception"))
    proxy.set(f"/{NAME}", fault)
    with ElasticsearchStore(proxy.url, collection=NAME, backend=TaskBackend()) as store:
        store.create()
        assert store.count() == 0


def test_a_fill_whose_answer_is_lost_fills(proxy: Proxy, store: ElasticsearchStore) -> None:
    store.upsert(documents(5))
    store.add_slot(UNLIKE)
    rows, _ = store.pending(UNLIKE, limit=10)
    vectors = TaskBackend(UNLIKE).embed_documents([row.document.text for row in rows])
    proxy.set("_bulk", loses_the_answer)
    report = store.fill(UNLIKE, rows, vectors)
    assert report.filled + report.changed == 5
    assert store.pending(UNLIKE, limit=10)[0] == []


def test_a_change_of_metadata_whose_answer_is_lost_is_made(
    proxy: Proxy, store: ElasticsearchStore
) -> None:
    store.upsert(documents(5))
    proxy.set("_bulk", loses_the_answer)
    assert store.update_metadata({"k": 1}, where=everything, merge=True) == 5
    assert store.count(field("k") == 1) == 5


# A busy server


def test_a_request_that_is_put_off_is_sent_again_in_parts(
    proxy: Proxy, store: ElasticsearchStore
) -> None:
    proxy.set("_bulk", says(429, "es_rejected_execution_exception"), times=2)
    assert store.upsert(documents(20)).written == store.count() == 20
    assert [request.operations for request in proxy.to("_bulk")] == [20, 10, 5, 5, 5, 5]


def test_of_a_batch_only_what_was_put_off_is_sent_again(
    proxy: Proxy, store: ElasticsearchStore
) -> None:
    def busy(answer: Any) -> Any:
        for item in answer["items"][::4]:
            item["index"] = {"status": 429, "error": {"type": "es_rejected_execution_exception"}}
        return answer

    proxy.set("_bulk", changes(busy))
    assert store.upsert(documents(20)).written == store.count() == 20
    assert [request.operations for request in proxy.to("_bulk")] == [20, 5]


def test_a_request_that_is_too_long_is_cut_until_it_is_not(
    proxy: Proxy, store: ElasticsearchStore
) -> None:
    proxy.set("_bulk", says(413), times=4)
    report = store.upsert(documents(10), on_error="report")
    assert [rejected.id for rejected in report.rejected] == ["d0"]
    assert "max_content_length" in str(report.rejected[0].error)
    assert report.written == store.count() == 9


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_search_that_a_proxy_or_a_shard_did_not_answer_is_asked_again(
    proxy: Proxy, store: ElasticsearchStore, status: int
) -> None:
    store.upsert(documents(3))
    proxy.set("_search", says(status), times=2)
    assert len(store.search("text")) == 3


def test_documents_and_searches_of_a_shard_that_is_not_started_are_asked_for_again(
    proxy: Proxy, store: ElasticsearchStore
) -> None:
    def not_started(answer: Any) -> Any:
        error = {"type": "no_shard_available_action_exception", "reason": "no shard available"}
        return {what: [{"error": error, "status": 503}] for what in answer if what != "took"}

    store.upsert(documents(3))
    proxy.set("_mget", changes(not_started), times=2)
    assert [found.id for found in store.get(["d0", "d2"])] == ["d0", "d2"]
    proxy.set("_msearch", changes(not_started), times=2)
    assert [len(hits) for hits in store.search_many(["text", "number"])] == [3, 3]
    assert len(proxy.to("_mget")) == len(proxy.to("_msearch")) == 3


def test_a_server_with_little_room_gets_all_rows_at_last() -> None:
    settings = {
        "thread_pool.write.size": "1",
        "thread_pool.write.queue_size": "1",
        "indexing_pressure.memory.limit": "300kb",
    }
    with Node(settings) as node, ThreadPoolExecutor(4) as threads:
        store = ElasticsearchStore(node.url, collection=NAME, backend=TaskBackend(), timeout=120)
        store.create()
        writes = [threads.submit(store.upsert, documents(300, prefix=f"w{n}-")) for n in range(4)]
        assert [write.result().written for write in writes] == [300] * 4
        assert store.count() == 4 * 300
        store.close()


# A server that is not there, or says no


def test_a_server_that_is_gone_is_reported_within_the_time_that_was_given() -> None:
    with (
        ElasticsearchStore("http://127.0.0.1:9", collection=NAME, space=V3, timeout=0.5) as store,
        pytest.raises(StoreUnavailable, match="cannot be reached"),
    ):
        store.count()


def test_a_server_that_has_answered_nothing_yet_is_given_up_soon(
    proxy: Proxy, unpaused: None, tmp_path: Path
) -> None:
    proxy.set("/", cuts, times=100)
    for command in (("info",), ("search", "x"), ("doctor",)):
        tried = len(proxy.requests)
        address = proxy.url.replace("http://", "elasticsearch://")
        done = run(tmp_path, *command, "--store", address)
        assert "cannot be reached, or closed the connection" in done.stderr + done.stdout
        assert len(proxy.requests) - tried == ATTEMPTS_TO_MEET


def test_a_server_that_has_answered_is_waited_for(proxy: Proxy, unpaused: None) -> None:
    proxy.set("/", says(503))
    proxy.set("/", cuts, times=100)
    with (
        ElasticsearchStore(proxy.url, collection=NAME, space=V3) as store,
        pytest.raises(StoreUnavailable, match="closed the connection"),
    ):
        store.count()
    assert len(proxy.requests) == ATTEMPTS


def test_a_connection_that_is_cut_again_and_again_is_an_error_of_ours(
    proxy: Proxy, store: ElasticsearchStore
) -> None:
    proxy.set("_search", cuts, times=100)
    hurried = ElasticsearchStore(proxy.url, collection=store.collection, space=V3, timeout=1)
    with hurried, pytest.raises(StoreUnavailable, match="closed the connection"):
        hurried.count()


@pytest.mark.parametrize(
    ("status", "kind", "mend"),
    [
        (401, "security_exception", "api_key"),
        (403, "security_exception", "right"),
        (403, "cluster_block_exception", "blocked"),
        (400, "media_type_header_exception", "matching elasticsearch package"),
        (500, "anything", "Elasticsearch says"),
    ],
)
def test_a_refusal_says_what_mends_it(
    proxy: Proxy, store: ElasticsearchStore, status: int, kind: str, mend: str
) -> None:
    proxy.set("_search", says(status, kind))
    with pytest.raises(StoreRejected, match=mend):
        store.search("text")


def test_what_is_no_elasticsearch_is_said_to_be_none(proxy: Proxy) -> None:
    proxy.set("/", lambda _, __: (200, {"content-type": "text/html"}, b"<html>"), times=100)
    with (
        ElasticsearchStore(proxy.url, collection=NAME, space=V3) as store,
        pytest.raises(StoreRejected, match="not Elasticsearch"),
    ):
        store.count()


def test_who_may_not_look_at_the_cluster_may_read_the_index(proxy: Proxy, store: Any) -> None:
    store.upsert(documents(3))
    proxy.set("/", says(403, "security_exception"))
    with ElasticsearchStore(proxy.url, collection=NAME, backend=TaskBackend()) as reader:
        assert len(reader.search("text", with_vectors=True)) == 3
        assert all(document.vector is not None for document in reader.scan(with_vectors=True))


def test_the_doctor_makes_up_no_version(proxy: Proxy) -> None:
    proxy.set("/", says(403, "security_exception"))
    found = doctor.examine(proxy.url)
    assert found[0].what.startswith("Elasticsearch answers (client elasticsearch ")
    assert "monitor on the cluster" in found[1].mend


def test_a_front_page_that_is_not_there_is_done_without(proxy: Proxy) -> None:
    proxy.set("/", says(405))
    with ElasticsearchStore(proxy.url, collection=NAME, space=V3) as store:
        store.create()
        assert store.info().space == V3
    assert proxy.to("/_nodes")


# Versions


def _version(number: str) -> Any:
    return changes(lambda page: {**page, "version": {**page["version"], "number": number}})


def test_an_older_server_is_sent_and_asked_what_it_knows(proxy: Proxy) -> None:
    proxy.set("/", _version("8.15.0"))
    with ElasticsearchStore(proxy.url, collection=NAME, backend=TaskBackend()) as store:
        vectors = TaskBackend().embed_documents(["one", "two", "three"])
        store.upsert_vectors(documents(3), vectors, space=V3)
        hit, *_ = store.search("two", with_vectors=True)
        assert hit.vector is not None
        np.testing.assert_array_equal(hit.vector, vectors[1])
    sent = b"".join(request.body + request.path.encode() for request in proxy.requests)
    assert b"exclude_vectors" not in sent
    assert b"rescore_vector" not in sent
    assert f'"{V3.id}":['.encode() in proxy.to("_bulk")[0].body


def test_a_newer_server_is_sent_base64(proxy: Proxy, store: ElasticsearchStore) -> None:
    store.upsert(documents(1))
    vector = TaskBackend().embed_documents([documents(1)[0].text])[0]
    assert dsl.packed(vector).encode() in proxy.to("_bulk")[0].body


def test_searches_that_are_long_together_are_sent_in_parts(
    proxy: Proxy, store: ElasticsearchStore
) -> None:
    store.upsert(documents(3))
    others = ~field("k").in_([str(n) for n in range(10_000)])
    found = store.search_many([f"text {n}" for n in range(100)], where=others)
    assert [len(hits) for hits in found] == [3] * 100
    sizes = [len(request.body) for request in proxy.to("_msearch")]
    assert len(sizes) > 1
    assert max(sizes) <= dsl.CHUNK_BYTES


def test_values_are_counted_without_reading_texts(proxy: Proxy, store: ElasticsearchStore) -> None:
    store.upsert(documents(3))
    for name in ("year", field.parent, field.id):
        store.values(name)
    assert not [request for request in proxy.to("_search") if b'"text"' in request.body]


@pytest.mark.parametrize("number", ["8.14.3", "7.17.0"])
def test_a_server_that_is_too_old_is_refused(proxy: Proxy, number: str) -> None:
    proxy.set("/", _version(number), times=10)
    with (
        ElasticsearchStore(proxy.url, collection=NAME, space=V3) as store,
        pytest.raises(StoreRejected, match="too old"),
    ):
        store.count()


def test_a_quantized_index_needs_a_server_that_scores_by_full_vectors(proxy: Proxy) -> None:
    proxy.set("/", _version("8.17.0"))
    index = Index(quantization="int8")
    with (
        ElasticsearchStore(proxy.url, collection=NAME, space=V3, index=index) as store,
        pytest.raises(InvalidInput, match=r"8\.18"),
    ):
        store.create()


# Clients and secrets


def test_a_client_is_taken_and_left_open(elasticsearch: str, proxy: Proxy) -> None:
    with Elasticsearch(proxy.url, max_retries=5, retry_on_timeout=True) as client:
        with ElasticsearchStore(client, collection=NAME, backend=TaskBackend()) as store:
            store.upsert(documents(2))
            proxy.set("_search", cuts)
            before = len(proxy.to("_search"))
            assert len(store.search("text")) == 2
            assert len(proxy.to("_search")) == before + 2  # ours alone tries again
        assert client.ping()


async def test_an_async_client_is_taken_and_left_open(elasticsearch: str, proxy: Proxy) -> None:
    async with AsyncElasticsearch(proxy.url) as client:
        async with AsyncElasticsearchStore(client, collection=NAME, backend=TaskBackend()) as store:
            await store.upsert(documents(2))
        assert await client.ping()
        with pytest.raises(InvalidInput, match="Elasticsearch for a sync store"):
            ElasticsearchStore(client, collection=NAME, space=V3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"source": f"http://user:{SECRET}@127.0.0.1:9"},
        {"source": f"ftp://user:{SECRET}@127.0.0.1:9"},
        {"source": f"http://user:{SECRET}@127.0.0.1:port"},
        {"source": f"http://user:{SECRET}@"},
        {"source": "http://127.0.0.1:9", "api_key": SECRET},
        {"source": "http://127.0.0.1:9", "basic_auth": ("user", SECRET)},
        {"source": "http://127.0.0.1:9", "basic_auth": ("user", SECRET), "api_key": SECRET},
        {"source": "http://127.0.0.1:9", "api_key": SECRET, "cloud_id": SECRET},
        {"source": 7, "api_key": SECRET},
        {"source": "http://127.0.0.1:9", "api_key": f"{SECRET}\n"},
        {"source": "http://127.0.0.1:9", "api_key": f"{SECRET}é"},
        {"source": "http://127.0.0.1:9", "api_key": (SECRET, 7)},
        {"source": "http://127.0.0.1:9", "basic_auth": (SECRET,)},
        {"source": "http://no host:9", "api_key": SECRET},
        {"source": None, "cloud_id": SECRET},
        {"source": "https://127.0.0.1:9", "api_key": SECRET, "ca_certs": "nowhere"},
        {"source": "http://127.0.0.1:9", "api_key": SECRET, "collection": "Not A Name"},
    ],
)
def test_no_secret_is_shown(options: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    given = {"collection": NAME, "space": V3, "timeout": 0.3, **options}
    with pytest.raises(SamespaceError) as caught:
        _used(given)
    error = caught.value
    shown = "".join(traceback.format_exception(error)) + pickle.dumps(error).decode("latin-1")
    assert SECRET not in shown + caplog.text
    ours = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    ours = [frame for frame in ours if "connectors/samespace" in frame.f_code.co_filename]
    values = [value for frame in ours for name, value in frame.f_locals.items() if name != "self"]
    assert not [value for value in values if SECRET in repr(value)]


def _used(options: Any) -> None:
    with ElasticsearchStore(**options) as store:
        assert SECRET not in repr(store) + repr(vars(store)) + repr(vars(store._transport))
        del options
        store.count()


def test_credentials_arrive(proxy: Proxy) -> None:
    address = proxy.url.replace("http://", "elasticsearch://us%20er:p%40ss%C3%A9@")
    with (
        ElasticsearchStore(address, collection=NAME, space=V3) as store,
        pytest.raises(CollectionNotFound),
    ):
        store.count()
    with (
        ElasticsearchStore(proxy.url, collection=NAME, space=V3, api_key="a-key") as store,
        pytest.raises(CollectionNotFound),
    ):
        store.count()
    seen = {request.headers["authorization"] for request in proxy.requests}
    assert seen == {"Basic dXMgZXI6cEBzc8Op", "ApiKey a-key"}
