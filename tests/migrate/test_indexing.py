"""The index of a migrated slot: built while others write, and again where a build was killed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from tests.contract.ingesting import Place, postgres_place
from tests.faults.forking import Forked
from tests.migrate import indexing
from tests.migrate.following import Follower
from tests.migrate.moving import FLAT, NEW, OLD
from tests.migrate.test_memory import many

from samespace import Document, Index
from samespace.migrate import MigrationPlan, MigrationRun, plan

INDEXES = """
SELECT i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = %s::regclass AND c.relname LIKE '%%hnsw' AND pg_get_indexdef(c.oid) LIKE %s
"""
BUILDERS = "SELECT pid FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"


@pytest.fixture
def server(postgres: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres, autocommit=True) as connection:
        yield connection


def table(place: Place) -> Identifier:
    return Identifier(place.options["schema"], place.collection)


def indexes(server: psycopg.Connection[Any], place: Place) -> list[bool]:
    """Whether each of the target's can be used."""
    asked = (table(place).as_string(server), f"%{NEW.space.id}%")
    return [valid for (valid,) in server.execute(INDEXES, asked)]


def filled(place: Place, count: int, file: Path) -> MigrationPlan:
    """A migration in which all is done but the index."""
    many(place, count)
    with place.open(OLD, index=FLAT) as store:
        made = plan(store, NEW)
        assert MigrationRun(store, NEW, made).run().filled == count + 1
    file.write_bytes(orjson.dumps(made.to_dict()))
    return made


@contextmanager
def writing(place: Place) -> Iterator[psycopg.Connection[Any]]:
    """A transaction that has written a row and stays open: a build begins, and waits for its end."""
    insert = SQL("INSERT INTO {} (id, text, metadata) VALUES ('theirs', 'their text', '{{}}')")
    with psycopg.connect(place.source) as connection:
        connection.execute(insert.format(table(place)))
        yield connection


def builder(server: psycopg.Connection[Any], by: int) -> int:
    """The session that waits for another one, once it does."""
    while not (found := server.execute(BUILDERS, (by,)).fetchall()):
        continue
    return int(found[0][0])


@pytest.mark.parametrize(
    ("count", "build"),
    [
        (300, "immediate"),
        pytest.param(20_000, "auto", marks=[pytest.mark.soak, pytest.mark.timeout(1800)]),
    ],
)
def test_a_build_goes_on_beside_writers_and_is_made_again_once_killed(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    server: psycopg.Connection[Any],
    count: int,
    build: Any,
) -> None:
    place = postgres_place(request)
    made = filled(place, count, tmp_path / "plan")
    with writing(place) as writer:
        run = Forked(indexing.main, place=asdict(place), plan=str(tmp_path / "plan"), build=build)
        building = builder(server, writer.info.backend_pid)
        with place.open(OLD, index=FLAT) as store:  # else it would build one of its own slot
            store.upsert([Document("ours", "written while the index is built")])
            store.delete(ids=["first"])
        run.end(signal.SIGKILL)
        run.last_words()
        # What a server does that finds out, or is shut down: without that it builds to the end.
        server.execute("SELECT pg_terminate_backend(%s, 60000)", (building,))
        assert indexes(server, place) == [False]
    with place.open(OLD, index=Index(build=build)) as store:
        report = MigrationRun(store, NEW, made).run()
        assert (report.complete, report.filled) == (True, 2)
        assert report.collections[0].indexed
        assert indexes(server, place) == [True]
        young = store.in_space(NEW.space, backend=NEW)
        [vector] = NEW.embed_documents(["written while the index is built"])
        hits = young.search_vector(vector, space=NEW.space, allow_filling=True, limit=1)
        assert [hit.document.id for hit in hits] == ["ours"]


def test_a_follower_follows_while_the_index_is_built_and_when_that_failed(
    request: pytest.FixtureRequest, tmp_path: Path, server: psycopg.Connection[Any]
) -> None:
    place = postgres_place(request)
    made = filled(place, 300, tmp_path / "plan")
    with (
        writing(place) as writer,
        place.open(OLD, index=FLAT) as application,
        place.open(OLD, index=Index(build="immediate")) as store,
        Follower(store, NEW, made, interval=0.05) as follower,
    ):
        building = builder(server, writer.info.backend_pid)
        application.upsert([Document("ours", "written while the index is built")])
        report = follower.wait_until_idle()
        assert (report.filled, report.following, report.complete) == (1, True, False)
        server.execute("SELECT pg_cancel_backend(%s)", (building,))
        assert builder(server, writer.info.backend_pid)  # it is begun again
        assert indexes(server, place) == [False]
        writer.commit()
        follower.wait_until(lambda: follower.run.report.complete)
        assert follower.run.report.collections[0].indexed
        assert follower.run.report.filled == 3  # theirs in both slots
    assert indexes(server, place) == [True]


@pytest.mark.parametrize("follow", [False, True])
async def test_a_build_is_left_behind_by_whoever_cancels_the_run(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    server: psycopg.Connection[Any],
    follow: bool,
) -> None:
    place = postgres_place(request)
    made = filled(place, 300, tmp_path / "plan")
    with (
        place.open(OLD, index=Index(build="immediate")) as store,
        writing(place) as writer,
    ):
        run = asyncio.create_task(MigrationRun(store, NEW, made, follow=follow).run_async())
        building = await asyncio.to_thread(builder, server, writer.info.backend_pid)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert indexes(server, place) == [False]  # it waits for the writer still
        server.execute("SELECT pg_terminate_backend(%s, 60000)", (building,))
