"""Jina's API behind a store: what is found, what is refused, and what is left when a key ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
from collections.abc import Iterator
from typing import Any, Protocol

import pytest
from tests.contract.bad_answers import BAD_BODIES, BAD_CHANGES, endless_server

from samespace import (
    AsyncJinaAPIBackend,
    AsyncPgVectorStore,
    Document,
    JinaAPIBackend,
    Limits,
    PgVectorStore,
)
from samespace.documents import Hit, WriteReport
from samespace.errors import (
    AuthenticationFailed,
    BackendUnavailable,
    BadResponse,
    EmbeddingError,
    InvalidInput,
    PartialWrite,
    QuotaExhausted,
    SpaceMismatch,
    TokenLimitExceeded,
)
from samespace.testing.jina_server import JinaServer, error_body

KEY = "jina_sentinel_4711"
V2, V3 = "jina-embeddings-v2-base-en", "jina-embeddings-v3"
HINTS = [
    Document("display", "Turn the wheel on the left until the display is bright."),
    Document("battery", "An empty battery is full again after two hours."),
    Document("Akku", "Der leere Akku ist nach zwei Stunden wieder voll."),
]
Kinds = tuple[type[Any], type[Any]]
KINDS: list[Kinds] = [
    (PgVectorStore, JinaAPIBackend),
    (AsyncPgVectorStore, AsyncJinaAPIBackend),
    (AsyncPgVectorStore, JinaAPIBackend),
]


class Caller:
    """A store and its backend, called as if both were sync."""

    def __init__(self, store: Any, backend: Any, runner: asyncio.Runner) -> None:
        self._store = store
        self._backend = backend
        self._runner = runner

    def _run(self, owner: Any, name: str, *arguments: Any, **options: Any) -> Any:
        if not owner.is_async:
            return getattr(owner, name)(*arguments, **options)

        async def call() -> Any:
            return await getattr(owner, name)(*arguments, **options)

        return self._runner.run(call())

    def upsert(self, documents: Any, **options: Any) -> WriteReport:
        report: WriteReport = self._run(self._store, "upsert", documents, **options)
        return report

    def search(self, query: str) -> list[Hit]:
        hits: list[Hit] = self._run(self._store, "search", query)
        return hits

    def count(self) -> int:
        count: int = self._run(self._store, "count")
        return count

    def close(self) -> None:
        self._run(self._store, "close")
        self._run(self._backend, "close")


class Open(Protocol):
    def __call__(self, server: JinaServer, **options: Any) -> Caller: ...


@pytest.fixture
def server() -> Iterator[JinaServer]:
    with JinaServer(keys=(KEY,)) as server:
        yield server


@pytest.fixture(params=KINDS, ids=lambda kinds: "-".join(kind.__name__ for kind in kinds))
def open(request: pytest.FixtureRequest, postgres: str, schema: str) -> Iterator[Open]:
    """Opens one collection of this test, with a backend that asks the server given."""
    store_kind, backend_kind = request.param
    with contextlib.ExitStack() as opened:
        runner = opened.enter_context(asyncio.Runner())

        def open(server: JinaServer, **options: Any) -> Caller:
            given = {"api_key": KEY, "base_url": server.url, "retry_wait": 0, "dimensions": 768}
            if options.get("model") == V2:
                del given["dimensions"]
            backend = backend_kind(**{**given, **options})

            async def make() -> Any:
                return store_kind(
                    postgres,
                    collection="hints",
                    backend=backend,
                    schema=schema,
                    registry=f"{schema}_registry",
                )

            caller = Caller(runner.run(make()), backend, runner)
            opened.callback(caller.close)
            return caller

        yield open


def test_the_right_text_is_found_first(open: Open, server: JinaServer) -> None:
    store = open(server)
    report = store.upsert(HINTS)
    assert report.written == 3
    assert report.tokens > 3 * 2
    assert store.search("is the battery full")[0].document.id == "battery"
    assert store.search("Akku leer")[0].document.id == "Akku"
    assert {body["task"] for body in server.requests} == {"retrieval.passage", "retrieval.query"}


def test_another_model_of_the_same_size_is_refused(open: Open, server: JinaServer) -> None:
    open(server).upsert(HINTS)
    with pytest.raises(SpaceMismatch) as caught:
        open(server, model=V2).search("battery")
    assert [difference.field for difference in caught.value.differences] == ["model", "task"]


@pytest.mark.parametrize(
    ("lie", "suggests"),
    [
        ({"stand_ins": {V3: V2}}, "another model"),
        ({"forced": {"task": None}}, "a task or prompt that was ignored"),
    ],
)
def test_a_server_that_lies_is_found_out(
    open: Open, server: JinaServer, lie: dict[str, Any], suggests: str
) -> None:
    open(server).upsert(HINTS)
    with JinaServer(keys=(KEY,), **lie) as liar:
        with pytest.raises(SpaceMismatch, match=suggests):
            open(liar).search("battery")
        with pytest.raises(SpaceMismatch, match=suggests):
            open(liar).upsert([Document("new", "Press the button twice.")])
    assert open(server).count() == 3


def test_documents_and_queries_that_are_swapped_are_found_out(
    open: Open, server: JinaServer
) -> None:
    open(server).upsert(HINTS)
    with JinaServer(keys=(KEY,), forced={"task": "retrieval.query"}) as liar:
        with pytest.raises(SpaceMismatch, match="documents and queries are swapped"):
            open(liar).upsert([Document("new", "Press the button twice.")])
        assert open(liar).search("battery")[0].document.id == "battery"
    assert open(server).count() == 3


def test_a_text_that_is_too_long_is_left_out_alone(open: Open) -> None:
    long = [Document("long", "word " * 80), Document("longer", "word " * 90)]
    with JinaServer(keys=(KEY,), context=40) as short:
        store = open(short)
        report = store.upsert([*HINTS[:2], *long, HINTS[2]], on_error="report")
        assert report.written == store.count() == 3
        assert store.search("Akku leer")[0].document.id == "Akku"
    assert [item.id for item in report.rejected] == ["long", "longer"]
    assert all(isinstance(item.error, TokenLimitExceeded) for item in report.rejected)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "AUTH_INVALID_API_KEY", AuthenticationFailed),
        (403, "AUTHZ_INSUFFICIENT_BALANCE", QuotaExhausted),
    ],
)
def test_a_key_that_ends_ends_the_call_with_the_report_of_what_is_stored(
    open: Open, server: JinaServer, status: int, code: str, kind: type[EmbeddingError]
) -> None:
    store = open(server, limits=Limits(texts_per_request=1001), dimensions=64)
    store.upsert(HINTS)
    server.fail_next(status, error_body(code), skip=1)
    documents = (Document(str(number), f"text {number}") for number in range(1001))
    with pytest.raises(kind, match=code) as caught:
        store.upsert(documents, on_error="report")
    assert caught.value.report is not None
    assert caught.value.report.written == 1000
    assert caught.value.report.rejected == ()
    assert store.count() == 1003


def test_a_limit_that_stays_ends_the_call_and_rejects_nothing(
    open: Open, server: JinaServer
) -> None:
    store = open(server, attempts=2)
    store.upsert(HINTS)
    server.fail_next(429, error_body("RATE_TOKEN_LIMIT_EXCEEDED"), times=2)
    with pytest.raises(EmbeddingError, match="RATE_TOKEN_LIMIT_EXCEEDED") as caught:
        store.upsert([Document("new", "Press the button twice.")], on_error="report")
    assert caught.value.report == WriteReport()


def test_nothing_is_written_from_a_bad_answer(open: Open, server: JinaServer) -> None:
    store = open(server)
    store.upsert(HINTS)
    forms = [*BAD_BODIES, *BAD_CHANGES]
    assert [form for form in forms if not leaves_all_as_it_was(store, server, form)] == []


def leaves_all_as_it_was(store: Caller, server: JinaServer, form: str) -> bool:
    """Whether a write that is answered so fails, and the store holds and finds what it did."""
    if form in BAD_BODIES:
        server.fail_next(200, BAD_BODIES[form])
    else:
        server.change_next(BAD_CHANGES[form])
    try:
        store.upsert([Document("battery", "Another text.")])
    except (EmbeddingError, PartialWrite):
        found = store.search("is the battery full")[0].document.text
        return store.count() == 3 and found == HINTS[1].text
    return False


@pytest.mark.parametrize(
    ("path", "timeout", "kind"),
    [("fast", 60, BadResponse), ("slow", 0.2, BackendUnavailable)],
)
def test_nothing_is_written_from_an_answer_without_end(
    open: Open, server: JinaServer, path: str, timeout: float, kind: type[EmbeddingError]
) -> None:
    store = open(server)
    store.upsert(HINTS)
    with endless_server() as url, pytest.raises(kind):
        open(server, base_url=f"{url}/{path}", attempts=1, timeout=timeout).upsert(
            [Document("new", "Press the button twice.")]
        )
    assert store.count() == 3


def test_the_key_is_shown_nowhere(
    open: Open, server: JinaServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        store = open(server)
        store.upsert(HINTS)
        store.search("battery")
        server.fail_next(401, error_body("AUTH_INVALID_API_KEY", f"no such key: {KEY}"))
        with pytest.raises(AuthenticationFailed) as caught:
            store.search("battery")
    found = [caplog.text, repr(store._store), repr(vars(store._store)), str(caught.value)]
    assert KEY not in "".join([*found, str(pickle.dumps(caught.value))])


def test_a_sync_store_refuses_an_async_backend(postgres: str) -> None:
    backend = AsyncJinaAPIBackend(api_key=KEY)
    with pytest.raises(InvalidInput, match="sync twin"):
        PgVectorStore(postgres, collection="hints", backend=backend)  # type: ignore[arg-type]
