"""Applications with data of their own, which write it with a store's own driver."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.sql import SQL
from qdrant_client import QdrantClient, models
from tests.faults.filling import NEW, OLD
from tests.strangers import (
    ElasticsearchStranger,
    Key,
    PostgresStranger,
    QdrantStranger,
    Stranger,
    Vectors,
)

import samespace
from samespace import Index, Layout
from samespace.protocols import EmbeddingBackend
from samespace.stores.pgvector.table import Name
from samespace.stores.qdrant import transport

WORDS = ("anchor", "bramble", "cinder", "dune")

Rows = dict[Key, tuple[str, dict[str, Any]]]
"""Text and metadata by key."""


def text_of(number: int, version: int) -> str:
    """One of a row's few texts: each of them comes back, which a filler must not be fooled by."""
    return f"row {number} speaks of {WORDS[version % len(WORDS)]}"


@dataclass
class Application:
    """Data in one collection, and what the server has acknowledged of it.

    ``text``, ``metadata`` and ``slot`` are its names for them; ``stores`` are what fillers open with
    ``source`` and ``options``, in this process where it is ``shared``. Where the store ``empties`` a
    slot whose text changes in place, the application leaves that to it; elsewhere it makes the new
    vector. ``old`` is its model, and ``new`` the one that it moves to. ``filled`` counts the rows that
    fillers had written when they were killed.
    """

    stranger: Callable[[], Stranger]
    stores: tuple[str, str]
    source: Any
    options: dict[str, Any]
    text: str
    metadata: str
    slot: str
    as_key: Callable[[int], Key]
    old: EmbeddingBackend = OLD
    new: EmbeddingBackend = NEW
    empties: bool = False
    shared: bool = False
    acknowledged: Rows = field(default_factory=dict)
    operations: int = 0
    filled: int = 0

    def open(self, **options: Any) -> Any:
        """A sync handle on the collection."""
        return getattr(samespace, self.stores[0])(self.source, **self.options, **options)

    def seed(self, rows: int) -> None:
        """Rows as the application wrote them before there was a second slot."""
        with closing(self.stranger()) as stranger:
            for number in range(rows):
                key, text = self.as_key(number), text_of(number, 0)
                self.put(stranger, key, text, {"version": 0})
                self.acknowledged[key] = text, {"version": 0}

    def add_slot(self) -> None:
        """An empty slot for the new model, beside the application's own."""
        with self.open(space=self.old.space) as store:
            store.add_slot(self.new.space)

    def put(
        self,
        stranger: Stranger,
        key: Key,
        text: str,
        metadata: dict[str, Any],
        model: EmbeddingBackend | None = None,
    ) -> None:
        """Insert a row, or replace it whole; by the application that was deployed for a model."""
        stranger.put(key, {self.text: text, self.metadata: metadata}, self.vectors(text, model))

    def change_text(
        self, stranger: Stranger, key: Key, text: str, model: EmbeddingBackend | None = None
    ) -> None:
        """Give a row another text, in place."""
        stranger.change(key, {self.text: text}, {} if self.empties else self.vectors(text, model))

    def vectors(self, text: str, model: EmbeddingBackend | None = None) -> Vectors:
        """The vector of a text, by the old model unless said."""
        model = model or self.old
        return {self.slot_of(model): model.embed_documents([text])[0]}

    def slot_of(self, model: EmbeddingBackend) -> str:
        """Where a model's vectors are, as the store's driver names it."""
        return self.slot if model is self.old else model.space.id


def postgres_ours(conninfo: str, schema: str, rows: int, **models: Any) -> Application:
    """A collection made by this library, of which the application writes the columns it knows."""
    slot = models.get("old", OLD).space.id
    application = _postgres(
        conninfo, schema,
        key="id", text="text", metadata="metadata", slot=slot, as_key=str, **models,
    )  # fmt: skip
    with application.open(backend=application.old, index=Index(build="immediate")) as store:
        store.create()
        application.seed(rows)
    return application


def postgres_adopted(conninfo: str, schema: str, rows: int, **models: Any) -> Application:
    """A table that was there: bigint key, obligatory vectors, an index on them."""
    application = _postgres(
        conninfo, schema,
        key="chunk no", text="Body %", metadata="labels", slot="embedding", as_key=int, **models,
    )  # fmt: skip
    create = """CREATE TABLE {} ("chunk no" bigint PRIMARY KEY, "Body %" text NOT NULL,
        labels jsonb, embedding vector(64) NOT NULL)"""
    index = "CREATE INDEX ON {} USING hnsw (embedding vector_cosine_ops)"
    with psycopg.connect(conninfo, autocommit=True) as connection:
        for statement in (create, index):
            connection.execute(SQL(statement).format(Name(schema, "chunks")))
    application.seed(rows)
    _adopt(application, id="chunk no")
    return application


def _postgres(conninfo: str, schema: str, *, key: str, **names: Any) -> Application:
    registry = {} if schema == "public" else {"registry": f"{schema}_registry"}
    return Application(
        stranger=lambda: PostgresStranger(conninfo, schema, "chunks", key=key),
        stores=("PgVectorStore", "AsyncPgVectorStore"),
        source=conninfo,
        options={"collection": "chunks", "schema": schema, **registry},
        empties=True,
        **names,
    )


def qdrant_local(client: QdrantClient, rows: int) -> Application:
    """A collection in local mode, which serves one process: a named vector."""
    turns = transport._locks.setdefault(client, threading.Lock())
    application = Application(
        stranger=lambda: QdrantStranger(client, "chunks", turns=turns),
        source=client,
        options={"collection": "chunks"},
        slot="embedding",
        shared=True,
        **POINTS,
    )
    _make_points(application, client, rows)
    return application


def qdrant_server(
    url: str,
    client: QdrantClient,
    collection: str,
    rows: int,
    *,
    old: EmbeddingBackend = OLD,
    new: EmbeddingBackend = NEW,
    **options: Any,
) -> Application:
    """A collection of a server, with an unnamed vector."""

    def stranger() -> QdrantStranger:
        # Several threads at one pool of connections now and then read from one that it has closed.
        own = QdrantClient(url, check_compatibility=False)
        return QdrantStranger(own, collection, is_own=True)

    application = Application(
        stranger=stranger,
        source=url,
        options={"collection": collection, **options},
        slot="",
        old=old,
        new=new,
        **POINTS,
    )
    _make_points(application, client, rows)
    return application


POINTS: dict[str, Any] = {
    "stores": ("QdrantStore", "AsyncQdrantStore"),
    "text": "body",
    "metadata": "labels",
    "as_key": int,
}


def _make_points(application: Application, client: QdrantClient, rows: int) -> None:
    params = models.VectorParams(size=64, distance=models.Distance.COSINE)
    slot = application.slot
    client.create_collection(
        application.options["collection"], vectors_config={slot: params} if slot else params
    )
    application.seed(rows)
    _adopt(application, id="id")


def elasticsearch_adopted(url: str, index: str, rows: int, **models: Any) -> Application:
    """An index that was there, with a field of vectors and labels that are in no index."""
    application = Application(
        stranger=lambda: ElasticsearchStranger(url, index),
        stores=("ElasticsearchStore", "AsyncElasticsearchStore"),
        source=url,
        options={"collection": index},
        text="body",
        metadata="labels",
        slot="embedding",
        as_key=str,
        **models,
    )
    with closing(ElasticsearchStranger(url, index)) as stranger:
        properties = {
            "body": {"type": "text"},
            "labels": {"type": "object", "enabled": False},
            "embedding": {"type": "dense_vector", "dims": 64, "similarity": "cosine"},
        }
        stranger.client.indices.create(index=index, mappings={"properties": properties})
    application.seed(rows)
    _adopt(application, id="_id")
    return application


def _adopt(application: Application, *, id: str) -> None:
    layout = Layout(
        id=id, text=application.text, slot=application.slot, metadata=application.metadata
    )
    with application.open(backend=application.old, layout=layout) as store:
        store.adopt()
