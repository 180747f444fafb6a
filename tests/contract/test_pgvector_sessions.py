"""Pools that reset sessions, and what is shown of a password."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg_pool import ConnectionPool
from tests.contract.test_pgvector_contract import Harness

from samespace import PgVectorStore
from samespace.errors import SamespaceError
from samespace.testing.backends import V3
from samespace.testing.store_contract import VectorStoreContract

SENTINEL = "geheim-4711"


def reset(connection: psycopg.Connection[Any]) -> None:
    """What a pooler in transaction mode may do between two transactions."""
    connection.autocommit = True
    connection.execute("DISCARD ALL", prepare=False)
    connection.autocommit = False


@pytest.fixture(scope="module")
def pool(postgres: str) -> Iterator[ConnectionPool[Any]]:
    with ConnectionPool(postgres, min_size=3, max_size=3, reset=reset, open=True) as pool:
        pool.wait()
        yield pool


def test_the_pool_lends_another_session_every_time(pool: ConnectionPool[Any]) -> None:
    lent = []
    for _ in range(3):
        with pool.connection() as connection:
            lent.append(connection.info.backend_pid)
    assert len(set(lent)) == 3


class TestPooledPgVectorStore(VectorStoreContract):
    """The whole contract, though nothing of a session outlives a transaction."""

    @pytest.fixture
    def harness(self, postgres: str, schema: str, pool: ConnectionPool[Any]) -> Harness:
        return Harness(postgres, schema, pool)


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
