"""Many processes that create one collection at the same moment."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from samespace import EmbeddingSpace, PgVectorStore
from samespace.errors import SamespaceError, SpaceMismatch
from samespace.testing.backends import UNLIKE, V3

CREATORS = 16
PATIENCE = 240
"""Seconds until a barrier gives up, so that a process that died is a failure and no hang."""


def create_each_round(
    conninfo: str,
    schema: str,
    space: EmbeddingSpace,
    rounds: int,
    *,
    together: Barrier,
    answers: Queue[tuple[int, str]],
) -> None:
    """Create the collection once a round, when all others do."""
    for number in range(rounds):
        store = PgVectorStore(
            conninfo,
            collection="raced",
            space=space,
            schema=f"{schema}_made",
            registry=f"{schema}_registry",
        )
        with store:
            together.wait(PATIENCE)
            answers.put((number, answer(store)))
        together.wait(PATIENCE)


def answer(store: PgVectorStore) -> str:
    try:
        store.create()
    except SpaceMismatch:
        return "mismatch"
    except SamespaceError as error:
        return f"{type(error).__name__}: {error}"
    return store.space.id


@contextmanager
def creators(
    conninfo: str, schema: str, rounds: int, spaces: list[EmbeddingSpace]
) -> Iterator[tuple[Barrier, Queue[tuple[int, str]]]]:
    """Processes that stop at a barrier before and after each round; so does the test."""
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(CREATORS + 1)
    answers: Queue[tuple[int, str]] = context.Queue()
    processes = [
        context.Process(
            target=create_each_round,
            args=(conninfo, schema, spaces[number % len(spaces)], rounds),
            kwargs={"together": together, "answers": answers},
            daemon=True,
        )
        for number in range(CREATORS)
    ]
    for process in processes:
        process.start()
    try:
        yield together, answers
    finally:
        together.abort()
        for process in processes:
            process.join(PATIENCE)


def made(connection: psycopg.Connection[Any], schema: str) -> tuple[list[str], list[list[str]]]:
    """The names of the table's columns, and the slots that the registry's records name."""
    columns = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0",
        (f"{schema}_made.raced",),
    )
    records = connection.execute(
        SQL("SELECT jsonb_path_query_array(record, '$.slots[*].name') FROM {}").format(
            Identifier(f"{schema}_registry", "collections")
        )
    )
    return [row[0] for row in columns.fetchall()], [row[0] for row in records.fetchall()]


def forget(connection: psycopg.Connection[Any], schema: str) -> None:
    """Remove all that a round made, schemas included."""
    connection.execute("SET client_min_messages = warning")
    for name in (f"{schema}_made", f"{schema}_registry"):
        connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(name)))


@pytest.mark.parametrize("spaces", [[V3], [V3, UNLIKE]], ids=["one space", "two spaces"])
@pytest.mark.parametrize(
    "rounds", [2, pytest.param(50, marks=[pytest.mark.soak, pytest.mark.timeout(1800)])]
)
def test_of_racing_creators_one_wins(
    postgres: str, schema: str, spaces: list[EmbeddingSpace], rounds: int
) -> None:
    losers = CREATORS - CREATORS // len(spaces)
    with (
        psycopg.connect(postgres, autocommit=True) as connection,
        creators(postgres, schema, rounds, spaces) as (together, answers),
    ):
        for number in range(rounds):
            together.wait(PATIENCE)
            heard = [answers.get(timeout=PATIENCE) for _ in range(CREATORS)]
            counted = Counter(said for of_round, said in heard if of_round == number)
            (winner,) = set(counted) - {"mismatch"}
            assert counted == Counter({winner: CREATORS - losers, "mismatch": losers})
            assert winner in {space.id for space in spaces}
            columns, records = made(connection, schema)
            assert [column for column in columns if column.startswith(("jina", "another"))] == [
                winner,
                f"{winner}__source",
            ]
            assert records == [[winner]]
            forget(connection, schema)
            together.wait(PATIENCE)
