"""What PostgreSQL itself refuses, whoever asks: another space's column, and another norm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import errors as pg
from psycopg.sql import SQL, Composed, Identifier
from tests.contract.pgvector import Harness

from samespace import Document
from samespace.errors import SpaceMismatch, SpaceUnknown
from samespace.space import EmbeddingSpace
from samespace.stores.refusals import Gone
from samespace.testing.backends import UNLIKE, V3, TaskBackend

UNIT = str([1.0] + 63 * [0.0])
RAW = EmbeddingSpace(model="un-normalised", dimensions=64, normalized=False)
Work = Callable[[psycopg.Connection[Any], str], object]


def statement(text: str, slot: str) -> Composed:
    """One statement in which ``{slot}`` stands for a slot's column."""
    return SQL(text).format(slot=Identifier(slot))


def insert(connection: psycopg.Connection[Any], slot: str, vector: str = UNIT) -> object:
    text = "INSERT INTO guarded (id, text, metadata, {slot}) VALUES ('raw', 'x', '{{}}', %s)"
    return connection.execute(statement(text, slot), (vector,))


def update(connection: psycopg.Connection[Any], slot: str, vector: str = UNIT) -> object:
    return connection.execute(statement("UPDATE guarded SET {slot} = %s", slot), (vector,))


def copy(connection: psycopg.Connection[Any], slot: str, vector: str = UNIT) -> None:
    text = "COPY guarded (id, text, metadata, {slot}) FROM STDIN"
    with connection.cursor().copy(statement(text, slot)) as rows:
        rows.write_row(("raw", "x", "{}", vector))


def search(connection: psycopg.Connection[Any], slot: str) -> object:
    return connection.execute(
        statement("SELECT id FROM guarded ORDER BY {slot} <=> %s::vector LIMIT 1", slot), (UNIT,)
    )


def read(connection: psycopg.Connection[Any], slot: str) -> object:
    return connection.execute(statement("SELECT {slot} FROM guarded", slot))


@pytest.fixture
def harness(postgres: str, schema: str) -> Harness:
    harness = Harness(postgres, schema)
    with harness.open("guarded", backend=TaskBackend()) as store:
        store.upsert([Document("a", "text")])
    return harness


@pytest.fixture
def raw(harness: Harness) -> Any:
    """A connection of somebody who does not use this library."""
    with psycopg.connect(harness.conninfo, autocommit=True) as connection:
        path = SQL("SET search_path = {}, public").format(Identifier(harness.schema))
        connection.execute(path)
        yield connection


@pytest.mark.parametrize("work", [insert, update, copy, search, read])
def test_whoever_names_another_space_is_refused_by_the_server(
    harness: Harness, raw: psycopg.Connection[Any], work: Work
) -> None:
    before = harness.dump("guarded")
    with pytest.raises(pg.UndefinedColumn, match=UNLIKE.id):
        work(raw, UNLIKE.id)
    assert harness.dump("guarded") == before
    work(raw, V3.id)


@pytest.mark.parametrize("work", [insert, update, copy])
@pytest.mark.parametrize("length", [0.0, 0.998, 1.002, 30.0])
def test_the_server_keeps_vectors_of_a_normalised_space_at_unit_norm(
    harness: Harness, raw: psycopg.Connection[Any], work: Any, length: float
) -> None:
    vector = TaskBackend().embed_documents(["text"])[0]
    with pytest.raises(pg.CheckViolation, match="norm"):
        work(raw, V3.id, str((vector * np.float32(length)).tolist()))
    work(raw, V3.id, str((vector * np.float32(1.0005)).tolist()))


def test_a_slot_that_is_added_is_kept_at_unit_norm_too(
    harness: Harness, raw: psycopg.Connection[Any]
) -> None:
    with harness.open("guarded", backend=TaskBackend()) as store:
        store.add_slot(UNLIKE)
        store.add_slot(RAW)
    longer = str([2.0] + 63 * [0.0])
    with pytest.raises(pg.CheckViolation, match="norm"):
        update(raw, UNLIKE.id, longer)
    update(raw, RAW.id, longer)


def test_nobody_puts_in_what_is_no_vector_of_this_size(
    harness: Harness, raw: psycopg.Connection[Any]
) -> None:
    for vector in (str(63 * [0.1]), str([float("nan")] + 63 * [0.0])):
        with pytest.raises(psycopg.DataError):
            insert(raw, V3.id, vector)


def test_a_handle_that_is_warm_is_refused_by_the_server_in_the_same_round_trip(
    harness: Harness, raw: psycopg.Connection[Any]
) -> None:
    """No read of the record comes before: the column's name is the guard."""
    with harness.open("guarded", backend=TaskBackend()) as store:
        store.search("warm")
        with harness.open("guarded", backend=TaskBackend()) as another:
            another.drop()
        with harness.open("guarded", backend=TaskBackend(UNLIKE)) as other:
            other.upsert([Document("a", "text")])
        with pytest.raises(SpaceMismatch) as caught:
            store.search("text")
    refused = caught.value.__context__
    assert isinstance(refused, Gone)
    assert isinstance(refused.__cause__, pg.UndefinedColumn)


REFUSED: dict[str, Callable[[Any], object]] = {
    "search": lambda store: store.search("text"),
    "upsert": lambda store: store.upsert([Document("b", "text")]),
    "delete": lambda store: store.delete(ids=["a"]),
}


@pytest.mark.parametrize("way", REFUSED)
def test_a_column_that_was_dropped_is_missed_by_name(harness: Harness, way: str) -> None:
    with harness.open("guarded", backend=TaskBackend()) as warm:
        assert warm.count() == 1
        harness.execute("ALTER TABLE {table} DROP COLUMN {slot}", table="guarded", slot=V3.id)
        with pytest.raises(SpaceUnknown, match=f"{V3.id}.*lacks"):
            REFUSED[way](warm)
    cold = harness.open("guarded", backend=TaskBackend())
    with cold, pytest.raises(SpaceUnknown, match=f"{V3.id}.*lacks"):
        REFUSED[way](cold)
