"""A pool that resets every session, and lends another one each time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg_pool import ConnectionPool
from tests.contract.pgvector import Harness

from samespace.testing.store_contract import VectorStoreContract


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
