"""Tables that somebody else made: read as they are, left as they are, and written once adopted."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Composable, Composed, Identifier
from psycopg.types.json import Json

from samespace import Document, EmbeddingSpace, Layout, PgVectorStore, everything, field
from samespace.errors import DocumentExists, InvalidInput, PartialWrite, SpaceUnknown, StoreRejected
from samespace.filters import Field, Filter
from samespace.protocols import Matrix, Vector
from samespace.stores.pgvector import sql
from samespace.stores.pgvector.table import Name, Text, raw
from samespace.testing.backends import UNLIKE, V3, TaskBackend

BACKEND = TaskBackend(V3, seed=1)
NEW = TaskBackend(UNLIKE, seed=2)
ROWS = 60
WORDS = ("amber", "brook", "cedar", "delta", "ember", "fjord", "glade", "heath", "inlet", "jetty")
PGVECTORSTORE = """
CREATE TABLE {schema}."passages"("langchain_id" UUID PRIMARY KEY, "content" TEXT NOT NULL,
  "embedding" vector(64) NOT NULL, "langchain_metadata" JSON)
"""
"""What ``langchain_postgres`` 0.0.19 sends for ``PGEngine.init_vectorstore_table``."""
PGVECTOR = """
CREATE TABLE {schema}.langchain_pg_collection (uuid UUID NOT NULL, name VARCHAR NOT NULL,
  cmetadata JSON, PRIMARY KEY (uuid), UNIQUE (name));
CREATE TABLE {schema}.langchain_pg_embedding (id VARCHAR NOT NULL, collection_id UUID,
  embedding VECTOR, document VARCHAR, cmetadata JSONB, PRIMARY KEY (id),
  FOREIGN KEY(collection_id) REFERENCES {schema}.langchain_pg_collection (uuid) ON DELETE CASCADE);
CREATE INDEX ix_cmetadata_gin ON {schema}.langchain_pg_embedding
  USING gin (cmetadata jsonb_path_ops)
"""
"""What its older ``PGVector`` sends."""
APPLICATION = """
CREATE SCHEMA {schema};
CREATE TABLE {schema}."Chunks 100%" ("Chunk No" bigint PRIMARY KEY, "Body" text NOT NULL,
  "Lang %" text, "year" integer, "The ""net"" price" numeric(8, 2), "Seen At" timestamptz,
  "The Vector" vector(64));
CREATE INDEX ON {schema}."Chunks 100%" USING hnsw ("The Vector" vector_cosine_ops);
CREATE INDEX ON {schema}."Chunks 100%" ("Lang %")
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A table that was there, what is in it, and how its maker would ask for it.

    ``keys`` are the metadata keys of lang, year, price and seen, ``values`` the same in SQL.
    """

    conninfo: str
    schema: str
    registry: str
    table: str
    layout: Layout
    documents: Sequence[Document]
    vectors: Matrix
    keys: dict[str, str]
    values: dict[str, str]
    mine: str = "TRUE"
    new_id: str

    def open(self, conninfo: str | None = None, space: EmbeddingSpace | None = None) -> Any:
        """A handle through the layout."""
        return PgVectorStore(
            conninfo or self.conninfo,
            collection=self.table,
            backend=BACKEND if space is None else None,
            space=space,
            layout=self.layout,
            schema=self.schema,
            registry=self.registry,
        )

    def field(self, name: str) -> Field:
        """A field by the name that it has in every one of these tables."""
        return field(self.keys[name])

    def sql(self, statement: str, **more: str) -> Composed:
        """A statement in which names in braces stand for parts of this table, or for ``more``."""
        ids = [Text(document.id) for document in self.documents[:3]]
        parts: dict[str, Composable] = {
            "table": Name(self.schema, self.table),
            "id": Name(self.layout.id),
            "text": Name(str(self.layout.text)),
            "vector": Name(self.layout.slot),
            "oid": SQL("{}::regclass").format(Text(self.regclass)),
            "ids": SQL(", ").join(ids),
            "first": ids[0],
            "metadata": SQL("{}::jsonb").format(Name(str(self.layout.metadata))),
            **{name: raw(value) for name, value in self.values.items()},
        }
        parts |= {name: SQL(value).format(**parts) for name, value in more.items()}
        return SQL(statement).format(mine=raw(self.mine), **parts)

    @property
    def regclass(self) -> str:
        """The table's quoted name."""
        return Identifier(self.schema, self.table).as_string(None)

    def ask(
        self, statement: str, values: Sequence[object] = (), **more: str
    ) -> list[tuple[Any, ...]]:
        """The rows that a stranger with the bare driver gets."""
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            return connection.execute(self.sql(statement, **more), values).fetchall()


def metadata_of(number: int) -> dict[str, Any]:
    """Of every field some rows have nothing."""
    seen = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=number)
    values = {
        "lang": ("de", "en", "fr")[number % 3],
        "year": 2000 + number % 17,
        "price": number / 4,
        "seen": seen.isoformat(),
        "tags": ["red", "green", "blue"][: number % 4],
        "place": {"city": ("Ulm", "Bonn")[number % 2]},
    }
    return {key: value for place, (key, value) in enumerate(values.items()) if number % 7 != place}


def texts() -> list[str]:
    random = np.random.default_rng(5)
    return [" ".join(random.choice(WORDS, 6)) + f" {number}" for number in range(ROWS)]


def documents(ids: Sequence[str]) -> list[Document]:
    return [
        Document(id, text, metadata_of(number))
        for number, (id, text) in enumerate(zip(ids, texts(), strict=True))
    ]


def of_json(column: str) -> dict[str, str]:
    """The four fields in SQL where metadata is JSON."""
    return {
        "lang": f"({column}->>'lang')",
        "year": f"({column}->>'year')::numeric",
        "price": f"({column}->>'price')::numeric",
        "seen": f"({column}->>'seen')::timestamptz",
    }


SAME_KEYS = {name: name for name in ("lang", "year", "price", "seen")}


def run(conninfo: str, schema: str, script: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(SQL(script).format(schema=Identifier(schema)))


def insert(made: Made, columns: str, rows: Sequence[Sequence[object]]) -> None:
    marks = SQL(", ").join([SQL("%s")] * len(rows[0]))
    statement = SQL("INSERT INTO {} ({}) VALUES ({})").format(
        Name(made.schema, made.table), raw(columns), marks
    )
    with psycopg.connect(made.conninfo) as connection:
        connection.cursor().executemany(statement, rows)


def literals(vectors: Matrix) -> list[str]:
    return [str(vector.tolist()) for vector in vectors]


def pgvectorstore(conninfo: str, schema: str) -> Made:
    """A table of LangChain's ``PGVectorStore``."""
    ids = [str(uuid.UUID(int=number + 1)) for number in range(ROWS)]
    made = Made(
        conninfo=conninfo,
        schema=schema,
        registry=f"{schema}_registry",
        table="passages",
        layout=Layout.langchain_pgvectorstore(),
        documents=documents(ids),
        vectors=BACKEND.embed_documents(texts()),
        keys=SAME_KEYS,
        values=of_json("langchain_metadata"),
        new_id=str(uuid.UUID(int=99)),
    )
    run(conninfo, schema, PGVECTORSTORE)
    columns = "langchain_id, content, embedding, langchain_metadata"
    insert(made, columns, [
        (document.id, document.text, vector, Json(document.metadata))
        for document, vector in zip(made.documents, literals(made.vectors), strict=True)
    ])  # fmt: skip
    return made


def pgvector(conninfo: str, schema: str) -> Made:
    """One collection of LangChain's ``PGVector``; the table has another, of three dimensions."""
    mine, other = uuid.UUID(int=1), uuid.UUID(int=2)
    made = Made(
        conninfo=conninfo,
        schema=schema,
        registry=f"{schema}_registry",
        table="langchain_pg_embedding",
        layout=Layout.langchain_pgvector(collection_id=str(mine)),
        documents=documents([f"Passage № {number:02} 'a%s'" for number in range(ROWS)]),
        vectors=BACKEND.embed_documents(texts()),
        keys=SAME_KEYS,
        values=of_json("cmetadata"),
        mine=f"collection_id = '{mine}'",
        new_id="a new one",
    )
    run(conninfo, schema, PGVECTOR)
    with psycopg.connect(conninfo) as connection:
        statement = "INSERT INTO {}.langchain_pg_collection VALUES (%s, %s, 'null')"
        collections = [(mine, "mine"), (other, "other")]
        connection.cursor().executemany(SQL(statement).format(Identifier(schema)), collections)
    columns = "id, collection_id, embedding, document, cmetadata"
    insert(made, columns, [
        (document.id, mine, vector, document.text, Json(document.metadata))
        for document, vector in zip(made.documents, literals(made.vectors), strict=True)
    ])  # fmt: skip
    insert(made, columns, [
        (f"theirs {number}", other, "[1,2,3]", texts()[number], Json(metadata_of(number)))
        for number in range(5)
    ])  # fmt: skip
    return made


def application(conninfo: str, schema: str) -> Made:
    """A table that an application made, its metadata in four columns of four types."""
    columns = {
        "lang": "Lang %",
        "year": "year",
        "price": 'The "net" price',
        "seen": "Seen At",
    }
    made = Made(
        conninfo=conninfo,
        schema=f'{schema} "The" 5% App',
        registry=f"{schema}_registry",
        table="Chunks 100%",
        layout=Layout(
            id="Chunk No", text="Body", slot="The Vector", metadata=tuple(columns.values())
        ),
        documents=documents([str(number - 3) for number in range(ROWS)]),
        vectors=BACKEND.embed_documents(texts()),
        keys=columns,
        values={name: Identifier(column).as_string(None) for name, column in columns.items()},
        new_id="1234567890123",
    )
    run(conninfo, made.schema, APPLICATION)
    names = '"Chunk No", "Body", "The Vector", ' + ", ".join(made.values.values())
    insert(made, names, [
        (int(document.id), document.text, vector, *map(document.metadata.get, columns))
        for document, vector in zip(made.documents, literals(made.vectors), strict=True)
    ])  # fmt: skip
    stored = [
        replace(document, metadata=as_columns(document.metadata, columns))
        for document in made.documents
    ]
    return replace(made, documents=stored)


def as_columns(metadata: dict[str, Any], columns: dict[str, str]) -> dict[str, Any]:
    """What rows of columns read as: nothing is NULL."""
    return {column: metadata.get(name) for name, column in columns.items()}


MAKERS = {"PGVectorStore": pgvectorstore, "PGVector": pgvector, "application": application}


@pytest.fixture(params=MAKERS)
def made(request: pytest.FixtureRequest, postgres: str, schema: str) -> Iterator[Made]:
    made = MAKERS[request.param](postgres, schema)
    yield made
    if made.schema != schema:
        run(postgres, made.schema, "DROP SCHEMA {schema} CASCADE")


def with_instant(made: Made, document: Document) -> Document:
    """A document with its instant in one spelling, which depends on the session elsewhere."""
    key = made.keys["seen"]
    metadata = dict(document.metadata)
    if metadata.get(key):
        metadata[key] = datetime.fromisoformat(metadata[key]).timestamp()
    return replace(document, metadata=metadata)


def by_key(made: Made) -> list[Document]:
    """The documents in the order of their native keys."""
    order = [
        row[0]
        for row in made.ask("SELECT {id}::text FROM {table} AS t WHERE {mine} ORDER BY t.{id}")
    ]
    found = {document.id: with_instant(made, document) for document in made.documents}
    return [found[id] for id in order]


FILTERS: dict[str, tuple[Callable[[Made], Filter], str]] = {
    "equals a string": (lambda of: of.field("lang") == "de", "{lang} = 'de'"),
    "equals an integer": (lambda of: of.field("year") == 2004, "{year} = 2004"),
    "equals a float": (lambda of: of.field("price") == 2.25, "{price} = 2.25"),
    "a string where numbers are": (lambda of: of.field("year") == "2004", "FALSE"),
    "differs": (lambda of: of.field("lang") != "de", "{lang} <> 'de'"),
    "differs from a number": (lambda of: of.field("year") != 2004, "{year} <> 2004"),
    "does not equal": (lambda of: ~(of.field("lang") == "de"), "{lang} IS DISTINCT FROM 'de'"),
    "less": (lambda of: of.field("year") < 2005, "{year} < 2005"),
    "at most": (lambda of: of.field("price") <= 2.25, "{price} <= 2.25"),
    "greater": (lambda of: of.field("price") > 9, "{price} > 9"),
    "at least": (lambda of: of.field("year") >= 2010.5, "{year} >= 2010.5"),
    "since": (
        lambda of: of.field("seen") >= datetime(2024, 2, 1, tzinfo=UTC),
        "{seen} >= '2024-02-01T00:00:00Z'",
    ),
    "before": (lambda of: of.field("seen") < "2024-01-20", "{seen} < '2024-01-20T00:00:00Z'"),
    "one of": (lambda of: of.field("lang").in_(["de", "fr"]), "{lang} IN ('de', 'fr')"),
    "one of, or missing": (
        lambda of: of.field("lang").in_(["de", None]),
        "{lang} = 'de' OR {lang} IS NULL",
    ),
    "one of none": (lambda of: of.field("lang").in_([]), "FALSE"),
    "contains": (lambda of: of.field("lang").contains("en"), "{lang} = 'en'"),
    "exists": (lambda of: of.field("price").exists(), "{price} IS NOT NULL"),
    "is missing": (lambda of: of.field("seen") == None, "{seen} IS NULL"),  # noqa: E711
    "both": (
        lambda of: (of.field("lang") == "en") & (of.field("year") < 2008),
        "{lang} = 'en' AND {year} < 2008",
    ),
    "either": (
        lambda of: (of.field("lang") == "en") | (of.field("year") == 2001),
        "{lang} = 'en' OR {year} = 2001",
    ),
    "neither": (
        lambda of: ~((of.field("lang") == "en") | (of.field("year") == 2001)),
        "{lang} IS DISTINCT FROM 'en' AND {year} IS DISTINCT FROM 2001",
    ),
    "by id": (lambda of: field.id.in_([d.id for d in of.documents[:3]]), "{id}::text IN ({ids})"),
    "any other id": (lambda of: field.id != of.documents[0].id, "{id}::text <> {first}"),
    "an unknown field": (lambda of: field("nowhere") == 1, "FALSE"),
}
JSON_FILTERS: dict[str, tuple[Callable[[Made], Filter], str]] = {
    "an element": (
        lambda of: field("tags").contains("green"),
        """{metadata}->'tags' @> '["green"]'""",
    ),
    "another element": (
        lambda of: field("tags") != "red",
        """{metadata}->'tags' @> ANY(ARRAY['["green"]', '["blue"]']::jsonb[])""",
    ),
    "no elements": (
        lambda of: ~field("tags").exists(),
        "coalesce({metadata}->'tags', '[]') = '[]'",
    ),
    "a nested key": (
        lambda of: field("place", "city") == "Ulm",
        "{metadata}->'place'->>'city' = 'Ulm'",
    ),
    "a nested key of another value": (
        lambda of: field("place", "city").in_(["Bonn", "Mainz"]),
        "{metadata}->'place'->>'city' = 'Bonn'",
    ),
}
"""Where metadata is JSON."""


def nearest(made: Made, query: Vector, condition: str) -> list[tuple[Any, ...]]:
    """Ids and cosines as the table's maker would ask for them."""
    return made.ask(
        "SELECT {id}::text, 1 - ({vector} <=> %s::vector) AS cosine FROM {table} "
        "WHERE ({mine}) AND ({condition}) ORDER BY cosine DESC LIMIT 10",
        [str(query.tolist())],
        condition=condition,
    )


def counted(made: Made, condition: str) -> int:
    rows = made.ask(
        "SELECT count(*) FROM {table} WHERE ({mine}) AND ({condition})", condition=condition
    )
    return int(rows[0][0])


def check_searches(store: Any, made: Made) -> None:
    """Each kind of filter against the same condition in SQL."""
    query = BACKEND.embed_query("amber fjord of the delta")
    is_json = isinstance(made.layout.metadata, str)
    for build, condition in (FILTERS | (JSON_FILTERS if is_json else {})).values():
        wanted = nearest(made, query, condition)
        hits = store.search_vector(query, space=V3, where=build(made))
        assert [hit.document.id for hit in hits] == [id for id, _ in wanted]
        scores = [hit.score for hit in hits]
        assert np.allclose(scores, [cosine for _, cosine in wanted], rtol=0, atol=1e-6)
        assert store.count(build(made)) == counted(made, condition)
    found = store.search("amber fjord of the delta")
    assert [hit.document.id for hit in found] == [id for id, _ in nearest(made, query, "TRUE")]


def check_rows(store: Any, made: Made) -> None:
    """All rows, one by one and in order, and the values of each field."""
    wanted = by_key(made)
    scanned = list(store.scan(batch_size=7, with_vectors=True))
    assert [with_instant(made, document) for document in scanned] == wanted
    vectors = {
        document.id: vector for document, vector in zip(made.documents, made.vectors, strict=True)
    }
    assert all(np.array_equal(document.vector, vectors[document.id]) for document in scanned)
    ids = [document.id for document in wanted]
    asked = [ids[9], "theirs 1", made.new_id, ids[0]]
    assert [document.id for document in store.get(asked)] == [ids[9], ids[0]]
    assert store.count() == ROWS
    for name in ("lang", "year", "price"):
        wanted_values = made.ask(
            "SELECT to_jsonb({value}), count(*) FROM {table} WHERE ({mine}) AND {value} IS NOT NULL "
            "GROUP BY 1 ORDER BY 1",
            value=f"{{{name}}}",
        )
        assert store.values(made.field(name)) == wanted_values
        assert list(paged_values(store, made.field(name))) == wanted_values


def paged_values(store: Any, of: Field) -> Iterator[tuple[Any, int]]:
    """All values, four at a time."""
    after = None
    while page := store.values(of, limit=4, after=after):
        yield from page
        after = page[-1][0]


CATALOG = {
    "columns": """SELECT attnum, attname, format_type(atttypid, atttypmod), attnotnull, attisdropped
        FROM pg_attribute WHERE attrelid = {oid} AND attnum > 0 ORDER BY 1""",
    "indexes": """SELECT pg_get_indexdef(indexrelid), indisvalid FROM pg_index
        WHERE indrelid = {oid} ORDER BY 1""",
    "constraints": """SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE conrelid = {oid} ORDER BY 1""",
    "triggers": """SELECT tgname, pg_get_triggerdef(oid), tgenabled FROM pg_trigger
        WHERE tgrelid = {oid} ORDER BY 1""",
    "table": """SELECT oid, relowner, relacl::text, reloptions, relfilenode FROM pg_class
        WHERE oid = {oid}""",
    "rows": "SELECT xmin::text, ctid::text, t.*::text FROM {table} AS t ORDER BY {id}",
}
AROUND = {
    "schemas": "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' ORDER BY 1",
    "relations": """SELECT relname FROM pg_class WHERE relnamespace =
        (SELECT relnamespace FROM pg_class WHERE oid = {oid}) ORDER BY 1""",
    "functions": "SELECT count(*) FROM pg_proc",
}


def dump(made: Made, what: dict[str, str] = CATALOG) -> dict[str, list[tuple[Any, ...]]]:
    """All that there is of a table: its rows with their versions, and what the catalog says."""
    return {name: made.ask(statement) for name, statement in what.items()}


def test_reading_equals_sql_and_alters_nothing(made: Made) -> None:
    before = dump(made), dump(made, AROUND)
    with made.open() as store:
        check_searches(store, made)
        check_rows(store, made)
        info = store.info()
        assert (info.rows, info.slots[0].pending, info.layout) == (ROWS, 0, made.layout)
    assert (dump(made), dump(made, AROUND)) == before
    assert made.registry not in {name for (name,) in before[1]["schemas"]}


@contextmanager
def reader_of(made: Made) -> Iterator[str]:
    """A connection string of a role that may read the table, and nothing else."""
    role = f"{made.registry}_reader"
    with psycopg.connect(made.conninfo, autocommit=True) as connection:
        connection.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(role)))
        connection.execute(
            SQL("GRANT USAGE ON SCHEMA {} TO {}").format(Identifier(made.schema), Identifier(role))
        )
        connection.execute(
            SQL("GRANT SELECT ON {} TO {}").format(
                Identifier(made.schema, made.table), Identifier(role)
            )
        )
        try:
            yield make_conninfo(made.conninfo, user=role)
        finally:
            connection.execute(SQL("DROP OWNED BY {}").format(Identifier(role)))
            connection.execute(SQL("DROP ROLE {}").format(Identifier(role)))


def test_reading_needs_no_right_but_select(made: Made) -> None:
    with reader_of(made) as conninfo, made.open(conninfo) as store:
        check_searches(store, made)
        check_rows(store, made)
        with pytest.raises(SpaceUnknown, match="adopt"):
            store.delete(ids=[made.documents[0].id])
        with pytest.raises(StoreRejected, match="right"):
            store.adopt()


def test_adopting_leaves_the_table_as_it_is(made: Made) -> None:
    before = dump(made)
    with made.open() as store:
        with pytest.raises(SpaceUnknown, match="adopt"):
            store.upsert(made.documents[:1])
        store.adopt()
        check_searches(store, made)
    assert dump(made) == before


def test_an_adopted_table_is_written_in_its_own_types(made: Made) -> None:
    old, new = made.documents[5], Document(made.new_id, "a new text", {made.keys["year"]: 1999})
    changed = replace(old, text="a changed text", metadata={made.keys["price"]: 12.5})
    types = dump(made)["columns"]
    with made.open() as store:
        store.adopt()
        assert store.upsert([new, changed]).written == 2
        stored = {document.id: document for document in store.get([new.id, changed.id])}
        for document in (new, changed):
            kept = {k: v for k, v in stored[document.id].metadata.items() if v is not None}
            assert (stored[document.id].text, kept) == (document.text, document.metadata)
        hit = store.search_vector(BACKEND.embed_documents(["a new text"])[0], space=V3, limit=1)[0]
        assert (hit.document.id, round(hit.score, 6)) == (new.id, 1.0)
        assert store.update_metadata({new.id: {made.keys["lang"]: "it"}}, merge=True) == 1
        assert store.count((made.field("lang") == "it") & (made.field("year") == 1999)) == 1
        assert store.update_metadata({new.id: {made.keys["lang"]: "pt"}}) == 1
        assert store.count(made.field("year") == 1999) == 0
        assert store.delete(ids=[new.id], where=made.field("lang") == "pt") == 1
        assert store.delete(where=made.field("lang") == "de") == counted_of(made, "de")
        assert store.count(made.field("lang") == "de") == 0
    assert dump(made)["columns"] == types


def counted_of(made: Made, lang: str) -> int:
    """How many of the documents as they were made are in a language, the changed one aside."""
    key = made.keys["lang"]
    others = [document for place, document in enumerate(made.documents) if place != 5]
    return sum(document.metadata.get(key) == lang for document in others)


def theirs(made: Made) -> list[tuple[Any, ...]]:
    """The rows of the table's other collection, with their versions."""
    return made.ask("SELECT xmin::text, t.*::text FROM {table} AS t WHERE NOT ({mine}) ORDER BY id")


def test_rows_of_another_collection_are_neither_seen_nor_touched(
    postgres: str, schema: str
) -> None:
    made = pgvector(postgres, schema)
    before = theirs(made)
    assert len(before) == 5
    with made.open() as store:
        store.adopt()
        with pytest.raises(PartialWrite) as caught:
            store.upsert([Document("theirs 1", "mine now"), Document("b", "text")])
        (refused,) = caught.value.report.rejected
        assert (refused.id, caught.value.report.written) == ("theirs 1", 1)
        assert isinstance(refused.error, DocumentExists)
        assert "'theirs 1'" in str(refused.error)
        for on_conflict in ("skip", "fail"):
            report = store.upsert(
                [Document("theirs 2", "mine now")], on_conflict=on_conflict, on_error="report"
            )
            assert report.written == 0
        assert store.get(["theirs 1"]) == []
        assert store.delete(ids=["theirs 1"]) == 0
        assert store.update_metadata({"theirs 1": {"lang": "it"}}) == 0
        assert store.update_metadata({"lang": "it"}, where=everything) == ROWS + 1
        assert store.delete(where=everything) == ROWS + 1
        assert store.count() == 0
    assert theirs(made) == before


def test_collections_of_one_table_have_slots_of_their_own(postgres: str, schema: str) -> None:
    made = pgvector(postgres, schema)
    other = replace(made, layout=Layout.langchain_pgvector(collection_id=str(uuid.UUID(int=2))))
    tiny = EmbeddingSpace(model="tiny", dimensions=3, normalized=False)
    with made.open() as mine, other.open(space=tiny) as theirs:
        for store in (mine, theirs):
            store.adopt()
            store.add_slot(UNLIKE)
            rows, _ = store.pending(UNLIKE, limit=100)
            vectors = NEW.embed_documents([row.document.text for row in rows])
            assert store.fill(UNLIKE, rows, vectors).filled == store.count() == len(rows)
        change_text(made, made.documents[0].id)
        change_text(made, "theirs 1")
        for store, id in ((mine, made.documents[0].id), (theirs, "theirs 1")):
            rows, _ = store.pending(UNLIKE, limit=100)
            assert [row.document.id for row in rows] == [id]
        mine.drop_slot(UNLIKE)
        assert pending_in(theirs, UNLIKE) == 1
        theirs.drop_slot(UNLIKE)
        assert UNLIKE.id not in {name for _, name, *_ in dump(made)["columns"]}


def test_a_slot_that_is_dropped_leaves_the_table_as_it_was(made: Made) -> None:
    with made.open() as store:
        store.adopt()
        before = shape_of(made)
        for _ in range(2):
            store.add_slot(UNLIKE)
            assert shape_of(made) != before
            store.drop_slot(UNLIKE)
            assert shape_of(made) == before


def shape_of(made: Made) -> tuple[Any, ...]:
    """The columns that are there, constraints, triggers and indexes."""
    found = dump(made)
    columns = [row[1:] for row in found["columns"] if not row[4]]
    return columns, found["constraints"], found["triggers"], found["indexes"]


def test_a_row_without_its_vector_keeps_not_null_away_and_that_is_said(
    postgres: str, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = pgvectorstore(postgres, schema)
    with made.open() as store:
        store.adopt()
        store.add_slot(UNLIKE)
        change_text(made, made.documents[0].id)
        store.drop_slot(UNLIKE)
    (said,) = [each.getMessage() for each in caplog.records if "NOT NULL" in each.getMessage()]
    assert "1 row" in said
    assert 'ALTER COLUMN "embedding" SET NOT NULL' in said
    left = {name: required for _, name, _, required, gone in dump(made)["columns"] if not gone}
    assert left["embedding"] is False
    assert "embedding__source" not in left


def test_an_index_is_of_one_collection_and_serves_its_searches(postgres: str, schema: str) -> None:
    made = pgvector(postgres, schema)
    other = replace(made, layout=Layout.langchain_pgvector(collection_id=str(uuid.UUID(int=2))))
    tiny = EmbeddingSpace(model="tiny", dimensions=3, normalized=False)
    without_scans = make_conninfo(postgres, options="-c enable_seqscan=off -c enable_sort=off")
    with made.open(without_scans) as mine, other.open(space=tiny) as theirs:
        for store in (mine, theirs):
            store.adopt()
            assert not store.info().index_built
            store.build_index()
            assert store.info().index_built
        name = sql.index_name(mine._state.table, "embedding")
        assert name != sql.index_name(theirs._state.table, "embedding")
        assert name in plan_of(mine)
        check_searches(mine, made)


def plan_of(store: Any) -> str:
    """How the server goes about a search of this handle's."""
    state = store._state
    slot = state.record.slots[0]
    search = sql.Search(
        table=state.table,
        slot=slot.name,
        space=slot.space,
        opclass="vector_cosine_ops",
        cheap_pages=True,
        limit=5,
        where=None,
        with_vectors=False,
    )
    way = search.ways()[0]
    statement, parameters = search.statement(way)
    explain = b"EXPLAIN " + statement.as_bytes(None)
    query = {**parameters, "query": BACKEND.embed_query("amber")}
    settings = search.settings().as_bytes(None) if way is sql.Way.TUNED else None
    return "\n".join(line for (line,) in store._search_rows(settings, explain, query))


def test_dropping_a_shared_slot_empties_the_rows_of_one_collection(
    postgres: str, schema: str
) -> None:
    made = pgvector(postgres, schema)
    before = made.ask(THEIRS)
    with made.open() as mine:
        mine.adopt()
        mine.add_slot(UNLIKE)
        mine.drop_slot(V3)
        assert made.ask("SELECT count({vector}) FROM {table} WHERE {mine}") == [(0,)]
        change_text(made, "theirs 1")
    after = made.ask(THEIRS)
    assert [vector for _, vector in after] == [vector for _, vector in before]


THEIRS = "SELECT id, {vector}::text FROM {table} WHERE NOT ({mine}) ORDER BY 1"


def change_text(made: Made, id: str) -> None:
    """What an application does that changes a text in place."""
    changed = made.ask(
        "UPDATE {table} SET {text} = 'another text' WHERE {id} = %s RETURNING 1", (id,)
    )
    assert changed == [(1,)]


def pending_in(store: Any, space: EmbeddingSpace) -> int:
    (pending,) = [slot.pending for slot in store.info().slots if slot.space == space]
    return int(pending)


@pytest.mark.parametrize(
    "long", [{"id": "x" * 64}, {"text": "é" * 32}, {"metadata": ("lang", "x" * 64)}], ids=str
)
def test_a_name_that_the_server_would_cut_is_refused(long: dict[str, Any]) -> None:
    layout = Layout(**{"id": "id", "text": "body", "slot": "embedding", **long})
    with pytest.raises(InvalidInput, match="longer than 63 bytes"):
        PgVectorStore("postgresql://nowhere", collection="table", space=V3, layout=layout)
