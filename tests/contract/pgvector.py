"""How the contract opens PostgreSQL's stores, and what a stranger does to their tables.

It runs where something else is at stake, too: the sync store's with a password that nothing may show
(tests/security/test_secrets.py) and through a pool whose sessions last a transaction
(test_pgvector_sessions.py), the async one's as an owner with no other right (test_pgvector_rights.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from psycopg.sql import SQL, Identifier
from tests.servers.postgres import administrator

from samespace import AsyncPgVectorStore, Document, EmbeddingSpace, Index, Layout, PgVectorStore
from samespace.protocols import AnyBackend, Matrix

LAYOUT = Layout(id="chunk_id", text="body", slot="embedding", metadata=("lang", "year"))
"""Where things are in the table that :meth:`Raw.make_foreign` makes."""


class Raw:
    """What a stranger with psycopg does to a collection's table."""

    def __init__(self, conninfo: str, schema: str) -> None:
        self.conninfo = conninfo
        self.schema = schema
        self.registry = f"{schema}_registry"

    def execute(
        self, statement: str, values: Sequence[Any] = (), **names: str
    ) -> list[tuple[Any, ...]]:
        """Run one statement in which ``{name}`` stands for an identifier."""
        connection = administrator(self.conninfo)
        path = SQL("SET search_path = {}, public").format(Identifier(self.schema))
        connection.execute(path)
        quoted = {name: Identifier(value) for name, value in names.items()}
        cursor = connection.execute(SQL(statement).format(**quoted), values)
        return cursor.fetchall() if cursor.description else []

    def set_text(self, collection: str, id: str, text: str) -> None:
        key, body = ("chunk_id", "body") if collection == "foreign" else ("id", "text")
        self.execute(
            "UPDATE {table} SET {body} = %s WHERE {key}::text = %s",
            (text, id),
            table=collection,
            body=body,
            key=key,
        )

    def set_record(self, collection: str, record: object) -> None:
        if record is None:
            statement = "DELETE FROM {registry}.collections WHERE table_name = %s"
            self.execute(statement, (collection,), registry=self.registry)
        else:
            self.execute(
                "UPDATE {registry}.collections SET record = %s::jsonb WHERE table_name = %s",
                (orjson.dumps(record).decode(), collection),
                registry=self.registry,
            )

    def get_record(self, collection: str) -> Any:
        found = self.execute(
            "SELECT record FROM {registry}.collections WHERE table_name = %s",
            (collection,),
            registry=self.registry,
        )
        return found[0][0] if found else None

    def make_foreign(self, documents: Sequence[Document], vectors: Matrix) -> tuple[str, Layout]:
        self.execute(
            "CREATE TABLE {table} (chunk_id bigint PRIMARY KEY, body text NOT NULL, lang text, "
            "year int, embedding vector(64) NOT NULL)",
            table="foreign",
        )
        for document, vector in zip(documents, vectors, strict=True):
            self.execute(
                "INSERT INTO {table} VALUES (%s, %s, %s, %s, %s::vector)",
                (
                    int(document.id),
                    document.text,
                    document.metadata.get("lang"),
                    document.metadata.get("year"),
                    str(vector.tolist()),
                ),
                table="foreign",
            )
        return "foreign", LAYOUT

    def dump(self, collection: str) -> object:
        rows = self.execute("SELECT *, xmin::text FROM {table} ORDER BY 1", table=collection)
        columns = self.execute(
            "SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute "
            "WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum",
            (f'"{self.schema}"."{collection}"',),
        )
        return columns, rows


class Harness(Raw):
    """Opens sync stores."""

    def __init__(self, conninfo: str, schema: str, source: Any = None) -> None:
        super().__init__(conninfo, schema)
        self.source = source or conninfo

    def open(
        self,
        collection: str,
        *,
        backend: AnyBackend | None = None,
        mirrors: Sequence[AnyBackend] = (),
        space: EmbeddingSpace | None = None,
        layout: Layout | None = None,
        index: Index | None = None,
    ) -> Any:
        return PgVectorStore(
            self.source,
            collection=collection,
            backend=backend,  # type: ignore[arg-type]
            mirrors=mirrors,  # type: ignore[arg-type]
            space=space,
            layout=layout,
            index=index,
            schema=self.schema,
            registry=self.registry,
        )


class AsyncHarness:
    """Opens async stores; a stranger's doings block, which is of no harm here."""

    def __init__(self, conninfo: str, schema: str, source: Any = None) -> None:
        self.raw = Raw(conninfo, schema)
        self.source = source or conninfo

    def open(
        self,
        collection: str,
        *,
        backend: AnyBackend | None = None,
        mirrors: Sequence[AnyBackend] = (),
        space: EmbeddingSpace | None = None,
        layout: Layout | None = None,
        index: Index | None = None,
    ) -> Any:
        return AsyncPgVectorStore(
            self.source,
            collection=collection,
            backend=backend,
            mirrors=mirrors,
            space=space,
            layout=layout,
            index=index,
            schema=self.raw.schema,
            registry=self.raw.registry,
        )

    async def set_text(self, collection: str, id: str, text: str) -> None:
        self.raw.set_text(collection, id, text)

    async def set_record(self, collection: str, record: object) -> None:
        self.raw.set_record(collection, record)

    async def get_record(self, collection: str) -> Any:
        return self.raw.get_record(collection)

    async def make_foreign(
        self, documents: Sequence[Document], vectors: Matrix
    ) -> tuple[str, Layout]:
        return self.raw.make_foreign(documents, vectors)

    async def dump(self, collection: str) -> object:
        return self.raw.dump(collection)
