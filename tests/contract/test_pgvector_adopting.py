"""What adopt() refuses: rows of another space, vectors that are none of it, tables of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from samespace import Document, EmbeddingSpace, Layout, PgVectorStore, field
from samespace.errors import InvalidInput, PartialWrite, SpaceMismatch, SpaceUnknown, StoreRejected
from samespace.filters import Filter
from samespace.stores.pgvector.table import can_share_rows, scope_key

ONE = EmbeddingSpace(model="one", dimensions=4)
OTHER = EmbeddingSpace(model="other", dimensions=4)
UUID = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
EAST, NORTH = np.eye(4, dtype=np.float32)[:2]
COLUMNS = {
    "number": "bigint",
    "name": "character varying(20)",
    "collection_id": "uuid",
    "live": "boolean",
    "price": "numeric(8,2)",
}
TABLE = """
CREATE TABLE {schema}.shared (id text PRIMARY KEY, document text, cmetadata jsonb, embedding vector,
  number bigint DEFAULT 1, name varchar(20) DEFAULT 'a', live boolean DEFAULT true,
  collection_id uuid DEFAULT 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', price numeric(8,2) DEFAULT 1);
INSERT INTO {schema}.shared VALUES ('first', 'a text', '{{}}', '[1,0,0,0]')
"""


class Database:
    """A table that somebody made, and handles on it."""

    def __init__(self, conninfo: str, schema: str) -> None:
        self.conninfo = conninfo
        self.schema = schema

    def run(self, script: str) -> list[tuple[Any, ...]]:
        """What a stranger gets; ``{schema}`` and ``{registry}`` are names."""
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            names = {
                "schema": Identifier(self.schema),
                "registry": Identifier(f"{self.schema}_registry"),
            }
            cursor = connection.execute(SQL(script).format(**names))
            return cursor.fetchall() if cursor.description else []

    def open(
        self,
        space: EmbeddingSpace,
        layout: Layout | None = None,
        *,
        collection: str = "shared",
        registry: str | None = None,
    ) -> PgVectorStore:
        return PgVectorStore(
            self.conninfo,
            collection=collection,
            space=space,
            layout=layout,
            schema=self.schema,
            registry=registry or f"{self.schema}_registry",
        )


@pytest.fixture
def database(postgres: str, schema: str) -> Database:
    made = Database(postgres, schema)
    made.run(TABLE)
    return made


def layout(scope: Filter | None = None, **changes: Any) -> Layout:
    places: dict[str, Any] = {
        "id": "id",
        "text": "document",
        "slot": "embedding",
        "metadata": "cmetadata",
    }
    return Layout(scope=scope, **{**places, **changes})


number, name, live, price = field("number"), field("name"), field("live"), field("price")
OVERLAPPING: dict[str, tuple[Layout, Layout]] = {
    "a number and its text": (layout(number == 1), layout(number == "1")),
    "a text and its number": (layout(name == "1"), layout(name == 1)),
    "a uuid in another case": (
        Layout.langchain_pgvector(collection_id=UUID),
        Layout.langchain_pgvector(collection_id=UUID.upper()),
    ),
    "a bool and its text": (layout(live == True), layout(live == "t")),  # noqa: E712
    "the same values in another order": (
        layout(name.in_(["a", "b"])),
        layout(name.in_(["b", "a"])),
    ),
    "some of the values": (layout(name.in_(["a", "b"])), layout(name.in_(["b", "c"]))),
    "a part, then the whole table": (layout(name == "a"), layout()),
    "the whole table, then a part": (layout(), layout(name == "a")),
    "other columns": (layout(name == "a"), layout(number == 1)),
    "one column more": (layout(name == "a"), layout((name == "a") & (number == 1))),
    "a type that spells one value in many ways": (layout(price == 1), layout(price == "1.00")),
}


@pytest.mark.parametrize("case", OVERLAPPING)
def test_rows_of_one_space_are_not_adopted_as_another(database: Database, case: str) -> None:
    mine, theirs = OVERLAPPING[case]
    with database.open(ONE, mine) as store:
        store.adopt()
    with database.open(OTHER, theirs) as store:
        for work in (store.adopt, store.count, lambda: store.search_vector(EAST, space=OTHER)):
            with pytest.raises(SpaceMismatch, match=r"model +one +other") as caught:
                work()
            assert (caught.value.stored, caught.value.offered) == (ONE, OTHER)
    with database.open(ONE, theirs) as store:
        if scope_key(mine, COLUMNS) != scope_key(theirs, COLUMNS):
            with pytest.raises(InvalidInput, match="recorded already"):
                store.adopt()
            return
        store.adopt()
        store.upsert_vectors([Document("second", "text")], [NORTH], space=ONE)


def test_rows_apart_may_be_of_two_spaces(database: Database) -> None:
    for space, value in ((ONE, "a"), (OTHER, "b")):
        with database.open(space, layout((name == value) & (number == 1))) as store:
            store.adopt()
            store.upsert_vectors([Document(value, "text")], [EAST], space=space)
    assert database.run(
        "SELECT id, name FROM {schema}.shared WHERE id IN ('a', 'b') ORDER BY 1"
    ) == [
        ("a", "a"),
        ("b", "b"),
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (number == 1, number == "1"),
        (name == 1, name == "1"),
        (live == True, live == "T"),  # noqa: E712
        (field("collection_id") == UUID, field("collection_id") == UUID.upper()),
        (name.in_(["b", "a", "b"]), name.in_(["a", "b"])),
        ((name == "a") & (number == 1), (number == 1) & (name == "a")),
    ],
)
def test_one_scope_has_one_key(one: Filter, other: Filter) -> None:
    assert scope_key(layout(one), COLUMNS) == scope_key(layout(other), COLUMNS)


def test_keys_of_values_in_their_own_types_are_those_of_old_records() -> None:
    assert scope_key(layout(number == 1), COLUMNS) == '{"number":[1]}'
    assert scope_key(layout(name == "a"), COLUMNS) == '{"name":["a"]}'
    assert scope_key(layout(live == True), COLUMNS) == '{"live":[true]}'  # noqa: E712
    assert scope_key(layout(field("collection_id") == UUID), COLUMNS) == (
        f'{{"collection_id":["{UUID}"]}}'
    )
    assert scope_key(layout(), COLUMNS) == scope_key(None, COLUMNS) == ""


@pytest.mark.parametrize("value", ["many", "9" * 30, "9" * 9999, 1.5])
def test_a_value_that_the_column_cannot_have_is_a_key_as_it_is(value: object) -> None:
    assert scope_key(layout(number == value), COLUMNS) == scope_key(layout(number == value), {})


def test_scopes_share_no_rows_only_where_a_column_says_so() -> None:
    def share(one: Filter | None, other: Filter | None) -> bool:
        mine, theirs = (scope_key(layout(scope), COLUMNS) for scope in (one, other))
        shared = can_share_rows(mine, theirs, COLUMNS)
        assert can_share_rows(theirs, mine, COLUMNS) == shared
        return shared

    assert not share(number == 1, number == 2)
    assert not share(number.in_([1, 2]) & (name == "a"), (name == "b") & number.in_([1, 2]))
    assert share(number.in_([1, 2]), number.in_([2, 3]))
    assert share(price == 1, price == 2)
    assert share(number == 1, None)


# Vectors


LONG = [("long", "[100,100,0,0]"), ("short", "[0.9,0.1,0,0]")]


def put(database: Database, *rows: tuple[str, str | None]) -> None:
    """Rows of number 2 with these ids and vectors."""
    with psycopg.connect(database.conninfo) as connection:
        connection.cursor().executemany(
            SQL(
                "INSERT INTO {}.shared (id, document, cmetadata, embedding, number) "
                "VALUES (%s, 'text', '{{}}', %s, 2)"
            ).format(Identifier(database.schema)),
            rows,
        )


@pytest.mark.parametrize(("id", "vector"), LONG)
def test_a_vector_off_unit_norm_is_none_of_a_normalized_space(
    database: Database, id: str, vector: str
) -> None:
    put(database, (id, vector))
    with database.open(ONE, layout()) as store:
        with pytest.raises(
            InvalidInput, match=rf"'{id}'.*norm (141\.421|0\.90\d*),.*normalized=False"
        ):
            store.adopt()
        assert database.run("SELECT to_regnamespace('{registry}')") == [(None,)]
    with database.open(ONE, layout(number == 1)) as store:
        store.adopt()
    free = EmbeddingSpace(model="one", dimensions=4, normalized=False)
    with database.open(free, layout(number == 2)) as store:
        store.adopt()


def test_a_vector_of_another_size_is_named(database: Database) -> None:
    put(database, ("small", "[1,0,0]"), ("none", None))
    with (
        database.open(ONE, layout()) as store,
        pytest.raises(InvalidInput, match=r"has 4 dim.*1 row of 3 dimensions \('small'\)"),
    ):
        store.adopt()


@pytest.mark.parametrize("opclass", ["vector_l2_ops", "vector_ip_ops"])
def test_an_index_of_another_metric_ranks_nothing_before_norms_are_known(
    database: Database, opclass: str
) -> None:
    put(database, *LONG)
    database.run("ALTER TABLE {schema}.shared ALTER embedding TYPE vector(4)")
    database.run(f"CREATE INDEX ON {{schema}}.shared USING hnsw (embedding {opclass})")
    diagonal = (EAST + NORTH) / np.float32(np.sqrt(2))
    with database.open(ONE, layout()) as store:
        hits = store.search_vector(diagonal, space=ONE)
        assert [hit.document.id for hit in hits] == ["long", "short", "first"]
        assert not store.info().index_built
    database.run("DELETE FROM {schema}.shared WHERE number = 2")
    with database.open(ONE, layout()) as store:
        store.adopt()
        assert store.info().index_built


# Tables of ours


@pytest.fixture
def ours(postgres: str, schema: str) -> Database:
    """A table of ours, which holds one row."""
    made = Database(postgres, schema)
    with made.open(ONE, collection="ours") as store:
        store.upsert_vectors(
            [Document("first", "a text", {"k": 1}, embed_text="another")], [EAST], space=ONE
        )
    return made


def claim(scope: Filter | None = None, slot: str = ONE.id) -> Layout:
    return Layout(id="id", text="text", slot=slot, metadata="metadata", scope=scope)


Claim = Callable[[Database], PgVectorStore]
CLAIMS: dict[str, Claim] = {
    "of a part": lambda of: of.open(
        OTHER, claim(field("embed_text") == "another"), collection="ours"
    ),
    "in another registry": lambda of: of.open(
        OTHER, claim(), collection="ours", registry=f"{of.schema}_elsewhere"
    ),
}


@pytest.mark.parametrize("case", CLAIMS)
def test_a_column_of_ours_is_claimed_by_its_own_space_alone(ours: Database, case: str) -> None:
    with CLAIMS[case](ours) as store:
        for work in (store.adopt, lambda: store.search_vector(EAST, space=OTHER)):
            with pytest.raises(InvalidInput, match=f"{ONE.id}.*{OTHER.id}"):
                work()


LOST = {
    "lost": "DELETE FROM {registry}.collections",
    "unreadable": "UPDATE {registry}.collections SET record = '[]'",
}


@pytest.mark.parametrize("fate", LOST)
def test_a_table_of_ours_that_has_no_record_gets_one_again(ours: Database, fate: str) -> None:
    ours.run(LOST[fate])
    with (
        ours.open(OTHER, claim(), collection="ours") as store,
        pytest.raises(InvalidInput, match=ONE.id),
    ):
        store.adopt()
    with ours.open(ONE, claim(), collection="ours") as store:
        store.adopt()
    with ours.open(ONE, collection="ours") as store:
        assert store.get(["first"])[0].embed_text == "another"
        store.upsert_vectors([Document("second", "a text")], [NORTH], space=ONE)
        assert store.info().layout is None
        store.drop()


def test_a_record_that_cannot_be_read_is_replaced_as_its_refusal_says(database: Database) -> None:
    with database.open(ONE, layout()) as store:
        store.adopt()
    database.run("UPDATE {registry}.collections SET record = '{{}}'")
    with database.open(ONE, layout()) as store:
        with pytest.raises(SpaceUnknown, match=r"layout= and space= and call adopt\(\)"):
            store.count()
        store.adopt()
        assert store.count() == 1


def test_a_newer_record_is_left_alone(database: Database) -> None:
    with database.open(ONE, layout()) as store:
        store.adopt()
    database.run("UPDATE {registry}.collections SET record = record || '{{\"format\": 2}}'")
    with (
        database.open(ONE, layout()) as store,
        pytest.raises(SpaceUnknown, match="upgrade samespace"),
    ):
        store.adopt()
    assert database.run("SELECT record->>'format' FROM {registry}.collections") == [("2",)]


# Texts from elsewhere


def test_texts_may_come_from_a_generator(database: Database) -> None:
    with database.open(ONE, layout(text=lambda ids: (f"text of {id}" for id in ids))) as store:
        assert store.get(["first"]) == [Document("first", "text of first")]


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "returned None; return a list"),
        ("texts", "returned 'texts'; return a list"),
        ([], "returned 0 texts for 1 ids"),
        ([None], "returned None for id 'first'; return a string"),
    ],
)
def test_what_is_no_list_of_texts_is_refused(database: Database, returned: Any, said: str) -> None:
    with (
        database.open(ONE, layout(text=lambda _: returned)) as store,
        pytest.raises(InvalidInput, match=said),
    ):
        store.get(["first"])


# What a table lacks


def test_a_table_may_have_no_metadata(database: Database) -> None:
    with database.open(ONE, layout(metadata=())) as store:
        store.adopt()
        store.upsert_vectors([Document("second", "text")], [NORTH], space=ONE)
        assert [document.metadata for document in store.scan()] == [{}, {}]
        assert store.search_vector(NORTH, space=ONE)[0].document == Document("second", "text")
        assert store.count(field("k") == 1) == store.count(field("k").exists()) == 0
        assert store.values("k") == []
        assert store.update_metadata({"second": {}}) == 0
        with pytest.raises(InvalidInput, match="'k' has no column in this layout; known: none"):
            store.update_metadata({"second": {"k": 1}})
        with pytest.raises(PartialWrite, match="'k' has no column"):
            store.upsert_vectors([Document("third", "text", {"k": 1})], [NORTH], space=ONE)
        assert store.info().layout == layout(metadata=())


# What the server lacks


def test_an_extension_outside_the_search_path_is_found(database: Database) -> None:
    path = f"-c search_path={database.schema}"
    hidden = Database(make_conninfo(database.conninfo, options=path), database.schema)
    for work in (PgVectorStore.adopt, PgVectorStore.count):
        with (
            hidden.open(ONE, layout()) as store,
            pytest.raises(
                StoreRejected, match=r"vector is in schema \w+, .*SET search_path = public"
            ),
        ):
            work(store)
    seen = Database(make_conninfo(database.conninfo, options=f"{path},public"), database.schema)
    with seen.open(ONE, layout()) as store:
        store.adopt()
