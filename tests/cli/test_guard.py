"""``samespace guard`` in collections that others made, and what its refusals print."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.abc import Query
from psycopg.sql import SQL, Identifier
from tests.addresses import postgres_address
from tests.audit.poisoning import turned
from tests.cli.running import Caller
from tests.cli.test_mending import follow, forged, refused
from tests.places import database

from samespace import Document, HashingBackend, Layout, PgVectorStore, field, open_store
from samespace.errors import InvalidInput, SpaceMismatch, SpaceUnknown
from samespace.layout import TextQuery
from samespace.testing.backends import DistortingBackend
from samespace.testing.corpus import texts

BACKEND = HashingBackend(64)
SPEC = ("--backend", "hashing@64", "--yes")
HOSTILE = """It's a "table" of 100% ü"""


class Tables:
    """Tables of texts, their vectors and a tenant, in a database of its own."""

    def __init__(self, conninfo: str) -> None:
        self._connection = psycopg.connect(conninfo, autocommit=True)
        self.address = postgres_address(conninfo)

    def make(self, name: str, *, rows: int = 12, kind: str = "vector") -> None:
        columns = "(id bigint PRIMARY KEY, body text, tenant text, lang text, v {})"
        create = SQL("CREATE TABLE {} " + columns)
        self.run(create.format(Identifier(name), SQL(kind)))
        shown = texts(rows)
        insert = SQL("INSERT INTO {} VALUES (%s, %s, %s, 'en', %s)")
        insert = SQL(insert.format(Identifier(name.replace("%", "%%"))).as_string())
        for number, (text, vector) in enumerate(
            zip(shown, BACKEND.embed_documents(shown), strict=True)
        ):
            tenant = ("a b", "it's%s")[number % 2]
            self._connection.execute(insert, (number, text, tenant, str(vector.tolist())))

    def run(self, statement: Query) -> None:
        self._connection.execute(statement)

    def record(self, tenant: str) -> Any:
        """The record of the collection whose scope is a tenant."""
        query = "SELECT record FROM samespace.collections WHERE scope LIKE %s"
        ((found,),) = self._connection.execute(query, (f'%"{tenant}"%',)).fetchall()
        return found

    def is_unrecorded(self) -> bool:
        """Whether no collection of the database has a record."""
        return not self._connection.execute("SELECT 1 FROM samespace.collections").fetchall()

    def set_record(self, tenant: str, record: object) -> None:
        statement = "UPDATE samespace.collections SET record = %s WHERE scope LIKE %s"
        self._connection.execute(statement, (json.dumps(record), f'%"{tenant}"%'))

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def tables(postgres: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tables]:
    with database(postgres) as conninfo:
        tables = Tables(conninfo)
        monkeypatch.setenv("SAMESPACE_STORE", tables.address)
        yield tables
        tables.close()


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(monkeypatch, capsys)


def test_a_scope_without_a_record_is_told_of_those_with_one(tables: Tables, call: Caller) -> None:
    tables.make("t")
    scope = "tenant=it's%s"
    code, _, said = call("guard", "check", "-c", "t", "--scope", scope)
    assert code == 3
    assert "repair-record" not in said
    assert f"samespace identify --collection t --scope {shlex.quote(scope)}" in said
    told = call("identify", "-c", "t", "--scope", scope)[1]
    (line,) = [line for line in told.splitlines() if line.startswith("  samespace adopt")]
    assert call(*shlex.split(line)[1:], "--yes")[0] == 0
    assert call("guard", "check", "-c", "t", "--scope", scope)[0] == 0
    for command in (("guard", "check"), ("info",), ("search", "x", "--backend", "hashing@64")):
        code, _, said = call(*command, "-c", "t", "--scope", "tenant=a b")
        assert code == 3
        assert "no record for 'tenant=a b'; there is one for tenant=it's%s" in said
        assert "samespace adopt --collection t --scope 'tenant=a b' --backend SPEC" in said


def test_a_scope_of_a_column_that_is_not_there_is_told(tables: Tables, call: Caller) -> None:
    tables.make("t")
    for command in (("guard", "check"), ("adopt", *SPEC)):
        code, _, said = call(*command, "-c", "t", "--scope", "nothing=a")
        assert (code, "'nothing', which table" in said) == (2, True)


def test_what_is_printed_for_one_of_several_scopes_is_of_that_one(
    tables: Tables, call: Caller
) -> None:
    tables.make("t")
    chosen = ("-c", "t", "--scope", "tenant=a b")
    for scope in ("tenant=a b", "tenant=it's%s"):
        assert call("adopt", "-c", "t", "--scope", scope, *SPEC)[0] == 0
    before = tables.record("a b")
    said = refused(call, "guard", "repair-record", "-c", "t")
    assert "pass layout= with the scope of one (--scope column=value)" in said

    tables.set_record("a b", forged(before))
    compared = ("info", *chosen, "--backend", "hashing@64")
    said = refused(call, *compared)
    assert "samespace info --collection t --scope 'tenant=a b'" in said
    said = refused(call, "audit", *chosen, "--backend", "hashing@64")
    follow(call, said, "samespace guard repair-record")
    assert tables.record("a b") == before
    assert call(*compared)[0] == 0

    tables.run("UPDATE t SET v = v * v WHERE tenant = 'a b'")
    said = refused(call, "guard", "install", *chosen, code=1)
    follow(call, said, "samespace audit", "--backend", "hashing@64", "--all")


def test_a_scope_that_was_altered_is_adopted_again(tables: Tables, call: Caller) -> None:
    tables.make("t")
    chosen = ("-c", "t", "--scope", "tenant=a b")
    assert call("adopt", *chosen, *SPEC)[0] == 0
    record = tables.record("a b")
    (slot,) = record["slots"]
    tables.set_record("a b", {**record, "slots": [{**slot, "name": "elsewhere"}]})
    said = refused(call, "info", *chosen)
    follow(call, said, "samespace adopt", "--yes")
    assert call("info", *chosen)[0] == 0

    tables.set_record("a b", {"format": "one"})
    rest: dict[str, Any] = {"metadata": ("tenant", "lang"), "scope": field("tenant") == "a b"}
    layout = Layout(id="id", text="body", slot="v", **rest)
    with open_store(tables.address, collection="t", backend=BACKEND, layout=layout) as store:
        with pytest.raises(SpaceUnknown) as refusal:
            store.info()
        follow(call, str(refusal.value), "samespace adopt", "--yes")
        assert store.info().rows == 6


def test_what_was_adopted_as_a_whole_has_no_scope(tables: Tables, call: Caller) -> None:
    tables.make("t")
    assert call("adopt", "-c", "t", *SPEC)[0] == 0
    for command in (("info",), ("search", "x", "--backend", "hashing@64")):
        said = refused(call, *command, "-c", "t", "--scope", "tenant=a b", code=2)
        assert "recorded as a whole, not by scope; leave scope (--scope) out" in said
        assert call(*command, "-c", "t")[0] == 0


def test_a_lost_canary_is_kept_of_a_backend_that_is_near_enough_to_the_rows(
    tables: Tables, call: Caller
) -> None:
    with open_store(tables.address, collection="own", backend=BACKEND) as store:
        store.upsert([Document(str(number), text) for number, text in enumerate(texts(4))])
    tables.run("DELETE FROM samespace.collections")
    near = DistortingBackend(BACKEND, documents=lambda made: turned(made, 0.99))
    with PgVectorStore(tables.address, collection="own", backend=near) as store:
        with pytest.raises(SpaceMismatch, match=r"median cosine 0\.990, at least 0\.995"):
            store.repair_record()
        assert tables.is_unrecorded()
    options: dict[str, Any] = {"backend": near, "canary_threshold": 0.98}
    with PgVectorStore(tables.address, collection="own", **options) as store:
        assert store.repair_record()[0].has_canary


@pytest.mark.parametrize("kind", ["vector", "vector NOT NULL"])
def test_rows_of_another_size_are_emptied_as_the_refusal_says(tables: Tables, kind: str) -> None:
    tables.make("100%", kind=kind)
    tables.run("UPDATE \"100%\" SET v = '[1,0,0]' WHERE id IN (3, 5)")
    layout = Layout(id="id", text="body", slot="v", metadata=())
    with open_store(tables.address, collection="100%", backend=BACKEND, layout=layout) as store:
        with pytest.raises(InvalidInput, match="vectors of other sizes") as refusal:
            store.adopt()
        tables.run(str(refusal.value).rpartition("is adopted: ")[2])
        store.adopt()
        assert [slot.pending for slot in store.info().slots] == [2]


ELSEWHERE: dict[str, Any] = {
    "a query": TextQuery("body || lang"),
    "a function": lambda ids: [texts(12)[int(id)] for id in ids],
}


@pytest.mark.parametrize("text", ELSEWHERE)
@pytest.mark.parametrize("scope", [(), ("--scope", "tenant=a b")])
@pytest.mark.parametrize("name", ["t", HOSTILE])
def test_where_no_text_is_read_none_is_asked_for(
    tables: Tables, call: Caller, text: str, scope: tuple[str, ...], name: str
) -> None:
    tables.make(name)
    only = field("tenant") == "a b" if scope else None
    layout = Layout(id="id", text=ELSEWHERE[text], slot="v", metadata=(), scope=only)
    with open_store(tables.address, collection=name, backend=BACKEND, layout=layout) as store:
        store.adopt()
    named = ("-c", name, *scope)
    for command in ("check", "install", "check", "remove"):
        assert call("guard", command, *named)[0] == 0
    code, told, _ = call("info", *named)
    assert (code, "samespace-hashing@64" in told) == (0, True)
    code, _, said = call("search", "x", *named, "--backend", "hashing@64")
    assert (code, "pass layout= with the same text function" in said) == (2, True)
    code, _, said = call("identify", *named)
    assert (code, "--text COLUMN" in said) == (2, True)
    assert call("identify", *named, "--text", "body")[0] == 0


@pytest.mark.parametrize("name", ["t", HOSTILE])
def test_the_record_of_what_was_adopted_is_not_made_of_names(
    tables: Tables, call: Caller, name: str
) -> None:
    tables.make(name)
    assert call("adopt", "-c", name, *SPEC)[0] == 0
    code, _, said = call("guard", "repair-record", "-c", name)
    assert code == 2
    assert "was adopted, so no name says what it holds: its record is in order, or" in said
    assert f"samespace adopt --collection {shlex.quote(name)} --backend SPEC" in said
    tables.run("DELETE FROM samespace.collections")
    code, _, said = call("guard", "repair-record", "-c", name)
    assert (code, "repair-record" in said, "samespace identify" in said) == (3, False, True)


def test_advice_is_of_what_helps(tables: Tables, call: Caller) -> None:
    tables.make("small", rows=1)
    code, told, _ = call("identify", "-c", "small")
    assert (code, "only 1 row of the collection can be compared" in told) == (1, True)
    assert "--sample" not in told
    assert call("adopt", "-c", "small", *SPEC)[0] == 3
    assert call("adopt", "-c", "small", *SPEC, "--unproved")[0] == 0

    tables.make("half", kind="halfvec(64)")
    code, _, said = call("identify", "-c", "half")
    assert (code, "pass a layout" in said) == (2, False)
    (alter,) = re.findall(r"ALTER COLUMN .* TYPE vector\(64\)", said)
    tables.run(f"ALTER TABLE half {alter}")
    assert call("identify", "-c", "half")[0] == 0

    tables.make("t")
    assert call("adopt", "-c", "t", *SPEC)[0] == 0
    code, _, said = call("adopt", "-c", "t", "--text", "lang", *SPEC)
    assert code == 3
    assert "It was adopted before, with another layout: text 'body', given 'lang'" in said


def test_an_adopted_collection_of_any_name_is_opened_as_the_refusal_says(
    tables: Tables, call: Caller
) -> None:
    tables.make(HOSTILE)
    assert call("adopt", "-c", HOSTILE, *SPEC)[0] == 0
    with pytest.raises(InvalidInput, match=r"then open_store\(\), or pass layout="):
        PgVectorStore(tables.address, collection=HOSTILE, backend=BACKEND)
    with open_store(tables.address, collection=HOSTILE, backend=BACKEND) as store:
        assert store.count() == 12
