"""Connections: a few of our own, those of a pool that the caller owns, or the embedded server's."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import select
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Protocol

import psycopg
from psycopg.abc import AdaptContext
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Format, TransactionStatus
from psycopg.rows import tuple_row

from samespace.errors import InvalidInput, StoreUnavailable, excerpt
from samespace.stores.pgvector import embedded
from samespace.stores.pgvector.canceller_async import AsyncCanceller
from samespace.stores.pgvector.faults import Translating
from samespace.stores.running import in_thread_async

EMBEDDED: Final = "embedded"
MOST_CONNECTIONS: Final = 8
_UNREADABLE: Final = (
    "the connection string cannot be read; write postgresql://user@host:5432/database, "
    "with special characters in the password percent-encoded"
)
_STRAY_AT: Final = re.compile(r"postgres(?:ql)?://[^@/?]*[@/][^?]*@")
"""An ``@`` behind the one before the host: what is taken for a host, or a database, has a password."""
_OTHER_LOOP: Final = "this handle belongs to another event loop; open one in each"
AsyncRows = psycopg.AsyncConnection[Any]
AsyncTuples = psycopg.AsyncCursor[tuple[Any, ...]]


class AsyncPool(Protocol):
    """What is asked of a pool: ``psycopg_pool.AsyncConnectionPool`` has it."""

    def connection(self) -> Any:
        """A context manager that lends a connection."""


class AsyncConnections:
    """Lends connections; those of our own are kept open, the last used first."""

    def __init__(self, source: str | AsyncPool, *, adapt: Callable[[AdaptContext], None]) -> None:
        self._adapt = adapt
        self._pool = source if not isinstance(source, str) else None
        self._conninfo = source if isinstance(source, str) else ""
        self._embedded = source == EMBEDDED
        if not self._embedded and not _is_readable(self._conninfo):
            # Not while the driver's error is handled, which quotes the whole string.
            raise InvalidInput(_UNREADABLE)
        self._lease: embedded.Lease | None = None
        self._idle: list[AsyncTuples] = []
        self._free = asyncio.Semaphore(MOST_CONNECTIONS)
        self._opening = asyncio.Lock()
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None  # async only
        self._closed = False

    def lend(self) -> AsyncLoan:
        """A cursor, in autocommit mode if the connection is ours, in the pool's mode if not."""
        self._check_usable()
        return AsyncLoan(self)

    def _check_usable(self) -> None:
        if self._closed:
            raise StoreUnavailable("this store is closed; open another one")
        loop = asyncio.get_running_loop()  # async only
        self._loop = self._loop or loop  # async only
        if self._loop is not loop:  # async only
            raise InvalidInput(_OTHER_LOOP)  # async only
        if self._pid != os.getpid():
            # A fork must not talk through its parent's sockets, nor close them.
            self._pid, self._idle = os.getpid(), []

    async def take(self) -> AsyncTuples:
        """A cursor on a connection of our own that nobody else uses."""
        await self._free.acquire()
        try:
            while self._idle:
                cursor = self._idle.pop()
                if _is_alive(cursor.connection):
                    return cursor
                await cursor.connection.close()
            return _cursor_on(await self._connect())
        except BaseException:
            self._free.release()
            raise

    async def _connect(self) -> AsyncRows:
        if self._embedded:
            async with self._opening:
                if self._lease is None:
                    lease = await in_thread_async(embedded.start)
                    self._lease, self._conninfo = lease, lease.conninfo
        connection = await psycopg.AsyncConnection.connect(
            self._conninfo,
            autocommit=True,
            application_name="samespace",
            client_encoding="utf8",  # what is sent in binary form is UTF-8
        )
        self._adapt(connection)
        return connection

    async def put(self, cursor: AsyncTuples) -> None:
        """Take a cursor back; a connection that is in the middle of something is closed."""
        try:
            connection = cursor.connection
            idle = connection.pgconn.transaction_status == TransactionStatus.IDLE
            if idle and not connection.closed and not self._closed:
                self._idle.append(cursor)
            else:
                await connection.close()
        finally:
            self._free.release()

    def lent_by_pool(self) -> Any:
        """A context manager with a connection of the caller's pool; None without one."""
        return self._pool.connection() if self._pool is not None else None

    def cursor_of_pool(self, connection: AsyncRows) -> AsyncTuples:
        """A cursor that knows our binary forms, which its connection must not."""
        _check_encoding(connection)
        cursor = _cursor_on(connection)
        self._adapt(cursor)
        return cursor

    async def close(self) -> None:
        """Close what is ours and give the embedded server back; a pool stays open."""
        self._closed = True
        while self._idle and self._pid == os.getpid():
            await self._idle.pop().connection.close()
        if self._lease is not None:
            lease, self._lease = self._lease, None
            await in_thread_async(lease.release)


class AsyncLoan:
    """A cursor for the length of a ``with`` block; no exception of the driver leaves it."""

    __slots__ = ("_canceller", "_cursor", "_lender", "_pooled")

    def __init__(self, lender: AsyncConnections) -> None:
        self._lender = lender
        self._pooled = lender.lent_by_pool()
        self._cursor: AsyncTuples

    async def __aenter__(self) -> AsyncTuples:
        with Translating():
            self._cursor = await self._borrow()
            self._canceller = AsyncCanceller(self._cursor.connection)
            return self._cursor

    async def _borrow(self) -> AsyncTuples:
        if self._pooled is None:
            return await self._lender.take()
        connection = await self._pooled.__aenter__()
        try:
            return self._lender.cursor_of_pool(connection)
        except BaseException as error:
            await self._pooled.__aexit__(type(error), error, error.__traceback__)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with Translating():
            try:
                await self._canceller.finish()
            finally:  # whatever interrupts the waiting
                if self._pooled is None:
                    await self._lender.put(self._cursor)
                else:
                    await self._pooled.__aexit__(kind, error, traceback)
            if isinstance(error, psycopg.Error | UnicodeEncodeError):
                raise error


def _cursor_on(connection: AsyncRows) -> AsyncTuples:
    """A cursor of ours, not of the connection's own factories: those of a pool may be any."""
    cursor = psycopg.AsyncCursor(connection, row_factory=tuple_row)
    cursor.format = Format.BINARY
    return cursor


def _check_encoding(connection: AsyncRows) -> None:
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
    if inspect.isgeneratorfunction(lend):
        raise InvalidInput(
            f"{excerpt(type(source).__name__)} is not the kind of pool that this store awaits; a sync "
            "store takes a ConnectionPool, an async one an AsyncConnectionPool"
        )


def _is_alive(connection: AsyncRows) -> bool:
    """Whether nothing has arrived on an idle connection: a server that closes it sends something."""
    if connection.closed:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)
