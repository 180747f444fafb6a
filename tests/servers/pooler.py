"""A pooler in transaction mode before a PostgreSQL: each transaction has a session of another's.

Between two transactions a session forgets all that ``DISCARD ALL`` makes it forget.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from select import select
from types import TracebackType
from typing import Final, Self

import psycopg
from psycopg.conninfo import make_conninfo

SESSIONS: Final = 12
_PARAMETERS: Final = (
    "server_version",
    "server_encoding",
    "client_encoding",
    "integer_datetimes",
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "standard_conforming_strings",
)
_NO_ENCRYPTION: Final = (80877103, 80877104)
_CANCEL: Final = 80877102
_ENDS: Final = (b"Q", b"S")
"""What a client sends that the server answers with ``ReadyForQuery``, in the end."""


class Pooler:
    """Takes clients on a port of its own; ``conninfo`` is for them, ``transactions`` were counted."""

    def __init__(self, conninfo: str) -> None:
        sessions = [_Session(conninfo) for _ in range(SESSIONS)]
        self._greeting = sessions[0].greeting
        self._free: SimpleQueue[_Session] = SimpleQueue()
        for session in sessions:
            self._free.put(session)
        self._listener = socket.create_server(("127.0.0.1", 0))
        host, port = self._listener.getsockname()
        self.conninfo = make_conninfo(conninfo, host=host, port=port)
        self.transactions = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for _ in range(SESSIONS):
            self._free.get().close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            client = _Wire(connection)
            if not _greeted(client, self._greeting):
                return
            while (first := client.message()) is not None and first[0] != b"X":
                with self._lent() as session:
                    _relay(first, client, session.wire)

    @contextmanager
    def _lent(self) -> Iterator[_Session]:
        """The session that has been free for longest."""
        session = self._free.get()
        try:
            yield session
        finally:
            session.forget()
            self.transactions += 1
            self._free.put(session)


Message = tuple[bytes, bytes]


class _Wire:
    """A connection, message by message."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._read = bytearray()

    def message(self, *, typed: bool = True) -> Message | None:
        """The next one, its kind and all of it; None at the end."""
        start = 1 if typed else 0
        if not self._filled(start + 4):
            return None
        size = start + struct.unpack_from("!i", self._read, start)[0]
        if not self._filled(size):
            return None
        whole = bytes(self._read[:size])
        del self._read[:size]
        return whole[:start], whole

    @property
    def has_more(self) -> bool:
        """Whether something was read that is no message yet, or not taken."""
        return bool(self._read)

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def _filled(self, size: int) -> bool:
        while len(self._read) < size:
            more = self.connection.recv(65_536)
            if not more:
                return False
            self._read += more
        return True


class _Session:
    """One of the server's, with which the client's library has logged in."""

    def __init__(self, conninfo: str) -> None:
        self._own = psycopg.connect(make_conninfo(conninfo, sslmode="disable"), autocommit=True)
        self._socket = socket.socket(fileno=os.dup(self._own.fileno()))
        self._socket.setblocking(True)
        self.wire = _Wire(self._socket)
        told = {name: self._own.info.parameter_status(name) for name in _PARAMETERS}
        self.greeting = b"".join(
            _message(b"S", f"{name}\0{value}\0".encode()) for name, value in told.items() if value
        )

    def forget(self) -> None:
        """Be as a new session."""
        for statement in (b"ROLLBACK\0", b"DISCARD ALL\0"):
            self.wire.send(_message(b"Q", statement))
            while (answer := self.wire.message()) is not None and answer[0] != b"Z":
                assert answer[0] != b"E", answer

    def close(self) -> None:
        self._socket.close()
        self._own.close()


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def _greeted(client: _Wire, parameters: bytes) -> bool:
    """Let a client in, whoever it is; what is no client is turned away."""
    while (first := client.message(typed=False)) is not None:
        (code,) = struct.unpack_from("!i", first[1], 4)
        if code in _NO_ENCRYPTION:
            client.send(b"N")
            continue
        if code == _CANCEL:
            return False
        key = _message(b"K", struct.pack("!ii", 1, 1))
        client.send(_message(b"R", struct.pack("!i", 0)) + parameters + key + _message(b"Z", b"I"))
        return True
    return False


def _relay(first: Message, client: _Wire, server: _Wire) -> None:
    """All messages of one transaction, of which this is the first, both ways."""
    asked = [first]
    waiting, is_idle, is_there = 0, False, True
    while True:
        asked += _arrived(client) if client.has_more else []
        server.send(b"".join(whole for _, whole in asked))
        waiting += sum(kind in _ENDS for kind, _ in asked)
        asked = []
        if waiting == 0 and (is_idle or not is_there):
            return
        both = [server.connection, *([client.connection] if is_there else [])]
        ready, _, _ = select(both, [], [])
        if server.connection in ready:
            answers = _arrived(server)
            if is_there:
                client.send(b"".join(whole for _, whole in answers))
            states = [whole[-1:] for kind, whole in answers if kind == b"Z"]
            waiting -= len(states)
            is_idle = states[-1] == b"I" if states else is_idle
        elif client.connection in ready:
            asked = _arrived(client)
            is_there = bool(asked)


def _arrived(wire: _Wire) -> list[Message]:
    """At least one message, and what came with it; none at the end."""
    found: list[Message] = []
    while not found or wire.has_more:
        message = wire.message()
        if message is None:
            break
        found.append(message)
    return found
