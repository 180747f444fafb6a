"""A whole migration behind a pooler that gives each transaction another session, which forgets all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest
from tests.contract.ingesting import Place, postgres_place
from tests.migrate.following import Follower
from tests.migrate.test_running import ROWS, check_filled, new, seeded
from tests.servers.pooler import SESSIONS, Pooler

from samespace import Document, Index
from samespace.errors import SpaceMismatch
from samespace.migrate import finish, open_slot, plan, status, verify
from samespace.testing.backends import UNLIKE, TaskBackend


@pytest.fixture
def pooler(postgres: str) -> Iterator[Pooler]:
    with Pooler(postgres) as pooler:
        yield pooler


@pytest.fixture
def pooled(request: pytest.FixtureRequest, pooler: Pooler) -> Place:
    place = postgres_place(request)
    indexed = {**place.options, "index": Index(build="immediate")}
    return replace(place, source=pooler.conninfo, options=indexed)


def test_the_pooler_lends_another_session_each_time_and_it_has_forgotten(pooler: Pooler) -> None:
    asked = "SELECT pg_backend_pid(), current_setting('work_mem')"
    with psycopg.connect(pooler.conninfo, autocommit=True, prepare_threshold=None) as connection:
        connection.execute("SET work_mem = '99MB'")
        seen = [connection.execute(asked).fetchone() for _ in range(SESSIONS)]
        with connection.transaction():
            held = {connection.execute(asked).fetchone() for _ in range(3)}
    assert len(set(seen)) == SESSIONS
    assert len(held) == 1
    assert "99MB" not in str(seen)


def test_a_migration_from_plan_to_end_needs_nothing_of_a_session(
    pooled: Place, pooler: Pooler
) -> None:
    seeded(pooled)
    with pooled.open(TaskBackend()) as store:
        made = plan(store, new())
    with (
        pooled.open(TaskBackend()) as store,
        Follower(store, new(), made, interval=0.01) as following,
    ):
        following.wait_until_idle()
        with pooled.open(TaskBackend()) as old, pooled.open(new()) as young:
            old.upsert([replace(ROWS[0], text="anew")])
            young.upsert([Document("young", "written by the new one")])
            old.delete(ids=[ROWS[1].id])
        following.wait_until_idle()
        with pooled.open(TaskBackend()) as old:
            found = verify(old, new(), made)
            assert found.passed, found.lines()
            open_slot(old, made, found)
            assert verify(old, new(), made).passed  # which can be asked again
        with pooled.open(new()) as young:
            assert young.search("anew")[0].document.id == ROWS[0].id
            assert next(s for s in young.info().slots if s.space == UNLIKE).pending == 0
    rows = [replace(ROWS[0], text="anew"), *ROWS[2:], Document("young", "written by the new one")]
    for backend in (TaskBackend(), new()):
        check_filled(pooled, backend, rows)
    with pooled.open(TaskBackend()) as old:
        assert all(slot.pending == 0 for slot in status(old, made).collections[0].slots)
        finish(old, made)
    with pooled.open(new()) as young:
        assert young.info().index_built
        assert young.search("anew")[0].document.id == ROWS[0].id
    with pooled.open(TaskBackend()) as old, pytest.raises(SpaceMismatch):
        old.search("anew")
    assert pooler.transactions > SESSIONS
