"""Writers that meet on the same rows: the order of their locks, and deadlocks that others make."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from tests.contract.pgvector import AsyncHarness, Harness

from samespace import Document, everything
from samespace.errors import MigrationError
from samespace.filters import field
from samespace.testing.backends import UNLIKE, V3, TaskBackend

Act = Callable[..., Future[Any]]
LATER = [Document("b", "second"), Document("a", "first")]
"""In the order in which the rows lie in the table, which is not that of their keys."""


@pytest.fixture(params=["sync", "async"])
def act(request: pytest.FixtureRequest, postgres: str, schema: str) -> Iterator[Act]:
    """Runs a method of a store of its own in a thread: ``act("delete", ids=["a"])``."""

    async def run(name: str, *values: Any, **options: Any) -> Any:
        async with AsyncHarness(postgres, schema).open("met", backend=TaskBackend()) as store:
            return await getattr(store, name)(*values, **options)

    def run_sync(name: str, *values: Any, **options: Any) -> Any:
        with Harness(postgres, schema).open("met", backend=TaskBackend()) as store:
            return getattr(store, name)(*values, **options)

    with ThreadPoolExecutor(1) as thread:
        if request.param == "sync":
            yield lambda *values, **options: thread.submit(run_sync, *values, **options)
        else:
            yield lambda *values, **options: thread.submit(asyncio.run, run(*values, **options))


@pytest.fixture
def stranger(postgres: str, schema: str) -> Iterator[psycopg.Connection[Any]]:
    """Never the one that PostgreSQL ends of two that block each other."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(SQL("SET search_path = {}, public").format(Identifier(schema)))
        connection.execute("SET deadlock_timeout = '1h'")
        yield connection


@pytest.fixture
def harness(postgres: str, schema: str) -> Harness:
    harness = Harness(postgres, schema)
    with harness.open("met", backend=TaskBackend()) as store:
        store.upsert(LATER[:1])
        store.upsert(LATER[1:])
        store.add_slot(UNLIKE)
    return harness


def wait_until_blocked(harness: Harness, by: psycopg.Connection[Any]) -> None:
    """Return once another session waits for this one."""
    waiting = "SELECT 1 FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
    while not harness.execute(waiting, (by.info.backend_pid,)):
        continue


def fill_arguments(harness: Harness) -> tuple[Any, ...]:
    with harness.open("met", backend=TaskBackend()) as store:
        rows, _ = store.pending(UNLIKE, limit=10)
    texts = [row.document.text for row in rows]
    return "fill", UNLIKE, rows[::-1], TaskBackend(UNLIKE).embed_documents(texts[::-1])


WAYS: dict[str, Callable[[Harness, Act], Future[Any]]] = {
    "update": lambda _, act: act("update_metadata", {"k": 1}, where=everything),
    "merge": lambda _, act: act("update_metadata", {"k": 1}, where=field.id != "x", merge=True),
    "delete": lambda _, act: act("delete", where=everything),
    "delete by id": lambda _, act: act("delete", ids=["b", "a"]),
    "upsert": lambda _, act: act("upsert", LATER),
    "fill": lambda harness, act: act(*fill_arguments(harness)),
}


@pytest.mark.parametrize("way", WAYS)
def test_rows_are_locked_in_the_order_of_their_keys(
    harness: Harness, stranger: psycopg.Connection[Any], act: Act, way: str
) -> None:
    with stranger.transaction():
        stranger.execute("SELECT FROM met WHERE id = 'a' FOR UPDATE")
        done = WAYS[way](harness, act)
        wait_until_blocked(harness, stranger)
        harness.execute("SELECT FROM met WHERE id = 'b' FOR UPDATE NOWAIT")
    done.result()


@pytest.mark.parametrize("way", ["update", "delete by id", "upsert", "fill"])
def test_a_deadlock_that_others_make_is_survived(
    harness: Harness, stranger: psycopg.Connection[Any], act: Act, way: str
) -> None:
    with stranger.transaction():
        stranger.execute("UPDATE met SET ordinal = 7 WHERE id = 'b'")
        done = WAYS[way](harness, act)
        wait_until_blocked(harness, stranger)
        stranger.execute("UPDATE met SET ordinal = 7 WHERE id = 'a'")  # waits until ours was ended
    done.result()
    left = harness.execute("SELECT id, metadata ->> 'k', ordinal FROM met ORDER BY id")
    expected = {
        "update": [("a", "1", 7), ("b", "1", 7)],
        "delete by id": [],
        "upsert": [("a", None, None), ("b", None, None)],
        "fill": [("a", None, 7), ("b", None, 7)],
    }
    assert left == expected[way]


def test_a_row_that_arrives_while_a_slot_is_dropped_keeps_its_only_vector(
    harness: Harness, stranger: psycopg.Connection[Any], act: Act
) -> None:
    name, *filled = fill_arguments(harness)
    act(name, *filled).result()
    insert = SQL(
        "INSERT INTO met (id, text, metadata, {}) VALUES ('c', 'third', '{{}}', %s)"
    ).format(Identifier(V3.id))
    with stranger.transaction():
        stranger.execute(insert, (str(TaskBackend().embed_documents(["third"])[0].tolist()),))
        done = act("drop_slot", V3, keeps=UNLIKE)
        wait_until_blocked(harness, stranger)
    with pytest.raises(MigrationError, match="1 row has its only vector"):
        done.result()
    with harness.open("met", backend=TaskBackend()) as store:
        assert [hit.document.id for hit in store.search("third", limit=1)] == ["c"]
        assert store.count_alone(V3, beside=UNLIKE) == 1
    act(*fill_arguments(harness)).result()
    act("drop_slot", V3, keeps=UNLIKE).result()
