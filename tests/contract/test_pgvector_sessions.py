"""Pools that reset sessions, roles that may only read, and creators that race."""

from __future__ import annotations

import logging
import multiprocessing
import pickle
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier
from psycopg_pool import ConnectionPool

from samespace import Document, PgVectorStore
from samespace.errors import SamespaceError, SpaceMismatch, StoreRejected
from samespace.testing.backends import UNLIKE, V3, TaskBackend

SENTINEL = "geheim-4711"


def reset(connection: psycopg.Connection[Any]) -> None:
    """What a pooler in transaction mode may do between two transactions."""
    connection.autocommit = True
    connection.execute("DISCARD ALL", prepare=False)
    connection.autocommit = False


@pytest.fixture
def pool(postgres: str) -> Iterator[ConnectionPool[Any]]:
    with ConnectionPool(postgres, min_size=2, max_size=2, reset=reset, open=True) as pool:
        yield pool


def test_a_pool_may_reset_every_session(pool: ConnectionPool[Any], schema: str) -> None:
    with PgVectorStore(
        pool,
        collection="pooled",
        backend=TaskBackend(),
        schema=schema,
        registry=f"{schema}_registry",
    ) as store:
        for number in range(12):
            store.upsert([Document(str(number), f"text {number}")])
            assert store.search(f"text {number}")[0].document.id == str(number)
        store.add_slot(UNLIKE)
        assert len(store.pending(UNLIKE, limit=100)[0]) == 12
        store.build_index()
        assert store.info().index_built
        assert len(store.search("text")) == 10


def test_a_reader_needs_nothing_but_select(postgres: str, schema: str) -> None:
    registry = f"{schema}_registry"
    with PgVectorStore(
        postgres, collection="read", backend=TaskBackend(), schema=schema, registry=registry
    ) as store:
        store.upsert([Document("a", "red apples", {"k": 1})])
    role = f"{schema}_reader"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(role)))
        for space in (schema, registry):
            connection.execute(
                SQL("GRANT USAGE ON SCHEMA {} TO {}").format(Identifier(space), Identifier(role))
            )
        for table in ((schema, "read"), (registry, "collections")):
            connection.execute(
                SQL("GRANT SELECT ON {} TO {}").format(Identifier(*table), Identifier(role))
            )
    try:
        with PgVectorStore(
            make_conninfo(postgres, user=role, password=SENTINEL),
            collection="read",
            backend=TaskBackend(),
            schema=schema,
            registry=registry,
        ) as store:
            assert store.search("red apples")[0].document.id == "a"
            assert (store.count(), store.info().rows) == (1, 1)
            assert [document.id for document in store.scan()] == ["a"]
            with pytest.raises(StoreRejected, match="right"):
                store.upsert([Document("b", "text")])
    finally:
        with psycopg.connect(postgres, autocommit=True) as connection:
            connection.execute(SQL("DROP OWNED BY {}").format(Identifier(role)))
            connection.execute(SQL("DROP ROLE {}").format(Identifier(role)))


def test_a_password_is_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        store = PgVectorStore(
            f"postgresql://u:{SENTINEL}@127.0.0.1:1/d", collection="secret", space=V3
        )
        with pytest.raises(SamespaceError) as caught:
            store.count()
        with pytest.raises(SamespaceError) as unreadable:
            PgVectorStore(f"postgresql://u:{SENTINEL}@[bad/d", collection="secret", space=V3)
    shown = [repr(store), caplog.text]
    for error in (caught.value, unreadable.value):
        shown += [str(error), repr(error), str(pickle.dumps(error)), str(error.__cause__)]
    assert not [text for text in shown if SENTINEL in text]


def create(conninfo: str, schema: str, which: int) -> str:
    """Create the collection in one of two spaces, in a process of its own."""
    space = V3 if which == 0 else UNLIKE
    try:
        with PgVectorStore(
            conninfo, collection="raced", space=space, schema=schema, registry=f"{schema}_registry"
        ) as store:
            store.create()
    except SpaceMismatch:
        return "mismatch"
    return space.model


@pytest.mark.parametrize("spaces", [1, 2])
def test_of_racing_creators_one_wins(postgres: str, schema: str, spaces: int) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(8) as processes:
        asked = [(postgres, schema, number % spaces) for number in range(16)]
        answers = processes.starmap(create, asked, chunksize=1)
    winners = set(answers) - {"mismatch"}
    assert len(winners) == 1
    assert answers.count("mismatch") == (0 if spaces == 1 else 8)
