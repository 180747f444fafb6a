"""Two slots in the rows of one collection, while its application writes and fillers are killed.

The application knows the first slot only and writes with the bare driver. Once it is idle and all
is filled, no row is lost, none has come back, and each vector is of the text that is there.
"""

from __future__ import annotations

import json
import queue
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from tests.faults.applications import (
    Application,
    elasticsearch_adopted,
    postgres_adopted,
    postgres_ours,
    qdrant_local,
    qdrant_server,
    text_of,
)
from tests.faults.filling import NEW, OLD, follow
from tests.strangers import Key, Row, Stranger

from samespace import Document
from samespace.protocols import EmbeddingBackend
from samespace.testing.backends import UNLIKE, V3, TaskBackend

ROOT = Path(__file__).parents[2]
WRITERS = 4
HOT_ROWS = 40
"""Of each writer's rows these get most of the operations, so that fillers meet them in motion."""
PATIENCE = 120
"""Seconds that a filler may take for a batch."""


@dataclass(frozen=True, slots=True)
class Load:
    """How much is done: by the writers together, on rows that are there, with kills of fillers."""

    operations: int
    rows: int
    kills: int


LOADS = [
    pytest.param(Load(800, 300, 2), id="small"),
    pytest.param(
        Load(20_000, 5_000, 40), id="full", marks=[pytest.mark.soak, pytest.mark.timeout(3600)]
    ),
]
MOST_LOCALLY = Load(4_000, 1_000, 10)
"""The client's own engine looks at every point for every request, in Python."""

Maker = Callable[[int], Application]


def make_postgres(request: pytest.FixtureRequest, kind: Callable[..., Application]) -> Maker:
    server = request.getfixturevalue("postgres"), request.getfixturevalue("schema")
    return lambda rows: kind(*server, rows)


def make_qdrant(request: pytest.FixtureRequest, **options: Any) -> Maker:
    url, prefix = request.getfixturevalue("qdrant"), request.getfixturevalue("prefix")
    client = request.getfixturevalue("raw_client")
    return lambda rows: qdrant_server(url, client, f"{prefix}chunks", rows, **options)


def make_qdrant_local(request: pytest.FixtureRequest) -> Maker:
    client = request.getfixturevalue("memory")
    return lambda rows: qdrant_local(client, rows)


def make_elasticsearch(request: pytest.FixtureRequest) -> Maker:
    raw = request.getfixturevalue("raw")
    return lambda rows: elasticsearch_adopted(raw.url, raw.named("chunks"), rows)


PLACES: dict[str, Callable[[pytest.FixtureRequest], Maker]] = {
    "PostgreSQL, ours": lambda request: make_postgres(request, postgres_ours),
    "PostgreSQL, adopted": lambda request: make_postgres(request, postgres_adopted),
    "Qdrant local": make_qdrant_local,
    "Qdrant REST": make_qdrant,
    "Qdrant gRPC": lambda request: make_qdrant(
        request, grpc_port=request.getfixturevalue("qdrant_grpc")
    ),
    "Elasticsearch": make_elasticsearch,
}


@pytest.fixture(params=PLACES)
def make(request: pytest.FixtureRequest) -> Maker:
    """Makes an application's collection with so many rows, and adds the second slot."""
    made = PLACES[request.param](request)

    def with_second_slot(rows: int) -> Application:
        application = made(rows)
        application.add_slot()
        return application

    return with_second_slot


class Writer:
    """One of the application's writers: it alone writes every fourth row."""

    def __init__(self, application: Application, place: int, rows: int) -> None:
        self.application = application
        self.random = random.Random(place)  # noqa: S311  repeatable, not secret
        self.numbers = range(place, rows + rows // 10, WRITERS)
        keys = map(application.as_key, self.numbers)
        self.rows = {
            key: application.acknowledged[key] for key in keys if key in application.acknowledged
        }
        self.operations = 0

    def write(self, operations: int) -> None:
        """So many operations, each acknowledged before the next."""
        with closing(self.application.stranger()) as stranger:
            for _ in range(operations):
                self.write_one(stranger)
                self.operations += 1

    def write_one(self, stranger: Stranger) -> None:
        hot = self.random.random() < 0.7
        number = self.random.choice(self.numbers[:HOT_ROWS] if hot else self.numbers)
        key = self.application.as_key(number)
        text, version = text_of(number, self.random.randrange(4)), self.random.randrange(1000)
        stored = self.rows.get(key)
        doing = self.random.choice(("replace", "text", "text", "metadata", "delete"))
        if stored is None or doing == "replace":
            self.application.put(stranger, key, text, {"version": version})
            self.rows[key] = text, {"version": version}
        elif doing == "text":
            self.application.change_text(stranger, key, text)
            self.rows[key] = text, stored[1]
        elif doing == "metadata":
            stranger.change(key, {self.application.metadata: {"version": version}})
            self.rows[key] = stored[0], {"version": version}
        else:
            stranger.delete(key)
            del self.rows[key]


class Filler(Protocol):
    """Fills both slots until it is told to finish."""

    def wait_for_batches(self, batches: int) -> int:
        """Wait until it has filled so many, or found nothing to fill; how many rows that were."""

    def kill(self) -> int:
        """End it in the middle of it; how many rows it had filled since it was waited for."""

    def finish(self) -> None:
        """Let it end once it finds nothing to fill."""


class FillingProcess:
    """A process of :mod:`tests.faults.filling`."""

    def __init__(self, application: Application, store: str) -> None:
        asked = {"store": store, "source": application.source, "options": application.options}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.filling", json.dumps(asked)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def wait_for_batches(self, batches: int) -> int:
        assert self.process.stdout is not None
        return sum(int(self.process.stdout.readline()) for _ in range(batches))

    def kill(self) -> int:
        if self.process.returncode is not None:
            return 0
        self.process.kill()
        with self.process as ended:
            return sum(map(int, ended.stdout or ()))

    def finish(self) -> None:
        self.process.communicate()
        assert self.process.returncode == 0


class Killed(Exception):
    """Ends a thread that fills, as nothing else can."""


class FillingThread:
    """The same in this process, for a store that serves no other; it dies between two batches."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self.over, self.killed = threading.Event(), threading.Event()
        self.batches: queue.Queue[int] = queue.Queue()
        self.thread = ThreadPoolExecutor(1)
        self.running = self.thread.submit(self.run)

    def run(self) -> None:
        with self.application.open(space=V3) as store:
            follow(store, self.over.wait, self.told)

    def told(self, filled: int) -> None:
        self.batches.put(filled)
        if self.killed.is_set():
            raise Killed

    def wait_for_batches(self, batches: int) -> int:
        return sum(self.batches.get(timeout=PATIENCE) for _ in range(batches))

    def kill(self) -> int:
        self.killed.set()
        assert self.running.exception() is None or isinstance(self.running.exception(), Killed)
        return sum(self.batches.get() for _ in range(self.batches.qsize()))

    def finish(self) -> None:
        self.over.set()
        self.running.result()


def start_filler(application: Application, place: int) -> Filler:
    """The first of the two is sync, the second async where it can be."""
    if application.shared:
        return FillingThread(application)
    return FillingProcess(application, application.stores[place])


@contextmanager
def two_fillers(application: Application) -> Iterator[list[Filler]]:
    """Uncoordinated fillers; those that are left at the end are killed."""
    fillers = [start_filler(application, place) for place in range(2)]
    try:
        yield fillers
    finally:
        for filler in fillers:
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
            fillers[round % 2] = start_filler(application, round % 2)
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

    lost: frozenset[Key]
    resurrected: frozenset[Key]
    stale: frozenset[Key]
    wrong: frozenset[Key]
    unfilled: Mapping[str, frozenset[Key]]


SOUND = Findings(
    frozenset(),
    frozenset(),
    frozenset(),
    frozenset(),
    {},
)


def inspect(application: Application) -> Findings:
    """What is stored against what was acknowledged, read with the bare driver."""
    slots = {application.slot_of(model): model for model in (application.old, application.new)}
    with closing(application.stranger()) as stranger:
        rows = stranger.rows(slots)
    stored = {
        key: (fields[application.text], fields[application.metadata])
        for key, (fields, _) in rows.items()
    }
    wanted = application.acknowledged
    both = stored.keys() & wanted.keys()
    return Findings(
        lost=frozenset(wanted.keys() - stored.keys()),
        resurrected=frozenset(stored.keys() - wanted.keys()),
        stale=frozenset().union(
            *(stale(application, rows, slot, backend) for slot, backend in slots.items())
        ),
        wrong=frozenset(key for key in both if stored[key] != wanted[key]),
        unfilled={
            backend.space.id: empty
            for slot, backend in slots.items()
            if (empty := frozenset(key for key, row in rows.items() if slot not in row[1]))
        },
    )


def stale(
    application: Application, rows: Mapping[Key, Row], slot: str, backend: EmbeddingBackend
) -> frozenset[Key]:
    """The rows whose vector is not what the backend makes of their text."""
    wanted = backend.embed_documents([fields[application.text] for fields, _ in rows.values()])
    return frozenset(
        key
        for (key, (_, vectors)), vector in zip(rows.items(), wanted, strict=True)
        if slot in vectors and not np.allclose(vectors[slot], vector, atol=1e-5)
    )


def pending_ids(application: Application, backend: TaskBackend) -> set[str]:
    with application.open(space=V3) as store:
        rows, cursor = store.pending(backend.space, limit=10_000)
        assert cursor is None
        return {row.document.id for row in rows}


@pytest.fixture(params=LOADS)
def load(request: pytest.FixtureRequest) -> Load:
    """How much is done, within what the store is made for."""
    wanted: Load = request.param
    is_local = request.node.callspec.params["make"] == "Qdrant local"
    return MOST_LOCALLY if is_local and wanted.rows > MOST_LOCALLY.rows else wanted


def test_no_row_is_lost_revived_or_stale(make: Maker, load: Load) -> None:
    application = make(load.rows)
    write_and_fill(application, load)
    assert application.operations == load.operations
    assert application.filled
    # Looked for first: a server may still be at work on what a killed filler had sent.
    pending = {backend.space.id: pending_ids(application, backend) for backend in (OLD, NEW)}
    for slot, empty in inspect(application).unfilled.items():
        assert {str(key) for key in empty} <= pending[slot]
    finish_filling(application)
    assert inspect(application) == SOUND
    assert not pending_ids(application, OLD)
    assert not pending_ids(application, NEW)


def test_faults_made_on_purpose_are_found(make: Maker) -> None:
    application = make(20)
    finish_filling(application)
    assert inspect(application) == SOUND
    key = [application.as_key(number) for number in range(4)]
    with closing(application.stranger()) as stranger:
        stranger.change(key[0], {}, {UNLIKE.id: NEW.embed_documents(["another text"])[0]})
        stranger.change(key[1], {application.metadata: {"version": 5}})
        stranger.delete(key[2])
        del application.acknowledged[key[3]]
    finish_filling(application)
    found = inspect(application)
    assert found.stale == {key[0]}
    assert found.wrong == {key[1]}
    assert found.lost == {key[2]}
    assert found.resurrected == {key[3]}


def test_a_text_that_returns_between_read_and_fill_gets_its_own_vector(
    postgres: str, schema: str
) -> None:
    application = postgres_ours(postgres, schema, 1)
    application.add_slot()
    with application.open(space=V3) as store, closing(application.stranger()) as stranger:
        early, _ = store.pending(UNLIKE, limit=1)
        application.change_text(stranger, "0", text_of(0, 1))
        late, _ = store.pending(UNLIKE, limit=1)
        vectors = NEW.embed_documents([text_of(0, 0), text_of(0, 1)])
        assert store.fill(UNLIKE, early, vectors[:1]).changed == 1
        assert store.fill(UNLIKE, late, vectors[1:]).filled == 1
        application.change_text(stranger, "0", text_of(0, 0))
        assert store.fill(UNLIKE, late, vectors[1:]).changed == 1
        assert store.fill(UNLIKE, early, vectors[:1]).filled == 1
        assert store.get(["0"]) == [Document("0", text_of(0, 0), {"version": 0})]
    finish_filling(application)
    assert inspect(application) == SOUND
