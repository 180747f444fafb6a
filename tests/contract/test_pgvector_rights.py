"""The rights that README's table names: they are enough, and none of them is too many."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier
from tests.contract.pgvector import LAYOUT, AsyncHarness, Harness

from samespace import Document, everything
from samespace.errors import SpaceUnknown, StoreRejected
from samespace.filters import field
from samespace.guard import SlotState
from samespace.migrate import plan
from samespace.rights import Part
from samespace.space import EmbeddingSpace
from samespace.testing.backends import UNLIKE, V3, TaskBackend
from samespace.testing.store_contract_async import AsyncVectorStoreContract

OTHER: Final = EmbeddingSpace(model="a third model", dimensions=64)
READ: Final = (
    "USAGE ON SCHEMA {schema}",
    "USAGE ON SCHEMA {registry}",
    "SELECT ON {schema}.read",
    "SELECT ON {registry}.collections",
)
WRITE: Final = (
    *READ,
    "INSERT ON {schema}.read",
    "UPDATE ON {schema}.read",
    "DELETE ON {schema}.read",
)
MARK: Final = (
    "USAGE ON SCHEMA {registry}",
    "SELECT ON {registry}.collections",
    "INSERT ON {registry}.collections",
    "UPDATE ON {registry}.collections",
)
OWN: Final = (
    *MARK,
    "USAGE ON SCHEMA {schema}",
    "CREATE ON SCHEMA {schema}",
    "CREATE ON SCHEMA {registry}",
    "DELETE ON {registry}.collections",
)
FIRST: Final = (
    "USAGE ON SCHEMA {schema}",
    "CREATE ON SCHEMA {schema}",
    "CREATE ON DATABASE {database}",
)


def read(store: Any) -> None:
    """Every method that reads."""
    vector = TaskBackend().embed_query("text")
    assert [hit.document.id for hit in store.search("text", where=field("k") == 1)] == ["a"]
    assert len(store.search_many(["text", "other"])) == 2
    assert store.search_vector(vector, space=V3, with_vectors=True)[0].vector is not None
    assert [document.id for document in store.get(["a"], with_vectors=True)] == ["a"]
    assert [document.id for document in store.scan()] == ["a"]
    assert (store.count(), store.values("k"), store.info().rows) == (1, [(1, 1)], 1)
    assert len(store.pending(UNLIKE, limit=10, with_vectors_of=V3)[0]) == 1
    assert store.stale(V3, limit=10) == ([], None)
    assert plan(store, TaskBackend(OTHER)).collections[0].rows == 1


def write(store: Any) -> None:
    """Every method that writes rows, and nothing else."""
    read(store)
    store.upsert([Document("b", "text")])
    store.upsert([Document("b", "another text")])
    store.upsert_vectors([Document("c", "text")], [None], space=V3)
    store.update_metadata({"b": {"k": 2}})
    rows, _ = store.pending(UNLIKE, limit=10)
    texts = [row.document.text for row in rows]
    assert store.fill(UNLIKE, rows, TaskBackend(UNLIKE).embed_documents(texts)).filled == 3
    assert store.delete(where=field.id != "a") == 2


def own(store: Any) -> None:
    """The life of a collection that the role makes itself."""
    store.create()
    store.upsert([Document("a", "text")])
    store.add_slot(UNLIKE)
    store.build_index()
    store.drop_slot(UNLIKE)
    store.delete(where=everything)
    store.drop()


def migrate(store: Any) -> None:
    """From a second slot to its end."""
    store.add_slot(UNLIKE)
    rows, _ = store.pending(UNLIKE, limit=10)
    texts = [row.document.text for row in rows]
    assert store.fill(UNLIKE, rows, TaskBackend(UNLIKE).embed_documents(texts)).filled == 1
    store.build_index(UNLIKE)
    store.mark(UNLIKE, "ready")
    store.drop_slot(UNLIKE)


def adopt(store: Any) -> None:
    """What makes somebody else's table a collection."""
    assert store.count() == 1
    store.adopt()
    assert store.info().slots[0].has_canary


ADOPT: Final = (*MARK, "USAGE ON SCHEMA {schema}", "SELECT ON {schema}.foreign")
ROWS: Final[dict[str, tuple[str, tuple[str, ...], Callable[[Any], None]]]] = {
    "read": ("read", READ, read),
    "write": ("read", WRITE, write),
    "mark": ("read", MARK, lambda store: store.mark(UNLIKE, "ready")),
    "adopt": ("foreign", ADOPT, adopt),
    "own": ("own", OWN, own),
    "migrate": ("plain", (), migrate),
}
"""For each row of the table: a collection, what is granted, what can be done."""
GRANTED: Final = [row for row in ROWS if row != "migrate"]
PARTS: Final[dict[Part, str]] = {"reader": "read", "writer": "write", "migrator": "migrate"}
"""What each part does, of which the library itself prints the rights."""


@dataclass(frozen=True)
class Role:
    """A role that may log in, and what else it is granted."""

    conninfo: str
    schema: str
    part: str = "role"

    @property
    def name(self) -> str:
        return f"{self.schema}_{self.part}"

    @property
    def own_conninfo(self) -> str:
        return make_conninfo(self.conninfo, user=self.name, password="x")

    def grant(self, rights: Sequence[str]) -> None:
        """Take away what it had, and give it these."""
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            names = {
                "schema": self.schema,
                "registry": f"{self.schema}_registry",
                "database": connection.info.dbname,
                "role": self.name,
            }
            quoted = {name: Identifier(value) for name, value in names.items()}
            connection.execute(SQL("DROP OWNED BY {role}").format(**quoted))
            for right in rights:
                connection.execute(SQL(f"GRANT {right} TO {{role}}").format(**quoted))

    def quoted(self, right: str) -> str:
        """A right's text, as a message has it."""
        names = {"schema": f'"{self.schema}"', "registry": f'"{self.schema}_registry"'}
        return re.sub(r"(?<=[.])\w+", r'"\g<0>"', right).format(**names)

    def granted(self, collection: str, part: Part) -> list[str]:
        """What the library prints for a part."""
        harness = Harness(self.conninfo, self.schema)
        with harness.open(collection, backend=TaskBackend()) as store:
            printed: str = store.grants(part, to=self.name)
        return printed.splitlines()

    def run(self, statements: Sequence[str]) -> None:
        """Take away what it had, but for what it owns, and run these as a superuser."""
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            returned = SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(Identifier(self.name))
            connection.execute(returned)
            connection.execute(SQL("DROP OWNED BY {}").format(Identifier(self.name)))
            for statement in statements:
                connection.execute(statement.encode())

    def work(self, row: str) -> None:
        """Do what a row of the table speaks of."""
        collection, _, work = ROWS[row]
        harness = Harness(self.own_conninfo, self.schema)
        layout = LAYOUT if collection == "foreign" else None
        with harness.open(collection, backend=TaskBackend(), layout=layout) as store:
            work(store)


@pytest.fixture
def role(postgres: str, schema: str) -> Iterator[Role]:
    with login(Role(postgres, schema)) as role:
        yield role


@contextmanager
def login(role: Role) -> Iterator[Role]:
    """A role that is there meanwhile; what it owns goes with it."""
    name = Identifier(role.name)
    with psycopg.connect(role.conninfo, autocommit=True) as connection:
        connection.execute(SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(name))
        yield role
        connection.execute("SET client_min_messages = warning")
        connection.execute(SQL("DROP OWNED BY {} CASCADE").format(name))
        connection.execute(SQL("DROP ROLE {}").format(name))


@pytest.fixture
def collections(postgres: str, schema: str) -> None:
    """Collections that somebody else owns."""
    harness = Harness(postgres, schema)
    with harness.open("read", backend=TaskBackend()) as store:
        store.upsert([Document("a", "text", {"k": 1})])
        store.add_slot(UNLIKE)
    with harness.open("plain", backend=TaskBackend()) as store:
        store.upsert([Document("a", "text", {"k": 1})])
    harness.make_foreign([Document("1", "text")], TaskBackend().embed_documents(["text"]))


@pytest.mark.usefixtures("collections")
@pytest.mark.parametrize("row", GRANTED)
def test_the_rights_of_a_row_are_enough(role: Role, row: str) -> None:
    role.grant(ROWS[row][1])
    role.work(row)


@pytest.mark.usefixtures("collections")
@pytest.mark.parametrize(
    ("row", "left_out"), [(row, right) for row in GRANTED for right in ROWS[row][1]]
)
def test_without_any_one_of_them_it_is_refused(role: Role, row: str, left_out: str) -> None:
    role.grant([right for right in ROWS[row][1] if right != left_out])
    with pytest.raises(StoreRejected, match=r"this right|have GRANT") as refused:
        role.work(row)
    if left_out in READ and row != "own":  # what is made needs more, as the server says
        assert role.quoted(f"have GRANT {left_out} run for it") in str(refused.value)


@pytest.mark.usefixtures("collections")
@pytest.mark.parametrize("part", PARTS)
def test_what_is_printed_for_a_part_is_enough_and_no_line_of_it_too_much(
    role: Role, part: Part
) -> None:
    collection, _, _ = ROWS[PARTS[part]]
    printed = role.granted(collection, part)
    for left_out in printed:
        role.run([line for line in printed if line != left_out])
        with pytest.raises((StoreRejected, SpaceUnknown)):
            role.work(PARTS[part])
    role.run(printed)
    role.work(PARTS[part])


@pytest.mark.usefixtures("collections")
def test_a_reader_cannot_write_and_a_writer_not_migrate(role: Role) -> None:
    for part, more in (("reader", "write"), ("writer", "migrate")):
        known: Part = "reader" if part == "reader" else "writer"
        role.run(role.granted(ROWS[more][0], known))
        with pytest.raises(StoreRejected, match="this right"):
            role.work(more)


@pytest.mark.usefixtures("collections")
def test_who_may_alter_nothing_fills_a_slot_that_its_owner_has_prepared(role: Role) -> None:
    rights = [
        *role.granted("plain", "writer"),
        *(line for line in role.granted("plain", "migrator") if "INSERT, UPDATE" in line),
    ]
    role.run(rights)
    own, theirs = (
        Harness(conninfo, role.schema) for conninfo in (role.own_conninfo, role.conninfo)
    )
    with own.open("plain", backend=TaskBackend()) as store:
        with pytest.raises(StoreRejected, match="must be owner"):
            store.add_slot(UNLIKE)
        printed: Any = store
        statements = printed.ddl(UNLIKE)
    with psycopg.connect(role.conninfo, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())
    with own.open("plain", backend=TaskBackend()) as store:
        store.add_slot(UNLIKE)
        store.upsert([Document("a", "a text that empties the slot")])
        rows, _ = store.pending(UNLIKE, limit=10)
        texts = [row.document.text for row in rows]
        assert store.fill(UNLIKE, rows, TaskBackend(UNLIKE).embed_documents(texts)).filled == 1
        store.build_index(UNLIKE)  # which is there
        store.mark(UNLIKE, SlotState.READY)
    with theirs.open("plain", backend=TaskBackend(UNLIKE)) as store:
        assert [hit.document.id for hit in store.search("text")] == ["a"]
        assert store.ddl(UNLIKE) == []


def test_the_first_owner_makes_the_registry(role: Role) -> None:
    role.grant(FIRST)
    role.work("own")
    for left_out in FIRST:
        role.grant([right for right in FIRST if right != left_out])
        with pytest.raises(StoreRejected, match="this right"):
            role.work("own")


class TestOwnersPgVectorStore(AsyncVectorStoreContract):
    """The whole contract, by a role that is no superuser and owns what it makes."""

    @pytest.fixture
    def harness(self, role: Role) -> AsyncHarness:
        role.grant(FIRST)
        return AsyncHarness(role.own_conninfo, role.schema)
