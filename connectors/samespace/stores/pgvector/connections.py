# Generated from connections_async.py by tools/generate_sync.py; change that file, not this one.
"""Connections: a few of our own, those of a pool that the caller owns, or the embedded server's."""

from __future__ import annotations

import inspect
import os
import re
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

import psycopg
from psycopg.abc import AdaptContext
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus

from samespace.errors import InvalidInput, StoreUnavailable, excerpt
from samespace.stores.pgvector import embedded
from samespace.stores.pgvector.faults import Translating
from samespace.stores.running import in_thread

EMBEDDED: Final = "embedded"
MOST_CONNECTIONS: Final = 8
_UNREADABLE: Final = (
    "the connection string cannot be read; write postgresql://user@host:5432/database, "
    "with special characters in the password percent-encoded"
)
_STRAY_AT: Final = re.compile(r"postgres(?:ql)?://[^@/?]*[@/][^?]*@")
"""An ``@`` behind the one before the host: what is taken for a host, or a database, has a password."""
_OTHER_LOOP: Final = "this handle belongs to another event loop; open one in each"
Rows = psycopg.Connection[Any]


class Pool(Protocol):
    """What is asked of a pool: ``psycopg_pool.ConnectionPool`` has it."""

    def connection(self) -> Any:
        """A context manager that lends a connection."""


class Connections:
    """Lends connections; those of our own are kept open, the last used first."""

    def __init__(self, source: str | Pool, *, adapt: Callable[[AdaptContext], None]) -> None:
        self._adapt = adapt
        self._pool = source if not isinstance(source, str) else None
        self._conninfo = source if isinstance(source, str) else ""
        self._embedded = source == EMBEDDED
        if not self._embedded and not _is_readable(self._conninfo):
            # Not while the driver's error is handled, which quotes the whole string.
            raise InvalidInput(_UNREADABLE)
        self._lease: embedded.Lease | None = None
        self._idle: list[Rows] = []
        self._free = threading.Semaphore(MOST_CONNECTIONS)
        self._opening = threading.Lock()
        self._pid = os.getpid()
        self._closed = False

    def adapt(self, cursor: psycopg.Cursor[Any]) -> None:
        """Teach a cursor our binary forms; connections of our own know them, a caller's must not."""
        if self._pool is not None:
            self._adapt(cursor)

    @contextmanager
    def lend(self) -> Iterator[Rows]:
        """A connection in autocommit mode if it is ours, in the pool's mode if not."""
        self._check_usable()
        if self._pool is not None:
            with Translating(), self._pool.connection() as connection:
                _check_encoding(connection)
                yield connection
            return
        with self._free, Translating():
            connection = self._take()
            try:
                yield connection
            finally:
                self._put(connection)

    def _check_usable(self) -> None:
        if self._closed:
            raise StoreUnavailable("this store is closed; open another one")
        if self._pid != os.getpid():
            # A fork must not talk through its parent's sockets, nor close them.
            self._pid, self._idle = os.getpid(), []

    def _take(self) -> Rows:
        while self._idle:
            connection = self._idle.pop()
            if _is_alive(connection):
                return connection
            connection.close()
        return self._connect()

    def _connect(self) -> Rows:
        if self._embedded:
            with self._opening:
                if self._lease is None:
                    lease = in_thread(embedded.start)
                    self._lease, self._conninfo = lease, lease.conninfo
        connection = psycopg.Connection.connect(
            self._conninfo,
            autocommit=True,
            application_name="samespace",
            client_encoding="utf8",  # what is sent in binary form is UTF-8
        )
        self._adapt(connection)
        return connection

    def _put(self, connection: Rows) -> None:
        idle = connection.pgconn.transaction_status == TransactionStatus.IDLE
        if idle and not connection.closed and not self._closed:
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close what is ours and give the embedded server back; a pool stays open."""
        self._closed = True
        while self._idle and self._pid == os.getpid():
            self._idle.pop().close()
        if self._lease is not None:
            lease, self._lease = self._lease, None
            in_thread(lease.release)


def _check_encoding(connection: Rows) -> None:
    """What is sent in binary form is UTF-8, whatever a session speaks."""
    if connection.info.encoding != "utf-8":
        raise InvalidInput(
            f"the pool's sessions speak {excerpt(connection.info.encoding)}; make it with "
            'kwargs={"client_encoding": "utf8"}'
        )


def _is_readable(conninfo: str) -> bool:
    if _STRAY_AT.match(conninfo):
        return False
    try:
        conninfo_to_dict(conninfo)
    except psycopg.Error:
        return False
    return True


def check_source(source: object) -> None:
    """:class:`InvalidInput` unless ``source`` is a connection string or a pool of this kind."""
    if not isinstance(source, str) and not callable(getattr(source, "connection", None)):
        raise InvalidInput(
            f"cannot connect through {excerpt(type(source).__name__)}; pass a postgresql:// URL, a "
            'psycopg_pool pool, or "embedded"'
        )
    lend = inspect.unwrap(getattr(source, "connection", check_source))
    if inspect.isasyncgenfunction(lend):
        raise InvalidInput(
            f"{excerpt(type(source).__name__)} is not the kind of pool that this store awaits; a sync "
            "store takes a ConnectionPool, an async one an ConnectionPool"
        )


def _is_alive(connection: Rows) -> bool:
    """Whether nothing has arrived on an idle connection: a server that closes it sends something."""
    if connection.closed:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)
