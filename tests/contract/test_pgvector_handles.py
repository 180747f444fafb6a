"""Handles that outlive what they have read, and connections that were set up for somebody else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from tests.contract.pgvector import AsyncHarness, Harness

from samespace import AsyncPgVectorStore, Document, Index, Layout, PgVectorStore, field
from samespace.errors import InvalidInput, SlotNotReady, SpaceMismatch
from samespace.stores import guarded, guarded_async
from samespace.testing.backends import UNLIKE, V3, TaskBackend

ROWS = 300


@pytest.fixture
def harness(postgres: str, schema: str) -> Harness:
    return Harness(postgres, schema)


@pytest.fixture
def walking(postgres: str, schema: str) -> Harness:
    """The same, by sessions that walk through an index wherever there is one."""
    return Harness(make_conninfo(postgres, options="-c enable_seqscan=off"), schema)


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read is old at once."""
    for module in (guarded, guarded_async):
        monkeypatch.setattr(module, "RECHECK_SECONDS", -1.0)


def fill(handle: Any) -> None:
    handle.upsert(Document(f"{n:03}", f"text {n}", {"n": n}) for n in range(ROWS))


# Indexes that a handle does not know


@pytest.mark.parametrize("index", [Index(), Index(kind="flat")], ids=["hnsw", "flat"])
def test_an_index_that_others_build_ends_no_search_too_early(
    harness: Harness, walking: Harness, index: Index
) -> None:
    manual = Index(build="manual")
    with (
        harness.open("grown", backend=TaskBackend(), index=manual) as builder,
        walking.open("grown", backend=TaskBackend(), index=index) as reader,
    ):
        fill(builder)
        assert len(reader.search("text", limit=200)) == 200
        builder.build_index()
        assert len(reader.search("text", limit=200)) == 200
        rare = field("n") >= ROWS - 20
        assert len(reader.search("text", limit=20, where=rare)) == 20


def test_a_partial_index_of_somebody_else_ends_no_search_too_early(
    harness: Harness, walking: Harness
) -> None:
    with walking.open("partly", backend=TaskBackend()) as handle:
        fill(handle)
        harness.execute(
            "CREATE INDEX ON {table} USING hnsw ({slot} vector_cosine_ops) WHERE {slot} IS NOT NULL",
            table="partly",
            slot=V3.id,
        )
        assert len(handle.search("text", limit=200)) == 200


# Slots that come, go and change their state


def test_a_refused_handle_works_once_its_slot_is_there(harness: Harness) -> None:
    with (
        harness.open("switched", backend=TaskBackend()) as old,
        harness.open("switched", backend=TaskBackend(UNLIKE)) as new,
    ):
        old.upsert([Document("a", "text")])
        with pytest.raises(SpaceMismatch):
            new.search("text")
        old.add_slot(UNLIKE)
        new.upsert([Document("a", "text")])
        old.mark(UNLIKE, "ready")
        assert [hit.document.id for hit in new.search("text")] == ["a"]


@pytest.mark.usefixtures("forgetful")
def test_a_slot_that_is_filled_again_is_not_searched(harness: Harness) -> None:
    with (
        harness.open("again", backend=TaskBackend()) as reader,
        harness.open("again", backend=TaskBackend(UNLIKE)) as other,
    ):
        reader.upsert([Document("a", "text")])
        reader.add_slot(UNLIKE)
        other.mark(V3, "filling")
        with pytest.raises(SlotNotReady):
            reader.search("text")
        other.drop_slot(V3)
        with pytest.raises(SpaceMismatch):
            reader.search("text")
        other.add_slot(V3)
        with pytest.raises(SlotNotReady):
            reader.search("text")


# Vectors without direction


def test_a_vector_without_direction_is_no_hit(harness: Harness) -> None:
    harness.execute("CREATE TABLE {table} (id int PRIMARY KEY, body text, e vector(64), m jsonb)",
                    table="zeros")  # fmt: skip
    good = str(TaskBackend().embed_documents(["text"])[0].tolist())
    harness.execute(
        "INSERT INTO {table} VALUES (1, 'x', %s::vector, '{{}}'), (2, 'y', %s::vector, '{{}}')",
        (str([0.0] * 64), good),
        table="zeros",
    )
    layout = Layout(id="id", text="body", slot="e", metadata="m")
    with harness.open("zeros", backend=TaskBackend(), layout=layout) as handle:
        assert [hit.document.id for hit in handle.search("text", limit=10)] == ["2"]


# Connections that were set up for somebody else


@pytest.fixture(params=["dict rows", "client cursor", "autocommit"])
def pool(request: pytest.FixtureRequest, postgres: str) -> Iterator[ConnectionPool[Any]]:
    kinds: dict[str, dict[str, Any]] = {
        "dict rows": {"row_factory": dict_row},
        "client cursor": {"cursor_factory": psycopg.ClientCursor},
        "autocommit": {"autocommit": True},
    }
    with ConnectionPool(postgres, min_size=1, kwargs=kinds[request.param], open=True) as pool:
        yield pool


def test_a_pool_may_be_set_up_in_any_way(
    postgres: str, schema: str, pool: ConnectionPool[Any]
) -> None:
    with Harness(postgres, schema, pool).open("lent", backend=TaskBackend()) as handle:
        handle.upsert([Document("ü", "grün", {"k": "ö"})])
        handle.add_slot(UNLIKE)
        assert handle.search("grün")[0].document == Document("ü", "grün", {"k": "ö"})
        assert len(handle.pending(UNLIKE, limit=5, with_vectors_of=V3)[0]) == 1
        with handle.in_space(UNLIKE, backend=TaskBackend(UNLIKE, seed=5)) as other:
            assert other.upsert([Document("ü", "grün")]).pending == 0
        assert handle.pending(UNLIKE, limit=5) == ([], None)


class Reversed(psycopg.adapt.Loader):
    """Stands for a loader that an application registered for its vectors."""

    format = psycopg.pq.Format.BINARY

    def load(self, data: Any) -> Any:
        return np.frombuffer(data, dtype=np.uint8)[::-1]


def test_what_an_application_makes_of_vectors_does_not_matter(postgres: str, schema: str) -> None:
    def configure(connection: psycopg.Connection[Any]) -> None:
        with connection.transaction():
            row = connection.execute("SELECT 'vector'::regtype::oid").fetchone()
        assert row is not None
        connection.adapters.register_loader(row[0], Reversed)

    with (
        ConnectionPool(postgres, min_size=1, configure=configure, open=True) as pool,
        Harness(postgres, schema, pool).open("loaded", backend=TaskBackend()) as handle,
    ):
        handle.upsert([Document("a", "text")])
        vector = handle.get(["a"], with_vectors=True)[0].vector
        np.testing.assert_allclose(vector, TaskBackend().embed_documents(["text"])[0], atol=1e-6)


@pytest.mark.parametrize("encoding", ["latin1", "sql_ascii"])
def test_text_is_utf8_whatever_a_session_speaks(postgres: str, schema: str, encoding: str) -> None:
    spoken = make_conninfo(postgres, client_encoding=encoding)
    with Harness(spoken, schema, spoken).open("spoken", backend=TaskBackend()) as handle:
        handle.upsert([Document("ü", "grün", {"k": "ö"})])
    with Harness(postgres, schema).open("spoken", backend=TaskBackend()) as reader:
        assert reader.get(["ü"]) == [Document("ü", "grün", {"k": "ö"})]
    with ConnectionPool(spoken, min_size=1, open=True) as pool:
        handle = Harness(postgres, schema, pool).open("spoken", backend=TaskBackend())
        with handle, pytest.raises(InvalidInput, match="client_encoding"):
            handle.count()


@pytest.fixture
async def async_pool(postgres: str) -> AsyncIterator[AsyncConnectionPool[Any]]:
    async with AsyncConnectionPool(postgres, min_size=1, open=False) as pool:
        yield pool


async def test_a_pool_of_the_other_kind_is_refused(
    postgres: str, schema: str, async_pool: AsyncConnectionPool[Any]
) -> None:
    wrong: Any = async_pool
    with pytest.raises(InvalidInput, match="AsyncConnectionPool"):
        PgVectorStore(wrong, collection="wrong", space=V3)
    with ConnectionPool(postgres, min_size=1, open=True) as pool:
        wrong = pool
        with pytest.raises(InvalidInput, match="ConnectionPool"):
            AsyncPgVectorStore(wrong, collection="wrong", space=V3)
    async with AsyncHarness(postgres, schema, async_pool).open(
        "right", backend=TaskBackend()
    ) as handle:
        assert (await handle.upsert([Document("a", "text")])).written == 1
