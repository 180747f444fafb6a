"""A wire to a real server that is cut where a test says, whatever is spoken on it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

CHUNK = 65_536
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME = 9
"""Bytes before what a frame of HTTP/2 carries: three of its length, one of its type, five more."""
HEADERS = 1
"""The type of the frame that begins a request."""


class Wire:
    """Forwards what comes to a port of its own; ``connect`` makes a connection to the server.

    Once, the server's n-th piece of an answer after :meth:`cut` is dropped, and its connection with
    it: the server has done what was asked, and is not heard.
    """

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._left: int | None = None
        self._heard: set[socket.socket] = set()
        self.round_trips = 0
        """How often a client has spoken first, or after the server."""
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def is_cut(self) -> bool:
        """Whether what was to be cut has been."""
        return self._left is None

    def cut(self, n: int) -> None:
        """Drop the n-th piece from now on, counted from 0."""
        self._left = n

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        self._hang_up(*self._sockets)
        for thread in self._threads:
            thread.join()

    def _start(self, work: Callable[..., None], *given: socket.socket) -> None:
        thread = threading.Thread(target=work, args=given, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = self._connect()
            except OSError:
                client.close()
                continue
            self._sockets += [client, server]
            self._start(self._ask, client, server)
            self._start(self._answer, server, client)

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(CHUNK):
                self._count(client, data)
                self._pass_on(data, server)
        self._hang_up(client, server)

    def _pass_on(self, data: bytes, server: socket.socket) -> None:
        server.sendall(data)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while (data := server.recv(CHUNK)) and not self._is_due():
                with self._lock:
                    self._heard.discard(client)
                client.sendall(data)
        self._hang_up(client, server)

    def _count(self, client: socket.socket, _: bytes) -> None:
        """One more round trip, unless the client goes on with what it has begun to say."""
        with self._lock:
            self.round_trips += client not in self._heard
            self._heard.add(client)

    def _is_due(self) -> bool:
        with self._lock:
            if self._left is None:
                return False
            self._left -= 1
            if self._left >= 0:
                return False
            self._left = None
            return True

    @staticmethod
    def _hang_up(*sockets: socket.socket) -> None:
        for each in sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


class Calls(Wire):
    """A wire on which HTTP/2 is spoken, as gRPC does: each call that a client begins is a round trip.

    Both sides speak between calls as well, so who spoke last says nothing.
    """

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        super().__init__(connect)
        self._begun: dict[socket.socket, bytearray] = {}

    def _count(self, client: socket.socket, data: bytes) -> None:
        begun = self._begun.setdefault(client, bytearray())
        begun += data
        if begun.startswith(PREFACE):
            del begun[: len(PREFACE)]
        while len(begun) >= FRAME and len(begun) >= (size := FRAME + int.from_bytes(begun[:3])):
            self.round_trips += begun[3] == HEADERS
            del begun[:size]
