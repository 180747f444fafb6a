"""What guard_check() says becomes of raw writes is what becomes of them, store by store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import elasticsearch
import grpc
import numpy as np
import psycopg
import pytest
from psycopg.sql import SQL
from qdrant_client.http.exceptions import UnexpectedResponse
from tests.contract.pgvector import Harness as PostgresHarness
from tests.contract.test_qdrant_contract import Harness as QdrantHarness
from tests.cross.conftest import stranger_of
from tests.strangers import PostgresStranger, Stranger

from samespace import Document
from samespace.errors import StoreRejected
from samespace.hardening import Outcome, RawAct
from samespace.protocols import FacesRawWriters, Vector
from samespace.stores.qdrant.requests import point_id
from samespace.testing.backends import UNLIKE, V3, TaskBackend

REFUSALS = (
    psycopg.Error,
    UnexpectedResponse,
    grpc.RpcError,
    elasticsearch.ApiError,
    ValueError,  # what Qdrant's local mode raises
    KeyError,
)
GUIDE = Path(__file__).parents[2] / "docs" / "guard.md"
UNIT: Vector = np.eye(64, dtype=np.float32)[0]
STORED = "1"
"""The id of the row that is there before."""


class RawWriter:
    """Somebody with a store's own driver in a collection of ours or of others."""

    def __init__(self, harness: Any, collection: str, *, own: bool, slot: str) -> None:
        self.own, self.slot = own, slot
        self.is_qdrant = isinstance(harness, QdrantHarness)
        self.stranger: Stranger
        if isinstance(harness, PostgresHarness):
            key = "id" if own else "chunk_id"
            self.stranger = PostgresStranger(harness.conninfo, harness.schema, collection, key=key)
        else:
            self.stranger = stranger_of(harness, collection)

    def key(self, id: str) -> Any:
        """The physical key of a row."""
        if not self.is_qdrant:
            return id
        return point_id(id) if self.own else int(id)

    def do(self, act: RawAct, id: str) -> None:
        """One raw act on a new row, but for the change in place, which is on the one that is there."""
        odd = {RawAct.UNKNOWN_FIELD: {"nonsense": "x"}}.get(act, {})
        vectors: dict[RawAct, dict[str, Vector]] = {
            RawAct.OTHER_SPACE: {UNLIKE.id: UNIT},
            RawAct.NO_VECTOR: {},
            RawAct.WRONG_DIMENSION: {self.slot: UNIT[:63]},
            RawAct.UN_NORMALISED: {self.slot: 2 * UNIT},
        }
        if act is RawAct.UNNAMED:
            self._put_unnamed(id)
        elif act is RawAct.IN_PLACE:
            self.stranger.change(self.key(STORED), {}, {self.slot: UNIT})
        else:
            row = {**self._fields(), **odd}
            self.stranger.put(self.key(id), row, vectors.get(act, {self.slot: UNIT}))

    def _fields(self) -> dict[str, Any]:
        if not self.own:
            return {"body": "raw"}
        return {"text": "raw", "metadata": {}}

    def _put_unnamed(self, id: str) -> None:
        if not isinstance(self.stranger, PostgresStranger):
            self.stranger.put(self.key(id), self._fields(), {"": UNIT})
            return
        nothing = (None,) * (5 if self.own else 2)
        values = (id, "raw", *(["{}"] if self.own else []), *nothing, str(UNIT.tolist()))
        places = SQL(", ").join([SQL("%s")] * len(values))
        statement = SQL("INSERT INTO {} VALUES ({})").format(self.stranger.table, places)
        self.stranger.connection.execute(statement, values)

    def outcome(self, store: Any, act: RawAct, id: str) -> Outcome:
        """What becomes of an act."""
        try:
            self.do(act, id)
        except REFUSALS:
            return Outcome.REFUSED
        rows, _ = store.pending(store.space, limit=1000)
        touched = STORED if act is RawAct.IN_PLACE else str(self.key(id))
        is_pending = touched in {row.document.id for row in rows}
        return Outcome.PENDING if is_pending else Outcome.STORED


@contextmanager
def open_collection(harness: Any, kind: str) -> Iterator[tuple[Any, RawWriter]]:
    """A collection with one row, made here or adopted, and somebody who writes to it raw."""
    store, writer = own(harness) if kind == "own" else adopted(harness, kind)
    with store, closing(writer.stranger):
        yield store, writer


def own(harness: Any) -> tuple[Any, RawWriter]:
    store = harness.open("made", backend=TaskBackend())
    store.upsert([Document(STORED, "a text")])
    return store, RawWriter(harness, "made", own=True, slot=V3.id)


def adopted(harness: Any, kind: str) -> tuple[Any, RawWriter]:
    backend = TaskBackend()
    row = Document(STORED, "a text", {"lang": "en", "year": 2020})
    name, layout = harness.make_foreign([row], backend.embed_documents([row.text]))
    if kind == "adopted, any size":
        harness.execute("ALTER TABLE {t} ALTER embedding TYPE vector", t=name)
        harness.execute("ALTER TABLE {t} ALTER embedding DROP NOT NULL", t=name)
    store = harness.open(name, backend=backend, layout=layout)
    store.adopt()
    return store, RawWriter(harness, name, own=False, slot=layout.slot)


def check(store: Any, writer: RawWriter) -> dict[RawAct, Outcome]:
    """The table as it is told, after a comparison with what becomes of each act."""
    assert isinstance(store, FacesRawWriters)
    table = store.guard_check()
    assert [row.act for row in table] == list(RawAct)
    told = {row.act: row.outcome for row in table}
    applicable = [act for act in RawAct if told[act] is not Outcome.NOT_APPLICABLE]
    seen = {act: writer.outcome(store, act, str(10 + n)) for n, act in enumerate(applicable)}
    assert seen == {act: told[act] for act in applicable}
    return told


def documented(harness: Any, column: str) -> dict[RawAct, Outcome]:
    """A column of a store's table in the guide."""
    store = "Qdrant" if isinstance(harness, QdrantHarness) else "PostgreSQL"
    if not isinstance(harness, QdrantHarness | PostgresHarness):
        store = "Elasticsearch"
    section = GUIDE.read_text(encoding="utf-8").split(f"### {store}\n")[1]
    lines = [line for line in section.split("\n#")[0].splitlines() if line.startswith("| ")]
    (_, *names), *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {RawAct(act): Outcome(cells[names.index(column)]) for act, *cells in rows}


@pytest.mark.parametrize("kind", ["own", "adopted"])
def test_the_table_says_what_becomes_of_each_raw_write(harness: Any, kind: str) -> None:
    with open_collection(harness, kind) as (store, writer):
        told = check(store, writer)
    assert told == documented(harness, "ours" if kind == "own" else "adopted")


@pytest.mark.parametrize("kind", ["own", "adopted"])
def test_it_says_so_of_a_hardened_collection_too(harness: Any, kind: str) -> None:
    with open_collection(harness, kind) as (store, writer):
        changes = store.guard_install()
        assert store.guard_install() == ()
        told = check(store, writer)
        assert bool(store.guard_remove()) == bool(changes)
    column = "ours" if kind == "own" else "adopted"
    assert told == documented(harness, column if writer.is_qdrant else f"{column}, hardened")


def test_a_column_of_any_size_takes_any_until_it_is_hardened(postgres: str, schema: str) -> None:
    harness = PostgresHarness(postgres, schema)
    with open_collection(harness, "adopted, any size") as (store, writer):
        told = check(store, writer)
        assert told[RawAct.WRONG_DIMENSION] is Outcome.STORED
        with pytest.raises(StoreRejected, match=r"1 rows .*embedding.*64 dimensions.*nothing was"):
            store.guard_install()
        harness.execute("DELETE FROM {t} WHERE chunk_id > 1", t="foreign")
        store.guard_install()
        told = check(store, writer)
    assert told[RawAct.WRONG_DIMENSION] is Outcome.REFUSED
    assert told[RawAct.UN_NORMALISED] is Outcome.REFUSED
    assert told[RawAct.NO_VECTOR] is Outcome.PENDING
