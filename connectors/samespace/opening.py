"""From a URL to a store, from a spec to a backend."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from samespace.errors import InvalidInput, excerpt
from samespace.models import find_model
from samespace.protocols import EmbeddingBackend

if TYPE_CHECKING:
    from samespace.stores.pgvector.store import PgVectorStore

EMBEDDED: Final = "embedded"
_POSTGRES: Final = ("postgresql://", "postgres://")
_BACKEND: Final = re.compile(
    r"(?P<name>[a-z]+)(?::(?P<model>[^@:\s]+))?"
    r"(?:@(?P<dimensions>[0-9]{1,5}))?(?::(?P<task>[^@:\s]+))?\Z"
)
_BACKENDS: Final = (
    "hashing, hashing@256, jina, jina@768, jina@1024:retrieval.passage, "
    "jina:jina-embeddings-v2-base-en (NAME:MODEL@DIMENSIONS:TASK, of which only NAME is needed)"
)
_PASSWORD: Final = re.compile(r"://[^@:/?]*:[^?]*@|password\s*=")
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*(?=:)")


def open_store(
    url: str, *, collection: str, backend: EmbeddingBackend | str | None = None, **options: Any
) -> PgVectorStore:
    """A handle on a collection: ``url`` is ``embedded`` or ``postgresql://…``.

    ``backend`` is an object or a spec (:func:`open_backend`); ``options`` are the store's own.
    """
    if url != EMBEDDED and not url.startswith(_POSTGRES):
        scheme = _SCHEME.match(url)  # the rest of it may be a secret
        raise InvalidInput(
            f"no store is known for {excerpt(scheme[0] + ':') if scheme else 'this address'}; "
            "use embedded or postgresql://host/database"
        )
    from samespace.stores.pgvector.store import PgVectorStore  # noqa: PLC0415  loads the driver

    opened = open_backend(backend) if isinstance(backend, str) else backend
    return PgVectorStore(url, collection=collection, backend=opened, **options)


def open_backend(spec: str, *, dimensions: int | None = None) -> EmbeddingBackend:
    """A backend from its spec, ``NAME:MODEL@DIMENSIONS:TASK``, all but the name optional.

    ``hashing`` and ``hashing@256`` are lexical; ``jina``, ``jina@768``,
    ``jina@1024:retrieval.passage`` and ``jina:jina-embeddings-v2-base-en`` ask Jina's API, with the
    key in ``JINA_API_KEY``. ``dimensions`` is for specs without them.
    """
    match = _BACKEND.match(spec)
    size = _agreed_size(spec, match["dimensions"], dimensions) if match else None
    if match and match["name"] == "hashing" and not match["model"] and not match["task"]:
        from samespace.backends.hashing import HashingBackend  # noqa: PLC0415  loaded when named

        return HashingBackend() if size is None else HashingBackend(size)
    if match and match["name"] == "jina" and (not match["model"] or find_model(match["model"])):
        from samespace.backends.jina_api.client import JinaAPIBackend  # noqa: PLC0415  loads httpx

        named: dict[str, Any] = {name: match[name] for name in ("model", "task") if match[name]}
        return JinaAPIBackend(dimensions=size, **named)
    raise InvalidInput(f"no backend is known for {excerpt(spec)}; use {_BACKENDS}")


def _agreed_size(spec: str, said: str | None, dimensions: int | None) -> int | None:
    """The dimensions of a spec or of the argument, which may not contradict it."""
    if said is None:
        return dimensions
    if dimensions not in {None, int(said)}:
        raise InvalidInput(
            f"backend {excerpt(spec)} says {said} dimensions and dimensions (--dimensions) says "
            f"{dimensions}; leave one out"
        )
    return int(said)


def has_password(url: str) -> bool:
    """Whether a URL or a connection string has a password in it."""
    return _PASSWORD.search(url) is not None
