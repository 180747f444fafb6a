"""A local server that keeps the contract of Jina's embedding API: no key, no network, no model.

::

    with JinaServer(keys=("test",)) as server:
        backend = JinaAPIBackend(api_key="test", base_url=server.url)

Its vectors are lexical and relate to one another as a model's do (:mod:`.jina_vectors`). Tokens are
counted simply: words and punctuation marks, and two special ones a text.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from samespace.backends.jina_api.late import TOGETHER as TOKENS_TOGETHER
from samespace.backends.jina_api.serving import (
    PATH,
    Json,
    Refusal,
    Request,
    answered,
    bearer,
    error_body,
    model_of,
    parsed,
    requested,
    room_for,
    shown,
    texts_of,
    too_long,
    wrong_key,
)
from samespace.errors import InvalidInput
from samespace.protocols import Matrix
from samespace.testing.jina_quota import Quota, QuotaUsed
from samespace.testing.jina_vectors import LexicalModel, count_tokens, first_tokens

__all__ = [
    "PATH",
    "TOKENS_TOGETHER",
    "Answer",
    "JinaServer",
    "Json",
    "Refusal",
    "Script",
    "error_body",
    "shown",
]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as it is sent: whole, or ``cut_after`` so many bytes of the body.

    What ends a cut answer is the end of the connection; if ``silent``, nothing.
    """

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    silent: bool = False


Script = Callable[[Callable[[], Json]], Answer]
"""Makes of the true answer, which it may ask for, the one that is sent."""


class JinaServer:
    """The API on a free port of the loopback interface, in threads of this process.

    ``items_per_request`` and ``context`` (tokens a text; None: the model's own) are its limits.
    With ``shuffled`` the items of an answer come in another order, their ``index`` telling. What
    it received is in :attr:`requests`, without keys, what it answered in :attr:`statuses`.
    ``quota`` are the limits of the account, counted by ``clock``.

    It lies where it is told to: ``stand_ins`` says which model answers in place of which, and
    ``forced`` are parameters that it goes by whatever a request says (``{"task": None}``).
    """

    def __init__(
        self,
        *,
        keys: Iterable[str],
        items_per_request: int = 2048,
        context: int | None = None,
        shuffled: bool = False,
        stand_ins: Mapping[str, str] | None = None,
        forced: Mapping[str, Any] | None = None,
        quota: Quota | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if isinstance(keys, str):
            raise InvalidInput('keys is one string; pass several, or one in a tuple: keys=("…",)')
        self._keys = frozenset(keys)
        self._items_per_request = items_per_request
        self._context = context
        self._shuffled = shuffled
        self._stand_ins = dict(stand_ins or {})
        self._forced = dict(forced or {})
        self._lock = threading.Lock()
        self._scripts: deque[Script] = deque()
        self._requests: list[Json] = []
        self._statuses: list[tuple[float, int]] = []
        self._quota = QuotaUsed(quota or Quota())
        self._clock = clock
        self._closed = threading.Event()
        self._http = _HTTPServer(self)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closed.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    @property
    def url(self) -> str:
        """What a backend takes as ``base_url``."""
        host, port = self._http.server_address[:2]
        return f"http://{host!s}:{port}/v1"

    @property
    def requests(self) -> list[Json]:
        """The bodies of the requests that carried a valid key, in the order of arrival."""
        with self._lock:
            return list(self._requests)

    @property
    def statuses(self) -> list[tuple[float, int]]:
        """When it answered a request that carried a valid key, by its clock, and the status."""
        with self._lock:
            return list(self._statuses)

    # What goes wrong next

    def fail_next(
        self,
        status: int,
        body: Json | bytes | str = b"",
        *,
        headers: Mapping[str, str] | None = None,
        times: int = 1,
        skip: int = 0,
    ) -> None:
        """Answer the next ``times`` requests so, after ``skip`` that are answered as ever."""
        sent = body if isinstance(body, bytes) else _encoded(body)
        answer = Answer(status, sent, headers or {})
        self._script(lambda _: answer, times, skip)

    def change_next(self, change: Callable[[Json], Json], *, times: int = 1, skip: int = 0) -> None:
        """Send what ``change`` makes of the true answer."""
        self._script(lambda truth: Answer(200, _encoded(change(truth()))), times, skip)

    def cut_next(
        self, *, after: int = 0, silent: bool = False, times: int = 1, skip: int = 0
    ) -> None:
        """End the connection after so many bytes of the body; ``silent``: leave it open and mute."""
        self._script(
            lambda truth: replace(_true(truth), cut_after=after, silent=silent), times, skip
        )

    def _script(self, script: Script, times: int, skip: int) -> None:
        with self._lock:
            self._scripts += [_true] * skip + [script] * times

    # What is answered

    def respond(self, authorization: str | None, body: bytes) -> Answer:
        """The answer to one request."""
        try:
            self._check_key(authorization)
            request = parsed(body)
            with self._lock:
                self._requests.append(request)
                script = self._scripts.popleft() if self._scripts else _true
            return self._noted(self._within_quota(request, script))
        except Refusal as refusal:
            return Answer(refusal.status, _encoded(refusal.body))

    def _within_quota(self, request: Json, script: Script) -> Answer:
        """The script's answer, or a 429; either says what is left of the quota."""
        tokens = _tokens(request)
        with self._lock:
            now = self._clock()
            refusal = self._quota.enter(tokens, now)
            headers = self._quota.headers(now, refusal)
        if refusal:
            return Answer(429, _encoded(error_body(refusal, "Limit exceeded")), headers)
        try:
            answer = script(lambda: self._embedded(request))
        except Refusal as wrong:
            answer = Answer(wrong.status, _encoded(wrong.body))
        finally:
            with self._lock:
                self._quota.leave()
        return replace(answer, headers={**headers, **answer.headers})

    def _noted(self, answer: Answer) -> Answer:
        with self._lock:
            self._statuses.append((self._clock(), answer.status))
        return answer

    def hold(self) -> None:
        """Wait until the server is closed."""
        self._closed.wait()

    def _check_key(self, authorization: str | None) -> None:
        if bearer(authorization) not in self._keys:
            raise wrong_key()

    def _embedded(self, body: Json) -> Json:
        request = requested(body, most=self._items_per_request)
        texts, tokens = self._within_context(request)
        vectors = self._vectors(texts, replace(request, **self._forced))
        answer = answered(request, shown(vectors, request.embedding_type), tokens)
        return {**answer, "data": answer["data"][::-1]} if self._shuffled else answer

    def _vectors(self, texts: list[str], request: Request) -> Matrix:
        named = request.model.name
        answering = model_of({"model": self._stand_ins.get(named, named)})
        return LexicalModel(answering).embed(
            texts,
            task=request.task if answering.tasks else None,
            dimensions=request.dimensions,
            normalized=request.normalized,
            late_chunking=request.late_chunking,
        )

    def _within_context(self, request: Request) -> tuple[list[str], int]:
        """The texts, cut where ``truncate`` says so, and their tokens; else the refusal."""
        room = room_for(request, self._context)
        counts = [count_tokens(text) for text in request.texts]
        longest = sum(counts) if request.late_chunking else max(counts)
        if longest <= room:
            return request.texts, sum(counts)
        if request.late_chunking or not request.truncate:
            raise too_long(f"Input of {longest} tokens exceeds the limit of {room} tokens")
        cut = [first_tokens(text, room) for text in request.texts]
        return cut, sum(min(count, room) for count in counts)


def _true(truth: Callable[[], Json]) -> Answer:
    return Answer(200, _encoded(truth()))


def _encoded(value: object) -> bytes:
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


def _tokens(request: Json) -> int:
    """The tokens of what is readable as texts; a request that is refused for its form costs none."""
    try:
        return sum(map(count_tokens, texts_of(request, sys.maxsize)))
    except Refusal:
        return 0


class _HTTPServer(ThreadingHTTPServer):
    """Listens on the loopback interface alone."""

    daemon_threads = True

    def __init__(self, api: JinaServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.api = api

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no news; anything else is a fault of this server."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _HTTPServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == PATH:
            answer = self.server.api.respond(self.headers.get("Authorization"), body)
        else:
            answer = Answer(404, _encoded(error_body("RESOURCE_NOT_FOUND", "Not found")))
        self.close_connection = self.close_connection or answer.cut_after is not None
        if answer.cut_after != 0 or answer.silent:
            self._send(answer)
        if answer.silent:
            self.wfile.flush()
            self.server.api.hold()

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        headers = {"Content-Type": "application/json", **answer.headers}
        for name, value in {**headers, "Content-Length": str(len(answer.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body[: answer.cut_after])

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the tests' output clean: what was received is in ``JinaServer.requests``."""
