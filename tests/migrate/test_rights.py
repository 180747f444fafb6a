"""Migrations by those who have the rights that are printed, and no more, while others go on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Final

import psycopg
import pytest
from tests.contract.pgvector import Harness
from tests.contract.test_pgvector_rights import FIRST, Role, login

from samespace import Document
from samespace.errors import StoreRejected
from samespace.migrate import MigrationPlan, MigrationRun, abort, finish, open_slot, plan, verify
from samespace.space import EmbeddingSpace
from samespace.testing.backends import UNLIKE, V3, TaskBackend

ROWS: Final = [Document(str(n), f"text {n} of a few") for n in range(1, 6)]
PARTS: Final = ("owner", "reader", "writer", "migrator")
THIRD: Final = EmbeddingSpace(model="a third model", dimensions=64)


class Roles:
    """An owner who is no superuser, and whom that owner lets do a part."""

    def __init__(self, stack: ExitStack, conninfo: str, schema: str) -> None:
        self.schema = schema
        self._conninfo = conninfo
        self._roles = {
            part: stack.enter_context(login(Role(conninfo, schema, part))) for part in PARTS
        }
        self._roles["owner"].grant(FIRST)

    def open(self, part: str, collection: str, **options: Any) -> Any:
        """A handle of a role's."""
        harness = Harness(self._roles[part].own_conninfo, self.schema)
        return harness.open(collection, **options)

    def make(self, collection: str) -> None:
        """A collection of the owner's: its own, or one that it has adopted."""
        layout = None
        if collection == "foreign":
            raw = Harness(self._roles["owner"].own_conninfo, self.schema)
            texts = [row.text for row in ROWS]
            _, layout = raw.make_foreign(ROWS, TaskBackend().embed_documents(texts))
            with self.open("owner", "other", backend=TaskBackend()) as store:
                store.create()  # and with it the registry
        with self.open("owner", collection, backend=TaskBackend(), layout=layout) as store:
            store.adopt() if layout else store.upsert(ROWS)

    def grant(self, collection: str) -> None:
        """What the library prints for each part, run by an administrator: no owner lets another in."""
        for part in PARTS[1:]:
            self._roles[part].run(self.printed(collection, part, to=part))

    def printed(self, collection: str, part: str, *, to: str) -> list[str]:
        """What the library prints."""
        with self.open("owner", collection, backend=TaskBackend()) as store:
            found: list[str] = store.grants(part, to=self._roles[to].name).splitlines()
        return found

    def add(self, rights: Sequence[str]) -> None:
        """Let a role do more, as an administrator."""
        _execute(self._conninfo, rights)

    def execute(self, part: str, statements: Sequence[str]) -> None:
        """Run statements as a role."""
        _execute(self._roles[part].own_conninfo, statements)

    def go_on(self, collection: str, *spaces: EmbeddingSpace) -> None:
        """A reader reads and a writer writes in each of these spaces."""
        for space in spaces:
            with self.open("writer", collection, backend=TaskBackend(space)) as store:
                store.upsert([Document("6", f"written in {space.model}")])
            with self.open("reader", collection, backend=TaskBackend(space)) as store:
                assert store.search(f"written in {space.model}")[0].document.id == "6"


def _execute(conninfo: str, statements: Sequence[str]) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


@pytest.fixture
def roles(postgres: str, schema: str) -> Iterator[Roles]:
    with ExitStack() as stack:
        yield Roles(stack, postgres, schema)


def planned(roles: Roles, part: str, collection: str) -> MigrationPlan:
    with roles.open(part, collection, backend=TaskBackend()) as store:
        return plan(store, TaskBackend(UNLIKE))


def ran(roles: Roles, part: str, collection: str, made: MigrationPlan) -> None:
    with roles.open(part, collection, backend=TaskBackend()) as store:
        assert MigrationRun(store, TaskBackend(UNLIKE), made).run().complete


def opened(roles: Roles, part: str, collection: str, made: MigrationPlan) -> None:
    with roles.open(part, collection, backend=TaskBackend()) as store:
        found = verify(store, TaskBackend(UNLIKE), made)
        assert found.passed, found.lines()
        [change] = open_slot(store, made, found)
        assert change.changed


def spaces(roles: Roles, collection: str, backend: TaskBackend) -> list[EmbeddingSpace]:
    with roles.open("owner", collection, backend=backend) as store:
        return [slot.space for slot in store.info().slots]


@pytest.mark.parametrize("collection", ["own", "foreign"])
def test_a_migrator_migrates_while_readers_and_writers_go_on(roles: Roles, collection: str) -> None:
    roles.make(collection)
    roles.grant(collection)
    roles.go_on(collection, V3)
    made = planned(roles, "migrator", collection)
    ran(roles, "migrator", collection, made)
    roles.go_on(collection, V3)
    ran(roles, "migrator", collection, made)
    with roles.open("migrator", collection, backend=TaskBackend()) as store:
        store.build_index(UNLIKE)
    opened(roles, "migrator", collection, made)
    roles.go_on(collection, V3, UNLIKE)
    ran(roles, "migrator", collection, made)  # also of what is open, until it is finished
    with roles.open("migrator", collection, backend=TaskBackend()) as store:
        [change] = finish(store, made)
        assert change.changed
    assert spaces(roles, collection, TaskBackend(UNLIKE)) == [UNLIKE]
    roles.go_on(collection, UNLIKE)


@pytest.mark.parametrize("collection", ["own", "foreign"])
def test_a_migrator_takes_a_migration_back(roles: Roles, collection: str) -> None:
    roles.make(collection)
    roles.grant(collection)
    made = planned(roles, "migrator", collection)
    ran(roles, "migrator", collection, made)
    opened(roles, "migrator", collection, made)
    with roles.open("migrator", collection, backend=TaskBackend()) as store:
        [change] = abort(store, made)
        assert change.changed
    assert spaces(roles, collection, TaskBackend()) == [V3]
    roles.go_on(collection, V3)


def test_an_owner_goes_on_with_what_a_migrator_has_begun(roles: Roles) -> None:
    roles.make("own")
    roles.grant("own")
    ran(roles, "migrator", "own", planned(roles, "migrator", "own"))
    with roles.open("owner", "own", backend=TaskBackend()) as store:
        store.add_slot(THIRD)
        store.drop_slot(UNLIKE)
    roles.go_on("own", V3)


def test_a_writer_runs_and_opens_a_migration_that_the_owner_prepares_and_finishes(
    roles: Roles,
) -> None:
    roles.make("foreign")
    roles.grant("foreign")
    printed = roles.printed("foreign", "migrator", to="writer")
    roles.add([line for line in printed if "INSERT" in line])
    made = planned(roles, "writer", "foreign")
    with roles.open("owner", "foreign", backend=TaskBackend()) as store:
        roles.execute("owner", store.ddl(UNLIKE))
    ran(roles, "writer", "foreign", made)
    opened(roles, "writer", "foreign", made)
    roles.go_on("foreign", V3, UNLIKE)
    ran(roles, "writer", "foreign", made)
    with (
        roles.open("writer", "foreign", backend=TaskBackend()) as store,
        pytest.raises(StoreRejected, match="must be owner"),
    ):
        finish(store, made)
    with roles.open("owner", "foreign", backend=TaskBackend()) as store:
        finish(store, made)
    roles.go_on("foreign", UNLIKE)
