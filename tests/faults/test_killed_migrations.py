"""Runs of migrations that are killed anywhere and run again: the end is that of an undisturbed one."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.addresses import elasticsearch_address, postgres_address
from tests.cli.running import KEY, run, with_key
from tests.faults import migrating
from tests.faults.applications import (
    Application,
    elasticsearch_adopted,
    postgres_adopted,
    qdrant_server,
)
from tests.faults.forking import Forked
from tests.faults.migrating import Lexical
from tests.faults.test_migrations import Writer
from tests.faults.test_two_slots import SOUND, WRITERS, inspect
from tests.migrate.following import Follower
from tests.places import database

from samespace.cli.options import read_plan
from samespace.guard import CANARY_TEXTS
from samespace.space import EmbeddingSpace
from samespace.testing.backends import V3
from samespace.testing.jina_server import JinaServer

OLD = Lexical(EmbeddingSpace(model=V3.model, dimensions=64, task="text-matching"))
NEW = Lexical(V3)
MODELS: dict[str, Any] = {"old": OLD, "new": NEW}
OLD_SPEC, NEW_SPEC = "jina@64:text-matching", "jina@64:retrieval.passage"
AT_ONCE = 4
"""Requests that the backend of a spec has under way together."""
PATIENCE = 240
"""Seconds that a process may take until it has asked for more."""


@dataclass(frozen=True, slots=True)
class Load:
    """How many rows there are, in batches of which size, and how often their run is killed."""

    rows: int
    batch: int
    kills: int
    requests: int
    """At most so many are waited for before a kill."""

    @property
    def in_flight(self) -> int:
        """Rows that a run may have paid for when it is killed, and not stored."""
        return self.batch * (AT_ONCE + 1)


SMALL = Load(200, 5, 4, 12)
LOADS = [
    pytest.param(SMALL, id="small"),
    pytest.param(
        Load(20_000, 100, 50, 24), id="full", marks=[pytest.mark.soak, pytest.mark.timeout(3600)]
    ),
]


@contextmanager
def postgres_application(
    request: pytest.FixtureRequest, rows: int
) -> Iterator[tuple[Application, str]]:
    with database(request.getfixturevalue("postgres")) as conninfo:
        yield postgres_adopted(conninfo, "public", rows, **MODELS), postgres_address(conninfo)


@contextmanager
def qdrant_application(
    request: pytest.FixtureRequest, rows: int
) -> Iterator[tuple[Application, str]]:
    url, prefix = request.getfixturevalue("qdrant"), request.getfixturevalue("prefix")
    client = request.getfixturevalue("raw_client")
    application = qdrant_server(url, client, f"{prefix}chunks", rows, **MODELS)
    yield application, url.replace("http://", "qdrant://")


@contextmanager
def elasticsearch_application(
    request: pytest.FixtureRequest, rows: int
) -> Iterator[tuple[Application, str]]:
    raw = request.getfixturevalue("raw")
    application = elasticsearch_adopted(raw.url, raw.named("chunks"), rows, **MODELS)
    yield application, elasticsearch_address(raw.url)


PLACES = {
    "PostgreSQL": postgres_application,
    "Qdrant REST": qdrant_application,
    "Elasticsearch": elasticsearch_application,
}


@pytest.fixture(params=LOADS)
def load(request: pytest.FixtureRequest) -> Load:
    found: Load = request.param
    return found


@dataclass(frozen=True, slots=True)
class Migration:
    """An application's collection, the server of both models, and the plan of the way between them."""

    application: Application
    server: JinaServer
    plan: Path
    arguments: tuple[str, ...]

    def start(self, *more: str) -> Forked:
        """``samespace migrate run`` in a process of its own."""
        return Forked(
            migrating.main,
            arguments=["migrate", "run", *self.arguments, "--plan", str(self.plan), *more],
            environment=with_key(self.server),
        )

    def finish(self, *more: str) -> str:
        """What a run says that is left alone."""
        code, said, errors = self.start(*more).last_words()
        assert code == 0, errors
        return said

    def settle(self) -> None:
        """Have one more run follow until nothing is left to do in either slot."""
        with (
            self.application.open(backend=OLD) as store,
            Follower(store, NEW, read_plan(self.plan)) as follower,
        ):
            follower.wait_until_idle()

    def wait_for(self, requests: int) -> None:
        """Until so many more have reached the server."""
        reached = threading.Event()

        def note(answer: dict[str, Any]) -> dict[str, Any]:
            reached.set()
            return answer

        self.server.change_next(note, skip=requests - 1)
        assert reached.wait(PATIENCE)

    @property
    def embedded(self) -> int:
        """Texts that the new model was asked for, but for the canary's."""
        asked = [each for each in self.server.requests if each["task"] == V3.task]
        return sum(text not in CANARY_TEXTS for each in asked for text in each["input"])


@pytest.fixture(params=PLACES)
def migration(request: pytest.FixtureRequest, load: Load, tmp_path: Path) -> Iterator[Migration]:
    with ExitStack() as made:
        application, address = made.enter_context(PLACES[request.param](request, load.rows))
        application.empties = False  # it has always sent the vector with the text
        server = made.enter_context(JinaServer(keys=(KEY,)))
        plan, name = tmp_path / "plan.json", application.options["collection"]
        place = ("--store", address, "--backend", NEW_SPEC)
        planning = ("migrate", "plan", *place, "--collection", name, "--out", str(plan))
        done = run(tmp_path, *planning, environment=with_key(server))
        assert done.returncode == 0, done.stderr
        yield Migration(application, server, plan, (*place, "--batch-size", str(load.batch)))


@contextmanager
def writing(application: Application, rows: int) -> Iterator[list[Writer]]:
    """The application's writers at work, until they are left."""
    texts = {key: [text] for key, (text, _) in application.acknowledged.items()}
    writers = [Writer(application, place, rows, texts) for place in range(WRITERS)]
    over = threading.Event()

    def write(writer: Writer) -> None:
        with closing(application.stranger()) as stranger:
            while not over.is_set():
                writer.write_one(stranger, application.old, returning=True)

    with ThreadPoolExecutor(WRITERS) as threads:
        doing = [threads.submit(write, writer) for writer in writers]
        try:
            yield writers
        finally:
            over.set()
        for done in doing:
            done.result()
    application.acknowledged = {key: row for each in writers for key, row in each.rows.items()}


def test_a_run_that_is_killed_while_others_write_goes_on(migration: Migration, load: Load) -> None:
    chance = random.Random(load.rows)  # noqa: S311  repeatable, not secret
    with writing(migration.application, load.rows) as writers:
        for _ in range(load.kills):
            process = migration.start("--follow", "--old-backend", OLD_SPEC, "--interval", "0.01")
            migration.wait_for(chance.randint(4, load.requests))
            process.end(signal.SIGKILL)
            process.last_words()
    migration.finish()
    # Where a vector is taken away before another is written, the last kill may have come in between.
    migration.settle()
    assert inspect(migration.application) == SOUND
    # A text that is written is embedded, and may come between another's reading and writing.
    written = 2 * sum(writer.operations for writer in writers)
    assert migration.embedded <= load.rows + written + load.kills * load.in_flight


def test_workers_of_which_two_are_killed_pay_for_little_twice(
    migration: Migration, load: Load
) -> None:
    parts = [("--worker", f"{part}/4") for part in range(4)]
    processes = [migration.start(*part) for part in parts]
    migration.wait_for(14)  # eight of them for canaries
    for victim in processes[:2]:
        victim.end(signal.SIGKILL)
    ended = [process.last_words() for process in processes]
    assert [code for code, *_ in ended[2:]] == [0, 0], ended
    for part in parts[:2]:
        migration.finish(*part)
    assert inspect(migration.application) == SOUND
    assert load.rows <= migration.embedded <= load.rows + 2 * load.in_flight


@pytest.mark.parametrize("migration", ["PostgreSQL"], indirect=True)
@pytest.mark.parametrize("load", [SMALL], indirect=True)
def test_a_run_that_is_told_to_end_says_how_to_go_on(migration: Migration, load: Load) -> None:
    process = migration.start()
    migration.wait_for(5)
    process.end(signal.SIGTERM)
    code, said, errors = process.last_words()
    assert (code, "Traceback" in errors) == (128 + signal.SIGTERM, False), errors
    assert "run again" in said
    migration.finish()
    assert inspect(migration.application) == SOUND
    assert migration.embedded == load.rows
