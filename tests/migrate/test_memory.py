"""What a migration holds in memory does not follow the rows."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from tests.contract.ingesting import (
    Place,
    elasticsearch_place,
    postgres_place,
    qdrant_server_place,
)
from tests.contract.test_elasticsearch_contract import raw
from tests.contract.test_qdrant_contract import prefix
from tests.faults.forking import Forked
from tests.migrate import moving
from tests.migrate.moving import FLAT, NEW, OLD

from samespace import Document
from samespace.errors import EmbeddingError
from samespace.migrate import MigrationReport, MigrationRun, plan
from samespace.protocols import Matrix
from samespace.stores.pgvector.table import source_name
from samespace.testing.backends import UNLIKE, TaskBackend

__all__ = ["prefix", "raw"]  # fixtures
MEBIBYTE = 2**20
MOST = 256 * MEBIBYTE
ROW = 48
"""Bytes that may be kept of a row that is refused: the fingerprints of its id and of its text."""
COPIES = SQL("""
INSERT INTO {rows} (id, text, metadata, {slot}, {source})
SELECT id, text, '{{}}', vector,
  substr(sha256(convert_to(id, 'UTF8') || '\\x00'::bytea || convert_to(text, 'UTF8')), 1, 16)
FROM (
  SELECT lpad(n::text, 9, '0') AS id, concat_ws(' ', {words}) AS text, first.{slot} AS vector
  FROM generate_series(1, %(count)s) AS n, {rows} AS first WHERE first.id = 'first') AS made
""")
WORDS = SQL("'word' || n %% 500, 'term' || n / 500 %% 500, 'name' || n * 7 %% 500, 'text'")


def many(place: Place, count: int) -> None:
    """So many rows and one more in PostgreSQL, made by the server out of the first."""
    with place.open(OLD, index=FLAT) as store:
        store.upsert([Document("first", "a text")])
    names = {
        "rows": Identifier(place.options["schema"], place.collection),
        "slot": Identifier(OLD.space.id),
        "source": Identifier(source_name(OLD.space.id)),
    }
    with psycopg.connect(place.source, autocommit=True) as connection:
        connection.execute(COPIES.format(words=WORDS, **names), {"count": count})
        connection.execute(SQL("VACUUM ANALYZE {}").format(names["rows"]))


def written(place: Place, count: int) -> None:
    """So many rows and one more in a store that makes none itself."""
    vectors = OLD.embed_documents(["a text"]).repeat(1000, axis=0)
    with place.open(OLD) as store:
        store.upsert([Document("first", "a text")])
        for start in range(0, count, 1000):
            rows = [Document(f"{n:09}", f"text {n}") for n in range(start, start + 1000)]
            store.upsert_vectors(rows, list(vectors), space=OLD.space)


FULL: dict[str, tuple[Callable[[pytest.FixtureRequest], Place], Callable[[Place, int], None], int]]
FULL = {
    "PostgreSQL": (postgres_place, many, 1_000_000),
    "Elasticsearch": (elasticsearch_place, written, 50_000),
    "Qdrant REST": (qdrant_server_place, written, 50_000),
}


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", FULL)
def test_many_rows_are_migrated_in_little_memory(request: pytest.FixtureRequest, kind: str) -> None:
    """Qdrant's local mode, which holds all points in the process, is not asked."""
    of, seed, count = FULL[kind]
    place = of(request)
    seed(place, count)
    code, said, errors = Forked(moving.main, place=asdict(place)).last_words()
    assert code == 0, errors
    seen: dict[str, Any] = json.loads(said)
    assert (seen["complete"], seen["filled"]) == (True, count + 1)
    assert all(grown <= MOST for grown in seen["grown"].values()), seen


class Refusing(TaskBackend):
    """Has no vector for any text of these collections."""

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        refused = [place for place, text in enumerate(texts) if text.endswith(" text")]
        if refused:
            raise EmbeddingError("too odd", indices=refused)
        return super().embed_documents(texts)


BACKENDS: dict[str, Callable[[], Any]] = {
    "filled": lambda: NEW,
    "refused": lambda: Refusing(UNLIKE),
}


def held_at_most(place: Place, count: int, backend: Any) -> tuple[int, MigrationReport]:
    """Bytes that planning and running for so many rows have allocated at their most."""
    place = replace(place, collection=f"rows_{count}")
    many(place, count)
    with place.open(OLD, index=FLAT) as store:
        tracemalloc.start()
        try:
            report = MigrationRun(store, backend, plan(store, backend), batch_size=50).run()
            return tracemalloc.get_traced_memory()[1], report
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("outcome", BACKENDS)
def test_five_times_the_rows_take_no_more_memory(
    request: pytest.FixtureRequest, outcome: str
) -> None:
    place, backend = postgres_place(request), BACKENDS[outcome]()
    held_at_most(place, 500, backend)  # and what is loaded once
    few, _ = held_at_most(place, 2_000, backend)
    more, report = held_at_most(place, 10_000, backend)
    slot = report.collections[0].slots[0]
    assert max(slot.filled, slot.refused) >= 10_000
    assert more - few <= 8_000 * ROW, (few, more)
