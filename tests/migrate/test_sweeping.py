"""What a verification finds pending is looked at again: others give rows texts and vectors meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import LiteralString

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from tests.audit.poisoning import documents
from tests.contract.ingesting import Place, postgres_place

from samespace import Document
from samespace.migrate import MigrationPlan, plan, run, verify
from samespace.migrate.verification import Check
from samespace.protocols import VectorStore
from samespace.testing.backends import UNLIKE, V3, TaskBackend


def new() -> TaskBackend:
    return TaskBackend(UNLIKE, seed=5)


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    return postgres_place(request)


@pytest.fixture
def old(place: Place) -> Iterator[VectorStore]:
    """A handle of the space that is moved from."""
    with place.open(TaskBackend()) as store:
        store.upsert(documents(20))
        yield store


BLANK = "UPDATE {t} SET text = ' ' WHERE id = 'd0'"
EMPTY = "UPDATE {t} SET text = ' ', {v} = NULL WHERE id = 'd0'"
GIVEN = "UPDATE {t} SET {v} = array_fill(0.125, ARRAY[64])::vector WHERE id = 'd0'"


def behind(place: Place, statement: LiteralString) -> None:
    """Change one row as an application does that knows nothing of slots."""
    names = {"t": Identifier(place.options["schema"], place.collection), "v": Identifier(V3.id)}
    with psycopg.connect(place.source, autocommit=True) as connection:
        connection.execute(SQL(statement).format(**names))


def pending_in(store: VectorStore, made: MigrationPlan, change: Callable[[], object]) -> Check:
    """What is found of pending rows, if the row changes while samples are looked at."""

    def tell(_: str, check: str) -> None:
        if check == "sample":
            change()

    seen = verify(store, new(), made, repetitions=1, patience=1, on_progress=tell)
    return seen.collections[0].check("pending")


def test_a_row_that_gets_a_text_and_its_vector_is_textless_no_more(
    place: Place, old: VectorStore
) -> None:
    behind(place, BLANK)
    made = plan(old, new())
    run(old, new(), made)

    def change() -> None:
        old.upsert([Document("d0", "now it has one")])
        run(old, new(), made)

    check = pending_in(old, made, change)
    assert (check.passed, check.figures["textless"]) == (True, 0)


def test_a_blank_row_that_gets_an_old_vector_is_textless(place: Place, old: VectorStore) -> None:
    behind(place, EMPTY)
    made = plan(old, new())
    run(old, new(), made)
    check = pending_in(old, made, lambda: behind(place, GIVEN))
    assert (check.passed, check.figures["textless"], check.figures["blank"]) == (False, 1, 0)
