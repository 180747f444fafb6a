"""Answers of a server that are lost, each in turn: the end is that of a run without a fault."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from tests.servers.cutting import Wire
from tests.strangers import Near

from samespace import Document, ElasticsearchStore, PgVectorStore, QdrantStore, VectorStore
from samespace.errors import StoreUnavailable
from samespace.filters import everything, field
from samespace.testing.backends import UNLIKE, TaskBackend
from samespace.testing.corpus import documents

NAME = "answers"
NEW = TaskBackend(UNLIKE, seed=5)
ROWS = 40


@dataclass(frozen=True, slots=True)
class Place:
    """A store: how a handle is opened, on the server itself or through a wire."""

    connect: Callable[[], socket.socket]
    open: Callable[..., VectorStore]
    connect_beside: Callable[[], socket.socket] | None = None
    """To another port that is spoken to as well; ``open`` takes a wire's as ``beside``."""


def at_postgres(request: pytest.FixtureRequest) -> Place:
    conninfo, schema = request.getfixturevalue("postgres"), request.getfixturevalue("schema")
    with psycopg.connect(conninfo) as connection:
        host, port = connection.info.host, connection.info.port
    options = {"collection": NAME, "schema": schema, "registry": f"{schema}_registry"}
    plain = {"host": "127.0.0.1", "sslmode": "disable", "gssencmode": "disable"}

    def open(port: int | None = None, **more: Any) -> VectorStore:
        through = conninfo if port is None else make_conninfo(conninfo, port=port, **plain)
        return PgVectorStore(through, **options, **more)

    def connect() -> socket.socket:
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        local = socket.socket(socket.AF_UNIX)
        local.connect(f"{host}/.s.PGSQL.{port}")
        return local

    return Place(connect, open)


def at_qdrant(request: pytest.FixtureRequest, *, grpc: bool) -> Place:
    """Over gRPC the wire is that of gRPC: vectors and rows go over it, collections over REST."""
    url, prefix = request.getfixturevalue("qdrant"), request.getfixturevalue("prefix")
    address = urlsplit(url)
    port = request.getfixturevalue("qdrant_grpc") if grpc else address.port or 6333

    def open(through: int | None = None, beside: int | None = None, **more: Any) -> VectorStore:
        if grpc:
            more["grpc_port"] = through or port
        rest = beside if grpc else through
        source = url if rest is None else f"http://127.0.0.1:{rest}"
        return QdrantStore(source, collection=f"{prefix}{NAME}", **more)

    def to(port: int) -> Callable[[], socket.socket]:
        return lambda: socket.create_connection((address.hostname, port))

    return Place(to(port), open, to(address.port or 6333) if grpc else None)


def at_elasticsearch(request: pytest.FixtureRequest) -> Place:
    raw = request.getfixturevalue("raw")
    address = urlsplit(raw.url)

    def open(through: int | None = None, **more: Any) -> VectorStore:
        source = raw.url if through is None else f"http://127.0.0.1:{through}"
        return ElasticsearchStore(source, collection=raw.named(NAME), **more)

    return Place(lambda: socket.create_connection((address.hostname, address.port or 9200)), open)


PLACES: dict[str, Callable[[pytest.FixtureRequest], Place]] = {
    "PostgreSQL": at_postgres,
    "Qdrant REST": lambda request: at_qdrant(request, grpc=False),
    "Qdrant gRPC": lambda request: at_qdrant(request, grpc=True),
    "Elasticsearch": at_elasticsearch,
}


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Place:
    return PLACES[request.param](request)


CHANGED = [Document(f"d{n}", f"changed {n}", {"new": n}) for n in range(0, 2 * ROWS, 2)]
"""Of these some are stored already."""


def fill(store: VectorStore) -> None:
    rows, _ = store.pending(UNLIKE, limit=1_000)
    store.fill(UNLIKE, rows, NEW.embed_documents([row.document.embedded_text for row in rows]))


def insert(store: VectorStore) -> None:
    """Rows that are to be new: after a fault that is not known to have written, some may be there."""
    store.upsert(documents(ROWS, prefix="n"), on_conflict="fail", on_error="report")


REQUESTS: dict[str, Callable[[VectorStore], object]] = {
    "overwrite": lambda store: store.upsert(CHANGED),
    "skip": lambda store: store.upsert(CHANGED, on_conflict="skip"),
    "fail": insert,
    "metadata": lambda store: store.update_metadata(
        {f"d{n}": {"seen": n} for n in range(ROWS)}, merge=True
    ),
    "metadata by filter": lambda store: store.update_metadata(
        {"seen": True}, where=field("lang") == "en", merge=True
    ),
    "delete": lambda store: store.delete(where=field("lang") == "en"),
    "fill": fill,
}


def reset(store: VectorStore) -> None:
    """Rows of both slots, some pending in the second one."""
    store.delete(where=everything)
    store.upsert(documents(ROWS // 2))
    fill(store)
    store.upsert(documents(ROWS)[ROWS // 2 :])


def stored(old: VectorStore, new: VectorStore) -> dict[str, Any]:
    """All documents, each with what the two slots have."""
    rows = [{row.id: row for row in store.scan(with_vectors=True)} for store in (old, new)]
    return {id: (row, *(Near(each[id].vector) for each in rows)) for id, row in rows[0].items()}


@contextmanager
def handles(place: Place) -> Iterator[tuple[VectorStore, VectorStore]]:
    """Of both slots, on the server itself."""
    with place.open(backend=TaskBackend()) as old, place.open(space=UNLIKE) as new:
        old.create()
        old.add_slot(UNLIKE)
        yield old, new


@pytest.mark.parametrize("asked", REQUESTS)
def test_what_was_asked_is_done_once_whichever_answer_is_lost(place: Place, asked: str) -> None:
    ask = REQUESTS[asked]
    with handles(place) as (old, new), Wire(place.connect) as wire:
        reset(old)
        ask(old)
        wanted = stored(old, new)
        for n in count():
            reset(old)
            with place.open(wire.port, backend=TaskBackend()) as store:
                wire.cut(n)
                try:
                    ask(store)
                except StoreUnavailable:
                    ask(store)  # as its message says
            assert stored(old, new) == wanted, f"answer {n} was lost"
            if not wire.is_cut:
                break
        assert n > 2
