"""The schedules that are tried in memory, on real stores: what is thought of them must hold there."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

import psycopg
import pytest
from hypothesis import settings
from psycopg.sql import SQL, Identifier
from qdrant_client import QdrantClient
from tests.contract.test_elasticsearch_contract import raw
from tests.contract.test_qdrant_contract import memory, prefix, raw_client
from tests.faults.applications import (
    Application,
    elasticsearch_adopted,
    postgres_adopted,
    postgres_ours,
    qdrant_local,
    qdrant_server,
)
from tests.migrate.corpus import CORPUS, GIVEN, LEFT, UNFINISHED
from tests.migrate.machine import FEW, NOTE, explore
from tests.migrate.memory_rows import NEW, OLD, DocumentRows, MemoryRows, PointRows, TableRows
from tests.migrate.schedules import Schedule, World, broken
from tests.migrate.stored_rows import GatedClient, Place, StoredRows, gated_client

__all__ = ["memory", "prefix", "raw", "raw_client"]  # fixtures
OWN = {OLD: True, NEW: True}
Maker = Callable[[], Place]
Made = Iterator[Maker]


def make_postgres(request: pytest.FixtureRequest, kind: Callable[..., Application]) -> Made:
    """In a schema of its own each time."""
    conninfo, parent = request.getfixturevalue("postgres"), request.getfixturevalue("schema")
    made: list[str] = []

    def make() -> Place:
        made.append(f"{parent}_{len(made)}")
        connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(made[-1])))
        return Place(kind(conninfo, made[-1], 0))

    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        yield make
        for name in (*made, *(f"{schema}_registry" for schema in made)):
            connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(name)))


def make_qdrant_local(request: pytest.FixtureRequest) -> Made:
    request.getfixturevalue("qdrant_local")
    clients: list[QdrantClient] = []

    def make() -> Place:
        clients.append(QdrantClient(":memory:"))
        return Place(qdrant_local(clients[-1], 0), partial(GatedClient, clients[-1]))

    yield make
    for client in clients:
        client.close()


def make_qdrant(request: pytest.FixtureRequest) -> Made:
    url, prefix = request.getfixturevalue("qdrant"), request.getfixturevalue("prefix")
    client = request.getfixturevalue("raw_client")
    dropping = {"grpc_port": request.getfixturevalue("qdrant_grpc")}

    def make() -> Place:
        application = qdrant_server(url, client, f"{prefix}{uuid.uuid4().hex[:8]}", 0)
        return Place(application, partial(gated_client, url), dropping)

    yield make


def make_elasticsearch(request: pytest.FixtureRequest) -> Made:
    raw = request.getfixturevalue("raw")
    yield lambda: Place(elasticsearch_adopted(raw.url, f"{raw.prefix}{uuid.uuid4().hex[:8]}", 0))


PLACES: dict[str, tuple[type[MemoryRows], Callable[[pytest.FixtureRequest], Made]]] = {
    "PostgreSQL, ours": (TableRows, partial(make_postgres, kind=postgres_ours)),
    "PostgreSQL, adopted": (TableRows, partial(make_postgres, kind=postgres_adopted)),
    "Qdrant local": (PointRows, make_qdrant_local),
    "Qdrant REST": (PointRows, make_qdrant),
    "Elasticsearch": (DocumentRows, make_elasticsearch),
}


@pytest.fixture(params=PLACES)
def make(request: pytest.FixtureRequest) -> Made:
    """Makes an application's empty collection with two slots, another one each time."""
    yield from PLACES[request.param][1](request)


@pytest.fixture
def model(request: pytest.FixtureRequest) -> type[MemoryRows]:
    """What stands for that store in memory."""
    return PLACES[request.node.callspec.params["make"]][0]


def check_same(rows: StoredRows, model: MemoryRows) -> None:
    """What is in a store is what the model says of it."""
    for slot in rows.slots:
        assert rows.vectors(slot) == model.vectors(slot)
        assert rows.fresh(slot) == model.fresh(slot)


def replay(rows: StoredRows, kind: type[MemoryRows], schedule: Schedule) -> None:
    """Take a schedule's steps on a store and on its model, and look after each at what must hold."""
    model = kind(rows.slots)
    worlds = World(rows), World(model)
    for step in (*schedule, ("settle",)):
        for world in worlds:
            world.take(step)
            world.check()
        check_same(rows, model)
    for world in worlds:
        world.check_settled()


@pytest.mark.parametrize("schedule", CORPUS.values(), ids=CORPUS)
def test_what_breaks_wrong_fillers_breaks_no_store(
    make: Maker, model: type[MemoryRows], schedule: Schedule
) -> None:
    with closing(StoredRows(make())) as rows:
        replay(rows, model, schedule)


@pytest.mark.parametrize("schedule", [GIVEN, LEFT], ids=["given", "left"])
def test_what_no_source_can_show_is_what_the_model_says(
    make: Maker, model: type[MemoryRows], schedule: Schedule
) -> None:
    with closing(StoredRows(make())) as rows:
        replay(rows, model, schedule)


def test_a_finish_that_does_not_look_is_found(make: Maker) -> None:
    with closing(StoredRows(make())) as rows:
        assert "only vectors" in str(broken(rows, UNFINISHED))


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_schedules_that_hypothesis_makes_up_break_nothing(
    make: Maker, model: type[MemoryRows]
) -> None:
    made: list[Schedule] = []
    explore(lambda: model(OWN), settings(FEW, max_examples=40), made=made.append)
    for schedule in made:
        with closing(StoredRows(make())) as rows:
            try:
                replay(rows, model, schedule)
            except Exception as fault:
                fault.add_note(f"{NOTE}{list(schedule)}")
                raise
