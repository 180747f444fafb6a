"""Work that waits for a lock and is broken off: nothing is left waiting on the server."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier
from psycopg_pool import AsyncConnectionPool
from tests.contract import waiting as waiting_process
from tests.contract.pgvector import AsyncHarness, Harness
from tests.faults.test_lost_answers import at_postgres
from tests.servers.cutting import Wire

from samespace import AsyncPgVectorStore, Document
from samespace.stores.pgvector import canceller_async
from samespace.stores.pgvector.canceller import Canceller
from samespace.stores.pgvector.connections import MOST_CONNECTIONS
from samespace.testing.backends import TaskBackend

ROW = "the row that is locked"
GIVEN_UP_S = 60
"""How long a process is given to end; one that waits for the lock never does."""


def _refuse() -> socket.socket:
    raise ConnectionRefusedError


class Overtaken(Wire):
    """A wire on which the first statement about the row is overtaken by a connection made later."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        super().__init__(connect)
        self._is_armed = False
        self._held: list[socket.socket] = []
        self._heard_out = threading.Event()
        self.is_holding = threading.Event()

    def hold(self) -> None:
        """Keep the next statement about the row until another connection has been heard out."""
        self._is_armed = True

    def let_go(self) -> None:
        """Keep nothing any longer."""
        self._heard_out.set()

    def mute(self) -> None:
        """Let no server be reached any more; what is kept stays so."""
        self._connect = _refuse

    def _pass_on(self, data: bytes, server: socket.socket) -> None:
        if self._is_armed and ROW.encode() in data:
            self._is_armed = False
            self._held.append(server)
            self.is_holding.set()
            self._heard_out.wait()
        super()._pass_on(data, server)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        super()._answer(server, client)
        if server not in self._held:
            self._heard_out.set()


@pytest.fixture
def harness(postgres: str, schema: str) -> Harness:
    harness = Harness(postgres, schema)
    with harness.open("held", backend=TaskBackend()) as store:
        store.upsert([Document(ROW, "first")])
    return harness


@pytest.fixture
def holder(postgres: str, schema: str, harness: Harness) -> Iterator[psycopg.Connection[Any]]:
    """A session that holds a lock on the row."""
    with psycopg.connect(postgres) as connection:
        table = Identifier(schema, "held")
        connection.execute(SQL("SELECT FROM {} WHERE id = %s FOR UPDATE").format(table), (ROW,))
        yield connection


def waiting(harness: Harness, holder: psycopg.Connection[Any]) -> int:
    """How many sessions wait for that lock."""
    blocked = "SELECT 1 FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
    return len(harness.execute(blocked, (holder.info.backend_pid,)))


@pytest.fixture
def wire(request: pytest.FixtureRequest) -> Iterator[Overtaken]:
    with Overtaken(at_postgres(request).connect) as wire:
        yield wire
        wire.let_go()


@pytest.fixture
def through(postgres: str, wire: Overtaken) -> str:
    plain = {"host": "127.0.0.1", "sslmode": "disable", "gssencmode": "disable"}
    return make_conninfo(postgres, port=wire.port, **plain)


@asynccontextmanager
async def opened(
    source: str, schema: str, *, pooled: bool = False
) -> AsyncIterator[AsyncPgVectorStore]:
    async with AsyncConnectionPool(source, min_size=1, max_size=1, open=False) as pool:
        harness = AsyncHarness(source, schema, pool if pooled else source)
        async with harness.open("held", backend=TaskBackend()) as store:
            yield store


WAYS: dict[str, Callable[[Any], Any]] = {
    "upsert": lambda store: store.upsert([Document(ROW, "changed")]),
    "delete": lambda store: store.delete(ids=[ROW]),
    "update": lambda store: store.update_metadata({ROW: {"k": 1}}),
}


@pytest.mark.parametrize("way", [*WAYS, "upsert through a pool"])
async def test_a_cancellation_that_overtakes_its_statement_is_not_lost(
    harness: Harness, holder: psycopg.Connection[Any], wire: Overtaken, through: str, way: str
) -> None:
    act, *pooled = way.split(" through ")
    async with opened(through, harness.schema, pooled=bool(pooled)) as store:
        wire.hold()
        work = asyncio.ensure_future(WAYS[act](store))
        await asyncio.to_thread(wire.is_holding.wait)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert await asyncio.to_thread(waiting, harness, holder) == 0
        await asyncio.to_thread(holder.rollback)
        assert [document.text for document in await store.get([ROW])] == ["first"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canceller_async, "PATIENCE_S", 0)


@pytest.mark.usefixtures("impatient")
async def test_a_server_that_does_not_answer_is_left(
    harness: Harness, wire: Overtaken, through: str
) -> None:
    async with opened(through, harness.schema) as store:
        wire.hold()
        work = asyncio.ensure_future(WAYS["upsert"](store))
        await asyncio.to_thread(wire.is_holding.wait)
        wire.mute()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work


@pytest.mark.parametrize("way", waiting_process.WAYS)
def test_ctrl_c_ends_the_waiting_on_the_server(
    postgres: str, harness: Harness, holder: psycopg.Connection[Any], way: str
) -> None:
    command = [sys.executable, waiting_process.__file__, postgres, harness.schema, way, ROW]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            while not waiting(harness, holder):
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=GIVEN_UP_S)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGINT
    assert said.splitlines()[-1] == "KeyboardInterrupt"
    assert waiting(harness, holder) == 0
    holder.rollback()
    with harness.open("held", backend=TaskBackend()) as store:
        assert [document.text for document in store.get([ROW])] == ["first"]
        assert store.count() == 1


def test_what_interrupts_the_end_of_a_loan_leaks_no_connection(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second Ctrl-C comes while the first one's cancellation ends."""

    def interrupted(canceller: Canceller) -> None:
        finish(canceller)
        raise KeyboardInterrupt

    finish = Canceller.finish
    with harness.open("held", backend=TaskBackend()) as store:
        for _ in range(MOST_CONNECTIONS + 1):
            with monkeypatch.context() as patched:
                patched.setattr(Canceller, "finish", interrupted)
                with pytest.raises(KeyboardInterrupt):
                    store.count()
        assert store.count() == 1
