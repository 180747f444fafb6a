"""A PostgreSQL with pgvector: a given one, or an embedded one of the tests' own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.sql import SQL, Identifier
from tests.servers.untested import NotHere, environment

from samespace.errors import SamespaceError
from samespace.stores.pgvector import embedded

_administrators: dict[str, psycopg.Connection] = {}


def administrator(conninfo: str) -> psycopg.Connection:
    """A connection that stays open for all tests, by which they make schemas and look into tables.

    Opening one costs a server more than what most tests ask of it.
    """
    if conninfo not in _administrators:
        _administrators[conninfo] = psycopg.connect(
            conninfo, autocommit=True, prepare_threshold=None
        )
    return _administrators[conninfo]


def close_administrators() -> None:
    """Close what is kept open for all tests."""
    while _administrators:
        _administrators.popitem()[1].close()


@contextmanager
def given() -> Iterator[str]:
    """The connection string that the environment has."""
    yield environment("SAMESPACE_TEST_POSTGRES")


@contextmanager
def own() -> Iterator[str]:
    """The connection string of a server that lasts as long as the context."""
    home = Path(tempfile.mkdtemp(prefix="samespace-tests-"))
    home.chmod(0o755)  # the server's account must get through
    try:
        lease = embedded.start(home / "postgres")
    except SamespaceError as error:
        raise NotHere(str(error)) from error
    with lease:
        _forget_durability(lease.conninfo)
        yield lease.conninfo
    shutil.rmtree(home)


def _forget_durability(conninfo: str) -> None:
    """No test pulls the plug on this server, and each makes and drops schemas."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.execute(SQL("ALTER SYSTEM SET {} = off").format(Identifier(setting)))
        connection.execute("SELECT pg_reload_conf()")
