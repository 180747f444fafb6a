"""What Qdrant's client raises, as this library's errors."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from json import JSONDecodeError
from pickle import UnpicklingError
from typing import Final

import grpc
import orjson
from qdrant_client import models
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import (
    ApiException,
    ResponseHandlingException,
    UnexpectedResponse,
)

from samespace.errors import SamespaceError, StoreError, StoreRejected, StoreUnavailable, excerpt
from samespace.stores.refusals import Gone, RowsRefused

LONGEST_WAIT: Final = 30.0
"""Seconds, whatever ``Retry-After`` asks for."""
_FOLDER: Final = (sqlite3.Error, UnpicklingError, EOFError, JSONDecodeError)
"""What it raises in local mode of a folder that is damaged, or full."""
DRIVER: Final = (
    ApiException,
    QdrantException,
    grpc.RpcError,
    KeyError,
    ValueError,
    RuntimeError,
    AssertionError,
    OSError,
    *_FOLDER,
)
"""What the client raises: over REST, over gRPC, and in local mode."""
_NO_VECTOR: Final = re.compile(
    r"Not existing vector name error: (?P<name>.*)|is not found in the collection"
)
_SPOKEN: Final = frozenset({400, 404, 405, 422})
"""Answers for which Qdrant always has words."""
_STATUS: Final[Mapping[grpc.StatusCode, int]] = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.ABORTED: 503,
    grpc.StatusCode.CANCELLED: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
"""What each code of gRPC is over HTTP."""


class Missing(StoreError):
    """A point that a request names is not there; what it asked of other points is done."""


class Exists(StoreError):
    """A collection is to be created that is there."""


class NoVector(Gone):
    """A point, or a whole segment of them, has no vector of a name; None where that is not said."""

    vector: str | None = None


class Behind(StoreUnavailable):
    """A segment does not know a vector that the collection has.

    Qdrant adds a name to a segment that is being rebuilt when that ends; until then every request that
    reads the vector of one of its points fails (``ProxyVectorNameChanges`` of 1.18.3). Some versions
    forget the name then (qdrant/qdrant#9053), so that ``vector`` must be added again, to ``config``.
    """

    vector: str
    config: models.DenseVectorNameConfig


class Busy(StoreUnavailable):
    """The server asks to be asked again, after ``wait`` seconds if it says how long."""

    wait: float | None = None


def translate(error: BaseException, *, local: bool) -> SamespaceError:
    """The error of this library that says what a driver's error says, in local mode or not.

    Nothing of the driver's is kept: its exceptions hold requests, whose headers hold the key.
    """
    if isinstance(error, UnexpectedResponse):
        return _of_status(error.status_code or 500, _said(error.content))
    if isinstance(error, ResourceExhaustedResponse):
        return _busy(str(error), _seconds_until(str(error.retry_after_s)))
    if isinstance(error, QdrantException):
        # The client cannot read a Retry-After that is no whole number, and quotes it last.
        return _busy("", _seconds_until(str(error).rpartition(": ")[2]))
    if isinstance(error, ResponseHandlingException):
        return _unread(error.source)
    if isinstance(error, grpc.RpcError):
        return _of_code(error)
    if local or isinstance(error, RuntimeError):
        return _of_local_mode(error)
    return _unread(error)


def _said(content: bytes) -> str:
    """The server's own words in a body that may be anything."""
    try:
        said = orjson.loads(content)["status"]["error"]
    except (ValueError, TypeError, KeyError):
        return ""
    return said if isinstance(said, str) else ""


def _of_status(status: int, said: str) -> SamespaceError:
    quoted = excerpt(said) if said else f"status {status}"
    if not said and status in _SPOKEN:
        return StoreRejected(
            "what answers is not Qdrant, or a proxy before it; check host, port and path"
        )
    if found := _NO_VECTOR.search(said):
        return _no_vector(f"Qdrant says: {quoted}", found["name"])
    if status in {401, 403}:
        return StoreRejected(
            f"Qdrant refuses the login or the right ({status}); check api_key= or "
            "QDRANT_API_KEY, and what it permits"
        )
    if status == 404:
        if said.startswith("No point") or "No point with id" in said:
            return Missing(f"Qdrant says: {quoted}")
        return Gone(f"Qdrant says: {quoted}")
    if status == 409 or "already exists" in said:
        return Exists(f"Qdrant says: {quoted}")
    if status == 429:
        return _busy(said, None)
    if status == 413 or (status in {400, 422} and not said.startswith("Bad request")):
        return RowsRefused(f"Qdrant refuses a request: {quoted}")
    if status >= 500:
        return StoreUnavailable(f"Qdrant says: {quoted}; try again")
    return StoreRejected(f"Qdrant says: {quoted}")


def _no_vector(message: str, name: str | None) -> NoVector:
    error = NoVector(message)
    error.vector = name
    return error


def behind(collection: str, vector: str, params: models.VectorParams) -> Behind:
    """The error for a vector that a collection is configured with."""
    error = Behind(
        f"a part of collection {excerpt(collection)} that Qdrant is rebuilding does not know vector "
        f"{excerpt(vector)} yet; try again once that is done"
    )
    stored = params.datatype
    kind = None if stored is None else models.VectorStorageDatatype(stored.value)
    dense = models.DenseVectorConfig(
        size=params.size,
        distance=params.distance,
        multivector_config=params.multivector_config,
        datatype=kind,
    )
    error.vector, error.config = vector, models.DenseVectorNameConfig(dense=dense)
    return error


def _busy(said: str, wait: float | None) -> Busy:
    error = Busy(f"Qdrant is busy ({excerpt(said or 'too many requests')}); try again later")
    error.wait = None if wait is None or not wait > 0 else min(wait, LONGEST_WAIT)
    return error


def _seconds_until(text: str) -> float | None:
    """How long until a date, or for so many seconds; None if a header says neither."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    now = datetime.now(UTC)
    return ((date if date.tzinfo else date.replace(tzinfo=UTC)) - now).total_seconds()


def _unread(source: BaseException) -> SamespaceError:
    if isinstance(source, ValueError | KeyError | AssertionError):
        return StoreRejected(
            "Qdrant, or what is at its address, gave an answer that cannot be read; check the URL"
        )
    return StoreUnavailable(
        "Qdrant cannot be reached, or closed the connection "
        f"({type(source).__name__}); check that it runs, host and port"
    )


def _of_code(error: grpc.RpcError) -> SamespaceError:
    code = error.code() if hasattr(error, "code") else grpc.StatusCode.UNKNOWN
    said = error.details() if hasattr(error, "details") else ""
    if code is grpc.StatusCode.UNAVAILABLE and "connect" in (said or ""):
        return StoreUnavailable(
            "Qdrant cannot be reached over gRPC; check that it runs, host and grpc_port"
        )
    return _of_status(_STATUS.get(code, 500), said or code.name)


def _of_local_mode(error: BaseException) -> SamespaceError:
    said = str(error.args[0]) if error.args else type(error).__name__
    if isinstance(error, KeyError):
        return Missing(f"Qdrant's local mode has no point {excerpt(said)}")
    if "already accessed" in said:
        return StoreUnavailable(
            "this folder is open in another handle, or another process: Qdrant's local mode serves "
            "one at a time; close the other, share its client, or use a server"
        )
    if re.search(r"\bclosed\b", said):
        return StoreUnavailable("this client is closed; open another one")
    if said.startswith("Collection ") and said.endswith("not found"):
        return Gone(f"Qdrant says: {excerpt(said)}")
    if isinstance(error, OSError):
        return StoreUnavailable(
            f"the folder of Qdrant's local mode cannot be used ({type(error).__name__}); name one "
            "that can be made and written"
        )
    if isinstance(error, _FOLDER):
        return StoreUnavailable(
            f"Qdrant's folder cannot be read or written ({excerpt(said)}): make room on its disk, or "
            "restore it from a copy"
        )
    return _of_status(400, said)
