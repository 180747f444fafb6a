"""What guard_install() adds: once, by its own statements too, and without a trace once removed."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg import errors as pg
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier
from tests.contract.pgvector import Harness as PostgresHarness
from tests.contract.test_elasticsearch_contract import Harness as ElasticsearchHarness
from tests.contract.test_pgvector_locks import wait_until_blocked
from tests.contract.test_qdrant_contract import Harness as QdrantHarness
from tests.cross.conftest import make_harness

from samespace import Document, Layout, PgVectorStore, field
from samespace.errors import InvalidInput, StoreRejected
from samespace.hardening import Change, Outcome, RawAct
from samespace.testing.backends import UNLIKE, V3, TaskBackend

UNIT = str([1.0] + 63 * [0.0])
LONGER = str([2.0] + 63 * [0.0])
CONSTRAINTS = """
SELECT conname, convalidated, pg_get_constraintdef(oid) FROM pg_constraint
WHERE conrelid = %s::regclass ORDER BY conname
"""


@pytest.fixture(params=["PostgreSQL", "Elasticsearch"])
def hardenable(request: pytest.FixtureRequest) -> Any:
    """The stores that can refuse more."""
    return make_harness(request.param, request)


@contextmanager
def adopted(harness: Any) -> Iterator[Any]:
    """A collection that somebody made, with a row, and a handle that has adopted it."""
    backend = TaskBackend()
    row = Document("1", "a text", {"lang": "en", "year": 2020})
    name, layout = harness.make_foreign([row], backend.embed_documents([row.text]))
    with harness.open(name, backend=backend, layout=layout) as store:
        store.adopt()
        yield store


@contextmanager
def own(harness: Any) -> Iterator[Any]:
    """A collection of ours, of the same name."""
    with harness.open("foreign", backend=TaskBackend()) as store:
        store.upsert([Document("1", "a text")])
        yield store


def described(harness: Any, collection: str = "foreign") -> object:
    """All of a collection that hardening could have changed, and its rows."""
    if isinstance(harness, PostgresHarness):
        named = f'"{harness.schema}"."{collection}"'
        return harness.dump(collection), harness.execute(CONSTRAINTS, (named,))
    if isinstance(harness, ElasticsearchHarness):
        name = harness.named(collection)
        index = harness.client.indices.get(index=name)[name]
        found = harness.client.options(ignore_status=404).ingest.get_pipeline(
            id=f"samespace--{name}"
        )
        bodies = [
            {key: value for key, value in body.items() if not key.endswith(("_date", "_millis"))}
            for body in found.body.values()
            if isinstance(body, dict)
        ]
        return dict(index), bodies, harness.dump(collection)
    return harness.dump(collection)


def run(harness: Any, changes: Sequence[Change]) -> None:
    """What an administrator does with the statements."""
    for statement in (change.statement for change in changes):
        if isinstance(harness, PostgresHarness):
            with psycopg.connect(harness.conninfo, autocommit=True) as connection:
                for line in statement.splitlines():
                    connection.execute(line)
        else:
            request, _, body = statement.partition("\n")
            method, path = request.split()
            harness.client.perform_request(
                method,
                f"/{path}",
                headers={"accept": "application/json", "content-type": "application/json"},
                body=json.loads(body) if body else None,
            )


@pytest.mark.parametrize("kind", ["own", "adopted"])
def test_removing_leaves_what_was_there_before(harness: Any, kind: str) -> None:
    with own(harness) if kind == "own" else adopted(harness) as store:
        before = described(harness)
        assert store.guard_install(dry_run=True) == store.guard_install(dry_run=True)
        assert described(harness) == before
        planned = store.guard_install(dry_run=True)
        assert store.guard_install() == planned
        assert (described(harness) != before) == bool(planned)
        assert store.guard_install() == ()
        assert store.guard_remove(dry_run=True) == store.guard_remove()
        assert described(harness) == before
        assert store.guard_remove() == ()


def test_there_is_nothing_to_add_to_qdrant(request: pytest.FixtureRequest) -> None:
    harness = make_harness("Qdrant local", request)
    assert isinstance(harness, QdrantHarness)
    with adopted(harness) as store:
        assert store.guard_install() == store.guard_remove() == ()


def test_an_administrator_comes_to_the_same_end(hardenable: Any) -> None:
    with adopted(hardenable) as store:
        before = described(hardenable)
        run(hardenable, store.guard_install(dry_run=True))
        by_hand = described(hardenable)
        assert store.guard_install() == ()
        run(hardenable, store.guard_remove(dry_run=True))
        assert described(hardenable) == before
        store.guard_install()
        assert described(hardenable) == by_hand


def test_whoever_made_the_collection_writes_on(hardenable: Any) -> None:
    vector = TaskBackend().embed_documents(["more"])[0].tolist()
    with adopted(hardenable) as store:
        store.guard_install()
        if isinstance(hardenable, PostgresHarness):
            hardenable.execute(
                "INSERT INTO {t} VALUES (7, 'more', 'de', 2024, %s)", (str(vector),), t="foreign"
            )
            hardenable.execute("UPDATE {t} SET body = 'again' WHERE chunk_id = 1", t="foreign")
        else:
            row = {"body": "more", "lang": "de", "year": 2024, "new": "x", "embedding": vector}
            hardenable.client.index(index=hardenable.named("foreign"), id="7", document=row)
            hardenable.client.indices.refresh(index=hardenable.named("foreign"))
        assert store.count() == 2
        store.upsert([Document("8", "ours")])
        assert store.search("more")[0].document.id == "7"


def test_a_handle_without_a_record_hardens_nothing(hardenable: Any) -> None:
    with adopted(hardenable) as store:
        hardenable.set_record("foreign", None)
        before = described(hardenable)
        for refused in (store.guard_install, store.guard_remove):
            with pytest.raises(Exception, match="has no record of its embedding space"):
                refused()
        assert len(store.guard_check()) == 8
        assert described(hardenable) == before


# PostgreSQL


@pytest.fixture
def table(postgres: str, schema: str) -> PostgresHarness:
    return PostgresHarness(postgres, schema)


SHARED = """
CREATE TABLE {t} (id text PRIMARY KEY, body text, meta jsonb, embedding vector, tenant text)
"""


def shared(table: PostgresHarness, tenant: str) -> Any:
    layout = Layout(
        id="id", text="body", slot="embedding", metadata="meta", scope=field("tenant") == tenant
    )
    return table.open("shared", backend=TaskBackend(), layout=layout)


def put(table: PostgresHarness, id: str, vector: str, tenant: str | None) -> None:
    values = (id, vector, tenant)
    table.execute("INSERT INTO {t} VALUES (%s, 'x', '{{}}', %s, %s)", values, t="shared")


def test_other_collections_of_a_table_are_not_concerned(table: PostgresHarness) -> None:
    table.execute(SHARED, t="shared")
    put(table, "of nobody", "[3]", None)
    put(table, "of another", "[1, 2]", "b")
    with shared(table, "a") as store:
        store.adopt()
        store.guard_install()
        put(table, "more of nobody", "[3]", None)
        put(table, "more of another", "[1, 2]", "b")
        put(table, "good", UNIT, "a")
        for id, vector in (("short", "[1, 0]"), ("long", LONGER)):
            with pytest.raises(pg.CheckViolation, match="guard"):
                put(table, id, vector, "a")
        with pytest.raises(pg.CheckViolation, match="guard"):
            table.execute("UPDATE {t} SET tenant = 'a' WHERE id = 'of another'", t="shared")


def test_two_collections_of_a_table_are_hardened_by_themselves(table: PostgresHarness) -> None:
    table.execute(SHARED, t="shared")
    with shared(table, "a") as one, shared(table, "b") as other:
        for store in (one, other):
            store.adopt()
            assert len(store.guard_install()) == 2
        one.guard_remove()
        put(table, "long", LONGER, "a")
        with pytest.raises(pg.CheckViolation, match="guard_norm"):
            put(table, "long too", LONGER, "b")


def test_rows_that_would_not_pass_are_counted_and_nothing_is_added(table: PostgresHarness) -> None:
    with adopted(table) as store:
        for number in range(10, 13):
            values = (number, LONGER)
            table.execute("INSERT INTO {t} VALUES (%s, 'x', '', 1, %s)", values, t="foreign")
        before = described(table)
        with pytest.raises(StoreRejected, match=r"3 rows .*unit norm.*nothing was changed.*audit"):
            store.guard_install()
        assert described(table) == before


def test_an_install_that_was_interrupted_goes_on(table: PostgresHarness) -> None:
    with adopted(table) as store:
        (change,) = store.guard_install(dry_run=True)
        add, _, validate = change.statement.splitlines()
        table.execute(add.replace("{", "{{").replace("}", "}}"))
        (rest,) = store.guard_install(dry_run=True)
        assert rest.statement == validate
        assert store.guard_install() == (rest,)
        assert store.guard_install() == ()


def test_a_row_that_comes_in_between_leaves_nothing_half_done(table: PostgresHarness) -> None:
    with adopted(table) as store, psycopg.connect(table.conninfo) as stranger:
        before = described(table)
        row = SQL("INSERT INTO {} VALUES (9, 'x', '', 1, {})")
        stranger.execute(row.format(Identifier(table.schema, "foreign"), LONGER))
        with ThreadPoolExecutor(1) as thread:
            installing = thread.submit(store.guard_install)
            wait_until_blocked(table, stranger)
            stranger.commit()
            with pytest.raises(StoreRejected, match="1 rows .*unit norm"):
                installing.result()
        table.execute("DELETE FROM {t} WHERE chunk_id = 9", t="foreign")
        assert described(table) == before


def test_a_view_is_refused(table: PostgresHarness) -> None:
    with adopted(table):
        table.execute("CREATE VIEW {v} AS SELECT * FROM {t}", v="seen", t="foreign")
    layout = Layout(id="chunk_id", text="body", slot="embedding", metadata=("lang", "year"))
    with table.open("seen", backend=TaskBackend(), layout=layout) as store:
        store.adopt()
        with pytest.raises(InvalidInput, match="view"):
            store.guard_install()


def test_a_check_of_our_name_that_is_not_ours_is_left_alone(table: PostgresHarness) -> None:
    add = "ALTER TABLE {t} ADD CONSTRAINT embedding__guard_norm CHECK (vector_norm(embedding) > 0)"
    with adopted(table) as store:
        table.execute(add, t="foreign")
        before = described(table)
        told = {each.act: each.outcome for each in store.guard_check()}
        assert told[RawAct.UN_NORMALISED] is Outcome.STORED
        with pytest.raises(InvalidInput, match="'embedding__guard_norm' that was not made here"):
            store.guard_install()
        assert store.guard_remove() == ()
        assert described(table) == before


WEAKER = """ALTER TABLE {t} ADD CONSTRAINT embedding__guard_norm
CHECK ((chunk_id > 5) IS NOT TRUE OR abs(vector_norm(embedding) - 1) < 0.001)"""
BELOW = """ALTER TABLE {t} ADD CONSTRAINT embedding__guard_norm
CHECK (abs(vector_norm(embedding)) - 1 < 0.001)"""


@pytest.mark.parametrize("weaker", [WEAKER, BELOW])
def test_a_weaker_check_of_our_name_is_not_taken_for_ours(
    table: PostgresHarness, weaker: str
) -> None:
    with adopted(table) as store:
        store.guard_install()
        table.execute("ALTER TABLE {t} DROP CONSTRAINT embedding__guard_norm", t="foreign")
        table.execute(weaker, t="foreign")
        before = described(table)
        told = {each.act: each.outcome for each in store.guard_check()}
        assert told[RawAct.UN_NORMALISED] is Outcome.STORED
        with pytest.raises(InvalidInput, match="'embedding__guard_norm' that was not made here"):
            store.guard_install()
        assert store.guard_remove() == ()
        assert described(table) == before


def untyped(table: PostgresHarness, slot: str) -> Layout:
    """A table of somebody's whose vectors have any size, in a column of this name."""
    create = "CREATE TABLE {t} (id int PRIMARY KEY, body text, {slot} vector)"
    table.execute(create, t="u", slot=slot.replace("%", "%%"))
    table.execute("INSERT INTO {t} VALUES (1, 'x', %s)", (UNIT,), t="u")
    return Layout(id="id", text="body", slot=slot, metadata=())


@pytest.mark.parametrize("slot", ["Embed::text", 'v "e:c(1)', "%s", "it's E'", "OR", "a::b.c[]"])
def test_checks_are_known_again_whatever_the_column_is_called(
    table: PostgresHarness, slot: str
) -> None:
    with table.open("u", backend=TaskBackend(), layout=untyped(table, slot)) as store:
        store.adopt()
        assert len(store.guard_install()) == 2
        told = {each.act: each.outcome for each in store.guard_check()}
        assert told[RawAct.UN_NORMALISED] is told[RawAct.WRONG_DIMENSION] is Outcome.REFUSED
        assert store.guard_install() == ()
        assert len(store.guard_remove()) == 2
        assert "__guard" not in str(described(table, "u"))


def test_checks_follow_a_column_that_is_renamed(table: PostgresHarness) -> None:
    layout = untyped(table, "before")
    with table.open("u", backend=TaskBackend(), layout=layout) as store:
        store.adopt()
        store.guard_install()
    table.execute("ALTER TABLE {t} RENAME before TO after", t="u")
    table.set_record("u", None)
    with table.open("u", backend=TaskBackend(), layout=replace(layout, slot="after")) as store:
        store.adopt()
        told = {each.act: each.outcome for each in store.guard_check()}
        assert told[RawAct.UN_NORMALISED] is told[RawAct.WRONG_DIMENSION] is Outcome.REFUSED
        assert store.guard_install() == ()
        assert len(store.guard_remove()) == 2
        assert "__guard" not in str(described(table, "u"))


def test_a_check_for_what_was_wanted_before_is_replaced(table: PostgresHarness) -> None:
    layout = untyped(table, "v")
    with table.open("u", backend=TaskBackend(), layout=layout) as store:
        store.adopt()
        store.guard_install()
    table.set_record("u", None)
    table.execute("UPDATE {t} SET v = NULL", t="u")
    shorter = replace(V3, dimensions=32)
    with table.open("u", backend=TaskBackend(shorter), layout=layout) as store:
        store.adopt()
        told = {each.act: each.outcome for each in store.guard_check()}
        assert told[RawAct.WRONG_DIMENSION] is Outcome.STORED
        (change,) = store.guard_install()
        assert "= 64" in change.before
        assert "32 dimensions" in change.after
        store.upsert([Document("2", "of 32")])
        with pytest.raises(pg.CheckViolation, match="guard_dims"):
            table.execute("INSERT INTO {t} VALUES (3, 'x', %s)", (UNIT,), t="u")


def test_checks_whose_comments_are_lost_are_known_by_what_they_say(table: PostgresHarness) -> None:
    """Of a collection with a scope, which the server prints with casts and parentheses of its own."""
    table.execute(SHARED.replace("tenant text", "tenant varchar(9), n int"), t="shared")
    scope = field("tenant").in_(["a", "it's"]) & (field("n") == 5)
    layout = Layout(id="id", text="body", slot="embedding", metadata="meta", scope=scope)
    with table.open("shared", backend=TaskBackend(), layout=layout) as store:
        store.adopt()
        statements = [
            line
            for change in store.guard_install(dry_run=True)
            for line in change.statement.splitlines()
            if not line.startswith("COMMENT")
        ]
        for statement in statements:
            table.execute(statement.replace("{", "{{").replace("}", "}}"))
        assert store.guard_install() == ()
        assert len(store.guard_remove()) == 2
        assert "__guard" not in str(described(table, "shared"))


def test_a_check_that_would_not_be_added_now_is_removed_too(table: PostgresHarness) -> None:
    with adopted(table) as store:
        table.execute("ALTER TABLE {t} ALTER embedding TYPE vector", t="foreign")
        assert len(store.guard_install()) == 2
        table.execute("ALTER TABLE {t} ALTER embedding TYPE vector(64)", t="foreign")
        removed = store.guard_remove()
        assert [change.what.split()[1] for change in removed] == [
            "embedding__guard_dims", "embedding__guard_norm",
        ]  # fmt: skip
        assert "__guard" not in str(described(table))


def test_a_role_that_only_reads_is_told_who_can(table: PostgresHarness) -> None:
    with adopted(table):
        pass
    reading = make_conninfo(table.conninfo, options="-c default_transaction_read_only=on")
    layout = Layout(id="chunk_id", text="body", slot="embedding", metadata=("lang", "year"))
    with (
        PgVectorStore(
            reading, collection="foreign", schema=table.schema, registry=table.registry,
            space=V3, layout=layout,
        ) as store,
        pytest.raises(StoreRejected, match="guard install --ddl"),
    ):  # fmt: skip
        store.guard_install()


def test_a_slot_that_was_added_needs_nothing_more(table: PostgresHarness) -> None:
    with adopted(table) as store:
        store.add_slot(UNLIKE)
        (change,) = store.guard_install()
        assert "embedding" in change.what
        assert V3.id not in change.what


class Ending(logging.Handler):
    """Ends a stranger's transaction once something is logged."""

    def __init__(self, stranger: psycopg.Connection[Any]) -> None:
        super().__init__(logging.WARNING)
        self.stranger, self.said = stranger, list[str]()

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())
        self.stranger.commit()


def test_who_waits_behind_an_idle_reader_says_so_once(table: PostgresHarness) -> None:
    with adopted(table) as store, psycopg.connect(table.conninfo) as stranger:
        stranger.execute(SQL("SELECT FROM {}").format(Identifier(table.schema, "foreign")))
        ending = Ending(stranger)
        logging.getLogger("samespace").addHandler(ending)
        try:
            assert len(store.guard_install()) == 1
        finally:
            logging.getLogger("samespace").removeHandler(ending)
    (said,) = ending.said
    assert "'foreign' is locked by other transactions" in said
    assert "idle in transaction" in said


# Elasticsearch


def test_a_pipeline_that_was_there_is_called_and_comes_back(
    request: pytest.FixtureRequest,
) -> None:
    harness = make_harness("Elasticsearch", request)
    assert isinstance(harness, ElasticsearchHarness)
    client, name = harness.client, harness.named("foreign")
    client.ingest.put_pipeline(
        id=f"{name}-theirs", processors=[{"set": {"field": "lang", "value": "fr"}}]
    )
    with adopted(harness) as store:
        client.indices.put_settings(index=name, settings={"final_pipeline": f"{name}-theirs"})
        store.guard_install()
        vector = json.loads(UNIT)
        client.index(index=name, id="9", document={"body": "x", "embedding": vector})
        assert client.get(index=name, id="9")["_source"]["lang"] == "fr"
        store.guard_remove()
        settings = client.indices.get_settings(index=name)[name]["settings"]["index"]
        assert settings["final_pipeline"] == f"{name}-theirs"
        client.indices.put_settings(index=name, settings={"final_pipeline": None})
    client.ingest.delete_pipeline(id=f"{name}-theirs")
