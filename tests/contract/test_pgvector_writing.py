"""Embedding beside writing, and what an upsert that is cut short reports."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from tests.contract.pgvector import AsyncHarness, Harness

from samespace import AsyncPgVectorStore, Document, Layout, PgVectorStore
from samespace.errors import EmbeddingError
from samespace.protocols import Matrix
from samespace.stores.base_async import BATCH_DOCUMENTS
from samespace.stores.pgvector import sql
from samespace.stores.refusals import RowsRefused
from samespace.testing.backends import AwaitableBackend, RefusingBackend, TaskBackend
from samespace.testing.corpus import documents


class CallingBackend(TaskBackend):
    """Calls a function before it embeds a text that contains a word."""

    def __init__(self, word: str, call: object) -> None:
        super().__init__()
        self._word = word
        self._call = call

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        if callable(self._call) and any(self._word in text for text in texts):
            self._call()
        return super().embed_documents(texts)


class Holder:
    """Holds a lock on a row until it lets go."""

    def __init__(self, conninfo: str, schema: str, id: str) -> None:
        self._connection = psycopg.connect(conninfo)
        self._connection.execute(
            SQL("SELECT 1 FROM {} WHERE id = %s FOR UPDATE").format(Identifier(schema, "held")),
            (id,),
        )

    def wait_for_another(self) -> None:
        """Until another session waits for the row."""
        mine = self._connection.info.backend_pid
        blocked = (
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND %s = ANY(pg_blocking_pids(pid))"
        )
        while not self._connection.execute(blocked, (mine,)).fetchall()[0][0]:
            time.sleep(0.01)

    def let_go(self) -> None:
        self._connection.rollback()

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def holder(postgres: str, schema: str) -> Iterator[Holder]:
    with PgVectorStore(
        postgres,
        collection="held",
        backend=TaskBackend(),
        schema=schema,
        registry=f"{schema}_registry",
    ) as store:
        store.upsert([Document("0000", "the first of the first batch")])
    holder = Holder(postgres, schema, "0000")
    yield holder
    holder.close()


def two_batches() -> Iterator[Document]:
    for number in range(BATCH_DOCUMENTS):
        yield Document(f"{number:04}", f"text {number}")
    yield Document("last", "the only one of the second batch")


def test_a_batch_is_embedded_while_the_one_before_is_written(
    postgres: str, schema: str, holder: Holder
) -> None:
    # The first batch cannot be written before the second one is being embedded.
    backend = CallingBackend("second batch", holder.let_go)
    with PgVectorStore(
        postgres, collection="held", backend=backend, schema=schema, registry=f"{schema}_registry"
    ) as store:
        assert store.upsert(two_batches()).written == BATCH_DOCUMENTS + 1
        assert store.count() == BATCH_DOCUMENTS + 1


async def test_so_it_is_in_an_async_store(postgres: str, schema: str, holder: Holder) -> None:
    backend = CallingBackend("second batch", holder.let_go)
    async with AsyncPgVectorStore(
        postgres, collection="held", backend=backend, schema=schema, registry=f"{schema}_registry"
    ) as store:
        assert (await store.upsert(two_batches())).written == BATCH_DOCUMENTS + 1
        assert await store.count() == BATCH_DOCUMENTS + 1


def test_a_batch_that_was_being_written_is_reported_when_the_next_one_fails(
    postgres: str, schema: str, holder: Holder
) -> None:
    def fail() -> None:
        holder.let_go()
        raise EmbeddingError("the backend is gone; start it")

    with PgVectorStore(
        postgres,
        collection="held",
        backend=CallingBackend("second batch", fail),
        schema=schema,
        registry=f"{schema}_registry",
    ) as store:
        with pytest.raises(EmbeddingError) as caught:
            store.upsert(two_batches())
        assert caught.value.report is not None
        assert caught.value.report.written == store.count() == BATCH_DOCUMENTS


def test_a_source_that_fails_leaves_whole_batches_behind(postgres: str, schema: str) -> None:
    def broken() -> Iterator[Document]:
        yield from two_batches()
        raise KeyError("the source is broken")

    with PgVectorStore(
        postgres,
        collection="broken",
        backend=TaskBackend(),
        schema=schema,
        registry=f"{schema}_registry",
    ) as store:
        with pytest.raises(KeyError):
            store.upsert(broken())
        assert store.count() == BATCH_DOCUMENTS


# What a store or a backend refuses

LAYOUT = Layout(id="id", text="body", slot="e", metadata=("n",))


@pytest.fixture
def numbered(postgres: str, schema: str) -> Harness:
    """A table of somebody else's, whose column ``n`` takes whole numbers only."""
    harness = Harness(postgres, schema)
    harness.execute(
        "CREATE TABLE {table} (id text PRIMARY KEY, body text, e vector(64), n int)", table="n"
    )
    with harness.open("n", backend=TaskBackend(), layout=LAYOUT) as store:
        store.adopt()
    return harness


def with_one_bad(count: int, bad: int) -> list[Document]:
    return [Document(f"{n:02}", f"text {n}", {"n": n if n != bad else "abc"}) for n in range(count)]


@pytest.mark.parametrize("bad", [0, 3, 9])
def test_a_row_that_the_server_refuses_takes_no_other_down(numbered: Harness, bad: int) -> None:
    with numbered.open("n", backend=TaskBackend(), layout=LAYOUT) as store:
        report = store.upsert(with_one_bad(10, bad), on_error="report")
        assert report.written == store.count() == 9
    assert [(one.id, type(one.error)) for one in report.rejected] == [(f"{bad:02}", RowsRefused)]


async def test_so_it_is_in_an_async_store_too(
    postgres: str, schema: str, numbered: Harness
) -> None:
    async with AsyncHarness(postgres, schema).open(
        "n", backend=TaskBackend(), layout=LAYOUT
    ) as store:
        report = await store.upsert(with_one_bad(10, 3), on_error="report")
        assert report.written == await store.count() == 9
    assert [one.id for one in report.rejected] == ["03"]


@pytest.mark.parametrize(("last", "stored"), [("poison", "first"), ("good", "good")])
def test_of_the_same_id_twice_the_last_that_can_be_stored_wins(
    postgres: str, schema: str, last: str, stored: str
) -> None:
    twice = [Document("a", "first"), Document("a", last)]
    with Harness(postgres, schema).open("twice", backend=RefusingBackend("poison")) as store:
        report = store.upsert(twice, on_error="report")
        assert [document.text for document in store.get(["a"])] == [stored]
    assert report.written + len(report.rejected) == 2
    assert [one.id for one in report.rejected] == (["a"] if last == "poison" else [])


async def test_a_cancelled_upsert_does_not_wait_for_what_is_locked(
    postgres: str, schema: str, holder: Holder
) -> None:
    embedding = asyncio.Event()

    class WaitingBackend(AwaitableBackend):
        async def embed_documents(self, texts: Sequence[str]) -> Matrix:
            if any("second batch" in text for text in texts):
                embedding.set()
                await asyncio.Event().wait()
            return await super().embed_documents(texts)

    backend = WaitingBackend(TaskBackend())
    async with AsyncHarness(postgres, schema).open("held", backend=backend) as store:
        writing = asyncio.create_task(store.upsert(two_batches()))
        await embedding.wait()
        await asyncio.to_thread(holder.wait_for_another)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        holder.let_go()
        assert await store.count() == 1


def test_an_index_is_built_at_the_end_of_a_bulk_that_succeeds(
    postgres: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "AUTO_INDEX_ROWS", 2)

    def fail() -> None:
        with store.bulk():
            store.upsert(documents(3))
            raise RuntimeError("halfway")

    with Harness(postgres, schema).open("bulk", backend=TaskBackend()) as store:
        with pytest.raises(RuntimeError, match="halfway"):
            fail()
        assert not store.info().index_built
        with store.bulk():
            store.upsert(documents(4))
            assert not store.info().index_built
        assert store.info().index_built


def test_a_bulk_that_was_broken_off_leaves_its_index_to_the_one_that_goes_on(
    postgres: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Harness(postgres, schema).open("resumed", backend=TaskBackend()) as store:
        store.upsert(documents(3))
        monkeypatch.setattr(sql, "AUTO_INDEX_ROWS", 2)
        with store.bulk():
            pass
        assert not store.info().index_built
        with store.bulk(resumed=True):
            pass
        assert store.info().index_built
