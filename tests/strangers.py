"""Somebody who reads and writes a collection with the store's own driver, and knows nothing of us."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import elasticsearch
import numpy as np
import orjson
import psycopg
from elasticsearch import helpers
from psycopg import errors as pg
from psycopg.sql import SQL, Composed, Identifier
from psycopg.types.json import Jsonb
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from samespace.protocols import Vector
from samespace.stores.pgvector.table import Name

Key = int | str
Fields = Mapping[str, Any]
Vectors = Mapping[str, Vector]
Row = tuple[dict[str, Any], dict[str, Vector]]
"""Fields and vectors by name."""
Hit = tuple[Key, str, Vector]
"""Key, text and vector."""
NO_VECTORS: Vectors = {}


@dataclass(frozen=True, slots=True, eq=False)
class Near:
    """A stored vector, or None, equal to another but for the last bits: Qdrant normalises again."""

    vector: Any

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Near) or self.vector is None or other.vector is None:
            return isinstance(other, Near) and self.vector is other.vector
        return np.allclose(self.vector, other.vector, atol=1e-6)

    __hash__ = None  # type: ignore[assignment]


class Stranger(Protocol):
    """One collection as its store's own driver shows it; not for several threads."""

    refusals: ClassVar[tuple[type[Exception], ...]]
    """What the driver raises where the server refuses a slot that is not there."""

    def put(self, key: Key, fields: Fields, vectors: Vectors) -> None:
        """Insert a row, or replace it whole."""

    def change(self, key: Key, fields: Fields, vectors: Vectors = NO_VECTORS) -> None:
        """Change parts of a row that is there, in place."""

    def delete(self, key: Key) -> None:
        """Delete a row that is there."""

    def nearest(
        self, slot: str, vector: Vector, *, where: Fields | None = None
    ) -> list[tuple[str, float]]:
        """Keys and cosines of the ten rows that are nearest, of those with these values."""

    def hits(self, slot: str, vector: Vector, field: str) -> list[Hit]:
        """The ten rows that are nearest, each as one read has it."""

    def rows(self, slots: Iterable[str]) -> dict[Key, Row]:
        """All that is stored, with the vectors of these slots."""

    def close(self) -> None:
        """Give back the connection."""


class PostgresStranger:
    """psycopg and SQL."""

    refusals: ClassVar[tuple[type[Exception], ...]] = (pg.UndefinedColumn,)

    def __init__(self, conninfo: str, schema: str, table: str, *, key: str = "id") -> None:
        self.connection = psycopg.connect(conninfo, autocommit=True)
        self.connection.execute(SQL("SET search_path = {}, public").format(Identifier(schema)))
        self.table, self.key = Name(schema, table), Name(key)

    def put(self, key: Key, fields: Fields, vectors: Vectors) -> None:
        columns = self._columns(fields, vectors)
        names = SQL(", ").join(Name(name) for name in columns)
        places = SQL(", ").join(SQL("%s") for _ in columns)
        statement = SQL(
            "INSERT INTO {} ({}, {}) VALUES (%s, {}) ON CONFLICT ({}) DO UPDATE SET {}"
        ).format(self.table, self.key, names, places, self.key, self._set(columns, "EXCLUDED.{}"))
        self._execute(statement, str(key), *columns.values())

    def change(self, key: Key, fields: Fields, vectors: Vectors = NO_VECTORS) -> None:
        columns = self._columns(fields, vectors)
        changes = self._set(columns, "%s")
        statement = SQL("UPDATE {} SET {} WHERE {} = %s").format(self.table, changes, self.key)
        self._execute(statement, *columns.values(), str(key))

    def delete(self, key: Key) -> None:
        self._execute(SQL("DELETE FROM {} WHERE {} = %s").format(self.table, self.key), str(key))

    def nearest(
        self, slot: str, vector: Vector, *, where: Fields | None = None
    ) -> list[tuple[str, float]]:
        passing = [SQL("{} = %s").format(Name(name)) for name in where or {}]
        statement = SQL(
            "SELECT {0}::text, 1 - ({1} <=> %s::vector) FROM {2} {3} ORDER BY 2 DESC LIMIT 10"
        )
        condition = SQL("WHERE {}").format(SQL(" AND ").join(passing)) if passing else SQL("")
        query = statement.format(self.key, Name(slot), self.table, condition)
        return self.connection.execute(
            query, (_literal(vector), *(where or {}).values())
        ).fetchall()

    def hits(self, slot: str, vector: Vector, field: str) -> list[Hit]:
        query = SQL("SELECT {0}, {1}, {2} FROM {3} ORDER BY {2} <=> %s::vector LIMIT 10").format(
            self.key, Name(field), Name(slot), self.table
        )
        found = self.connection.execute(query, (_literal(vector),))
        return [(key, text, _as_array(near)) for key, text, near in found]

    def rows(self, slots: Iterable[str]) -> dict[Key, Row]:
        cursor = self.connection.execute(SQL("SELECT {}, * FROM {}").format(self.key, self.table))
        names = [column.name for column in cursor.description or ()][1:]
        return {
            key: _parted(dict(zip(names, values, strict=True)), slots) for key, *values in cursor
        }

    def close(self) -> None:
        self.connection.close()

    def _columns(self, fields: Fields, vectors: Vectors) -> dict[str, Any]:
        columns = {
            n: Jsonb(value) if isinstance(value, dict) else value for n, value in fields.items()
        }
        return columns | {name: _literal(vector) for name, vector in vectors.items()}

    def _set(self, columns: Iterable[str], value: str) -> Composed:
        pairs = [
            SQL("{} = " + value).format(*[Name(name)] * (1 + value.count("{}"))) for name in columns
        ]
        return SQL(", ").join(pairs)

    def _execute(self, statement: Composed, *values: object) -> None:
        assert self.connection.execute(statement, values).rowcount == 1


class QdrantStranger:
    """Qdrant's own client. ``turns`` is what requests in local mode take turns with."""

    refusals: ClassVar[tuple[type[Exception], ...]] = (UnexpectedResponse, ValueError, KeyError)

    def __init__(
        self,
        client: QdrantClient,
        collection: str,
        *,
        turns: threading.Lock | None = None,
        is_own: bool = False,
    ) -> None:
        """``is_own``: nobody else has the client, so that it is closed with this."""
        self.client, self.collection, self._is_own = client, collection, is_own
        self.turn: AbstractContextManager[Any] = turns or nullcontext()

    def put(self, key: Key, fields: Fields, vectors: Vectors) -> None:
        point = models.PointStruct(id=key, payload=dict(fields), vector=_as_vector(vectors))
        with self.turn:
            self.client.upsert(self.collection, [point], wait=True)

    def change(self, key: Key, fields: Fields, vectors: Vectors = NO_VECTORS) -> None:
        if fields:
            with self.turn:
                self.client.set_payload(self.collection, dict(fields), points=[key], wait=True)
        if vectors:
            point = models.PointVectors(id=key, vector=_as_vector(vectors))
            with self.turn:
                self.client.update_vectors(self.collection, [point], wait=True)

    def delete(self, key: Key) -> None:
        with self.turn:
            self.client.delete(self.collection, models.PointIdsList(points=[key]), wait=True)

    def nearest(
        self, slot: str, vector: Vector, *, where: Fields | None = None
    ) -> list[tuple[str, float]]:
        passing = [
            models.FieldCondition(key=name, match=models.MatchValue(value=value))
            for name, value in (where or {}).items()
        ]
        answer = self.client.query_points(
            self.collection,
            query=vector.tolist(),
            using=slot or None,
            query_filter=models.Filter(must=list(passing)),
            limit=10,
        )
        return [(str(point.id), point.score) for point in answer.points]

    def hits(self, slot: str, vector: Vector, field: str) -> list[Hit]:
        with self.turn:
            found = self.client.query_points(
                self.collection,
                query=vector.tolist(),
                using=slot or None,
                with_payload=[field],
                with_vectors=True,
                limit=10,
            )
        # The server reads what it has found in a second look: by then a vector may be gone.
        return [
            (_key(point.id), (point.payload or {})[field], _as_array(vectors[slot]))
            for point in found.points
            if slot in (vectors := _named(point.vector))
        ]

    def rows(self, slots: Iterable[str]) -> dict[Key, Row]:
        points, _ = self.client.scroll(self.collection, limit=100_000, with_vectors=True)
        return {
            _key(point.id): _parted({**(point.payload or {}), **_named(point.vector)}, slots)
            for point in points
        }

    def close(self) -> None:
        """End the client, unless others have it."""
        if self._is_own:
            self.client.close()


class ElasticsearchStranger:
    """Elasticsearch's own client; its updates are tried again, as ours get in their way.

    ``retries`` says how often.
    """

    refusals: ClassVar[tuple[type[Exception], ...]] = (elasticsearch.BadRequestError,)

    def __init__(self, url: str, index: str, *, retries: int = 99) -> None:
        self.client, self.index = elasticsearch.Elasticsearch(url), index
        self.retries = retries

    def put(self, key: Key, fields: Fields, vectors: Vectors) -> None:
        self.client.index(index=self.index, id=str(key), document={**fields, **_lists(vectors)})

    def change(self, key: Key, fields: Fields, vectors: Vectors = NO_VECTORS) -> None:
        doc = {**fields, **_lists(vectors)}
        self.client.update(index=self.index, id=str(key), doc=doc, retry_on_conflict=self.retries)

    def delete(self, key: Key) -> None:
        self.client.delete(index=self.index, id=str(key))

    def nearest(
        self, slot: str, vector: Vector, *, where: Fields | None = None
    ) -> list[tuple[str, float]]:
        self.client.indices.refresh(index=self.index)
        passing = [{"term": {name: value}} for name, value in (where or {}).items()]
        knn = {"field": slot, "query_vector": vector.tolist(), "k": 10, "num_candidates": 1000}
        answer = self.client.search(index=self.index, knn={**knn, "filter": passing}, source=False)
        return [(hit["_id"], 2 * hit["_score"] - 1) for hit in answer["hits"]["hits"]]

    def hits(self, slot: str, vector: Vector, field: str) -> list[Hit]:
        knn = {"field": slot, "query_vector": vector.tolist(), "k": 10, "num_candidates": 100}
        answer = self.client.search(
            index=self.index, knn=knn, source_includes=[field, slot], source_exclude_vectors=False
        )
        found = [(hit["_id"], hit["_source"]) for hit in answer["hits"]["hits"]]
        return [(key, source[field], _as_array(source[slot])) for key, source in found]

    def rows(self, slots: Iterable[str]) -> dict[Key, Row]:
        self.client.indices.refresh(index=self.index)
        found = helpers.scan(
            self.client, index=self.index, size=1_000, source_exclude_vectors=False
        )
        return {hit["_id"]: _parted(hit["_source"], slots) for hit in found}

    def close(self) -> None:
        self.client.close()


def _key(id: object) -> Key:
    return id if isinstance(id, int) else str(id)


def _named(vectors: Any) -> dict[str, Any]:
    """Vectors by name, which a point with an unnamed one alone does not say."""
    return vectors if isinstance(vectors, dict) else {"": vectors}


def _literal(vector: Vector) -> str:
    return str(vector.tolist())


def _lists(vectors: Vectors) -> dict[str, list[float]]:
    return {name: vector.tolist() for name, vector in vectors.items()}


def _as_vector(vectors: Vectors) -> Any:
    """Vectors by name, or the unnamed one."""
    return vectors[""].tolist() if "" in vectors else _lists(vectors)


def _parted(values: Mapping[str, Any], slots: Iterable[str]) -> Row:
    """Fields, and those of them that are vectors and not empty."""
    found = {slot: values[slot] for slot in slots if values.get(slot) is not None}
    vectors = {slot: _as_array(value) for slot, value in found.items()}
    return {name: value for name, value in values.items() if name not in slots}, vectors


def _as_array(value: Any) -> Vector:
    numbers = orjson.loads(value) if isinstance(value, str) else value
    return np.array(numbers, dtype=np.float32)
