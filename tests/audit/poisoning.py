"""What tests of audits share: collections with rows of another space, written by a stranger."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import lru_cache
from typing import Any

import elasticsearch
import numpy as np
import psycopg
from elasticsearch.helpers import bulk
from psycopg.sql import SQL, Identifier
from qdrant_client import QdrantClient, models
from tests.contract.ingesting import Place

from samespace import Document
from samespace.protocols import Matrix, Vector
from samespace.space import EmbeddingSpace
from samespace.testing.backends import DistortingBackend, TaskBackend
from samespace.testing.corpus import texts

NEW = EmbeddingSpace(model="jina-embeddings-v3", dimensions=256, task="retrieval.passage")
OLD = EmbeddingSpace(model="another-model", dimensions=256)
"""Of the same size, and nothing else in common."""


@lru_cache
def model(space: EmbeddingSpace, seed: int, *, common: float = 0.4) -> DistortingBackend:
    """A model whose vectors share a direction, as those of real ones do: so much of each is common."""
    direction = np.random.default_rng(seed).standard_normal(space.dimensions)
    direction *= np.sqrt(common) / np.linalg.norm(direction)

    def drawn_together(vectors: Matrix) -> Matrix:
        moved = np.sqrt(1 - common) * vectors + direction
        return np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True), np.float32)

    return DistortingBackend(
        TaskBackend(space, seed=seed), documents=drawn_together, queries=drawn_together
    )


def documents(count: int) -> list[Document]:
    return [Document(f"d{n}", text, {"n": n}) for n, text in enumerate(texts(count))]


def every(number: int, rows: Sequence[Document]) -> list[Document]:
    """One in so many, evenly spread."""
    return list(rows[::number])


def poison(place: Place, rows: Sequence[Document], backend: Any, *, slot: str) -> None:
    """Put another model's vectors into the slot of these rows, with the store's own driver."""
    vectors = backend.embed_documents([row.embedded_text for row in rows])
    POISONERS[place.kind](place, [row.id for row in rows], list(vectors), slot)


def _in_postgres(place: Place, ids: Sequence[str], vectors: Sequence[Vector], slot: str) -> None:
    statement = SQL("UPDATE {}.{} SET {} = %s::vector WHERE id = %s").format(
        Identifier(place.options["schema"]), Identifier(place.collection), Identifier(slot)
    )
    with psycopg.connect(place.source, autocommit=True) as connection:
        for id, vector in zip(ids, vectors, strict=True):
            assert connection.execute(statement, (str(vector.tolist()), id)).rowcount == 1


def client_of(place: Place) -> QdrantClient:
    """Qdrant's own client of this place, a server or a folder."""
    if place.source.startswith("http"):
        return QdrantClient(url=place.source, check_compatibility=False)
    return QdrantClient(path=place.source)


def _in_qdrant(place: Place, ids: Sequence[str], vectors: Sequence[Vector], slot: str) -> None:
    client = client_of(place)
    with closing(client):
        points, _ = client.scroll(place.collection, limit=100_000, with_payload=True)
        numbers = {(point.payload or {})["samespace"]["id"]: point.id for point in points}
        changes = [
            models.PointVectors(id=numbers[id], vector={slot: vector.tolist()})
            for id, vector in zip(ids, vectors, strict=True)
        ]
        for start in range(0, len(changes), 500):
            client.update_vectors(place.collection, changes[start : start + 500], wait=True)


def _in_elasticsearch(
    place: Place, ids: Sequence[str], vectors: Sequence[Vector], slot: str
) -> None:
    with closing(elasticsearch.Elasticsearch(place.source)) as client:
        actions = [
            {"_op_type": "update", "_index": place.collection, "_id": id, "doc": {slot: v.tolist()}}
            for id, v in zip(ids, vectors, strict=True)
        ]
        bulk(client, actions, refresh="wait_for")


POISONERS: dict[str, Callable[[Place, Sequence[str], Sequence[Vector], str], None]] = {
    "PgVectorStore": _in_postgres,
    "QdrantStore": _in_qdrant,
    "ElasticsearchStore": _in_elasticsearch,
}


def turned(vectors: Matrix, cosine: float) -> Matrix:
    """Vectors at this cosine to the given ones."""
    beside = np.roll(vectors, 1, axis=1)
    beside -= np.einsum("ij,ij->i", beside, vectors)[:, np.newaxis] * vectors
    beside /= np.linalg.norm(beside, axis=1, keepdims=True)
    return np.asarray(cosine * vectors + np.sqrt(1 - cosine**2) * beside, np.float32)


def change_text(place: Place, id: str, text: str) -> None:
    """In place, behind the vector, with the store's own driver."""
    if place.kind == "ElasticsearchStore":
        with closing(elasticsearch.Elasticsearch(place.source)) as search:
            search.update(index=place.collection, id=id, doc={"text": text}, refresh="wait_for")
        return
    with closing(client_of(place)) as client:
        points, _ = client.scroll(place.collection, limit=1_000)
        number = next(p.id for p in points if (p.payload or {})["samespace"]["id"] == id)
        client.set_payload(place.collection, {"text": text}, points=[number], wait=True)


def insert(place: Place, text: str, backend: Any, *, slot: str) -> str:
    """Insert a row with a vector and nothing else of ours, with the store's own driver; its id."""
    id = str(uuid.uuid4())
    vector = backend.embed_documents([text])[0]
    if place.kind == "ElasticsearchStore":
        with closing(elasticsearch.Elasticsearch(place.source)) as search:
            row = {"text": text, slot: vector.tolist()}
            search.index(index=place.collection, id=id, document=row, refresh="wait_for")
    elif place.kind == "QdrantStore":
        point = models.PointStruct(id=id, payload={"text": text}, vector={slot: vector.tolist()})
        with closing(client_of(place)) as client:
            client.upsert(place.collection, [point], wait=True)
    else:
        statement = SQL(
            "INSERT INTO {}.{} (id, text, {}, metadata) VALUES (%s, %s, %s::vector, %s)"
        ).format(
            Identifier(place.options["schema"]), Identifier(place.collection), Identifier(slot)
        )
        with psycopg.connect(place.source, autocommit=True) as connection:
            connection.execute(statement, (id, text, str(vector.tolist()), "{}"))
    return id
