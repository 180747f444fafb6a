"""An application that cannot be changed moves to another slot, and back, by its search path alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import errors as pg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier
from tests.contract.pgvector import Harness
from tests.contract.test_pgvector_rights import Role, role

from samespace import AsyncPgVectorStore, Layout, PgVectorStore, field
from samespace.errors import InvalidInput, SlotNotReady, SpaceMismatch
from samespace.guard import SlotState
from samespace.protocols import AsyncExposesSlots, ExposesSlots
from samespace.space import EmbeddingSpace
from samespace.testing.backends import UNLIKE, V3, TaskBackend

__all__ = ["role"]  # a fixture
LAYOUT = Layout(id="chunk_id", text="body", slot="embedding", metadata="cmetadata")
TABLE = """
CREATE TABLE chunks (chunk_id text PRIMARY KEY, tenant text NOT NULL DEFAULT 'a', body text NOT NULL,
  embedding vector(64) NOT NULL, cmetadata jsonb NOT NULL DEFAULT '{{}}',
  made bigint GENERATED ALWAYS AS IDENTITY)
"""
BODIES = ("red apples", "green pears", "yellow lemons")
OLD, NEW = TaskBackend(), TaskBackend(UNLIKE, seed=5)


def vector(backend: TaskBackend, text: str) -> str:
    return str(backend.embed_documents([text])[0].tolist())


class Application:
    """Knows a table's name and columns, and one model; where the table is its search path says."""

    def __init__(self, conninfo: str, backend: TaskBackend, *path: str) -> None:
        self.backend = backend
        joined = SQL(",").join(map(Identifier, [*path, "public"])).as_string(None)
        options = "-c search_path=" + joined.replace(" ", "\\ ")
        self.connection = psycopg.connect(make_conninfo(conninfo, options=options), autocommit=True)

    def search(self, text: str) -> list[str]:
        found = self.connection.execute(
            "SELECT chunk_id, body, cmetadata, embedding <=> %s::vector AS distance FROM chunks "
            "ORDER BY distance LIMIT 4",
            (vector(self.backend, text),),
        )
        return [row[0] for row in found if row[3] is not None]

    def upsert(self, id: str, text: str) -> None:
        self.connection.execute(
            "INSERT INTO chunks (chunk_id, body, embedding, cmetadata) VALUES (%s, %s, %s, '{}') "
            "ON CONFLICT (chunk_id) DO UPDATE SET body = EXCLUDED.body, "
            "embedding = EXCLUDED.embedding, cmetadata = EXCLUDED.cmetadata",
            (id, text, vector(self.backend, text)),
        )

    def delete(self, id: str) -> int:
        return self.connection.execute("DELETE FROM chunks WHERE chunk_id = %s", (id,)).rowcount


class Place:
    """The application's table, and what is done to it."""

    def __init__(self, conninfo: str, schema: str) -> None:
        self.conninfo = conninfo
        self.schema = schema
        self.beside = f"{schema}_v3"
        self.harness = Harness(conninfo, schema)

    def run(self, statements: Sequence[str]) -> None:
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def open(self, layout: Layout = LAYOUT, space: EmbeddingSpace = V3) -> PgVectorStore:
        handle: PgVectorStore = self.harness.open("chunks", space=space, layout=layout)
        return handle

    def ready(self, store: PgVectorStore) -> None:
        store.adopt()
        store.add_slot(UNLIKE)
        follow(store)
        store.mark(UNLIKE, SlotState.READY)


def follow(store: PgVectorStore) -> None:
    """Fill what is pending in either slot."""
    for backend in (OLD, NEW):
        rows, _ = store.pending(backend.space, limit=100)
        vectors = backend.embed_documents([row.document.text for row in rows])
        assert store.fill(backend.space, rows, vectors).filled == len(rows)


@pytest.fixture
def place(postgres: str, schema: str) -> Iterator[Place]:
    place = Place(postgres, schema)
    place.harness.execute(TABLE)
    old = Application(postgres, OLD, schema)
    for number, body in enumerate(BODIES):
        old.upsert(str(number), body)
    old.connection.close()
    yield place
    place.run([f'DROP SCHEMA IF EXISTS "{place.beside}" CASCADE'])


@pytest.fixture
def store(place: Place) -> Iterator[PgVectorStore]:
    """The table with a second slot, which can be searched."""
    with place.open() as handle:
        place.ready(handle)
        yield handle


def test_both_models_applications_search_and_write_side_by_side(
    place: Place, store: PgVectorStore
) -> None:
    place.run(store.view(UNLIKE, schema=place.beside))
    place.run(store.view(UNLIKE, schema=place.beside))  # again, once it is there
    old = Application(place.conninfo, OLD, place.schema)
    new = Application(place.conninfo, NEW, place.beside, place.schema)
    with old.connection, new.connection:
        assert new.search("green pears")[0] == old.search("green pears")[0] == "1"
        new.upsert("n", "written by the new one")
        old.upsert("o", "written by the old one")
        new.upsert("0", "blue plums")  # there before
        old.upsert("2", "brown figs")
        assert (new.delete("1"), old.delete("1")) == (1, 0)
        follow(store)
        for application in (old, new):
            assert application.search("written by the new one")[0] == "n"
            assert application.search("written by the old one")[0] == "o"
            assert application.search("blue plums")[0] == "0"
            assert application.search("brown figs")[0] == "2"
    for backend in (OLD, NEW):
        rows, _ = store.filled(backend.space, limit=100)
        assert {row.document.id for row in rows} == {"0", "2", "n", "o"}
        expected = backend.embed_documents([row.document.text for row in rows])
        found = [row.vector for row in rows if row.vector is not None]
        np.testing.assert_allclose(np.stack(found), expected, atol=1e-6)


def test_a_view_has_what_the_application_knows_in_its_order(
    place: Place, store: PgVectorStore
) -> None:
    place.run(store.view(UNLIKE, schema=place.beside))
    new = Application(place.conninfo, NEW, place.beside, place.schema)
    with new.connection as connection:
        columns = connection.execute("SELECT * FROM chunks LIMIT 0").description or []
        known = ["chunk_id", "tenant", "body", "embedding", "cmetadata", "made"]
        assert [column.name for column in columns] == known
        connection.execute(
            "INSERT INTO chunks VALUES ('p', 'a', 'by place', %s)", (vector(NEW, "by place"),)
        )
        assert new.search("by place")[0] == "p"


@pytest.mark.parametrize("rights", [("SELECT",), ("SELECT", "INSERT", "UPDATE", "DELETE")])
def test_a_role_may_do_what_it_may_do_with_the_table(
    place: Place, store: PgVectorStore, role: Role, rights: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidInput, match="may do nothing"):
        store.view(UNLIKE, schema=place.beside, role=role.name)
    role.grant(["USAGE ON SCHEMA {schema}", f"{', '.join(rights)} ON {{schema}}.chunks"])
    place.run(store.view(UNLIKE, schema=place.beside, role=role.name))
    new = Application(role.own_conninfo, NEW, place.beside, place.schema)
    with new.connection:
        assert new.search("red apples")[0] == "0"
        if "INSERT" not in rights:
            with pytest.raises(pg.InsufficientPrivilege):
                new.upsert("n", "new")
            return
        new.upsert("n", "new")
        new.upsert("n", "newer")
        assert new.search("newer")[0] == "n"
        assert new.delete("n") == 1


def test_row_security_holds_for_who_uses_the_view(
    place: Place, store: PgVectorStore, role: Role
) -> None:
    place.harness.execute("ALTER TABLE chunks ENABLE ROW LEVEL SECURITY")
    place.harness.execute("CREATE POLICY own ON chunks USING (chunk_id <> '0')")
    role.grant(["USAGE ON SCHEMA {schema}", "SELECT ON {schema}.chunks"])
    place.run(store.view(UNLIKE, schema=place.beside, role=role.name))
    new = Application(role.own_conninfo, NEW, place.beside, place.schema)
    with new.connection:
        assert sorted(new.search("red apples")) == ["1", "2"]


def test_rows_of_collections_without_the_slot_are_not_shown(place: Place) -> None:
    place.harness.execute("UPDATE chunks SET tenant = 'b' WHERE chunk_id = '2'")
    mine = Layout(
        id="chunk_id", text="body", slot="embedding", metadata="cmetadata",
        scope=field("tenant") == "a",
    )  # fmt: skip
    with place.open(mine) as store:
        place.ready(store)
        place.run(store.view(UNLIKE, schema=place.beside))
        new = Application(place.conninfo, NEW, place.beside, place.schema)
        with new.connection as connection:
            assert sorted(new.search("red apples")) == ["0", "1"]
            new.upsert("1", "another")
            with pytest.raises(pg.WithCheckOptionViolation):
                connection.execute(
                    "INSERT INTO chunks (chunk_id, tenant, body) VALUES (7, 'b', 'x')"
                )
    assert place.harness.execute("SELECT count(*) FROM chunks") == [(3,)]


def test_an_index_that_the_application_has_is_made_for_it_where_ours_is_in_half_precision(
    place: Place,
) -> None:
    wide = EmbeddingSpace(model="wide", dimensions=1024)
    place.harness.execute("CREATE INDEX ON chunks USING hnsw (embedding vector_ip_ops)")
    with place.open() as store:
        store.adopt()
        store.add_slot(wide)
        store.mark(wide, SlotState.READY)
        statements = store.view(wide, schema=place.beside)
        place.run(statements)
    assert "vector_ip_ops" in statements[-1]
    plan = """
        SET enable_seqscan = off; SET enable_sort = off; EXPLAIN SELECT chunk_id FROM {view}.chunks
        ORDER BY embedding <#> array_fill(0.1, ARRAY[1024])::vector LIMIT 3
    """
    with psycopg.connect(place.conninfo) as connection:
        *settings, query = (
            SQL(plan).format(view=Identifier(place.beside)).as_string(None).split(";")
        )
        for setting in settings:
            connection.execute(setting.encode())
        shown = "\n".join(line for (line,) in connection.execute(query.encode()))
    assert "__plain" in shown


def test_a_view_that_cannot_serve_is_refused(place: Place, store: PgVectorStore) -> None:
    assert isinstance(store, ExposesSlots)
    unfit: Any = 3
    for refused in (
        {"space": V3},
        {"schema": place.schema},
        {"schema": 'a"\x00b'},
        {"schema": unfit},
        {"role": "nobody at all"},
        {"role": ""},
    ):
        with pytest.raises(InvalidInput):
            store.view(**{"space": UNLIKE, "schema": place.beside, **refused})
    with pytest.raises(SpaceMismatch):
        store.view(EmbeddingSpace(model="absent", dimensions=64), schema=place.beside)
    store.mark(UNLIKE, SlotState.FILLING)
    with pytest.raises(SlotNotReady):
        store.view(UNLIKE, schema=place.beside)


async def test_an_async_store_tells_the_same(place: Place, store: PgVectorStore) -> None:
    async with AsyncPgVectorStore(
        place.conninfo, collection="chunks", space=V3, layout=LAYOUT,
        schema=place.schema, registry=place.harness.registry,
    ) as handle:  # fmt: skip
        assert isinstance(handle, AsyncExposesSlots)
        told = await handle.view(UNLIKE, schema=place.beside)
    assert told == store.view(UNLIKE, schema=place.beside)
