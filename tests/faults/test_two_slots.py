"""Two slots in the rows of one table, while its application writes and fillers are killed.

The application knows the first slot only and writes with the bare driver. Once it is idle and all
is filled, no row is lost, none has come back, and each vector is of the text that is there.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.sql import SQL, Composed, Identifier
from psycopg.types.json import Jsonb
from tests.faults.filling import NEW, OLD

from samespace import Document, Index, Layout, PgVectorStore
from samespace.protocols import Vector
from samespace.stores.pgvector.binary import load_vector
from samespace.stores.pgvector.table import Name
from samespace.testing.backends import UNLIKE, V3, TaskBackend

ROOT = Path(__file__).parents[2]
WRITERS = 4
WORDS = ("anchor", "bramble", "cinder", "dune")
HOT_ROWS = 40
"""Of each writer's rows these get most of the operations, so that fillers meet them in motion."""


@dataclass(frozen=True, slots=True)
class Load:
    """How much is done: by the writers together, on rows that are there, with kills of fillers."""

    operations: int
    rows: int
    kills: int


LOADS = [
    pytest.param(Load(1_200, 400, 3), id="small"),
    pytest.param(
        Load(20_000, 5_000, 40), id="full", marks=[pytest.mark.soak, pytest.mark.timeout(3600)]
    ),
]


@dataclass(frozen=True, slots=True)
class Names:
    """What the application calls things, and how it writes a key."""

    table: str
    key: str
    text: str
    metadata: str
    vector: str
    as_key: Callable[[int], int | str]


OURS = Names("chunks", "id", "text", "metadata", V3.id, str)
ADOPTED = Names("chunks", "chunk no", "Body %", "labels", "embedding", int)

Rows = dict[int | str, tuple[str, dict[str, Any]]]
"""Text and metadata by key."""


@dataclass
class Application:
    """Raw SQL against one table, and what the server has acknowledged of it.

    ``filled`` counts the rows that fillers had written when they were killed.
    """

    conninfo: str
    schema: str
    names: Names
    acknowledged: Rows = field(default_factory=dict)
    operations: int = 0
    filled: int = 0

    @property
    def options(self) -> dict[str, Any]:
        """What opens this table's collection."""
        registry = f"{self.schema}_registry"
        return {"collection": self.names.table, "schema": self.schema, "registry": registry}

    def sql(self, statement: str) -> Composed:
        """A statement in which ``{table}``, ``{key}`` and so on stand for names."""
        called = ("key", "text", "metadata", "vector")
        quoted = {name: Name(getattr(self.names, name)) for name in called}
        table = Name(self.schema, self.names.table)
        return SQL(statement).format(table=table, new=Name(UNLIKE.id), **quoted)

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.conninfo, autocommit=True)

    def seed(self, rows: int) -> None:
        """Rows as the application wrote them before there was a second slot."""
        for number in range(rows):
            self.acknowledged[self.names.as_key(number)] = (text_of(number, 0), {"version": 0})
        texts = [text for text, _ in self.acknowledged.values()]
        vectors = literals(OLD, texts)
        with self.connect() as connection, connection.transaction():
            connection.cursor().executemany(
                self.sql(INSERT),
                [
                    (key, text, Jsonb(metadata), vector)
                    for (key, (text, metadata)), vector in zip(
                        self.acknowledged.items(), vectors, strict=True
                    )
                ],
            )


INSERT = """INSERT INTO {table} ({key}, {text}, {metadata}, {vector}) VALUES (%s, %s, %s, %s)
ON CONFLICT ({key}) DO UPDATE SET {text} = EXCLUDED.{text}, {metadata} = EXCLUDED.{metadata},
{vector} = EXCLUDED.{vector}"""
CHANGE_TEXT = "UPDATE {table} SET {text} = %s WHERE {key} = %s"
CHANGE_METADATA = "UPDATE {table} SET {metadata} = %s WHERE {key} = %s"
DELETE = "DELETE FROM {table} WHERE {key} = %s"


def text_of(number: int, version: int) -> str:
    """One of a row's few texts: each of them comes back, which a filler must not be fooled by."""
    return f"row {number} speaks of {WORDS[version % len(WORDS)]}"


def literals(backend: TaskBackend, texts: Sequence[str]) -> list[str]:
    """Vectors as the application sends them."""
    return [str(vector.tolist()) for vector in backend.embed_documents(texts)]


class Writer:
    """One of the application's writers: it alone writes every fourth row."""

    def __init__(self, application: Application, place: int, rows: int) -> None:
        self.application = application
        self.random = random.Random(place)  # noqa: S311  repeatable, not secret
        self.numbers = range(place, rows + rows // 10, WRITERS)
        keys = map(application.names.as_key, self.numbers)
        self.rows = {
            key: application.acknowledged[key] for key in keys if key in application.acknowledged
        }
        self.operations = 0

    def write(self, operations: int) -> None:
        """So many operations, each acknowledged before the next."""
        with self.application.connect() as connection:
            for _ in range(operations):
                self.write_one(connection)
                self.operations += 1

    def write_one(self, connection: psycopg.Connection[Any]) -> None:
        hot = self.random.random() < 0.7
        number = self.random.choice(self.numbers[:HOT_ROWS] if hot else self.numbers)
        key = self.application.names.as_key(number)
        text, version = text_of(number, self.random.randrange(4)), self.random.randrange(1000)
        stored = self.rows.get(key)
        doing = self.random.choice(("replace", "text", "text", "metadata", "delete"))
        if stored is None or doing == "replace":
            (vector,) = literals(OLD, [text])
            self.send(connection, INSERT, (key, text, Jsonb({"version": version}), vector))
            self.rows[key] = text, {"version": version}
        elif doing == "text":
            self.send(connection, CHANGE_TEXT, (text, key))
            self.rows[key] = text, stored[1]
        elif doing == "metadata":
            self.send(connection, CHANGE_METADATA, (Jsonb({"version": version}), key))
            self.rows[key] = stored[0], {"version": version}
        else:
            self.send(connection, DELETE, (key,))
            del self.rows[key]

    def send(
        self, connection: psycopg.Connection[Any], statement: str, values: Sequence[object]
    ) -> None:
        cursor = connection.execute(self.application.sql(statement), values)
        assert cursor.rowcount == 1


class Filler:
    """A process of :mod:`tests.faults.filling`."""

    def __init__(self, application: Application, kind: str) -> None:
        asked = {
            "kind": kind,
            "conninfo": application.conninfo,
            "options": application.options,
        }
        self.application, self.kind = application, kind
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.filling", json.dumps(asked)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def wait_for_batches(self, batches: int) -> int:
        """Read on until it has filled so many, or found nothing to fill; how many rows that were."""
        assert self.process.stdout is not None
        return sum(int(self.process.stdout.readline()) for _ in range(batches))

    def kill(self) -> int:
        """End it in the middle of whatever it does; how many rows it had filled since it was read."""
        self.process.kill()
        with self.process as ended:
            return sum(map(int, ended.stdout or ()))

    def finish(self) -> None:
        self.process.communicate()
        assert self.process.returncode == 0


@contextmanager
def two_fillers(application: Application) -> Iterator[list[Filler]]:
    """Uncoordinated fillers; those that are left at the end are killed."""
    fillers = [Filler(application, "sync"), Filler(application, "async")]
    try:
        yield fillers
    finally:
        for filler in fillers:
            if filler.process.returncode is None:
                filler.kill()


def write_and_fill(application: Application, load: Load) -> None:
    """Writers at work while fillers fill, are killed in the middle of it and started again."""
    writers = [Writer(application, place, load.rows) for place in range(WRITERS)]
    share = load.operations // (WRITERS * load.kills)
    chance = random.Random(7)  # noqa: S311  repeatable, not secret
    with two_fillers(application) as fillers, ThreadPoolExecutor(WRITERS) as threads:
        for round in range(load.kills):
            writing = [threads.submit(writer.write, share) for writer in writers]
            victim = fillers[round % 2]
            application.filled += victim.wait_for_batches(chance.randint(1, 3)) + victim.kill()
            fillers[round % 2] = Filler(application, victim.kind)
            for done in writing:
                done.result()
    application.acknowledged = {key: row for writer in writers for key, row in writer.rows.items()}
    application.operations = sum(writer.operations for writer in writers)


def finish_filling(application: Application) -> None:
    with two_fillers(application) as fillers:
        for filler in fillers:
            filler.finish()


@dataclass(frozen=True, slots=True)
class Findings:
    """The keys of rows with a fault, by fault; and of those that are not filled."""

    lost: frozenset[int | str]
    resurrected: frozenset[int | str]
    stale: frozenset[int | str]
    wrong: frozenset[int | str]
    unfilled: Mapping[str, frozenset[int | str]]


SOUND = Findings(
    frozenset(),
    frozenset(),
    frozenset(),
    frozenset(),
    {V3.id: frozenset(), UNLIKE.id: frozenset()},
)


def inspect(application: Application) -> Findings:
    """What the table holds against what was acknowledged, read with the bare driver."""
    statement = application.sql("SELECT {key}, {text}, {metadata}, {vector}, {new} FROM {table}")
    with application.connect() as connection:
        rows = connection.cursor(binary=True).execute(statement, ()).fetchall()
    stored = {key: (text, metadata) for key, text, metadata, _, _ in rows}
    wanted = application.acknowledged
    both = stored.keys() & wanted.keys()
    vectors = {V3.id: [row[3] for row in rows], UNLIKE.id: [row[4] for row in rows]}
    keys = [row[0] for row in rows]
    texts = [row[1] for row in rows]
    return Findings(
        lost=frozenset(wanted.keys() - stored.keys()),
        resurrected=frozenset(stored.keys() - wanted.keys()),
        stale=stale(keys, texts, vectors[V3.id], OLD) | stale(keys, texts, vectors[UNLIKE.id], NEW),
        wrong=frozenset(key for key in both if stored[key] != wanted[key]),
        unfilled={
            slot: frozenset(key for key, data in zip(keys, column, strict=True) if data is None)
            for slot, column in vectors.items()
        },
    )


def stale(
    keys: Sequence[int | str],
    texts: Sequence[str],
    vectors: Sequence[bytes | None],
    backend: TaskBackend,
) -> frozenset[int | str]:
    """The rows whose vector is not what the backend makes of their text."""
    wanted = backend.embed_documents(texts)
    return frozenset(
        key
        for key, data, vector in zip(keys, vectors, wanted, strict=True)
        if data is not None and not is_near(data, vector)
    )


def is_near(data: bytes, wanted: Vector) -> bool:
    stored = load_vector(data)
    return stored is not None and np.allclose(stored, wanted, atol=1e-5)


def make_ours(conninfo: str, schema: str, rows: int) -> Application:
    """A collection made by this library, of which the application writes the columns it knows."""
    application = Application(conninfo, schema, OURS)
    index = Index(build="immediate")
    with PgVectorStore(conninfo, backend=OLD, index=index, **application.options) as store:
        store.create()
        application.seed(rows)
        store.add_slot(UNLIKE)
    return application


def make_adopted(conninfo: str, schema: str, rows: int) -> Application:
    """A table that was there: bigint key, obligatory vectors, an index on them."""
    application = Application(conninfo, schema, ADOPTED)
    with application.connect() as connection:
        create = """CREATE TABLE {table} ({key} bigint PRIMARY KEY, {text} text NOT NULL,
            {metadata} jsonb, {vector} vector(64) NOT NULL)"""
        connection.execute(application.sql(create), ())
        index = "CREATE INDEX ON {table} USING hnsw ({vector} vector_cosine_ops)"
        connection.execute(application.sql(index), ())
    application.seed(rows)
    layout = Layout(id="chunk no", text="Body %", slot="embedding", metadata="labels")
    with PgVectorStore(conninfo, backend=OLD, layout=layout, **application.options) as store:
        store.adopt()
        store.add_slot(UNLIKE)
    return application


MAKERS = {"ours": make_ours, "adopted": make_adopted}


def pending_ids(application: Application, backend: TaskBackend) -> set[str]:
    with PgVectorStore(application.conninfo, space=V3, **application.options) as store:
        rows, cursor = store.pending(backend.space, limit=10_000)
        assert cursor is None
        return {row.document.id for row in rows}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("load", LOADS)
def test_no_row_is_lost_revived_or_stale(postgres: str, schema: str, kind: str, load: Load) -> None:
    application = MAKERS[kind](postgres, schema, load.rows)
    write_and_fill(application, load)
    assert application.operations == load.operations
    assert application.filled
    found = inspect(application)
    for backend in (OLD, NEW):
        empty = {str(key) for key in found.unfilled[backend.space.id]}
        assert empty <= pending_ids(application, backend)
    finish_filling(application)
    assert inspect(application) == SOUND
    assert not pending_ids(application, OLD)
    assert not pending_ids(application, NEW)


@pytest.mark.parametrize("kind", MAKERS)
def test_faults_made_on_purpose_are_found(postgres: str, schema: str, kind: str) -> None:
    application = MAKERS[kind](postgres, schema, 20)
    finish_filling(application)
    assert inspect(application) == SOUND
    key = [application.names.as_key(number) for number in range(4)]
    with application.connect() as connection:
        connection.execute(
            SQL("DROP TRIGGER {} ON {}").format(
                Identifier(trigger_of(connection, application)),
                Identifier(schema, application.names.table),
            )
        )
        application.acknowledged[key[0]] = ("another text", {"version": 0})
        connection.execute(application.sql(CHANGE_TEXT), ("another text", key[0]))
        connection.execute(application.sql(CHANGE_METADATA), (Jsonb({"version": 5}), key[1]))
        connection.execute(application.sql(DELETE), (key[2],))
        del application.acknowledged[key[3]]
    finish_filling(application)
    found = inspect(application)
    assert found.stale == {key[0]}
    assert found.wrong == {key[1]}
    assert found.lost == {key[2]}
    assert found.resurrected == {key[3]}


def trigger_of(connection: psycopg.Connection[Any], application: Application) -> str:
    row = connection.execute(
        "SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal",
        (f"{application.schema}.{application.names.table}",),
    ).fetchone()
    assert row is not None
    return str(row[0])


def test_a_text_that_returns_between_read_and_fill_gets_its_own_vector(
    postgres: str, schema: str
) -> None:
    application = make_ours(postgres, schema, 1)
    with (
        PgVectorStore(postgres, space=V3, **application.options) as store,
        application.connect() as connection,
    ):
        early, _ = store.pending(UNLIKE, limit=1)
        connection.execute(application.sql(CHANGE_TEXT), (text_of(0, 1), "0"))
        late, _ = store.pending(UNLIKE, limit=1)
        vectors = NEW.embed_documents([text_of(0, 0), text_of(0, 1)])
        assert store.fill(UNLIKE, early, vectors[:1]).changed == 1
        assert store.fill(UNLIKE, late, vectors[1:]).filled == 1
        connection.execute(application.sql(CHANGE_TEXT), (text_of(0, 0), "0"))
        assert store.fill(UNLIKE, late, vectors[1:]).changed == 1
        assert store.fill(UNLIKE, early, vectors[:1]).filled == 1
        assert store.get(["0"]) == [Document("0", text_of(0, 0), {"version": 0})]
    finish_filling(application)
    assert inspect(application) == SOUND
