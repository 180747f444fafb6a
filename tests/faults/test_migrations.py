"""Whole migrations while applications of both models write and search with bare drivers.

The run follows from the first slot to the last deployment: the old model alone, then both side by
side, then the old one alone again. Nothing of that is noticed by anybody.
"""

from __future__ import annotations

import random
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np
import pytest
from elasticsearch import ConflictError
from tests.faults.applications import Application, text_of
from tests.faults.filling import NEW, OLD
from tests.faults.test_two_slots import (
    HOT_ROWS,
    PLACES,
    SOUND,
    WRITERS,
    Maker,
    inspect,
    make_elasticsearch,
)
from tests.migrate.following import Follower
from tests.strangers import ElasticsearchStranger, Hit, Key, Stranger

from samespace.guard import SlotState
from samespace.migrate import plan
from samespace.protocols import EmbeddingBackend, Vector
from samespace.testing.backends import TaskBackend

READERS = 4
BATCH = 50


@dataclass(frozen=True, slots=True)
class Load:
    """How many rows there are, and how many operations the writers do together in all phases."""

    rows: int
    operations: int


SMALL = Load(200, 600)
FULL = {"Qdrant local": Load(1_000, 2_000)}  # it looks at every point for every request, in Python
LOADS = [
    pytest.param("small", id="small"),
    pytest.param("full", id="full", marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
]


@pytest.fixture(params=PLACES)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def make(request: pytest.FixtureRequest, kind: str) -> Maker:
    """Makes an application's collection with so many rows."""
    return PLACES[kind](request)


@pytest.fixture(params=LOADS)
def load(request: pytest.FixtureRequest, kind: str) -> Load:
    return SMALL if request.param == "small" else FULL.get(kind, Load(20_000, 20_000))


@cache
def made(text: str, model: TaskBackend) -> Vector:
    vector: Vector = model.embed_documents([text])[0]
    return vector


def is_of(vector: Vector, text: str, model: TaskBackend) -> bool:
    return np.allclose(vector, made(text, model), atol=1e-5)


Texts = dict[Key, list[str]]
"""What each row has said so far, the text that is being written included."""


class Writer:
    """One of the application's writers: it alone writes every fourth row, for one model or for both.

    Texts come back as long as there is one model. Where both write in place they do not: a text that
    went and came back between two looks cannot be told from one that stayed.
    """

    def __init__(self, application: Application, place: int, rows: int, texts: Texts) -> None:
        self.application, self.texts = application, texts
        self.random = random.Random(place)  # noqa: S311  repeatable, not secret
        self.numbers = range(place, rows + rows // 10, WRITERS)
        keys = map(application.as_key, self.numbers)
        self.rows = {
            key: application.acknowledged[key] for key in keys if key in application.acknowledged
        }
        self.operations = 0

    def write(self, operations: int, models: tuple[TaskBackend, ...], *, returning: bool) -> None:
        """So many operations, each acknowledged before the next."""
        with closing(self.application.stranger()) as stranger:
            for _ in range(operations):
                self.write_one(stranger, self.random.choice(models), returning=returning)

    def write_one(self, stranger: Stranger, model: EmbeddingBackend, *, returning: bool) -> None:
        hot = self.random.random() < 0.7
        number = self.random.choice(self.numbers[:HOT_ROWS] if hot else self.numbers)
        key = self.application.as_key(number)
        text, version = text_of(number, self.random.randrange(4)), self.random.randrange(1000)
        text = text if returning else f"{text}, {self.operations}"
        self.operations += 1
        stored = self.rows.get(key)
        doing = self.random.choice(("replace", "text", "text", "metadata", "delete"))
        if stored is None or doing == "replace":
            self.texts.setdefault(key, []).append(text)
            self.application.put(stranger, key, text, {"version": version}, model)
            self.rows[key] = text, {"version": version}
        elif doing == "text":
            self.texts[key].append(text)
            self.application.change_text(stranger, key, text, model)
            self.rows[key] = text, stored[1]
        elif doing == "metadata":
            stranger.change(key, {self.application.metadata: {"version": version}})
            self.rows[key] = stored[0], {"version": version}
        else:
            stranger.delete(key)
            del self.rows[key]


@dataclass
class Seen:
    """What a reader of one model has found.

    ``behind`` counts hits by how many texts lie between that of the vector and that of the row;
    ``mixed`` are hits whose vector is of no text that the row has ever had, by that model.
    """

    searches: int = 0
    behind: Counter[int] = field(default_factory=Counter)
    mixed: list[Hit] = field(default_factory=list)

    def note(self, hits: list[Hit], texts: Texts, model: TaskBackend) -> None:
        self.searches += 1
        for key, text, vector in hits:
            distance = behind(text, vector, texts[key], model)
            if distance is None:
                self.mixed.append((key, text, vector))
            else:
                self.behind[distance] += 1

    def __add__(self, other: Seen) -> Seen:
        return Seen(
            self.searches + other.searches, self.behind + other.behind, self.mixed + other.mixed
        )


def behind(text: str, vector: Vector, texts: list[str], model: TaskBackend) -> int | None:
    """How many texts ago a row said what its vector is of; None if it never did."""
    if is_of(vector, text, model):
        return 0
    said = list(texts)
    now = [place for place, each in enumerate(said) if each == text]
    then = [place for place, each in enumerate(said) if is_of(vector, each, model)]
    return min((abs(a - b) for a in now for b in then), default=None)


class Readers:
    """Searches by the application's users, one after the other, until they are left."""

    def __init__(self, application: Application, texts: Texts) -> None:
        self.application, self.texts = application, texts
        self.over = threading.Event()

    def read(self, place: int, model: TaskBackend) -> Seen:
        seen, chance = Seen(), random.Random(place)  # noqa: S311  repeatable, not secret
        slot = self.application.slot_of(model)
        with closing(self.application.stranger()) as stranger:
            while not self.over.is_set():
                asked = model.embed_query(text_of(chance.randrange(100), chance.randrange(4)))
                seen.note(stranger.hits(slot, asked, self.application.text), self.texts, model)
        return seen


@contextmanager
def reading(
    application: Application, texts: Texts, models: tuple[TaskBackend, ...]
) -> Iterator[dict[TaskBackend, list[Future[Seen]]]]:
    """Readers at work, as many of each model."""
    readers = Readers(application, texts)
    found: dict[TaskBackend, list[Future[Seen]]] = {model: [] for model in models}
    with ThreadPoolExecutor(READERS) as threads:
        for place in range(READERS):
            model = models[place % len(models)]
            found[model].append(threads.submit(readers.read, place, model))
        try:
            yield found
        finally:
            readers.over.set()


class Use:
    """An application's writers and readers, who go on whatever else is done to the collection."""

    def __init__(self, application: Application, load: Load) -> None:
        self.application, self.share = application, load.operations // (3 * WRITERS)
        self.texts: Texts = {key: [text] for key, (text, _) in application.acknowledged.items()}
        self.writers = [
            Writer(application, place, load.rows, self.texts) for place in range(WRITERS)
        ]
        self.seen = {OLD: Seen(), NEW: Seen()}

    def go_on(
        self,
        writing: tuple[TaskBackend, ...],
        *,
        reading_by: tuple[TaskBackend, ...],
        returning: bool = False,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        """A third of the operations, while readers of these models search."""
        with (
            reading(self.application, self.texts, reading_by) as found,
            ThreadPoolExecutor(WRITERS) as threads,
        ):
            doing = [
                threads.submit(writer.write, self.share, writing, returning=returning)
                for writer in self.writers
            ]
            meanwhile()
            for done in doing:
                done.result()
        for model, readers in found.items():
            for reader in readers:
                self.seen[model] += reader.result()

    def settle(self, follower: Follower) -> None:
        """See that all is as it was acknowledged, with vectors of the final texts in both slots."""
        follower.wait_until_idle()
        self.application.acknowledged = {
            key: row for writer in self.writers for key, row in writer.rows.items()
        }
        assert inspect(self.application) == SOUND


def test_nobody_notices_a_migration(kind: str, make: Maker, load: Load) -> None:
    application = make(load.rows)
    application.empties = False  # it has always sent the vector with the text
    use = Use(application, load)
    with application.open(backend=OLD) as store:
        follower = Follower(
            store, NEW, plan(store, NEW), interval=0.01, batch_size=min(BATCH, load.rows // 4)
        )
        with follower:
            use.go_on((OLD,), reading_by=(OLD,), returning=True)
            use.settle(follower)
            store.mark(NEW.space, SlotState.READY)
            use.go_on((OLD, NEW), reading_by=(OLD, NEW))
            use.go_on((OLD,), reading_by=(OLD, NEW))
            use.settle(follower)
    for model, seen in use.seen.items():
        sys.stdout.write(f"{model.space}: {seen.searches} searches, behind {seen.behind}\n")
        assert seen.searches
        assert seen.mixed == []
        # Elsewhere a text that changes in place is in two requests, or waits for the follower.
        assert not kind.startswith("PostgreSQL") or set(seen.behind) == {0}
    assert not follower.run.report.trouble


def test_a_text_that_the_new_model_changes_in_place_has_both_vectors(make: Maker) -> None:
    application = make(20)
    application.empties = False
    key = [application.as_key(number) for number in (3, 20)]
    with application.open(backend=OLD) as store:
        planned = plan(store, NEW)
        with Follower(store, NEW, planned) as follower:
            follower.wait_until_idle()
        with closing(application.stranger()) as stranger:
            application.put(stranger, key[1], text_of(20, 0), {"version": 0})
            for each in key:  # the one is filled, the other pending
                application.change_text(stranger, each, "another text", NEW)
                application.acknowledged[each] = "another text", {"version": 0}
        with Follower(store, NEW, planned) as follower:
            follower.wait_until_idle()
    assert inspect(application) == SOUND


def test_updates_that_are_not_tried_again_meet_conflicts_and_nothing_else(
    request: pytest.FixtureRequest,
) -> None:
    application = make_elasticsearch(request)(HOT_ROWS)
    application.stranger = partial(ElasticsearchStranger, *_index(application), retries=0)
    alone = conflicts(application, 200)
    with application.open(backend=OLD) as store:
        follower = Follower(store, NEW, plan(store, NEW), interval=0.01)
        with follower:
            beside = conflicts(application, 200)
            follower.wait_until_idle()
    sys.stdout.write(f"409s of 200 updates: {alone} without a run, {beside} beside one\n")
    assert alone == 0
    assert inspect(application) == SOUND


def _index(application: Application) -> tuple[str, str]:
    return application.source, application.options["collection"]


def conflicts(application: Application, updates: int) -> int:
    """How many of so many updates in place, one after the other, found that their row had changed."""
    found, chance = 0, random.Random(updates)  # noqa: S311  repeatable, not secret
    with closing(application.stranger()) as stranger:
        for _ in range(updates):
            key, version = chance.choice([*application.acknowledged]), chance.randrange(4)
            text = text_of(int(key), version)
            try:
                application.change_text(stranger, key, text)
            except ConflictError:
                found += 1
            else:
                application.acknowledged[key] = text, application.acknowledged[key][1]
    return found
