"""Collections that a script with the store's own driver made, and all that is in their store."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import orjson
import psycopg
import pytest
from elasticsearch import Elasticsearch
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier
from qdrant_client import QdrantClient, models
from tests.addresses import elasticsearch_address, postgres_address

from samespace.documents import Document
from samespace.protocols import Matrix

STORES = ("PostgreSQL", "Qdrant", "Elasticsearch")


class Place(Protocol):
    """A store with nothing in it, as ``--store`` names it, and one collection's name there."""

    address: str
    name: str

    def make(self, documents: Sequence[Document], vectors: Matrix) -> None:
        """A collection with the ids as bigints or strings, texts in ``body``, metadata beside it."""

    def dump(self) -> object:
        """All that is in the store but samespace's records."""


class Table:
    """A database of its own."""

    def __init__(self, conninfo: str) -> None:
        self.conninfo = conninfo
        self.address = postgres_address(conninfo)
        self.name = "Chunks 100%"

    def make(self, documents: Sequence[Document], vectors: Matrix) -> None:
        columns = list(documents[0].metadata)
        kinds = SQL(", ").join(SQL("{} text").format(Identifier(column)) for column in columns)
        with psycopg.connect(self.conninfo) as connection:
            create = SQL("CREATE TABLE {} (key bigint PRIMARY KEY, body text, v vector({}), {})")
            connection.execute(
                create.format(Identifier(self.name), SQL(str(vectors.shape[1])), kinds)
            )
            marks = SQL(", ").join([SQL("%s")] * (3 + len(columns)))
            insert = SQL("INSERT INTO {} VALUES ({})").format(
                Identifier(self.name.replace("%", "%%")), marks
            )
            connection.cursor().executemany(insert, [
                (int(row.id), row.text, str(vector.tolist()), *row.metadata.values())
                for row, vector in zip(documents, vectors, strict=True)
            ])  # fmt: skip

    def dump(self) -> object:
        return dump_database(self.conninfo)


def dump_database(conninfo: str) -> dict[str, Any]:
    """Columns, indexes, constraints, triggers and rows of every table, but for the records'."""
    with psycopg.connect(conninfo) as connection:
        tables = connection.execute(_TABLES).fetchall()
        return {
            f"{schema}.{name}": [
                connection.execute(
                    part.format(Identifier(schema, name.replace("%", "%%"))), {"oid": oid}
                ).fetchall()
                for part in _PARTS
            ]
            for schema, name, oid in tables
        }


_TABLES = """
SELECT n.nspname, c.relname, c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'samespace', 'pg_toast')
  AND c.relkind IN ('r', 'v') ORDER BY 1, 2
"""
_COLUMNS = SQL("""
SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute
WHERE attrelid = %(oid)s AND attnum > 0 AND NOT attisdropped ORDER BY attnum
""")
_INDEXES = SQL(
    "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = %(oid)s ORDER BY 1"
)
_CONSTRAINTS = SQL("""
SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %(oid)s ORDER BY 1
""")
_TRIGGERS = SQL("""
SELECT tgname FROM pg_trigger WHERE tgrelid = %(oid)s AND NOT tgisinternal ORDER BY 1
""")
_OPTIONS = SQL("SELECT reloptions, relacl::text FROM pg_class WHERE oid = %(oid)s")
_ROWS = SQL("SELECT t::text, xmin::text, ctid::text FROM {} AS t ORDER BY 1")
_PARTS = (_COLUMNS, _INDEXES, _CONSTRAINTS, _TRIGGERS, _OPTIONS, _ROWS)


@contextmanager
def database(conninfo: str) -> Iterator[str]:
    """A new database with pgvector in it, as a connection string."""
    name = f"d{uuid.uuid4().hex[:12]}"
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
        own = make_conninfo(conninfo, dbname=name)
        try:
            with psycopg.connect(own) as made:
                made.execute("CREATE EXTENSION vector")
            yield own
        finally:
            connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


class Points:
    """A folder of Qdrant's local mode, which serves one at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = f"qdrant:{folder}"
        self.name = "Chunks-100"

    @contextmanager
    def client(self) -> Iterator[QdrantClient]:
        """The folder, opened."""
        client = QdrantClient(path=str(self.folder))
        try:
            yield client
        finally:
            client.close()

    def make(self, documents: Sequence[Document], vectors: Matrix) -> None:
        size = models.VectorParams(size=vectors.shape[1], distance=models.Distance.DOT)
        points = [
            models.PointStruct(
                id=int(row.id),
                payload={"body": row.text, **row.metadata},
                vector={"v": vector.tolist()},
            )
            for row, vector in zip(documents, vectors, strict=True)
        ]
        with self.client() as client:
            client.create_collection(self.name, vectors_config={"v": size})
            client.upsert(self.name, points)

    def dump(self) -> object:
        with self.client() as client:
            return dump_points(client)


def dump_points(client: QdrantClient) -> dict[str, Any]:
    """Every collection's configuration and points, but for the record in its metadata."""
    found: dict[str, Any] = {}
    for each in client.get_collections().collections:
        config = client.get_collection(each.name).config
        kept = {key: value for key, value in (config.metadata or {}).items() if key != "samespace"}
        points, _ = client.scroll(each.name, limit=10_000, with_payload=True, with_vectors=True)
        found[each.name] = (
            config.params.model_dump(),
            kept,
            [point.model_dump() for point in points],
        )
    return found


class Documents:
    """An index of a server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.address = elasticsearch_address(url)
        self.name = f"chunks-{uuid.uuid4().hex[:12]}"

    def make(self, documents: Sequence[Document], vectors: Matrix) -> None:
        vector = {"type": "dense_vector", "dims": vectors.shape[1], "similarity": "cosine"}
        properties = {"v": vector, "body": {"type": "text"}}
        with Elasticsearch(self.url) as client:
            client.indices.create(index=self.name, mappings={"properties": properties})
            for row, each in zip(documents, vectors, strict=True):
                body = {"body": row.text, "v": each.tolist(), **row.metadata}
                client.index(index=self.name, id=row.id, document=body)
            client.indices.refresh(index=self.name)

    def dump(self) -> object:
        with Elasticsearch(self.url) as client:
            return dump_index(client, self.name)

    def drop(self) -> None:
        """Remove the index."""
        with Elasticsearch(self.url) as client:
            client.indices.delete(index=self.name, ignore_unavailable=True)


def dump_index(client: Elasticsearch, name: str) -> Any:
    """An index's mapping, settings, aliases and documents, but for the record in ``_meta``."""
    client.indices.refresh(index=name)
    found = client.indices.get(index=name)[name]
    meta = found["mappings"].pop("_meta", {})
    hits = client.search(
        index=name,
        size=10_000,
        source_exclude_vectors=False,
        version=True,
        seq_no_primary_term=True,
    )["hits"]["hits"]
    rows = sorted((hit["_id"], hit["_seq_no"], orjson.dumps(hit["_source"])) for hit in hits)
    return found, {key: kept for key, kept in meta.items() if key != "samespace"}, rows


@contextmanager
def opened_place(store: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[Place]:
    """One of the :data:`STORES` with nothing of this test in it; a folder may be made by it."""
    if store == "PostgreSQL":
        with database(request.getfixturevalue("postgres")) as conninfo:
            yield Table(conninfo)
    elif store == "Qdrant":
        request.getfixturevalue("qdrant_local")
        yield Points(folder / "points")
    else:
        index = Documents(request.getfixturevalue("elasticsearch"))
        yield index
        index.drop()
