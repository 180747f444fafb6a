"""Collections as somebody's own script makes them, with much in them that is no part of a layout."""

from __future__ import annotations

from typing import Any, Protocol

import psycopg
from elasticsearch import Elasticsearch
from psycopg.sql import SQL, Identifier
from qdrant_client import QdrantClient, models
from tests.strangers import Near

from samespace import Layout
from samespace.stores.qdrant.requests import RECORD

NAME = "foreign"
OTHERS = 40
"""Fields beside those of the layout."""


class Script(Protocol):
    """Makes an empty collection with places for ``body``, ``lang``, ``year`` and :data:`OTHERS`."""

    layout: Layout

    def make(self) -> None:
        """Create the collection."""

    def everything(self) -> object:
        """All that the server holds and says of it, but for our record."""

    def clear(self) -> None:
        """Remove what no harness removes."""


class PostgresScript:
    """A table with a number for a key, an index, a default and a view on it."""

    layout = Layout(id="id", text="body", slot="embedding", metadata=("lang", "year"))

    def __init__(self, conninfo: str, schema: str) -> None:
        self.conninfo, self.schema = conninfo, schema

    def make(self) -> None:
        others = ", ".join(f"other_{n} text DEFAULT 'x{n}'" for n in range(OTHERS))
        self._run(
            f"CREATE TABLE foreign (id bigint PRIMARY KEY, body text NOT NULL, lang text, year int, "
            f"{others}, embedding vector(64) NOT NULL)"
        )
        self._run("CREATE INDEX ON foreign (lang)")
        self._run("CREATE VIEW seen AS SELECT id, body FROM foreign")

    def everything(self) -> object:
        return (
            self._run("SELECT *, xmin::text, ctid::text FROM foreign ORDER BY id"),
            self._run("SELECT relname, relkind, relhastriggers, reloptions FROM pg_class "
                      "WHERE relnamespace = current_schema()::regnamespace ORDER BY 1"),
            self._run("SELECT attname, atttypid, atttypmod, attnotnull, atthasdef FROM pg_attribute "
                      "WHERE attrelid = 'foreign'::regclass ORDER BY attnum"),
            self._run("SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint "
                      "WHERE conrelid = 'foreign'::regclass ORDER BY 1"),
        )  # fmt: skip

    def clear(self) -> None:
        """The schema is dropped."""

    def _run(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            path = SQL("SET search_path = {}, public").format(Identifier(self.schema))
            connection.execute(path)
            cursor = connection.execute(statement.replace("foreign", '"foreign"'))
            return cursor.fetchall() if cursor.description else []


class QdrantScript:
    """Points with integer ids and one vector without a name."""

    layout = Layout(id="id", text="body", slot="", metadata=("lang", "year"))

    def __init__(self, client: QdrantClient, collection: str) -> None:
        self.client, self.collection = client, collection

    def make(self) -> None:
        self.client.create_collection(
            self.collection,
            vectors_config=models.VectorParams(size=64, distance=models.Distance.COSINE),
            hnsw_config=models.HnswConfigDiff(m=24),
            metadata={"owner": "somebody", "version": {"major": 3}},
        )

    def everything(self) -> object:
        points, _ = self.client.scroll(self.collection, limit=10_000, with_vectors=True)
        info = self.client.get_collection(self.collection)
        said = info.config.model_dump()
        said["metadata"] = {k: v for k, v in (said["metadata"] or {}).items() if k != RECORD}
        rows = [(point.id, point.payload, Near(point.vector)) for point in points]
        return rows, said, info.payload_schema

    def clear(self) -> None:
        """The collection is deleted with all others."""


class ElasticsearchScript:
    """An index with a final pipeline, an alias and ``_meta`` of its own."""

    layout = Layout(id="_id", text="body", slot="embedding", metadata=("lang", "year"))

    def __init__(self, client: Elasticsearch, index: str) -> None:
        self.client, self.index = client, index
        self.pipeline = f"{index}-stamp"

    def make(self) -> None:
        stamp = [{"set": {"field": "other_0", "value": "set by the pipeline"}}]
        self.client.ingest.put_pipeline(id=self.pipeline, processors=stamp)
        kinds = ("keyword", "text", "double", "date")
        fields: dict[str, Any] = {f"other_{n}": {"type": kinds[n % 4]} for n in range(OTHERS)}
        fields |= {
            "body": {"type": "text"},
            "lang": {"type": "keyword"},
            "year": {"type": "integer"},
            "embedding": {"type": "dense_vector", "dims": 64, "similarity": "cosine",
                          "index_options": {"type": "flat"}},
        }  # fmt: skip
        self.client.indices.create(
            index=self.index,
            mappings={"_meta": {"owner": "somebody", "v": [1, {"a": None}]}, "properties": fields},
            settings={"index.final_pipeline": self.pipeline, "number_of_replicas": 0},
            aliases={f"{self.index}-alias": {"filter": {"term": {"lang": "de"}}}},
        )

    def everything(self) -> object:
        self.client.indices.refresh(index=self.index)
        found = self.client.search(
            index=self.index, size=1000, seq_no_primary_term=True, version=True, sort=["_seq_no"],
            source_exclude_vectors=False,
        )  # fmt: skip
        said = dict(self.client.indices.get(index=self.index))[self.index]
        said["mappings"]["_meta"].pop("samespace", None)
        rows = [dict(hit) for hit in found["hits"]["hits"]]
        return rows, said, dict(self.client.ingest.get_pipeline(id=f"{self.index}-*"))

    def clear(self) -> None:
        self.client.indices.delete(index=self.index)
        self.client.ingest.delete_pipeline(id=self.pipeline)


def script_of(harness: Any) -> Script:
    """The script for the store of a harness."""
    if hasattr(harness, "conninfo"):
        return PostgresScript(harness.conninfo, harness.schema)
    if hasattr(harness, "url"):
        return ElasticsearchScript(harness.client, harness.named(NAME))
    return QdrantScript(harness.client, harness.name(NAME))
