"""A password that is on its way to the server shows up nowhere else.

The whole contract runs with it in the connection string, every logger at DEBUG, and of its async
twin what makes most errors; each error of ours that is made anywhere is kept and looked through,
with all that hangs on it. (A warning is an error in these tests, so it would be among them.)
"""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier, Literal
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from tests.contract.pgvector import AsyncHarness, Harness

import samespace
from samespace import AsyncPgVectorStore, Document, PgVectorStore
from samespace.errors import InvalidInput, SamespaceError
from samespace.testing.backends import V3, TaskBackend
from samespace.testing.contract_concurrency_async import AsyncConcurrencyContract
from samespace.testing.contract_guard_async import AsyncGuardContract
from samespace.testing.contract_input_async import AsyncInputContract
from samespace.testing.store_contract import VectorStoreContract

SECRET = "geheim-4711"
ROLE = "keeper"
OURS = str(Path(samespace.__file__).parent)


@pytest.fixture(scope="module")
def postgres(strict: str) -> Iterator[str]:
    """The server that asks for passwords; for its superuser, who needs none."""
    with psycopg.connect(strict, autocommit=True) as connection:
        create = SQL("CREATE ROLE {} SUPERUSER LOGIN PASSWORD {}")
        connection.execute(create.format(Identifier(ROLE), Literal(SECRET)))
        yield strict
        connection.execute(SQL("DROP OWNED BY {}").format(Identifier(ROLE)))
        connection.execute(SQL("DROP ROLE {}").format(Identifier(ROLE)))


@pytest.fixture
def source(postgres: str) -> str:
    """The connection string with the secret in it."""
    return make_conninfo(postgres, user=ROLE, password=SECRET)


@pytest.fixture(autouse=True)
def errors(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[list[SamespaceError]]:
    """Every error that a test makes; neither it nor what was logged shows the secret."""
    made: list[SamespaceError] = []

    def record(self: SamespaceError, *args: object) -> None:
        super(SamespaceError, self).__init__(*args)
        made.append(self)

    monkeypatch.setattr(SamespaceError, "__init__", record)
    caplog.set_level(logging.DEBUG)
    yield made
    records = [*caplog.get_records("setup"), *caplog.get_records("call")]
    assert not [record for record in records if SECRET in shown_by_record(record)]
    assert not [error for error in made if SECRET in "\n".join(shown_by(error))]
    made.clear()


def shown_by_record(record: logging.LogRecord) -> str:
    return f"{logging.Formatter().format(record)} {record.args!r} {record.exc_info!r}"


def shown_by(error: SamespaceError) -> Iterator[str]:
    """All that may be printed of an error, the driver's behind it included."""
    yield pickle.dumps(error).decode("latin-1")
    yield "".join(traceback.format_exception(error))
    for each in chain(error):
        yield f"{each} {each!r} {each.args!r} {getattr(each, '__notes__', '')}"
        yield from local_variables(each)


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those behind it, suppressed ones too."""
    left, seen = [error], set[int]()
    while left:
        each = left.pop()
        seen.add(id(each))
        yield each
        behind = [other for other in (each.__cause__, each.__context__) if other is not None]
        left += [other for other in behind if id(other) not in seen]


def local_variables(error: BaseException) -> Iterator[str]:
    """What a debugger prints of this library's frames; constructors have what they were given."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        if code.co_filename.startswith(OURS) and code.co_name != "__init__":
            yield repr(frame.f_locals)


class TestPgVectorStore(VectorStoreContract):
    @pytest.fixture
    def harness(self, postgres: str, schema: str, source: str) -> Harness:
        return Harness(postgres, schema, source)


class TestAsyncPgVectorStore(AsyncGuardContract, AsyncInputContract, AsyncConcurrencyContract):
    @pytest.fixture
    def harness(self, postgres: str, schema: str, source: str) -> AsyncHarness:
        return AsyncHarness(postgres, schema, source)


Call = Callable[[PgVectorStore], object]
CALLS: dict[str, Call] = {
    "create": lambda store: store.create(),
    "upsert": lambda store: store.upsert([Document("a", "text")]),
    "search": lambda store: store.search("text"),
    "get": lambda store: store.get(["a"]),
    "scan": lambda store: list(store.scan()),
    "values": lambda store: store.values("lang"),
    "update_metadata": lambda store: store.update_metadata({"a": {}}),
    "delete": lambda store: store.delete(ids=["a"]),
    "info": lambda store: store.info(),
    "add_slot": lambda store: store.add_slot(V3),
    "pending": lambda store: store.pending(V3, limit=1),
    "build_index": lambda store: store.build_index(),
    "drop": lambda store: store.drop(),
}
FAULTS = {
    "wrong password": {"user": ROLE, "password": f"not {SECRET}"},
    "no such role": {"user": "nobody", "password": SECRET},
    "no such database": {"user": ROLE, "password": SECRET, "dbname": "nowhere"},
    "nobody listens": {"user": ROLE, "password": SECRET, "host": "127.0.0.1", "port": "1"},
    "no port": {"user": ROLE, "password": SECRET, "port": "none"},
    "bad setting": {"user": ROLE, "password": SECRET, "options": "-c nothing=1"},
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", FAULTS)
def test_failed_connections(
    postgres: str, errors: list[SamespaceError], fault: str, call: str
) -> None:
    conninfo = make_conninfo(postgres, **FAULTS[fault])
    assert SECRET in conninfo
    with (
        PgVectorStore(conninfo, collection="secret", backend=TaskBackend()) as store,
        pytest.raises(SamespaceError),
    ):
        CALLS[call](store)
    assert errors


def test_a_password_from_the_environment(
    postgres: str, errors: list[SamespaceError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", SECRET)
    for user in (ROLE, "nobody"):
        conninfo = make_conninfo(postgres, user=user)
        store = PgVectorStore(conninfo, collection="secret", space=V3)
        with store, pytest.raises(SamespaceError):
            store.count()
    assert len(errors) == 2


@pytest.mark.parametrize(
    "conninfo",
    [
        f"postgresql://u:{SECRET}@[bad/d",
        f"postgresql://u:{SECRET}@h/d?nothing=1",
        f"host=h password={SECRET} nothing=1",
        f"password='{SECRET}",
        f"postgresql://u:abc@{SECRET}@localhost/db",
        f"postgres://u:abc/{SECRET}@localhost/db",
        f"postgresql://u:@{SECRET}@localhost:5432",
    ],
)
def test_connection_strings_that_cannot_be_read(conninfo: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        PgVectorStore(conninfo, collection="secret", space=V3)


@pytest.mark.parametrize(
    "conninfo",
    [
        "postgresql://u:abc%40def@localhost/db",
        "postgresql://u@localhost/db?password=a@b",
        "postgresql:///db?host=/tmp&user=a@b",
        "host=localhost user=a@b",
    ],
)
def test_an_at_sign_in_its_place_is_read(conninfo: str) -> None:
    PgVectorStore(conninfo, collection="secret", space=V3).close()


def test_what_is_open_has_a_repr_without_it(source: str, schema: str) -> None:
    with ConnectionPool(source, min_size=1, open=True) as pool:
        for given in (source, pool):
            with PgVectorStore(
                given,
                collection="seen",
                backend=TaskBackend(),
                schema=schema,
                registry=f"{schema}_registry",
            ) as store:
                store.upsert([Document("a", "text")])
                parts = [store, store._connections, *store._connections._idle, store._state, pool]
                assert not [part for part in parts if SECRET in repr(part)]


async def test_what_is_open_has_a_repr_without_it_async(source: str, schema: str) -> None:
    async with AsyncConnectionPool(source, min_size=1, open=False) as pool:
        for given in (source, pool):
            async with AsyncPgVectorStore(
                given,
                collection="seen",
                backend=TaskBackend(),
                schema=schema,
                registry=f"{schema}_registry",
            ) as store:
                await store.upsert([Document("a", "text")])
                parts = [store, store._connections, *store._connections._idle, store._state, pool]
                assert not [part for part in parts if SECRET in repr(part)]


def test_a_pool_that_cannot_connect(postgres: str, errors: list[SamespaceError]) -> None:
    conninfo = make_conninfo(postgres, user="nobody", password=SECRET)
    with ConnectionPool(conninfo, min_size=1, timeout=0.5, open=True) as pool:
        store = PgVectorStore(pool, collection="secret", space=V3)
        with pytest.raises(SamespaceError):
            store.count()
    assert errors


def test_the_search_finds_what_it_looks_for(errors: list[SamespaceError]) -> None:
    hidden = [
        SamespaceError(SECRET),
        caused_by(ValueError(SECRET)),
        raised_beside(SECRET),
    ]
    assert all(SECRET in "\n".join(shown_by(error)) for error in hidden)
    assert SECRET not in "\n".join(shown_by(SamespaceError("nothing")))
    errors.clear()


def caused_by(cause: Exception) -> SamespaceError:
    error = SamespaceError("nothing")
    error.__cause__ = cause
    return error


def raised_beside(secret: str) -> SamespaceError:
    """An error whose context is suppressed, and there."""
    error = SamespaceError("nothing")
    error.__context__, error.__suppress_context__ = ValueError(secret), True
    return error
