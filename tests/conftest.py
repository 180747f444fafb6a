"""Real stores for the tests, and a loud word about those that could not be had."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from psycopg.sql import SQL, Identifier
from tests.servers import elasticsearch as search
from tests.servers import postgres as postgresql
from tests.servers import qdrant as vectors
from tests.servers import untested
from tests.servers.qdrant import QdrantServer

from samespace.stores.pgvector import embedded

pytest.register_assert_rewrite("samespace.testing")
pytest_plugins = ["pytester"]
settings.register_profile(
    "samespace",
    deadline=None,  # no test depends on time passing
    derandomize="CI" in os.environ,  # what is sent to it is judged, new inputs are tried at home
)
settings.load_profile("samespace")


def pytest_configure(config: pytest.Config) -> None:
    untested.prepare(config)


@pytest.fixture(scope="session")
def postgres(pytestconfig: pytest.Config) -> Iterator[str]:
    """A connection string of a server with pgvector: the environment's, or an embedded one."""
    offers = (postgresql.given, postgresql.own)
    with untested.first_of(pytestconfig, ["PostgreSQL"], *offers) as conninfo:
        untested.uses(pytestconfig, "PostgreSQL")
        yield conninfo


@pytest.fixture
def schema(postgres: str) -> Iterator[str]:
    """The name of a schema for one test; it and ``<name>_registry`` are dropped afterwards."""
    name = f"t{uuid.uuid4().hex[:12]}"
    connection = postgresql.administrator(postgres)
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(42)")
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(name)))
    yield name
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
    """The URL of an Elasticsearch server: the environment's, a container's, or a node's."""
    offers = (search.given, search.container, search.node)
    with untested.first_of(pytestconfig, ["Elasticsearch"], *offers) as url:
        untested.uses(pytestconfig, "Elasticsearch")
        yield url


@pytest.fixture(scope="session")
def qdrant_server(pytestconfig: pytest.Config) -> Iterator[QdrantServer]:
    """A Qdrant server: the environment's, or a container's."""
    offers = (vectors.given, vectors.container)
    with untested.first_of(pytestconfig, untested.OPTIONAL, *offers) as server:
        yield server


@pytest.fixture(scope="session")
def qdrant_local(pytestconfig: pytest.Config) -> None:
    """Qdrant's local mode, which comes with its client."""
    untested.uses(pytestconfig, "Qdrant's local mode")


@pytest.fixture(scope="session")
def qdrant(pytestconfig: pytest.Config, qdrant_server: QdrantServer) -> str:
    """The URL of a Qdrant server."""
    untested.uses(pytestconfig, "Qdrant server (REST)")
    return qdrant_server.url


@pytest.fixture(scope="session")
def qdrant_grpc(pytestconfig: pytest.Config, qdrant_server: QdrantServer) -> int:
    """The port on which that server speaks gRPC."""
    untested.uses(pytestconfig, "Qdrant server (gRPC)")
    return qdrant_server.grpc_port


def pytest_sessionfinish(session: pytest.Session) -> None:
    postgresql.close_administrators()
    untested.finish(session)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    untested.take_over(node.config, getattr(node, "workeroutput", {}))


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
