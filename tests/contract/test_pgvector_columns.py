"""Columns of adopted tables: what each part of a document may do to them, and what it may not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import psycopg
import pytest

from samespace import Document, EmbeddingSpace, Layout, Parent, PgVectorStore, field
from samespace.errors import InvalidInput
from samespace.filters import Filter, matches
from samespace.layout import TextQuery
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


ONE_TENANT = Layout(
    id="id",
    text="body",
    slot="e",
    metadata=("id", "body", "tenant", "lang"),
    scope=field("tenant") == "a",
)


def test_metadata_that_leaves_out_a_column_of_the_scope_keeps_the_row_in_it(place: Place) -> None:
    place.ask(TENANTS)
    with place.adopted(ONE_TENANT) as store:
        assert store.update_metadata({"1": {"lang": "fr"}}) == 1
        assert store.update_metadata({}, where=field("lang") == "fr") == 1
        assert store.count() == 1
    assert tenants(place)[0] == (1, "a", None, "x")


def test_a_document_that_was_read_can_be_written_again(place: Place) -> None:
    place.ask(TENANTS)
    with place.adopted(ONE_TENANT) as store:
        (read,) = store.get(["1"])
        assert read.metadata == {"id": 1, "body": "x", "tenant": "a", "lang": "en"}
        assert upsert(store, read).written == 1
        assert store.update_metadata({"1": read.metadata}) == 1
        assert store.update_metadata({"1": {"body": "x"}}, merge=True) == 0
        assert store.update_metadata({"9": {"id": 9, "body": "x"}}) == 0
        assert store.get(["1"]) == [read]


def test_metadata_changes_no_column_of_another_part(place: Place) -> None:
    place.ask(TENANTS)
    before = tenants(place)
    with place.adopted(ONE_TENANT) as store:
        for change in ({"tenant": "b"}, {"tenant": None}, {"body": "other"}, {"id": 2}):
            (column,) = change
            with pytest.raises(InvalidInput, match=f"metadata '{column}' cannot be"):
                store.update_metadata({"1": change}, merge=True)
            with pytest.raises(InvalidInput, match=f"metadata '{column}' cannot be"):
                store.update_metadata(change, where=field("lang") == "en")
            (refused,) = upsert(store, Document("1", "x", change)).rejected
            assert isinstance(refused.error, InvalidInput)
    assert tenants(place) == before


def test_a_document_may_say_in_which_part_of_a_wide_scope_it_is(place: Place) -> None:
    place.ask(TENANTS)
    both = field("tenant").in_(["a", "b"])
    layout = Layout(id="id", text="body", slot="e", metadata=("tenant", "lang"), scope=both)
    with place.adopted(layout) as store:
        refused = upsert(
            store,
            Document("2", "y", {"lang": "fr"}),
            Document("4", "new", {"tenant": "b"}),
            Document("5", "new", {"tenant": "c"}),
        ).rejected
        assert [each.id for each in refused] == ["5"]
        assert store.update_metadata({"1": {"tenant": "b"}}) == 1
        assert store.update_metadata({"2": {}}) == 1
    assert tenants(place) == [
        (1, "b", None, "x"),
        (2, "b", None, "y"),
        (3, "c", "de", "z"),
        (4, "b", None, "new"),
    ]


def test_chunks_whose_parent_and_place_are_metadata_too_can_be_written_again(place: Place) -> None:
    place.ask(
        "CREATE TABLE rows (id int PRIMARY KEY, doc uuid, no bigint, body text, e vector(4))",
    )
    layout = Layout(
        id="id", text="body", slot="e", metadata=("doc", "no"), parent="doc", order="no"
    )
    parent = Parent("00000000-0000-0000-0000-000000000007", 3)
    with place.adopted(layout) as store:
        assert upsert(store, Document("1", "x", parent=parent)).written == 1
        (read,) = store.get(["1"])
        assert read == Document("1", "x", {"doc": parent.id, "no": 3}, parent)
        assert upsert(store, read).written == 1
        (refused,) = upsert(store, Document("1", "x", {"no": 4}, parent)).rejected
        assert "metadata 'no' cannot be 4" in str(refused.error)


def test_tables_whose_names_read_the_same_once_joined_have_triggers_of_their_own(
    place: Place,
) -> None:
    second = f"{place.schema}_b"
    place.ask(f"CREATE SCHEMA {second}")
    try:
        with (
            place.open(None, table="b_c") as one,
            place.open(None, table="c", schema=second) as two,
        ):
            for store in (one, two):
                upsert(store, Document("1", "a text"))
            one.add_slot(OTHER)
            two.drop()
            place.ask("UPDATE b_c SET text = 'another'")
            rows, _ = one.pending(TINY, limit=10)
            assert [row.document.text for row in rows] == ["another"]
    finally:
        place.ask(f"DROP SCHEMA {second} CASCADE")


ARTICLES = """
CREATE TABLE rows (id int PRIMARY KEY, title text, body text, md jsonb, e vector(4));
INSERT INTO rows VALUES (1, 'a', 'b', '{}', '[1,0,0,0]'), (2, 'c', NULL, '{}', '[0,1,0,0]'),
  (3, 'd', ' ', '{}', NULL)
"""


def filled(store: Any) -> list[Document]:
    """Fill all rows of the other slot; the documents that they were filled for."""
    rows, _ = store.pending(OTHER, limit=10)
    report = store.fill(OTHER, rows, vectors(4)[: len(rows)])
    assert report.filled == len(rows)
    return [row.document for row in rows]


def pending(store: Any) -> list[tuple[str, str]]:
    rows, _ = store.pending(OTHER, limit=10)
    return [(row.document.id, row.document.text) for row in rows]


def test_an_application_whose_path_lacks_the_extension_changes_its_texts(place: Place) -> None:
    place.ask(ARTICLES)
    with place.adopted(LAYOUT) as store:
        store.add_slot(OTHER)
        assert len(filled(store)) == 3
        path = f"{place.schema}, pg_catalog"
        place.ask("UPDATE rows SET body = 'other' WHERE id = 1", path=path)
        assert pending(store) == [("1", "other")]
        assert place.ask("SELECT e IS NULL FROM rows WHERE id = 1") == [(True,)]
        place.ask("UPDATE rows SET body = 'third', e = '[0,0,0,1]' WHERE id = 1", path=path)
        assert place.ask("SELECT e::text FROM rows WHERE id = 1") == [("[0,0,0,1]",)]


@pytest.mark.parametrize(
    "expression",
    ["rows.title || ': ' || rows.body", "title || ': ' || body", "format('%s: %s', title, body)"],
)
def test_a_text_made_of_columns_is_followed_through_every_change(
    place: Place, expression: str
) -> None:
    place.ask(ARTICLES)
    with place.adopted(replace(LAYOUT, text=TextQuery(expression))) as store:
        store.add_slot(OTHER)
        assert filled(store)[0].text == "a: b"
        assert pending(store) == []
        assert store.stale(OTHER, limit=10) == ([], None)
        place.ask("UPDATE rows SET md = '{}', title = 'a' WHERE id = 1")
        assert pending(store) == []
        place.ask("UPDATE rows SET title = 'A' WHERE id = 1")
        assert pending(store) == [("1", "A: b")]


@pytest.mark.parametrize("expression", ["title || nowhere", "title ||", "other.title", "1 / 0"])
def test_a_text_that_fails_installs_no_trigger(place: Place, expression: str) -> None:
    place.ask(ARTICLES)
    layout = replace(LAYOUT, text=TextQuery(expression))
    with (
        place.adopted(layout) as store,
        pytest.raises(InvalidInput, match="Layout.text fails for a row"),
    ):
        store.add_slot(OTHER)
    place.ask("UPDATE rows SET body = 'other'")


@pytest.mark.parametrize("text", ["body", TextQuery("body || ''")], ids=["column", "query"])
def test_a_row_without_a_text_is_pending_with_an_empty_one(
    place: Place, text: str | TextQuery
) -> None:
    place.ask(ARTICLES)
    with place.adopted(replace(LAYOUT, text=text)) as store:
        store.add_slot(OTHER)
        assert pending(store) == [("1", "b"), ("2", ""), ("3", " ")]
        assert store.stale(TINY, limit=10) == ([], None)  # nobody knows what those were made from
        filled(store)
        assert store.stale(OTHER, limit=10) == ([], None)
        place.ask("UPDATE rows SET body = '' WHERE id = 2")
        assert pending(store) == []
        place.ask("UPDATE rows SET body = 'a text' WHERE id = 2")
        assert pending(store) == [("2", "a text")]


def test_braces_and_percent_signs_of_a_text_stay_as_they_are(place: Place) -> None:
    place.ask(ARTICLES)
    text = TextQuery("'{x} 100% {} {{' || body")
    with place.adopted(replace(LAYOUT, text=text)) as store:
        store.add_slot(OTHER)
        assert filled(store)[0].text == "{x} 100% {} {{b"
        place.ask("UPDATE rows SET body = 'c' WHERE id = 1")
        assert pending(store) == [("1", "{x} 100% {} {{c")]


LISTS = """
CREATE TABLE rows (id int PRIMARY KEY, body text, names varchar(9)[], prices numeric(6,2)[],
  words text[], numbers int[], flags boolean[], e vector(4));
INSERT INTO rows VALUES (1, 'x', '{a,b}', '{1.50,2}', '{a,"1"}', '{1,2}', '{t}', '[1,0,0,0]'),
  (2, 'y', '{b,NULL}', '{3}', '{}', '{NULL}', '{f,NULL}', NULL),
  (3, 'z', NULL, NULL, NULL, NULL, NULL, NULL)
"""
COLUMNS_OF_LISTS = ("names", "prices", "words", "numbers", "flags")


@pytest.mark.parametrize("column", COLUMNS_OF_LISTS)
def test_columns_of_lists_are_filtered_by_their_elements(place: Place, column: str) -> None:
    place.ask(LISTS)
    with place.open(replace(LAYOUT, metadata=COLUMNS_OF_LISTS)) as store:
        rows = list(store.scan())
        element = field(column)
        for value in ("a", "b", "1", 1, 1.5, 2, 3.0, True, False):
            equal, differs = element == value, element != value
            check_filters(store, rows, equal, differs, ~equal, ~differs, element.contains(value))
        check_filters(store, rows, element.exists(), element > 1, element <= 2.5, element == None)  # noqa: E711


def check_filters(store: Any, rows: Sequence[Document], *filters: Filter) -> None:
    """The server finds the rows that the reference finds."""
    for where in filters:
        wanted = {row.id for row in rows if matches(where, id=row.id, metadata=row.metadata)}
        assert {row.id for row in store.scan(where=where)} == wanted, where


def test_an_order_beyond_int4_is_read(place: Place) -> None:
    place.ask(
        "CREATE TABLE rows (id int PRIMARY KEY, doc text, no bigint, at date, body text,"
        " md jsonb, e vector(4));"
        "INSERT INTO rows VALUES (1, 'd', 9000000000, NULL, 'x', '{}', '[1,0,0,0]')"
    )
    layout = replace(LAYOUT, parent="doc", order="no")
    with place.open(layout) as store:
        (read,) = store.get(["1"])
        assert read.parent == Parent("d", 9_000_000_000)
    with (
        place.open(replace(layout, order="at")) as store,
        pytest.raises(InvalidInput, match="'at' is of type date; Layout.order names a column of"),
    ):
        store.get(["1"])


def test_a_column_that_metadata_leaves_out_goes_back_to_its_default(place: Place) -> None:
    place.ask(
        "CREATE TABLE rows (id int PRIMARY KEY, body text, lang text NOT NULL DEFAULT 'en',"
        " year int, e vector(4))"
    )
    with place.adopted(replace(LAYOUT, metadata=("lang", "year"))) as store:
        for metadata in ({"lang": "de", "year": 1}, {"year": 2}, {}):
            assert upsert(store, Document("1", "x", metadata)).written == 1
            kept = {"lang": "en", "year": None, **metadata}
            assert store.get(["1"])[0].metadata == kept
        assert store.update_metadata({"1": {"lang": "de"}}) == 1
        assert store.update_metadata({"1": {"year": 3}}) == 1
        assert store.get(["1"])[0].metadata == {"lang": "en", "year": 3}


def test_each_row_of_many_is_changed_as_its_own_metadata_says(place: Place) -> None:
    place.ask(
        "CREATE TABLE rows (id int PRIMARY KEY, body text, lang text DEFAULT 'en', \"given id\" int,"
        " e vector(4))"
    )
    place.ask("INSERT INTO rows SELECT n, 'x', 'de', -1 FROM generate_series(0, 199) AS n")
    changes: dict[str, dict[str, Any]] = {
        str(n): {"lang": f"l{n}"} if n % 3 else {"given id": n} for n in range(200)
    }
    with place.adopted(replace(LAYOUT, metadata=("lang", "given id"))) as store:
        assert store.update_metadata({**changes, "999": {"lang": "no"}, "x": {}}) == 200
        kept = {"lang": "en", "given id": None}
        assert {row.id: row.metadata for row in store.scan()} == {
            id: {**kept, **change} for id, change in changes.items()
        }
        assert store.update_metadata({id: {"given id": 7} for id in changes}, merge=True) == 200
        assert store.count(field("given id") == 7) == 200
        assert store.count(field("lang") == "l1") == 1


@pytest.mark.parametrize("stored", ["NULL", "'null'", "'[1]'", "'\"text\"'", "'{\"old\": 1}'"])
@pytest.mark.parametrize("kind", ["json", "jsonb"])
def test_metadata_is_merged_into_what_is_no_object_as_into_an_empty_one(
    place: Place, stored: str, kind: str
) -> None:
    place.ask(
        f"CREATE TABLE rows (id int PRIMARY KEY, body text, e vector(4), md {kind} DEFAULT {stored})"
    )
    place.ask("INSERT INTO rows VALUES (1, 'x', NULL)")
    with place.adopted(LAYOUT) as store:
        before = store.get(["1"])[0].metadata
        assert store.update_metadata({"1": {"new": 2}}, merge=True) == 1
        assert store.get(["1"])[0].metadata == {**before, "new": 2}
    assert place.ask("SELECT jsonb_typeof(md::jsonb) FROM rows") == [("object",)]


NUMBERS = """
CREATE TABLE rows (id int PRIMARY KEY, body text, double float8, exact numeric, whole bigint,
  md jsonb, e vector(4));
INSERT INTO rows SELECT row_number() OVER (), 'x', number::float8, number, whole, md, NULL FROM (
  VALUES ('1e300'::numeric, 1152921504606846976, '{"n": 1e300}'::jsonb),
  ('-1e300', 1152921504606847000, '{"n": -1e300}'), ('1e23', 7, '{"n": [1e23, null]}'),
  ('1152921504606846976', 100, '{"n": 1152921504606846976}'), ('0.1', 0, '{"n": 0.1}'),
  ('1152921504606847000', 1, '{"n": 1152921504606847000}'), ('5', -5, '{"n": 5.0}'),
  ('NaN', NULL, '{"n": "NaN"}'), (NULL, NULL, '{"n": null}')) AS numbers(number, whole, md);
INSERT INTO rows VALUES (20, 'x', 'Infinity', 'Infinity', NULL, '{}', NULL),
  (21, 'x', '-Infinity', '-Infinity', NULL, '{}', NULL)
"""
EDGES = (1e300, -1e300, 1e23, 2.0**60, 2**60, 1152921504606847000, 0.1, 5, 5.0, -5.0, 7)


@pytest.mark.parametrize(
    ("metadata", "name"),
    [(("double",), "double"), (("exact",), "exact"), (("whole",), "whole"), ("md", "n")],
)
def test_the_largest_numbers_are_found_in_either_form(
    place: Place, metadata: str | tuple[str, ...], name: str
) -> None:
    place.ask(NUMBERS)
    with place.open(replace(LAYOUT, metadata=metadata)) as store:
        rows = list(store.scan())
        for edge in EDGES:
            number = field(name)
            check_filters(store, rows, number == edge, number != edge, ~(number == edge))
            check_filters(store, rows, number > edge, number >= edge, number < edge, number <= edge)


def test_our_own_large_floats_are_found(place: Place) -> None:
    with place.open(None) as store:
        edges = [float(edge) for edge in EDGES]
        for edge in edges:
            upsert(store, Document(str(edge), "x", {"n": edge}))
        rows = list(store.scan())
        for edge in edges:
            number = field("n")
            check_filters(store, rows, number == edge, number != edge, number > edge)
            check_filters(store, rows, number >= edge, number < edge, number <= edge)


def test_instants_beyond_the_calendar_have_no_order(place: Place) -> None:
    place.ask(
        "CREATE TABLE rows (id int PRIMARY KEY, body text, at timestamptz, e vector(4));"
        "INSERT INTO rows VALUES (1, 'x', 'infinity', NULL), (2, 'x', '-infinity', NULL),"
        " (3, 'x', '10000-01-02Z', NULL), (4, 'x', '0044-03-15Z BC', NULL),"
        " (5, 'x', '2024-02-29Z', NULL), (6, 'x', NULL, NULL)"
    )
    with place.open(replace(LAYOUT, metadata=("at",))) as store:
        rows = list(store.scan())
        for edge in ("0001-01-02", "2024-02-29", "2024-03-01"):
            at = field("at")
            check_filters(store, rows, at > edge, at >= edge, at < edge, at <= edge, ~(at < edge))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TextQuery("title || body"), "texts are made of columns"),
        (lambda ids: ["text"] * len(ids), "texts are elsewhere"),
    ],
    ids=["query", "function"],
)
def test_a_text_without_a_column_is_refused_and_not_dropped(
    place: Place, text: Any, says: str
) -> None:
    place.ask(ARTICLES)
    with place.adopted(replace(LAYOUT, text=text)) as store:
        report = upsert(store, Document("1", "new"), Document("9", "new"))
        assert report.written == 0
        assert all(says in str(refused.error) for refused in report.rejected)
        assert store.update_metadata({"1": {"lang": "it"}}) == 1
        assert store.delete(ids=["2"]) == 1
    assert place.ask("SELECT id, body, md FROM rows ORDER BY id") == [
        (1, "b", {"lang": "it"}),
        (3, " ", {}),
    ]


@pytest.mark.parametrize(
    "index",
    [
        "CREATE INDEX ON rows (id)",
        "CREATE UNIQUE INDEX ON rows (id) WHERE id > 0",
        "CREATE UNIQUE INDEX ON rows (id, body)",
        "CREATE UNIQUE INDEX ON rows (body)",
    ],
)
def test_a_table_whose_keys_may_occur_twice_is_read_and_not_adopted(
    place: Place, index: str
) -> None:
    place.ask("CREATE TABLE rows (id int NOT NULL, body text, md jsonb, e vector(4))")
    place.ask(index)
    place.ask("INSERT INTO rows VALUES (1, 'x', '{}', '[1,0,0,0]')")
    with place.open(LAYOUT) as store:
        assert [document.text for document in store.get(["1"])] == ["x"]
        mend = f'CREATE UNIQUE INDEX ON "{place.schema}"."rows" ("id")'
        with pytest.raises(InvalidInput) as refused:
            store.adopt()
        assert mend in str(refused.value)
        place.ask(mend)
        store.adopt()
        assert upsert(store, Document("1", "y")).written == 1


def test_a_key_that_is_checked_later_is_not_adopted(place: Place) -> None:
    place.ask("CREATE TABLE rows (id int UNIQUE DEFERRABLE, body text, md jsonb, e vector(4))")
    with place.open(LAYOUT) as store, pytest.raises(InvalidInput, match="or a deferrable one"):
        store.adopt()


@pytest.mark.parametrize("key", ["PRIMARY KEY (id)", "UNIQUE (id) INCLUDE (body)"])
def test_any_unique_key_will_do(place: Place, key: str) -> None:
    place.ask(f"CREATE TABLE rows (id int NOT NULL, body text, md jsonb, e vector(4), {key})")
    with place.adopted(LAYOUT) as store:
        assert upsert(store, Document("1", "x")).written == 1


def test_a_row_without_a_text_or_a_parent_can_be_written_again(place: Place) -> None:
    place.ask(
        "CREATE TABLE rows (id int PRIMARY KEY, doc text, no int, body text, e vector(4));"
        "INSERT INTO rows VALUES (1, NULL, NULL, NULL, NULL)"
    )
    layout = replace(LAYOUT, metadata=("doc", "no", "body"), parent="doc", order="no")
    with place.adopted(layout) as store:
        (read,) = store.get(["1"])
        assert read == Document("1", "", {"doc": None, "no": None, "body": None})
        report = store.upsert_vectors([read], [None], space=TINY)
        assert (report.written, report.pending) == (1, 1)
        for doc in ("other", None):
            with pytest.raises(InvalidInput, match="metadata 'doc' cannot be"):
                store.update_metadata({"doc": doc}, where=field.id == "1")


def test_an_order_without_parents_stays_as_it_is(place: Place) -> None:
    place.ask(
        "CREATE TABLE rows (id int PRIMARY KEY, no int, body text, md jsonb, e vector(4));"
        "INSERT INTO rows VALUES (1, 7, 'x', '{}', NULL)"
    )
    for metadata in ("md", ("no",)):
        with place.open(replace(LAYOUT, metadata=metadata, order="no")) as store:
            store.adopt()
            (read,) = store.get(["1"])
            assert upsert(store, replace(read, text="new")).written == 1
    assert place.ask("SELECT no, body FROM rows") == [(7, "new")]


def test_a_vector_is_judged_by_its_source_where_no_trigger_saw_the_text_change(
    place: Place,
) -> None:
    place.ask("CREATE TABLE rows (id int PRIMARY KEY, md jsonb, body text, e vector(4))")
    with place.adopted(LAYOUT) as store:
        upsert(store, Document("1", "x"), Document("2", "y"))
        store.add_slot(OTHER)
        rows, _ = store.filled(TINY, limit=2)
        assert store.fill(TINY, rows, vectors(2)).filled == 2  # with sources, from here on
        place.ask(
            "INSERT INTO rows (id, body, e) VALUES (3, 'z', '[0,0,1,0]');"
            "SET session_replication_role = replica; UPDATE rows SET body = 'changed' WHERE id = 2"
        )
        rows, _ = store.pending(OTHER, limit=9, with_vectors_of=TINY)
        assert {row.document.id: row.vector is None for row in rows} == {
            "1": False, "2": True, "3": False
        }  # fmt: skip
