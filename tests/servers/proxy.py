"""A proxy before a real server, which does what networks and busy servers do."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import orjson

_KEPT: Final = ("content-type", "x-elastic-product")


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def operations(self) -> int:
        """How many operations a bulk request has."""
        actions = (b'{"index"', b'{"create"', b'{"update"')
        return sum(line.startswith(actions) for line in self.body.splitlines())


Answer = tuple[int, dict[str, str], bytes]
Fault = Callable[[Request, Callable[[], Answer]], Answer | None]
"""From a request and what forwards it to the answer; None cuts the connection."""


class Proxy:
    """Forwards to ``url``; a fault that was set for a part of a path takes the next requests to it."""

    def __init__(self, url: str) -> None:
        self._host = urlsplit(url).netloc
        self._faults: list[tuple[str, Fault]] = []
        self.requests: list[Request] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                proxy._answer(self)

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = answer  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def set(self, part: str, fault: Fault, *, times: int = 1) -> None:
        """Let a fault take the next requests whose path has a part."""
        self._faults += [(part, fault)] * times

    def to(self, part: str) -> list[Request]:
        """The requests whose path has a part."""
        return [request for request in self.requests if part in request.path]

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("content-length") or 0)
        headers = {name.lower(): value for name, value in handler.headers.items()}
        request = Request(handler.command, handler.path, headers, handler.rfile.read(length))
        self.requests.append(request)
        fault = self._next_fault(request)
        answer = fault(request, lambda: self._forward(request))
        if answer is None:
            handler.close_connection = True
            return
        status, found, body = answer
        handler.send_response(status)
        for name, value in found.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def _next_fault(self, request: Request) -> Fault:
        for place, (part, fault) in enumerate(self._faults):
            if part in request.path:
                del self._faults[place]
                return fault
        return lambda _, forward: forward()

    def _forward(self, request: Request) -> Answer:
        connection = http.client.HTTPConnection(self._host, timeout=60)
        passed = {
            name: v for name, v in request.headers.items() if name not in {"host", "connection"}
        }
        connection.request(request.method, request.path, request.body, passed)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        kept = {name: value for name, value in response.getheaders() if name.lower() in _KEPT}
        return response.status, kept, body


def says(status: int, kind: str = "", reason: str = "no") -> Fault:
    """The server refuses, and does nothing."""
    body = orjson.dumps({"error": {"type": kind, "reason": reason}, "status": status})
    headers = {"content-type": "application/json", "x-elastic-product": "Elasticsearch"}
    return lambda _, __: (status, headers, body)


def loses_the_answer(_: Request, forward: Callable[[], Answer]) -> None:
    """The server does what is asked, and the connection ends before it has said so."""
    forward()


def cuts(_: Request, __: Callable[[], Answer]) -> None:
    """The connection ends before the server has read anything."""


def changes(change: Callable[[Any], Any]) -> Fault:
    """The server's answer arrives otherwise than it was sent."""

    def fault(_: Request, forward: Callable[[], Answer]) -> Answer:
        status, headers, body = forward()
        return status, headers, orjson.dumps(change(orjson.loads(body)))

    return fault
