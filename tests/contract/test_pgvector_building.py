"""Index builds that are broken off, and that meet each other or somebody else's."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from tests.contract.pgvector import Harness

from samespace.errors import StoreUnavailable
from samespace.space import EmbeddingSpace
from samespace.testing.backends import UNLIKE, V3, TaskBackend
from samespace.testing.corpus import documents

ROWS = 50
THIRD = EmbeddingSpace(model="a third model", dimensions=64)


@pytest.fixture
def harness(postgres: str, schema: str) -> Harness:
    harness = Harness(postgres, schema)
    with harness.open("built", backend=TaskBackend()) as store:
        store.upsert(documents(ROWS))
        store.add_slot(UNLIKE)
        fill(store, ROWS // 2)
    return harness


@pytest.fixture
def writer(postgres: str, harness: Harness) -> Iterator[psycopg.Connection[Any]]:
    """A transaction that has written to the table: a build begins, and waits for its end."""
    with psycopg.connect(postgres) as connection:
        table = Identifier(harness.schema, "built")
        connection.execute(SQL("UPDATE {} SET ordinal = 1 WHERE id = 'd0'").format(table))
        yield connection


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(3) as threads:
        yield threads


def fill(store: Any, limit: int) -> None:
    rows, _ = store.pending(UNLIKE, limit=limit)
    vectors = TaskBackend(UNLIKE, seed=5).embed_documents([row.document.text for row in rows])
    assert store.fill(UNLIKE, rows, vectors).filled == limit


def build(harness: Harness, space: EmbeddingSpace = UNLIKE) -> None:
    with harness.open("built", backend=TaskBackend()) as store:
        store.build_index(space)


def run(conninfo: str, statement: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(statement.encode())


def built(harness: Harness) -> list[tuple[Any, ...]]:
    """The graphs of the collection, each as the server knows it."""
    return harness.execute(
        "SELECT oid::bigint FROM pg_class WHERE relname LIKE %s "
        "AND relnamespace = current_schema()::regnamespace",
        ("%__hnsw",),
    )


def wait_for_a_look(harness: Harness, query: str, work: Future[Any]) -> None:
    """Return once a session has asked whether it may build, and is to ask again."""
    asked = "SELECT 1 FROM pg_stat_activity WHERE query LIKE %s AND pid <> pg_backend_pid()"
    while not harness.execute(asked, (f"%{query}%",)):
        assert not work.done()


def indexes(harness: Harness, space: EmbeddingSpace = UNLIKE) -> list[tuple[Any, ...]]:
    """Those over a slot: whether each can be used."""
    return harness.execute(
        "SELECT i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "WHERE i.indrelid = 'built'::regclass AND pg_get_indexdef(c.oid) LIKE %s",
        (f"%hnsw%{space.id}%",),
    )


def waiting(harness: Harness, by: int) -> list[int]:
    """The sessions that wait for another one."""
    blocked = "SELECT pid FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
    return [pid for (pid,) in harness.execute(blocked, (by,))]


def wait_for(harness: Harness, by: int, work: Future[Any]) -> int:
    """The session that waits for another one, once it does."""
    while not (found := waiting(harness, by)):
        assert not work.done()
    return found[0]


def test_a_build_whose_connection_is_lost_is_made_again(
    harness: Harness, writer: psycopg.Connection[Any], threads: ThreadPoolExecutor
) -> None:
    lost = threads.submit(build, harness)
    builder = wait_for(harness, writer.info.backend_pid, lost)
    harness.execute("SELECT pg_terminate_backend(%s)", (builder,))
    with pytest.raises(StoreUnavailable):
        lost.result()
    assert indexes(harness) == [(False,)]
    writer.rollback()
    with harness.open("built", backend=TaskBackend()) as store:
        store.build_index(UNLIKE)
        assert indexes(harness) == [(True,)]
        fill(store, ROWS // 2)  # an index that is there takes what comes
        assert store.pending(UNLIKE, limit=1) == ([], None)


def test_of_two_that_build_at_once_one_does(
    harness: Harness, writer: psycopg.Connection[Any], threads: ThreadPoolExecutor
) -> None:
    first = threads.submit(build, harness)
    wait_for(harness, writer.info.backend_pid, first)
    made = built(harness)
    second = threads.submit(build, harness)
    with harness.open("built", backend=TaskBackend()) as store:
        store.build_index(UNLIKE, wait=False)
    assert indexes(harness) == [(False,)]
    writer.rollback()
    assert (first.result(), second.result()) == (None, None)
    assert indexes(harness) == [(True,)]
    assert built(harness) == made


def test_builds_of_two_slots_at_once_both_end(
    harness: Harness, writer: psycopg.Connection[Any], threads: ThreadPoolExecutor
) -> None:
    first = threads.submit(build, harness)
    wait_for(harness, writer.info.backend_pid, first)
    second = threads.submit(build, harness, V3)
    wait_for_a_look(harness, "ShareUpdateExclusiveLock", second)
    writer.rollback()
    assert (first.result(), second.result()) == (None, None)
    assert indexes(harness) == [(True,)]
    assert indexes(harness, V3) == [(True,)]


def test_a_build_that_somebody_else_has_begun_is_waited_for(
    postgres: str,
    harness: Harness,
    writer: psycopg.Connection[Any],
    threads: ThreadPoolExecutor,
) -> None:
    with harness.open("built", backend=TaskBackend()) as store:
        (*_, statement) = store.ddl(THIRD)
    theirs = threads.submit(run, postgres, statement.replace(THIRD.id, UNLIKE.id))
    wait_for(harness, writer.info.backend_pid, theirs)
    with harness.open("built", backend=TaskBackend()) as store:
        store.build_index(UNLIKE, wait=False)
    ours = threads.submit(build, harness)
    wait_for_a_look(harness, "ShareUpdateExclusiveLock", ours)
    writer.rollback()
    assert (theirs.result(), ours.result()) == (None, None)
    assert indexes(harness) == [(True,)]
