"""What psycopg raises, as this library's errors."""

from __future__ import annotations

from types import TracebackType
from typing import Final

import psycopg
from psycopg import errors as pg

from samespace.errors import SamespaceError, StoreError, StoreRejected, StoreUnavailable, excerpt
from samespace.stores.refusals import Gone, RowsRefused

_TRANSIENT: Final = ("08", "40", "53", "55P03", "55006", "57", "58")
_OF_ROWS: Final = ("22", "23")
_NOT_INSTALLED: Final = '\'extension "vector" is not available'
_NOT_PERMITTED: Final = '\'permission denied to create extension "vector"'


class Translating:
    """No exception of the driver leaves this block."""

    def __enter__(self) -> None:
        """Nothing is to be prepared."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, psycopg.Error):
            raise translate(error) from error
        if isinstance(error, UnicodeEncodeError):
            raise RowsRefused("a string has a lone surrogate, which no store keeps") from error


def translate(error: psycopg.Error) -> SamespaceError:
    """The error of this library that says what a driver's error says."""
    state = error.sqlstate or ""
    said = excerpt(error.diag.message_primary or type(error).__name__)
    if isinstance(error, pg.UndefinedTable | pg.UndefinedColumn | pg.InvalidSchemaName):
        return Gone(f"PostgreSQL says: {said}")
    if said.startswith(_NOT_INSTALLED):
        return StoreRejected(
            "the server lacks pgvector; install pgvector 0.8.0 or newer on the server, and run "
            "CREATE EXTENSION vector in the database"
        )
    if said.startswith(_NOT_PERMITTED):
        return StoreRejected(
            "this role may not create the extension vector; run CREATE EXTENSION vector in the "
            "database as a superuser, once"
        )
    if isinstance(error, pg.InsufficientPrivilege):
        return StoreRejected(f"PostgreSQL says: {said}; connect as a role that has this right")
    if isinstance(error, pg.UndefinedObject) and "vector" in said:
        return StoreRejected(
            "the database lacks the type vector; run CREATE EXTENSION vector as a superuser, "
            "with pgvector 0.8.0 or newer installed"
        )
    if state.startswith(_OF_ROWS) or isinstance(error, psycopg.DataError):
        return RowsRefused(f"PostgreSQL refuses a row: {said}")
    if not state and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return connection_fault(error)
    if state.startswith(_TRANSIENT):
        return StoreUnavailable(f"PostgreSQL says: {said} ({state}); try again")
    return StoreRejected(f"PostgreSQL says: {said} ({state or type(error).__name__})")


def connection_fault(error: psycopg.Error) -> StoreError:
    """What a failed connection means; the driver's text is read, never quoted."""
    text = str(error).lower()
    if "password" in text or "authentication" in text or "pg_hba" in text:
        return StoreRejected(
            "PostgreSQL refuses the login; check user and password (PGUSER, PGPASSWORD or "
            "~/.pgpass), and pg_hba.conf on the server"
        )
    if "database" in text and "does not exist" in text:
        return StoreRejected("the database does not exist; create it, or name another one")
    if "role" in text and "does not exist" in text:
        return StoreRejected("the role does not exist; create it, or name another user")
    if "timeout" in text or "timed out" in text:
        return StoreUnavailable("PostgreSQL did not answer in time; check host, port and network")
    return StoreUnavailable(
        "PostgreSQL cannot be reached, or closed the connection; check that it runs, host and port"
    )
