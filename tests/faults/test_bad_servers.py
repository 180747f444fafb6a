"""Servers that cannot be reached, refuse, lack something or die: each is said, and what mends it."""

from __future__ import annotations

import logging
import os
import signal
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from samespace import Document, PgVectorStore
from samespace.doctor import examine
from samespace.errors import StoreRejected, StoreUnavailable
from samespace.findings import Level
from samespace.stores.pgvector import embedded
from samespace.testing.backends import TaskBackend


def store_at(conninfo: str) -> PgVectorStore:
    return PgVectorStore(conninfo, collection="notes", backend=TaskBackend())


def execute(conninfo: str, *statements: str, **names: str) -> None:
    quoted = {name: Identifier(value) for name, value in names.items()}
    with psycopg.connect(conninfo, autocommit=True) as connection:
        for statement in statements:
            connection.execute(SQL(statement).format(**quoted))


@pytest.fixture
def database(strict: str) -> Iterator[str]:
    """A superuser's connection string of a database that has nothing in it."""
    name = f"d{uuid.uuid4().hex[:12]}"
    execute(strict, "CREATE DATABASE {database}", database=name)
    yield make_conninfo(strict, dbname=name)
    execute(strict, "DROP DATABASE {database} WITH (FORCE)", database=name)


@pytest.fixture
def role(database: str) -> Iterator[str]:
    """A connection string of a role without any right of its own."""
    name = f"r{uuid.uuid4().hex[:12]}"
    execute(database, "CREATE ROLE {role} LOGIN PASSWORD 'right'", role=name)
    yield make_conninfo(database, user=name, password="right")
    execute(database, "DROP OWNED BY {role} CASCADE", "DROP ROLE {role}", role=name)


def test_a_wrong_password_is_refused(role: str) -> None:
    with store_at(make_conninfo(role, password="wrong")) as store:
        with pytest.raises(StoreRejected, match="check user and password"):
            store.count()
        with pytest.raises(StoreRejected, match="check user and password"):
            store.upsert([Document("a", "text")])


def test_a_role_that_is_not_there_is_named_as_the_fault(database: str) -> None:
    with (
        store_at(make_conninfo(database, user="absent")) as store,
        pytest.raises(StoreRejected, match="role does not exist; create it"),
    ):
        store.count()


def test_a_database_that_is_not_there_is_named_as_the_fault(strict: str) -> None:
    with (
        store_at(make_conninfo(strict, dbname="nowhere")) as store,
        pytest.raises(StoreRejected, match="database does not exist; create it"),
    ):
        store.count()


@pytest.mark.parametrize(
    "conninfo", ["postgresql://u@127.0.0.1:1/d", "host=/nowhere dbname=d user=u"]
)
def test_a_server_out_of_reach_is_unavailable(conninfo: str) -> None:
    with store_at(conninfo) as store:
        with pytest.raises(StoreUnavailable, match="check that it runs, host and port"):
            store.search("text")
        with pytest.raises(StoreUnavailable, match="check that it runs, host and port"):
            store.upsert([Document("a", "text")])


def test_the_extension_is_made_by_a_role_that_may(database: str) -> None:
    with store_at(database) as store:
        assert store.upsert([Document("a", "text")]).written == 1


def test_the_extension_is_asked_of_somebody_who_may(role: str) -> None:
    with (
        store_at(role) as store,
        pytest.raises(
            StoreRejected, match="run CREATE EXTENSION vector in the database as a super"
        ),
    ):
        store.upsert([Document("a", "text")])


NOT_INSTALLED = """
CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
  RAISE EXCEPTION 'extension "vector" is not available' USING ERRCODE = 'feature_not_supported';
END $$;
CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('CREATE EXTENSION')
  EXECUTE FUNCTION refuse()
"""
"""Has the server say what it says where pgvector's files are missing."""


def test_a_server_without_pgvector_is_told_from_one_without_rights(database: str) -> None:
    execute(database, NOT_INSTALLED)
    with (
        store_at(database) as store,
        pytest.raises(StoreRejected, match=r"install pgvector 0\.8\.0 or newer on the server"),
    ):
        store.upsert([Document("a", "text")])


def pretend(conninfo: str, version: str) -> None:
    """Have the catalog say that pgvector is of another version."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
        connection.execute("SET allow_system_table_mods = on")
        connection.execute(
            "UPDATE pg_extension SET extversion = %s WHERE extname = 'vector'", (version,)
        )


@pytest.mark.parametrize("version", ["0.7.4", "0.5"])
def test_an_old_pgvector_is_refused(database: str, version: str) -> None:
    pretend(database, version)
    with store_at(database) as store:
        for call in (store.count, store.create, lambda: store.upsert([Document("a", "text")])):
            with pytest.raises(StoreRejected, match="ALTER EXTENSION vector UPDATE"):
                call()


def test_a_pgvector_with_known_defects_is_warned_of_once(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    pretend(database, "0.8.1")
    with caplog.at_level(logging.WARNING), store_at(database) as store:
        store.upsert([Document("a", "text")])
        store.count()
    messages = [record.message for record in caplog.records if "0.8.1" in record.message]
    assert len(messages) == 1
    assert "known defects in its indexes, mended in 0.8.4" in messages[0]


def test_a_role_without_rights_is_told_which(database: str, role: str) -> None:
    with store_at(database) as store:
        store.upsert([Document("a", "text")])
    with store_at(role) as store:
        for call in (store.count, lambda: list(store.scan()), lambda: store.delete(ids=["a"])):
            with pytest.raises(StoreRejected, match="may not read .*'notes'; have GRANT SELECT ON"):
                call()


def kill(folder: Path) -> None:
    """End the server as a power cut does, and wait until it has gone."""
    pid = embedded.status(folder).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while embedded.status(folder).running:
        pass


@contextmanager
def row_held(conninfo: str, id: str) -> Iterator[None]:
    """A row that nobody else can write; its holder may die with the server."""
    connection = psycopg.connect(conninfo)
    connection.execute("SELECT FROM notes WHERE id = %s FOR UPDATE", (id,))
    try:
        yield
    finally:
        connection.close()


def until_somebody_waits(conninfo: str, upsert: Future[Any]) -> None:
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    with psycopg.connect(conninfo, autocommit=True) as connection:
        while connection.execute(waiting).fetchone() == (0,):
            assert not upsert.done()


def test_a_batch_that_the_server_died_in_is_not_reported(folder: Path) -> None:
    documents = [Document(f"{number:04}", f"text {number}") for number in range(3000)]
    with embedded.start(folder) as lease, store_at(lease.conninfo) as store:
        store.upsert([Document("2500", "what was there")])
        with row_held(lease.conninfo, "2500"), ThreadPoolExecutor(1) as thread:
            upsert = thread.submit(store.upsert, documents)
            until_somebody_waits(lease.conninfo, upsert)
            kill(folder)
            error = upsert.exception()
        assert isinstance(error, StoreUnavailable)
        assert error.report is not None
        assert error.report.written == 2000
        with pytest.raises(StoreUnavailable, match="check that it runs"):
            store.count()
        with embedded.start(folder):
            assert store.count() == 2001
            assert store.get(["2500"]) == [Document("2500", "what was there")]
            assert store.upsert(documents).written == 3000
            assert (store.count(), ids_of(store)) == (3000, {d.id for d in documents})


def ids_of(store: Any) -> set[str]:
    return {document.id for document in store.scan()}


def test_a_server_that_was_restarted_is_found_again(folder: Path) -> None:
    with embedded.start(folder) as lease, store_at(lease.conninfo) as store:
        store.upsert([Document("a", "text")])
        embedded.stop(folder, force=True)
        with embedded.start(folder):
            assert store.search("text")[0].document.id == "a"
            assert store.upsert([Document("b", "text")]).written == 1


# What an examination says of them


def found_by(conninfo: str, collection: str | None = None) -> dict[Level, str]:
    """What is found, by level; an address is a URL, which leads past what a test server asks."""
    values = conninfo_to_dict(conninfo)
    parts = {name: quote(str(value), safe="") for name, value in values.items()}
    login = f"{parts['user']}:{parts['password']}" if "password" in parts else parts["user"]
    url = f"postgresql://{login}@/{parts['dbname']}?host={parts['host']}"
    findings = examine(url, collection=collection)
    return {
        level: " ".join(f"{each.what} {each.mend}" for each in findings if each.level is level)
        for level in {each.level for each in findings}
    }


def test_a_sound_server_has_no_problem(database: str) -> None:
    with store_at(database) as store:
        store.upsert([Document("a", "text")])
    found = found_by(database, "notes")
    assert not found.keys() & {Level.WARNING, Level.PROBLEM}
    for said in ("PostgreSQL ", "pgvector ", "records", "create collections", "1 documents"):
        assert said in found[Level.OK]


@pytest.mark.parametrize(("version", "level"), [("0.7.4", Level.PROBLEM), ("0.8.3", Level.WARNING)])
def test_an_old_pgvector_is_found(database: str, version: str, level: Level) -> None:
    pretend(database, version)
    assert f"pgvector {version}" in found_by(database)[level]
    assert "run ALTER EXTENSION vector UPDATE" in found_by(database)[level]


def test_rights_that_a_role_lacks_are_found(database: str, role: str) -> None:
    with store_at(database) as store:
        store.upsert([Document("a", "text")])
    refused = found_by(role, "notes")
    assert (
        'may not read the collections\' records in "samespace"."collections"'
        in (refused[Level.PROBLEM])
    )
    name = str(conninfo_to_dict(role)["user"])
    for grant in (
        "USAGE ON SCHEMA public, samespace",
        "SELECT ON notes, samespace.collections",
    ):
        execute(database, f"GRANT {grant} TO {{role}}", role=name)
    found = found_by(role, "notes")
    assert Level.PROBLEM not in found
    for lacking in ("not create any", "not write them", "not write to it"):
        assert lacking in found[Level.WARNING]


def test_a_role_that_may_not_install_the_extension_is_found(role: str) -> None:
    assert "run CREATE EXTENSION vector" in found_by(role)[Level.PROBLEM]


def test_a_server_that_does_not_answer_is_found() -> None:
    found = examine("postgresql://u@127.0.0.1:1/db", collection="notes")
    assert [each.mend for each in found if each.level is Level.PROBLEM] == [
        "check that it runs, host and port"
    ]
