"""A local server that keeps the contract of Jina's embedding API: no key, no network, no model.

::

    with JinaServer(keys=("test",)) as server:
        backend = JinaAPIBackend(api_key="test", base_url=server.url)

Its vectors are lexical and relate to one another as a model's do (:mod:`.jina_vectors`). Tokens are
counted simply: words and punctuation marks, and two special ones a text.
"""

from __future__ import annotations

import base64
import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from samespace.errors import InvalidInput
from samespace.models import Model, find_model
from samespace.protocols import Matrix
from samespace.testing.jina_quota import Quota, QuotaUsed
from samespace.testing.jina_vectors import LexicalModel, count_tokens, first_tokens

PATH: Final = "/v1/embeddings"
TOKENS_TOGETHER: Final = 8192
"""What the inputs of one request with late chunking have room for, whatever the model's context."""
_COMMON: Final = frozenset({"model", "input", "embedding_type", "truncate"})
_TYPES: Final = ("float", "base64", "binary", "ubinary")

Json = dict[str, Any]


class Refusal(Exception):
    """An error answer of the API: its status and its body."""

    def __init__(self, status: int, body: Json) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body


def error_body(code: str, detail: str = "refused", *, nested: bool = False) -> Json:
    """An error in the one or the other form that the API has."""
    said = {"code": code, "request_id": "req-0"}
    return {"detail": {"message": detail, **said}} if nested else {"detail": detail, **said}


def invalid(field: str, message: str, *, type: str = "value_error") -> Refusal:
    """The 422 that a wrong parameter gets."""
    complaint = {"field": field, "message": message, "type": type, "input": None}
    return Refusal(422, {"detail": "Validation error", "errors": [complaint]})


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
            request = _parsed(body)
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
        if not authorization:
            raise Refusal(401, error_body("AUTH_MISSING_API_KEY", "API key is missing"))
        scheme, _, key = authorization.partition(" ")
        if scheme != "Bearer":
            raise Refusal(401, error_body("AUTH_INVALID_FORMAT", "Use: Bearer <key>"))
        if key not in self._keys:
            raise Refusal(401, error_body("AUTH_INVALID_API_KEY", "API key is invalid"))

    def _embedded(self, request: Json) -> Json:
        model = _model(request)
        _check_parameters(request, model)
        texts = _texts(request, self._items_per_request)
        texts, tokens = self._within_context(texts, request, model)
        vectors = self._vectors(texts, {**request, **self._forced}, model)
        items = [
            {"object": "embedding", "index": place, "embedding": each}
            for place, each in enumerate(shown(vectors, request.get("embedding_type", "float")))
        ]
        return {
            "model": request["model"],
            "object": "list",
            "usage": {"total_tokens": tokens},
            "data": items[::-1] if self._shuffled else items,
        }

    def _vectors(self, texts: list[str], request: Json, model: Model) -> Matrix:
        answering = _model({"model": self._stand_ins.get(model.name, model.name)})
        return LexicalModel(answering).embed(
            texts,
            task=request.get("task", model.default_task) if answering.tasks else None,
            dimensions=request.get("dimensions", model.dimensions),
            normalized=request.get("normalized", True),
            late_chunking=request.get("late_chunking", False),
        )

    def _within_context(
        self, texts: list[str], request: Json, model: Model
    ) -> tuple[list[str], int]:
        """The texts, cut where ``truncate`` says so, and their tokens; else the refusal."""
        context = self._context or model.context
        counts = [count_tokens(text) for text in texts]
        together = request.get("late_chunking", False)
        context = min(context, TOKENS_TOGETHER) if together else context
        longest = sum(counts) if together else max(counts)
        if longest <= context:
            return texts, sum(counts)
        if together or not request.get("truncate", False):
            detail = f"Input of {longest} tokens exceeds the limit of {context} tokens"
            raise Refusal(400, error_body("INPUT_TOKEN_LIMIT_EXCEEDED", detail))
        return [first_tokens(text, context) for text in texts], sum(
            min(count, context) for count in counts
        )


def _true(truth: Callable[[], Json]) -> Answer:
    return Answer(200, _encoded(truth()))


def _encoded(value: object) -> bytes:
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


def _parsed(body: bytes) -> Json:
    try:
        request = json.loads(body)
    except ValueError:
        request = None
    if not isinstance(request, dict):
        raise invalid("body", "Input should be a JSON object")
    return request


def _model(request: Json) -> Model:
    name = request.get("model")
    model = find_model(name) if isinstance(name, str) else None
    if model is None:
        raise Refusal(400, error_body("INPUT_MODEL_NOT_FOUND", "Model not found"))
    return model


def _check_parameters(request: Json, model: Model) -> None:
    known = {
        *_COMMON,
        *(["task"] if model.tasks else []),
        *(["dimensions"] if model.takes_dimensions else []),
        *(["normalized"] if model.takes_normalized else []),
        *(["late_chunking"] if model.late_chunking else []),
    }
    for name in request:
        if name not in known:
            raise invalid(name, "Extra inputs are not permitted", type="extra_forbidden")
    if "task" in request and request["task"] not in model.tasks:
        raise invalid("task", f"Input should be one of {', '.join(model.tasks)}", type="enum")
    size = request.get("dimensions", model.dimensions)
    if type(size) is not int or not model.min_dimensions <= size <= model.dimensions:
        bounds = f"{model.min_dimensions} to {model.dimensions}"
        raise invalid("dimensions", f"Input should be {bounds}", type="out_of_range")
    for name in ("normalized", "truncate", "late_chunking"):
        if type(request.get(name, False)) is not bool:
            raise invalid(name, "Input should be a boolean", type="bool_type")
    if request.get("embedding_type", "float") not in _TYPES:
        raise invalid("embedding_type", f"Input should be one of {', '.join(_TYPES)}", type="enum")


def _texts(request: Json, most: int) -> list[str]:
    given = request.get("input")
    items: Sequence[Any] = given if isinstance(given, list) else [given]
    if not items:
        raise invalid("input", "List should have at least 1 item", type="too_short")
    if len(items) > most:
        raise invalid("input", f"List should have at most {most} items", type="too_long")
    texts: list[Any] = [item.get("text") if isinstance(item, dict) else item for item in items]
    for place, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise invalid(f"input.{place}", "Input should be a text", type="string_type")
    return texts


def _tokens(request: Json) -> int:
    """The tokens of what is readable as texts; a request that is refused for its form costs none."""
    try:
        return sum(map(count_tokens, _texts(request, sys.maxsize)))
    except Refusal:
        return 0


def shown(vectors: Matrix, embedding_type: str) -> list[Any]:
    """Each vector as the request wants it: numbers, base64, or sign bits."""
    if embedding_type == "base64":
        return [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
    if embedding_type == "float":
        return list(vectors.tolist())
    packed = np.packbits(vectors > 0, axis=1).astype(int)
    return list((packed - 128 if embedding_type == "binary" else packed).tolist())


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
