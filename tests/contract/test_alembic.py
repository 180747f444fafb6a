"""Alembic's autogenerate on an application's schema in which this library has been at work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.types import UserDefinedType
from tests.contract.pgvector import Harness

from samespace import Document, Layout
from samespace.alembic import IncludeObject, include_object, including
from samespace.testing.backends import UNLIKE, V3, TaskBackend
from samespace.testing.corpus import documents

# SQLAlchemy's own slip over a CHECK that is NOT VALID, as add_slot() leaves one.
pytestmark = pytest.mark.filterwarnings("ignore:Can't validate argument 'dialect_options'")
LAYOUT = Layout(id="id", text="body", slot="embedding", metadata=("lang",))


class Vector(UserDefinedType[Any]):
    """What ``pgvector.sqlalchemy`` makes known."""

    cache_ok = True

    def __init__(self, dimensions: int | None = None) -> None:
        self.dimensions = dimensions

    def get_col_spec(self, **_: object) -> str:
        return "vector(64)"


@pytest.fixture(autouse=True)
def _known_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ischema_names, "vector", Vector)


@pytest.fixture
def harness(postgres: str, schema: str) -> Harness:
    return Harness(postgres, schema)


@pytest.fixture
def connection(harness: Harness) -> Iterator[sa.Connection]:
    """The application's: it looks into its own schema."""
    made = sa.create_engine(
        "postgresql+psycopg://",
        connect_args={
            **conninfo_to_dict(harness.conninfo),
            "options": f"-c search_path={harness.schema},public",
        },
        poolclass=sa.NullPool,
    )
    with made.connect() as connection:
        yield connection
    made.dispose()


def application(*more: sa.Column[Any]) -> sa.MetaData:
    """The models of the application that made the table."""
    metadata = sa.MetaData()
    sa.Table(
        "articles",
        metadata,
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("lang", sa.Text),
        sa.Column("embedding", Vector(64), nullable=False),
        *more,
    )
    return metadata


@pytest.fixture
def at_work(harness: Harness, connection: sa.Connection) -> Harness:
    """An adopted table with a second slot, its index and checks; and a collection of ours."""
    application().create_all(connection)
    connection.commit()
    vectors = TaskBackend().embed_documents(["a text"])
    harness.execute(
        "INSERT INTO {t} VALUES (1, 'a text', 'en', %s)", (str(vectors[0].tolist()),), t="articles"
    )
    with harness.open("articles", backend=TaskBackend(), layout=LAYOUT) as store:
        store.adopt()
        store.add_slot(UNLIKE)
        store.build_index()
        assert store.guard_install()
    with harness.open("manuals", backend=TaskBackend()) as store:
        store.upsert([Document("a", "text"), *documents(2)])
        store.build_index()
    return harness


def proposed(
    connection: sa.Connection, metadata: sa.MetaData, include: IncludeObject | None, **more: Any
) -> str:
    """What a migration would do, as text."""
    context = MigrationContext.configure(
        connection, opts={"include_object": include, "compare_type": True, **more}
    )
    found = compare_metadata(context, metadata)
    connection.rollback()
    return "\n".join(map(str, found))


def test_nothing_of_ours_is_proposed(at_work: Harness, connection: sa.Connection) -> None:
    assert proposed(connection, application(), include_object) == ""
    without = proposed(connection, application(), None)
    for name in (UNLIKE.id, f"{UNLIKE.id}__source", "embedding__source", "manuals", "__hnsw"):
        assert name in without
    assert "modify_nullable" in without


def test_real_differences_are(at_work: Harness, connection: sa.Connection) -> None:
    at_work.execute("CREATE TABLE {t} (id int PRIMARY KEY)", t="forgotten")
    at_work.execute("ALTER TABLE {t} ADD COLUMN stray text", t="articles")
    at_work.execute("CREATE INDEX stray_index ON {t} (lang)", t="articles")
    wanted = application(sa.Column("year", sa.Integer), sa.Column("title", sa.Text))
    found = proposed(connection, wanted, include_object)
    for name in ("'year'", "'title'", "forgotten", "'stray'", "stray_index"):
        assert name in found
    assert len(found.splitlines()) == 5


def test_only_what_add_slot_opened_is_not_compared(
    at_work: Harness, connection: sa.Connection
) -> None:
    with at_work.open("articles", backend=TaskBackend(), layout=LAYOUT) as store:
        store.drop_slot(UNLIKE)
    assert proposed(connection, application(), include_object) == ""
    wanted = application()
    wanted.tables["articles"].columns["embedding"].type = sa.LargeBinary()
    found = proposed(connection, wanted, include_object)
    assert "modify_type" in found
    assert "modify_nullable" not in found


def test_an_index_that_only_ends_like_ours_is_the_applications(
    at_work: Harness, connection: sa.Connection
) -> None:
    at_work.execute("CREATE INDEX user__hnsw ON {t} (lang)", t="articles")
    at_work.execute(
        "CREATE INDEX own__hnsw ON {t} USING hnsw (embedding vector_l2_ops)", t="articles"
    )
    found = proposed(connection, application(), include_object)
    assert len(found.splitlines()) == 2
    assert "user__hnsw" in found
    assert "own__hnsw" in found


def test_other_schemas_are_looked_through_too(at_work: Harness, connection: sa.Connection) -> None:
    schemas = {None, at_work.schema, at_work.registry}

    def look_at(name: str | None, type_: str, _: object) -> bool:
        return type_ != "schema" or name in schemas

    options = {"include_schemas": True, "include_name": look_at}
    include = including(registry=at_work.registry)
    assert proposed(connection, application(), include, **options) == ""
    assert "collections" in proposed(connection, application(), None, **options)


def test_the_applications_own_choice_is_heard(at_work: Harness, connection: sa.Connection) -> None:
    at_work.execute("CREATE TABLE {t} (id int PRIMARY KEY)", t="legacy_orders")

    def own(_: Any, name: str | None, type_: str, *__: Any) -> bool:
        return type_ != "table" or not (name or "").startswith("legacy_")

    assert proposed(connection, application(), including(own)) == ""
    assert "legacy_orders" in proposed(connection, application(), include_object)


def test_a_column_that_the_application_has_is_its_own(connection: sa.Connection) -> None:
    """A model may name our slot: then it is the application's to compare."""
    table = application(sa.Column(V3.id, Vector(64)), sa.Column(f"{V3.id}__source", sa.LargeBinary))
    column = table.tables["articles"].columns[V3.id]
    assert include_object(column, V3.id, "column", False, None)
    assert include_object(column, V3.id, "column", False, column)
    assert not include_object(column, V3.id, "column", True, None)
