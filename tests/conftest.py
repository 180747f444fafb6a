"""Real stores for the tests, and a loud word about those that could not be had."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from tests.servers import untested
from tests.servers.elasticsearch import Node

from samespace.errors import SamespaceError
from samespace.stores.pgvector import embedded

pytest.register_assert_rewrite("samespace.testing")

POSTGRES = "SAMESPACE_TEST_POSTGRES"
ELASTICSEARCH = "SAMESPACE_TEST_ELASTICSEARCH"


def pytest_configure(config: pytest.Config) -> None:
    untested.prepare(config)


@pytest.fixture(scope="session")
def postgres(pytestconfig: pytest.Config) -> Iterator[str]:
    """A connection string of a server with pgvector: the environment's, or an embedded one."""
    if given := os.environ.get(POSTGRES):
        untested.uses(pytestconfig, "PostgreSQL")
        yield given
        return
    home = Path(tempfile.mkdtemp(prefix="samespace-tests-"))
    home.chmod(0o755)  # the server's account must get through
    try:
        lease = embedded.start(home / "postgres")
    except SamespaceError as error:
        untested.leave_out(pytestconfig, "PostgreSQL", reason=error)
    untested.uses(pytestconfig, "PostgreSQL")
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


@pytest.fixture
def schema(postgres: str) -> Iterator[str]:
    """The name of a schema for one test; it and ``<name>_registry`` are dropped afterwards."""
    name = f"t{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(42)")
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute("SELECT pg_advisory_unlock(42)")
        connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(name)))
    yield name
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        for made in (name, f"{name}_registry"):
            connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(made)))


@pytest.fixture(scope="session")
def strict(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server of the tests' own, for faults: its superuser's connection string.

    All other roles are asked for a password, but for ``absent``, which does not exist.
    """
    home = Path(tempfile.mkdtemp(prefix="samespace-strict-"))
    home.chmod(0o755)  # the server's account must get through
    embedded.start(home / "postgres").release()
    rules = ("local all postgres,absent trust", "local all all scram-sha-256", "")
    (home / "postgres" / "data" / "pg_hba.conf").write_text("\n".join(rules))
    with embedded.start(home / "postgres") as lease:
        yield lease.conninfo
    shutil.rmtree(home)


@pytest.fixture(scope="session")
def elasticsearch(pytestconfig: pytest.Config) -> Iterator[str]:
    """The URL of an Elasticsearch server: the environment's, or a node of the tests' own."""
    if given := os.environ.get(ELASTICSEARCH):
        untested.uses(pytestconfig, "Elasticsearch")
        yield given
        return
    with ExitStack() as running:
        try:
            node = running.enter_context(Node())
        except untested.NotHere as error:
            untested.leave_out(pytestconfig, "Elasticsearch", reason=error)
        untested.uses(pytestconfig, "Elasticsearch")
        yield node.url


def pytest_sessionfinish(session: pytest.Session) -> None:
    untested.finish(session)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    untested.report(config, terminalreporter)


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """A folder for ``SAMESPACE_HOME`` with a server that runs as long as the tests do."""
    folder = Path(tempfile.mkdtemp(prefix="samespace-home-"))
    folder.chmod(0o755)  # the server's account must get through
    with embedded.start(folder / "postgres"):
        yield folder
    shutil.rmtree(folder)
