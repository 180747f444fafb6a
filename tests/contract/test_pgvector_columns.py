"""Columns of adopted tables: what each part of a document may do to them, and what it may not."""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg
import pytest

from samespace import Document, EmbeddingSpace, Layout, PgVectorStore, field
from samespace.protocols import Matrix

TINY = EmbeddingSpace(model="tiny", dimensions=4)
OTHER = EmbeddingSpace(model="other", dimensions=4)
LAYOUT = Layout(id="id", text="body", slot="e", metadata="md")


class Place:
    """A schema in which tables are made by hand, and opened through layouts."""

    def __init__(self, conninfo: str, schema: str) -> None:
        self.conninfo = conninfo
        self.schema = schema

    def ask(self, statements: str, *, path: str = "") -> list[tuple[Any, ...]]:
        """What the last of some statements answers a stranger whose tables are in this schema."""
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            connection.execute(
                "SELECT set_config('search_path', %s, false)", (path or f"{self.schema}, public",)
            )
            cursor = connection.execute(statements.encode())
            while cursor.nextset():
                continue
            return cursor.fetchall() if cursor.description else []

    def open(self, layout: Layout | None, *, table: str = "rows", **options: Any) -> Any:
        """A handle through a layout, not adopted."""
        given: dict[str, Any] = {"space": TINY, "schema": self.schema, **options}
        registry = f"{self.schema}_registry"
        return PgVectorStore(
            self.conninfo, collection=table, layout=layout, registry=registry, **given
        )

    def adopted(self, layout: Layout, **options: Any) -> Any:
        """A handle that may write."""
        store = self.open(layout, **options)
        store.adopt()
        return store


@pytest.fixture
def place(postgres: str, schema: str) -> Place:
    return Place(postgres, schema)


def vectors(count: int) -> Matrix:
    """The first ``count`` unit vectors."""
    return np.eye(4, dtype=np.float32)[:count]


def upsert(store: Any, *documents: Document, **options: Any) -> Any:
    """Store documents with vectors of their own, and report."""
    return store.upsert_vectors(
        documents, vectors(len(documents)), space=TINY, on_error="report", **options
    )


TENANTS = """
CREATE TABLE rows (id int PRIMARY KEY, tenant text, lang text, body text, e vector(4));
INSERT INTO rows VALUES (1, 'a', 'en', 'x', '[1,0,0,0]'), (2, 'b', 'en', 'y', '[0,1,0,0]'),
  (3, 'c', 'de', 'z', '[0,0,1,0]')
"""


def tenants(place: Place) -> list[tuple[Any, ...]]:
    return place.ask("SELECT id, tenant, lang, body FROM rows ORDER BY id")


def test_rows_of_every_value_of_a_scope_are_overwritten_and_stay_where_they_are(
    place: Place,
) -> None:
    place.ask(TENANTS)
    both = field("tenant").in_(["a", "b"])
    with place.adopted(
        Layout(id="id", text="body", slot="e", metadata=("lang",), scope=both)
    ) as store:
        report = upsert(store, *(Document(str(id), "new", {"lang": "fr"}) for id in (1, 2, 3, 4)))
    assert [refused.id for refused in report.rejected] == ["3"]
    assert tenants(place) == [
        (1, "a", "fr", "new"),
        (2, "b", "fr", "new"),
        (3, "c", "de", "z"),
        (4, "a", "fr", "new"),
    ]
