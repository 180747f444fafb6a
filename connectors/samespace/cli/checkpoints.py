"""Where the command line keeps how far its jobs are."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from samespace.opening import parse_address

HOME: Final = "SAMESPACE_HOME"
_PASSWORD: Final = re.compile(r"(://[^@:/?]*):[^?]*(?=@)")
_IN_QUERY: Final = re.compile(r"[?&]\w*password=[^&]*")
_LIBPQ: Final = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGSERVICE")
"""What an address of PostgreSQL may leave to the environment."""


def checkpoint_of(
    store: str, collection: str, source: str, *, scope: Sequence[str] = ()
) -> Path | None:
    """The path for a job, the same each time, with no secret in it; None where none can be made.

    ``scope`` are the conditions that tell the collection from others of its table, in any order.
    """
    try:
        folder = _folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError):  # the latter of a user without a home
        return None
    return folder / f"{_key(_place(store), collection)}-{_key(source, *sorted(scope))}"


def place_of(store: str, *, scope: Sequence[str] = ()) -> str:
    """Where a store, or a collection's part of a table there, is, short and with no secret in it."""
    return _key(_place(store), *sorted(scope))


def forget(store: str, collection: str) -> None:
    """Remove how far jobs of a collection are, which is no more."""
    with suppress(OSError, RuntimeError):
        for path in _folder().glob(f"{_key(_place(store), collection)}-*"):
            path.unlink(missing_ok=True)


def _folder() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(os.environ.get(HOME) or Path(base, "samespace")) / "checkpoints"


def _place(store: str) -> str:
    """Where a store is, without a password."""
    address = parse_address(store)
    if address.store == "pgvector":
        bare = _IN_QUERY.sub("", _PASSWORD.sub(r"\1", address.source))
        return " ".join((bare, *(os.environ.get(name, "") for name in _LIBPQ)))
    if address.is_server or address.source == ":memory:":
        return f"{address.store} {address.source}"
    return f"{address.store} {Path(address.source).resolve()}"


def _key(*parts: str) -> str:
    joined = "\0".join(parts).encode(errors="surrogateescape")
    return hashlib.sha256(joined).hexdigest()[:8]
