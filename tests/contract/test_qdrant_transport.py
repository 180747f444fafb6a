"""Asking Qdrant: what is tried again, what is not, and what is said of it. Real HTTP."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import orjson
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from samespace import AsyncQdrantStore, Document, QdrantStore
from samespace.errors import InvalidInput, StoreRejected, StoreUnavailable
from samespace.stores.qdrant import faults, transport
from samespace.stores.qdrant.requests import Point, Read, Search
from samespace.stores.refusals import Gone
from samespace.testing.backends import V3, TaskBackend
from samespace.testing.corpus import documents
from samespace.testing.together import together

SECRET = "sentinel-" + 20 * "k"
Answer = tuple[int, dict[str, str], bytes]


class Server:
    """Answers each request with the next of its answers, the last one again and again."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, str]] = []
        self.bodies: list[Any] = []
        self.keys: list[str | None] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                server.bodies.append(orjson.loads(body) if body else None)
                server.requests.append((self.command, self.path))
                server.keys.append(self.headers.get("api-key"))
                status, headers, body = server.next()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = answer  # noqa: N815  the names that the class looks for

            def log_message(self, *_: Any) -> None:
                """Nothing is logged."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def next(self) -> Answer:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def said(status: int, error: str, **headers: str) -> Answer:
    return status, headers, orjson.dumps({"status": {"error": error}, "time": 0.0})


NOT_FOUND = said(404, "Not found: Collection `x` doesn't exist!")


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    running: list[Server] = []

    def start(*answers: Answer) -> Server:
        running.append(Server(*answers))
        return running[-1]

    yield start
    for server in running:
        server.close()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses as short as they can be; what is asked for is clamped likewise."""
    monkeypatch.setattr(transport, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(faults, "LONGEST_WAIT", 0.002)


def opened(server: Server, **options: Any) -> QdrantStore:
    return QdrantStore(server.url, collection="x", space=V3, **options)


def raised(call: Callable[[], object]) -> Exception:
    """The exception that a call ends in."""
    with pytest.raises(Exception) as caught:  # noqa: PT011  its class is what is asked for
        call()
    return caught.value


# What is tried again


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_that_recovers_is_asked_again(serve: Callable[..., Server], status: int) -> None:
    server = serve(said(status, "not now"), said(status, ""), NOT_FOUND)
    with opened(server) as store, pytest.raises(Exception, match="no collection"):
        store.count()
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "wait",
    [
        "1",
        "0",
        "-5",
        "9" * 400,
        "1e309",
        "nan",
        "soon",
        "",
        "Wed, 99 Foo 2026 99:99:99 GMT",
        format_datetime(datetime.now(UTC) + timedelta(hours=1)),
        format_datetime(datetime.now(UTC) - timedelta(days=9999)),
        "é",
    ],
    ids=range(12),
)
def test_no_word_about_waiting_does_harm(serve: Callable[..., Server], wait: str) -> None:
    server = serve(said(429, "slow down", **{"Retry-After": wait}), NOT_FOUND)
    with opened(server) as store, pytest.raises(Exception, match="no collection"):
        store.count()
    assert len(server.requests) == 2


def test_trying_again_ends(serve: Callable[..., Server]) -> None:
    server = serve(said(503, "starting"))
    with opened(server) as store, pytest.raises(StoreUnavailable, match="'starting'; try again"):
        store.count()
    assert len(server.requests) == 6


def test_a_server_that_is_not_there_is_unavailable(serve: Callable[..., Server]) -> None:
    server = serve(NOT_FOUND)
    server.close()
    with opened(server) as store, pytest.raises(StoreUnavailable, match="cannot be reached"):
        store.count()
    with opened(server, grpc_port=1) as store, pytest.raises(StoreUnavailable, match="gRPC|says"):
        store.count()


def test_each_request_over_grpc_is_made(serve: Callable[..., Server]) -> None:
    """No server speaks it here; what is packed by hand comes as far as asking for one."""
    here = serve(NOT_FOUND)
    asking = transport.Transport(here.url, grpc_port=1, api_key=transport.Secret(None), timeout=5)
    point = Point(id=1, payload={}, vectors={"new": np.ones(4, np.float32)})
    search = Search(
        vector=np.ones(4, np.float32),
        slot="new",
        limit=1,
        condition=models.Filter(),
        params=models.SearchParams(),
        with_vectors=True,
    )
    requests: list[Callable[[], object]] = [
        asking.upserting("x", [point]),
        lambda: asking.update_vectors("x", [point], models.Filter()),
        lambda: asking.query("x", [search]),
        lambda: asking.retrieve("x", [1]),
        lambda: asking.scroll("x", models.Filter(), limit=1),
    ]
    for request in requests:
        with pytest.raises(StoreUnavailable, match="gRPC|says"):
            request()
    asking.close()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (said(401, "Must provide an API key"), "api_key"),
        (said(403, "Forbidden"), "api_key"),
        (said(400, "Wrong input: strange"), "strange"),
        ((200, {}, b"<html>hello</html>"), "cannot be read"),
        ((200, {}, b""), "cannot be read"),
        ((200, {}, b'{"result": 7}'), "cannot be read"),
        ((418, {}, b"teapot"), "status 418"),
    ],
)
def test_a_refusal_is_said_once(serve: Callable[..., Server], answer: Answer, words: str) -> None:
    server = serve(answer)
    with opened(server) as store, pytest.raises(StoreRejected, match=words):
        store.count()
    assert len(server.requests) == 1


# Vectors that a part of a collection does not know yet


NOT_KNOWN = said(400, "Wrong input: Not existing vector name error: new")
NO_POINTS: Answer = 200, {}, b'{"result": []}'
DONE: Answer = 200, {}, b'{"result": {"operation_id": 7, "status": "completed"}, "status": "ok"}'


def described(*vectors: str) -> Answer:
    """What a server says of a collection with vectors of these names; with none, of an unnamed one."""
    one = {"size": 4, "distance": "Cosine"}
    result = {
        "status": "yellow",
        "optimizer_status": "ok",
        "segments_count": 2,
        "config": {
            "params": {"vectors": dict.fromkeys(vectors, one) or one},
            "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000},
            "optimizer_config": {
                "deleted_threshold": 0.2,
                "vacuum_min_vector_number": 1000,
                "default_segment_number": 0,
                "flush_interval_sec": 5,
            },
        },
        "payload_schema": {},
    }
    return 200, {}, orjson.dumps({"result": result, "status": "ok", "time": 0.0})


def reading(server: Server) -> list[Point]:
    """Read a point with its vector ``new``."""
    asking = transport.Transport(
        server.url, grpc_port=None, api_key=transport.Secret(None), timeout=5
    )
    try:
        return asking.retrieve("x", [1], Read(vectors=("new",)))
    finally:
        asking.close()


def test_a_vector_that_was_just_added_is_asked_for_again(serve: Callable[..., Server]) -> None:
    server = serve(NOT_KNOWN, described("old", "new"), NOT_KNOWN, described("new"), NO_POINTS)
    assert reading(server) == []
    assert len(server.requests) == 5


@pytest.mark.parametrize("told", [DONE, said(403, "Forbidden"), said(503, "")])
def test_what_is_rebuilt_for_long_is_said_to_be(serve: Callable[..., Server], told: Answer) -> None:
    tries = 6 * [NOT_KNOWN, described("old", "new")]
    server = serve(*tries, told, *tries)
    with pytest.raises(
        StoreUnavailable, match="rebuilding .* vector 'new' yet; try again"
    ) as found:
        reading(server)
    assert server.requests[12] == ("PUT", "/collections/x/vectors/new?wait=true")
    assert len(server.requests) == 25
    again = pickle.loads(pickle.dumps(found.value))  # noqa: S301  our own
    assert str(again) == str(found.value)


def test_a_vector_that_was_forgotten_is_added_again(serve: Callable[..., Server]) -> None:
    tries = 6 * [NOT_KNOWN, described("old", "new")]
    server = serve(*tries, DONE, NO_POINTS)
    assert reading(server) == []
    assert server.bodies[12] == {"dense": {"size": 4, "distance": "Cosine"}}


@pytest.mark.parametrize(
    "answer", [described("old"), described(), NOT_FOUND, said(403, "Forbidden"), (200, {}, b"x")]
)
def test_a_vector_that_is_not_there_is_not_waited_for(
    serve: Callable[..., Server], answer: Answer
) -> None:
    server = serve(NOT_KNOWN, answer)
    with pytest.raises(Gone, match="Not existing vector name"):
        reading(server)
    assert len(server.requests) == 2


# Secrets


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
@pytest.mark.parametrize(
    "answer", [said(401, f"no such key: {SECRET}"), said(503, "x"), (200, {}, b"x")]
)
def test_the_key_is_sent_and_shown_nowhere(serve: Callable[..., Server], answer: Answer) -> None:
    server = serve(answer)
    store = opened(server, api_key=SECRET)
    error = raised(store.count)
    assert server.keys[0] == SECRET
    assert error.__cause__ is None
    assert error.__context__ is None
    shown = "".join(traceback.format_exception(error)) + repr(store) + repr(error)
    assert SECRET not in shown
    assert SECRET.encode() not in pickle.dumps(error)
    store.close()


# Addresses


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("ftp://host", "no Qdrant is known"),
        ("http://", "cannot be read"),
        ("http://host:port", "cannot be read"),
        (f"http://user:{SECRET}@host", "pass api_key="),
        (f"https://host?api_key={SECRET}", "pass api_key="),
        (7, "cannot connect through 'int'"),
        (None, "cannot connect through"),
    ],
)
def test_what_is_no_address_is_refused(source: Any, words: str) -> None:
    for kind in (QdrantStore, AsyncQdrantStore):
        error = raised(lambda kind=kind: kind(source, collection="x", space=V3))  # type: ignore[misc]
        assert isinstance(error, InvalidInput)
        assert words in str(error)
        assert SECRET not in str(error)


@pytest.mark.parametrize(
    "options",
    [
        *({"timeout": wrong} for wrong in (0, -1, float("nan"), float("inf"), "5", True, None)),
        *({"grpc_port": wrong} for wrong in (0, -1, 65_536, "6334", 1.5, True)),
        *({"api_key": f"{SECRET}{wrong}"} for wrong in ("\n", " ", "é")),
        {"api_key": SECRET.encode()},
    ],
)
def test_options_of_no_use_are_refused_and_no_key_is_shown(options: dict[str, Any]) -> None:
    error = raised(lambda: QdrantStore("http://host", collection="x", space=V3, **options))
    assert isinstance(error, InvalidInput)
    frames = traceback.TracebackException.from_exception(error, capture_locals=True).stack
    shown = [frame.locals or {} for frame in frames if "samespace/stores" in frame.filename]
    assert SECRET not in f"{error} {shown}"


@pytest.mark.parametrize("options", [{"api_key": SECRET}, {"grpc_port": 6334}])
def test_what_a_client_has_already_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="has its port and key already"):
        QdrantStore(QdrantClient(":memory:"), collection="x", space=V3, **options)


def test_a_client_is_of_the_stores_own_kind() -> None:
    with pytest.raises(InvalidInput, match="AsyncQdrantClient"):
        AsyncQdrantStore(QdrantClient(":memory:"), collection="x", space=V3)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="QdrantClient"):
        QdrantStore(AsyncQdrantClient(":memory:"), collection="x", space=V3)  # type: ignore[arg-type]


def test_an_address_is_a_url_with_a_port() -> None:
    options = transport._options
    assert options("qdrant://host", None, 1)["url"] == "http://host:6333"
    assert options("qdrant+https://host", None, 1)["url"] == "https://host:443"
    assert options("https://host/path", None, 1)["url"] == "https://host:443/path"
    assert options("http://[::1]:7", 8, 1)["url"] == "http://[::1]:7"
    assert options("http://[::1]:7", 8, 1)["prefer_grpc"]


# Local mode


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # client's lock
def test_a_folder_keeps_documents_and_serves_one_handle_at_a_time(
    tmp_path: Path, qdrant_local: None
) -> None:
    folder = str(tmp_path / "store")
    document = Document("a", "some text", {"k": [1, 1.0, None]})
    with QdrantStore(folder, collection="x", backend=TaskBackend()) as store:
        store.upsert([document])
        with (
            QdrantStore(folder, collection="x", backend=TaskBackend()) as other,
            pytest.raises(StoreUnavailable, match="one at a time"),
        ):
            other.count()
    with QdrantStore(folder, collection="x", backend=TaskBackend()) as store:
        assert store.get(["a"]) == [document]
        assert store.search("some text")[0].document == document


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # client's lock
@pytest.mark.parametrize("damaged", ["meta.json", "storage.sqlite"])
def test_a_damaged_folder_is_said_to_be(tmp_path: Path, qdrant_local: None, damaged: str) -> None:
    with QdrantStore(str(tmp_path), collection="x", backend=TaskBackend()) as store:
        store.upsert(documents(1))
    (file,) = tmp_path.rglob(damaged)
    file.write_bytes(b"{" + file.read_bytes())
    with (
        QdrantStore(str(tmp_path), collection="x", backend=TaskBackend()) as store,
        pytest.raises(StoreUnavailable, match="cannot be read or written"),
    ):
        store.count()


def test_threads_that_come_first_together_share_one_folder(
    tmp_path: Path, qdrant_local: None
) -> None:
    def writer(n: int) -> Callable[[], object]:
        return lambda: store.upsert(documents(5, prefix=f"w{n}-"))

    for source in (":memory:", str(tmp_path / "store")):
        with QdrantStore(source, collection="x", backend=TaskBackend()) as store:
            outcomes = together([writer(n) for n in range(8)])
            assert [report.written for report in outcomes] == [5] * 8
            assert store.count() == 40


async def test_memory_is_the_handles_own(qdrant_local: None) -> None:
    async with AsyncQdrantStore(":memory:", collection="x", backend=TaskBackend()) as store:
        await store.upsert([Document("a", "text")])
        assert await store.count() == 1


def test_a_client_that_was_passed_stays_open(qdrant_local: None) -> None:
    client = QdrantClient(":memory:")
    with QdrantStore(client, collection="x", backend=TaskBackend()) as store:
        store.upsert([Document("a", "text")])
    assert client.count("x").count == 1
    client.close()
    with (
        QdrantStore(client, collection="x", backend=TaskBackend()) as store,
        pytest.raises(StoreUnavailable, match="closed"),
    ):
        store.count()
