"""From a URL to a store, from a spec to a backend."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from samespace.errors import InvalidInput, excerpt
from samespace.protocols import EmbeddingBackend

if TYPE_CHECKING:
    from samespace.stores.pgvector.store import PgVectorStore

EMBEDDED: Final = "embedded"
_POSTGRES: Final = ("postgresql://", "postgres://")
_BACKEND: Final = re.compile(r"(?P<name>[a-z]+)(?:@(?P<dimensions>\d{1,5}))?\Z")
_PASSWORD: Final = re.compile(r"(?P<before>://[^/@:]*):[^@/]*@|(?P<key>password=)[^&\s]*")


def open_store(
    url: str, *, collection: str, backend: EmbeddingBackend | str | None = None, **options: Any
) -> PgVectorStore:
    """A handle on a collection: ``url`` is ``embedded`` or ``postgresql://…``.

    ``backend`` is an object or a spec (:func:`open_backend`); ``options`` are the store's own.
    """
    if url != EMBEDDED and not url.startswith(_POSTGRES):
        raise InvalidInput(
            f"no store is known for {excerpt(redact(url))}; use embedded or postgresql://host/database"
        )
    from samespace.stores.pgvector.store import PgVectorStore  # noqa: PLC0415  loads the driver

    opened = open_backend(backend) if isinstance(backend, str) else backend
    return PgVectorStore(url, collection=collection, backend=opened, **options)


def open_backend(spec: str) -> EmbeddingBackend:
    """A backend from its spec, ``NAME@DIMENSIONS``: ``hashing``, ``hashing@256``."""
    match = _BACKEND.match(spec)
    if match is None or match["name"] != "hashing":
        raise InvalidInput(f"no backend is known for {excerpt(spec)}; use hashing, or hashing@256")
    from samespace.backends.hashing import HashingBackend  # noqa: PLC0415  loaded when named

    return HashingBackend(int(match["dimensions"])) if match["dimensions"] else HashingBackend()


def has_password(url: str) -> bool:
    """Whether a URL or a connection string has a password in it."""
    return _PASSWORD.search(url) is not None


def redact(url: str) -> str:
    """A URL that may be shown: without its password."""
    return _PASSWORD.sub(lambda match: f"{match['before'] or match['key']}:***@", url)
