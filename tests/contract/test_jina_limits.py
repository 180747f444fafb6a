"""Several requests at once, at the pace that an account has: both clients on real connections."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Final, Protocol

import numpy as np
import pytest
from tests.contract.calling import Caller

from samespace import AsyncJinaAPIBackend, JinaAPIBackend, Limits
from samespace.backends.http.gate import Gate
from samespace.errors import (
    AuthenticationFailed,
    BackendUnavailable,
    EmbeddingError,
    RateLimited,
    TokenLimitExceeded,
)
from samespace.models import MODELS
from samespace.protocols import Matrix
from samespace.testing.jina_quota import Quota
from samespace.testing.jina_server import JinaServer, Json, error_body
from samespace.testing.jina_vectors import LexicalModel

KEY = "jina_sentinel_4711"
V3 = "jina-embeddings-v3"
TEXTS = [f"text number {number}" for number in range(24)]
FOREVER = 10_000.0
"""Seconds that no test has: whoever waits so long is never woken."""
WINDOWS: Final = 600
"""Of an account's limits, a minute."""
WINDOW: Final = 60 / WINDOWS


class Make(Protocol):
    def __call__(self, server: JinaServer, **options: Any) -> Caller: ...


@pytest.fixture
def server() -> Iterator[JinaServer]:
    with JinaServer(keys=(KEY,), shuffled=True) as server:
        yield server


@pytest.fixture(params=[JinaAPIBackend, AsyncJinaAPIBackend])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    with contextlib.ExitStack() as made:

        def make(server: JinaServer, **options: Any) -> Caller:
            given = {"api_key": KEY, "base_url": server.url, "retry_wait": 0, **options}
            caller = Caller(request.param(**given))
            made.callback(caller.close)
            return caller

        yield make


def expected(texts: list[str]) -> Matrix:
    return LexicalModel(MODELS[V3]).embed(texts, task="retrieval.passage", dimensions=1024)


def together(count: int) -> Callable[[Json], Json]:
    """Answers truly, as soon as so many requests are under way at the same time."""
    barrier = threading.Barrier(count, timeout=60)

    def change(answer: Json) -> Json:
        barrier.wait()
        return answer

    return change


def never(server: JinaServer) -> tuple[threading.Semaphore, Callable[[Json], Json]]:
    """Answers not before the server is closed; the semaphore counts who waits for that."""
    asked = threading.Semaphore(0)

    def change(answer: Json) -> Json:
        asked.release()
        server.hold()
        return answer

    return asked, change


def own_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("samespace-embed")]


# Several at once


def test_a_calls_portions_are_under_way_together(make: Make, server: JinaServer) -> None:
    server.change_next(together(3), times=6)
    backend = make(server, limits=Limits(texts_per_request=4, in_flight=3))
    assert np.array_equal(backend.documents(TEXTS), expected(TEXTS))
    assert backend.backend._session().gate.limiter._running == 0
    assert own_threads() == []


@pytest.mark.parametrize(
    ("limits", "most"), [({"in_flight": 2}, 2), ({"in_flight": 5, "share": 0.5}, 2)]
)
def test_no_more_are_under_way_than_are_allowed(
    make: Make, server: JinaServer, limits: dict[str, Any], most: int
) -> None:
    found: list[int] = []
    running = threading.Semaphore(0)
    count, lock = [0], threading.Lock()

    def change(answer: Json) -> Json:
        with lock:
            count[0] += 1
            found.append(count[0])
        running.acquire(timeout=0.02)  # nothing else ends it: others have time to come
        with lock:
            count[0] -= 1
        return answer

    server.change_next(change, times=24)
    make(server, limits=Limits(texts_per_request=1, **limits)).documents(TEXTS)
    assert len(found) == 24
    assert max(found) <= most


def test_errors_name_texts_of_all_portions(make: Make) -> None:
    texts = list(TEXTS)
    texts[3] = texts[17] = "word " * 30
    with JinaServer(keys=(KEY,), context=20) as server:
        backend = make(server, limits=Limits(texts_per_request=4, in_flight=3))
        with pytest.raises(TokenLimitExceeded) as caught:
            backend.documents(texts)
    assert caught.value.indices == (3, 17)


def test_the_first_failure_ends_the_call_and_leaves_nothing(make: Make, server: JinaServer) -> None:
    server.fail_next(503)  # after which one waits, until another one fails
    server.fail_next(401, error_body("AUTH_INVALID_API_KEY"), times=24)
    backend = make(
        server,
        limits=Limits(texts_per_request=1, in_flight=3),
        retry_wait=FOREVER,
        retry_seconds=FOREVER,
    )
    with pytest.raises(AuthenticationFailed):
        backend.documents(TEXTS)
    assert own_threads() == []
    assert backend.backend._session().gate.limiter._running == 0
    assert len(server.requests) < 24


async def test_a_cancelled_task_leaves_nothing_running(server: JinaServer) -> None:
    asked, change = never(server)
    server.change_next(change, times=3)
    limits = Limits(texts_per_request=1, in_flight=3)
    backend = AsyncJinaAPIBackend(api_key=KEY, base_url=server.url, limits=limits, timeout=FOREVER)
    async with backend:
        task = asyncio.create_task(backend.embed_documents(TEXTS))
        for _ in range(3):
            await asyncio.to_thread(asked.acquire)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert backend._session().gate.limiter._running == 0
        assert np.array_equal(await backend.embed_documents(TEXTS), expected(TEXTS))


def test_ctrl_c_ends_a_sync_call_and_its_threads(server: JinaServer) -> None:
    asked, change = never(server)
    server.change_next(change, times=3)
    limits = Limits(texts_per_request=1, in_flight=3)

    def interrupt() -> None:
        for _ in range(3):
            asked.acquire()
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    backend = JinaAPIBackend(api_key=KEY, base_url=server.url, limits=limits, timeout=FOREVER)
    with backend:
        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            backend.embed_documents(TEXTS)
        assert own_threads() == []
        assert backend._session().gate.limiter._running == 0
        assert np.array_equal(backend.embed_documents(TEXTS), expected(TEXTS))
    signal.signal(signal.SIGINT, before)


def test_a_backend_that_is_closed_lets_nobody_wait(server: JinaServer) -> None:
    server.fail_next(429, headers={"Retry-After": "3000"}, times=9)
    backend = JinaAPIBackend(api_key=KEY, base_url=server.url, retry_seconds=FOREVER)
    found: list[EmbeddingError] = []

    def call() -> None:
        try:
            backend.embed_query("plums")
        except EmbeddingError as error:
            found.append(error)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    gate = backend._session().gate
    with gate._changed:
        assert gate._changed.wait_for(lambda: gate.limiter.held(time.monotonic()) > 0, 60)
    backend.close()
    for thread in threads:
        thread.join()
    assert [type(error) for error in found] == [BackendUnavailable] * 3


def test_a_call_whose_backend_is_closed_says_so(server: JinaServer) -> None:
    asked, change = never(server)
    server.change_next(change)
    backend = JinaAPIBackend(api_key=KEY, base_url=server.url, timeout=FOREVER, attempts=1)
    with ThreadPoolExecutor(1) as thread:
        call = thread.submit(backend.embed_query, "plums")
        asked.acquire()
        backend.close()
        with pytest.raises(BackendUnavailable, match="this backend is closed"):
            call.result()


@pytest.mark.parametrize(("timeout", "connect"), [(60, 10), (2, 2)])
def test_to_connect_takes_no_longer_than_an_interruption_can_wait(
    make: Make, server: JinaServer, timeout: float, connect: float
) -> None:
    client = make(server, timeout=timeout).backend._session().client
    assert (client.timeout.connect, client.timeout.read) == (connect, timeout)


class Clock:
    """The time as the client reads it."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


def test_the_time_to_read_an_answer_begins_with_its_head(
    make: Make, server: JinaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()

    def change(answer: Json) -> Json:
        clock.ahead += 59
        return answer | {"padding": clock.ahead}

    for name in ("client", "client_async"):
        monkeypatch.setattr(f"samespace.backends.http.{name}.time", clock)
    server.change_next(change, times=9)
    backend = make(server, timeout=58, attempts=1)
    assert np.array_equal(backend.documents(TEXTS), expected(TEXTS))


# What one hears, all obey


@pytest.mark.parametrize("status", [429, 503])
def test_nobody_asks_while_the_api_wants_to_be_left_alone(
    make: Make, server: JinaServer, status: int
) -> None:
    server.fail_next(status, error_body("BUSY"), headers={"Retry-After": "3000"})
    backend = make(server, retry_seconds=60)
    with pytest.raises(EmbeddingError, match="asks to wait 3000 s"):
        backend.documents(TEXTS)
    for call in ("embed_documents", "embed_queries", "embed_chunks"):
        argument = [TEXTS] if call == "embed_chunks" else TEXTS
        with pytest.raises(RateLimited, match=r"asks to wait [23]\d\d\d\.\d s more"):
            backend.run(call, argument)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [404, 500])
def test_what_one_request_hears_for_itself_stops_no_other(
    make: Make, server: JinaServer, status: int
) -> None:
    server.fail_next(status, error_body("BUSY"), headers={"Retry-After": "3000"})
    backend = make(server, retry_seconds=60)
    with pytest.raises(EmbeddingError, match="asks to wait 3000 s"):
        backend.query("plums")
    assert np.array_equal(backend.documents(TEXTS), expected(TEXTS))


@pytest.mark.parametrize("header", ["0", "-5", "Fri, 02 Jan 2015 03:04:05 GMT"])
def test_a_limit_that_asks_for_no_time_holds_as_one_that_says_nothing(
    server: JinaServer, header: str
) -> None:
    server.fail_next(429, headers={"Retry-After": header})
    with JinaAPIBackend(
        api_key=KEY, base_url=server.url, retry_wait=FOREVER, retry_seconds=1
    ) as backend:
        gate = backend._session().gate
        stopped = threading.Thread(target=stop_when_held, args=(backend, gate))
        stopped.start()
        with pytest.raises(BackendUnavailable, match="closed"):
            backend.embed_query("plums")
        stopped.join()
    assert len(server.requests) == 1


def stop_when_held(backend: JinaAPIBackend, gate: Gate) -> None:
    with gate._changed:
        assert gate._changed.wait_for(lambda: gate.limiter.held(time.monotonic()) > 0, 60)
    backend.close()


RETRY_AFTER: dict[str, tuple[Any, float | None]] = {
    "seconds": ("0.05", 0.05),
    "a date": (lambda: format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True), 0.0),
    "a date that is over": ("Fri, 02 Jan 2015 03:04:05 GMT", 0.0),
    "zero": ("0", 0.0),
    "negative": ("-5", 0.0),
    "a thousand million": ("1e9", None),
    "garbage": ("soon", 0.0),
    "absent": (None, 0.0),
}
"""What is said, and after how many seconds at least it is tried again; None: not at all."""


@pytest.mark.parametrize("form", RETRY_AFTER)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_obeyed_or_ends_the_call(
    make: Make, server: JinaServer, status: int, form: str
) -> None:
    said, least = RETRY_AFTER[form]
    header = said() if callable(said) else said
    server.fail_next(status, headers={"Retry-After": header} if header is not None else {})
    backend = make(server, retry_seconds=60)
    if least is None:
        with pytest.raises((RateLimited, BackendUnavailable), match="asks to wait"):
            backend.documents(TEXTS)
        assert len(server.requests) == 1
        return
    assert np.array_equal(backend.documents(TEXTS), expected(TEXTS))
    (first, refused), (second, answered) = server.statuses
    assert (refused, answered) == (status, 200)
    assert second - first >= least


def test_what_the_api_says_is_left_is_kept_to(make: Make) -> None:
    quota = Quota(requests=3, window=WINDOW)
    with JinaServer(keys=(KEY,), quota=quota) as server:
        backend = make(server, limits=Limits(texts_per_request=3, in_flight=1, window=WINDOW))
        assert np.array_equal(backend.documents(TEXTS), expected(TEXTS))
    assert [status for _, status in server.statuses] == [200] * 8


@pytest.mark.parametrize(
    ("quota", "limits"),
    [
        ({"requests": 4}, {"requests_per_minute": 4 * WINDOWS}),
        ({"tokens": 60}, {"tokens_per_minute": 60 * WINDOWS}),
        ({"requests": 4, "tokens": 60, "in_flight": 2},
         {"requests_per_minute": 4 * WINDOWS, "tokens_per_minute": 60 * WINDOWS, "in_flight": 2}),
    ],
    ids=["requests", "tokens", "all"],
)  # fmt: skip
@pytest.mark.parametrize("tells", [True, False])
def test_who_knows_the_limits_is_never_refused(
    make: Make, quota: dict[str, Any], limits: dict[str, Any], tells: bool
) -> None:
    given = Quota(**quota, window=WINDOW, tells=tells)
    with JinaServer(keys=(KEY,), quota=given) as server:
        known = Limits(texts_per_request=2, **limits, window=WINDOW)
        backend = make(server, limits=known)
        assert np.array_equal(backend.documents(TEXTS), expected(TEXTS))
    assert {status for _, status in server.statuses} == {200}


def test_fewer_are_under_way_where_the_api_takes_fewer(make: Make, server: JinaServer) -> None:
    server.fail_next(429, error_body("RATE_CONCURRENCY_LIMIT_EXCEEDED"), times=2)
    backend = make(server, limits=Limits(texts_per_request=1, in_flight=4))
    assert np.array_equal(backend.documents(TEXTS), expected(TEXTS))
    assert backend.backend._session().gate.limiter.allowed_in_flight < 4


# The full figures, on a clock that nobody can turn


class Exchanges(logging.Handler):
    """What httpcore says it sends and hears, in its order: requests inside a Retry-After window."""

    def __init__(self) -> None:
        super().__init__()
        self.until = 0.0
        self.sent = 0
        self.holds = 0
        self.hasty = 0

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        if said.startswith("send_request_headers.started"):
            self.sent += 1
            self.hasty += time.monotonic() < self.until
        if said.startswith("receive_response_headers.complete") and (
            found := re.search(r"b'Retry-After', b'([0-9.]+)'", said)
        ):
            self.holds += 1
            self.until = max(self.until, time.monotonic() + float(found[1]))


@pytest.fixture
def exchanges() -> Iterator[Exchanges]:
    handler, logger = Exchanges(), logging.getLogger("httpcore.http11")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.setLevel(level)
    logger.removeHandler(handler)


LONG_WINDOW: Final = 2.0
WORKERS: Final = 4


def in_threads(backend: JinaAPIBackend, batches: list[list[str]]) -> None:
    with ThreadPoolExecutor(WORKERS) as workers:
        list(workers.map(backend.embed_documents, batches))


def in_tasks(backend: AsyncJinaAPIBackend, batches: list[list[str]]) -> None:
    left = iter(batches)

    async def work() -> None:
        for batch in left:
            await backend.embed_documents(batch)

    async def run() -> None:
        async with backend:
            await asyncio.gather(*(work() for _ in range(WORKERS)))

    asyncio.run(run())


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", [JinaAPIBackend, AsyncJinaAPIBackend])
@pytest.mark.parametrize("scarce", ["requests", "tokens"])
def test_ten_thousand_texts_within_hard_limits(
    kind: type[Any], scarce: str, exchanges: Exchanges
) -> None:
    requests, tokens = (100, 10_000) if scarce == "requests" else (1_000, 5_000)
    texts = [f"text number {number}" for number in range(10_000)]
    batches = [texts[place : place + 200] for place in range(0, len(texts), 200)]
    quota = Quota(requests=requests, tokens=tokens, in_flight=WORKERS, window=LONG_WINDOW)
    limits = Limits(
        texts_per_request=10,
        requests_per_minute=int(requests * 60 / LONG_WINDOW),
        tokens_per_minute=int(tokens * 60 / LONG_WINDOW),
        in_flight=WORKERS,
        window=LONG_WINDOW,
    )
    with JinaServer(keys=(KEY,), quota=quota) as server:
        for _ in range(4):
            server.fail_next(429, headers={"Retry-After": "0.2"}, skip=200)
        backend = kind(api_key=KEY, base_url=server.url, dimensions=64, limits=limits)
        (in_tasks if backend.is_async else in_threads)(backend, batches)
        if not backend.is_async:
            backend.close()
    begun = server.statuses[0][0]
    settled = [(at, status) for at, status in server.statuses if at >= begun + 2 * LONG_WINDOW]
    answered = [at for at, status in settled if status == 200]
    per_second = min(requests, tokens / 50) / LONG_WINDOW
    used = len(answered) / (per_second * (answered[-1] - begun - 2 * LONG_WINDOW))
    refused = len(settled) - len(answered)
    assert exchanges.holds >= 4
    assert exchanges.hasty == 0
    assert refused <= 0.01 * len(settled), f"{refused} of {len(settled)}"
    assert used >= 0.9, f"{used:.1%} of the rate"
