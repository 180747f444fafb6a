"""Ingestion jobs that are killed anywhere and run again: the end is that of a clean run."""

from __future__ import annotations

import json
import random
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.contract.ingesting import (
    Bars,
    Place,
    elasticsearch_place,
    postgres_place,
    qdrant_place,
    qdrant_server_place,
    rounded,
)
from tests.faults import ingesting
from tests.faults.forking import Forked
from tests.faults.ingesting import BATCH, SEAMS, documents, sentences

from samespace.ingest.pipeline import IN_FLIGHT
from samespace.testing.backends import TaskBackend

PLACES: dict[str, Callable[[pytest.FixtureRequest], Place]] = {
    "PostgreSQL": postgres_place,
    "Qdrant local": qdrant_place,
    "Qdrant REST": qdrant_server_place,
    "Elasticsearch": elasticsearch_place,
}


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Place:
    return PLACES[request.param](request)


@pytest.fixture
def one(request: pytest.FixtureRequest) -> Place:
    """For what does not depend on the store."""
    return postgres_place(request)


@dataclass(frozen=True, slots=True)
class Load:
    """How many documents there are, and how often their job is ended; with what."""

    size: int
    ends: int
    lines: int
    """Of what the process prints, at most so many are waited for before it is ended."""


SMALL, FULL = Load(1_000, 3, 8), Load(20_000, 50, 15)
LOADS = [
    pytest.param(SMALL, id="small"),
    pytest.param(FULL, id="full", marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
]


class JobProcess:
    """A process of :mod:`tests.faults.ingesting`."""

    def __init__(self, place: Place, folder: Path, size: int, **asked: Any) -> None:
        said = {"place": asdict(place), "folder": str(folder), "size": size, "version": 1, **asked}
        self.process = Forked(ingesting.main, **said)

    def wait_for(self, lines: int, *, last: str = "") -> None:
        """Read so many lines; or until the one that is named."""
        for _ in range(lines):
            line = self.process.said.readline().strip()
            assert line, self.process.last_words()
            if line == last:
                return
        assert not last

    def end(self, number: signal.Signals) -> str:
        """Send a signal; what the process said after that, and on its errors."""
        self.process.end(number)
        _, said, errors = self.process.last_words()
        return said + errors

    def finish(self) -> dict[str, Any]:
        """What it says at its end."""
        code, said, errors = self.process.last_words()
        assert code == 0, errors
        told: dict[str, Any] = json.loads(said.splitlines()[-1])
        return told


@dataclass(frozen=True, slots=True)
class Findings:
    """Numbers of documents with a fault."""

    lost: frozenset[int]
    duplicated: frozenset[int]
    half: frozenset[int]
    wrong: frozenset[int]


SOUND = Findings(frozenset(), frozenset(), frozenset(), frozenset())


def inspect(place: Place, size: int) -> Findings:
    """What is stored against what the source has."""
    backend = TaskBackend()
    rows = list(place.stored().values())
    made = backend.embed_documents([row.text for row, _ in rows])
    places = Counter((row.metadata["n"], row.parent and row.parent.ordinal) for row, _ in rows)
    texts: dict[int, set[str]] = {number: set() for number in range(size)}
    for row, _ in rows:
        texts[row.metadata["n"]].add(row.text)
    return Findings(
        lost=frozenset(number for number in range(size) if not texts[number]),
        duplicated=frozenset(number for (number, _), count in places.items() if count > 1),
        half=frozenset(n for n in range(size) if texts[n] and texts[n] != set(sentences(n, 1))),
        wrong=frozenset(
            row.metadata["n"]
            for (row, vector), own in zip(rows, made, strict=True)
            if max(abs(a - b) for a, b in zip(vector, rounded(own), strict=True)) > 0.002
        ),
    )


def store_an_earlier_version(place: Place, size: int) -> None:
    """Of which no chunk may be left."""
    place.run(TaskBackend(), documents(size, 0), chunker=Bars())


def embedded(folder: Path) -> int:
    return sum(map(int, (folder / "embedded").read_text().split()))


def pieces(size: int) -> int:
    return sum(len(sentences(number, 1)) for number in range(size))


def end_often(
    place: Place, folder: Path, load: Load, number: signal.Signals
) -> list[tuple[str, int]]:
    """End a job at random points; what each said, and the position that its checkpoint had."""
    chance = random.Random(load.size)  # noqa: S311  repeatable, not secret
    ended = []
    for _ in range(load.ends):
        process = JobProcess(place, folder, load.size)
        process.wait_for(chance.randint(1, load.lines))
        said = process.end(number)
        ended.append((said, json.loads((folder / "point").read_text())["position"]))
    return ended


@pytest.mark.parametrize("load", LOADS)
def test_a_killed_job_goes_on_and_ends_like_a_clean_one(
    place: Place, tmp_path: Path, load: Load
) -> None:
    if place.kind == "QdrantStore" and load is SMALL:
        load = replace(load, size=400)  # local mode syncs point by point
    store_an_earlier_version(place, load.size)
    positions = [position for _, position in end_often(place, tmp_path, load, signal.SIGKILL)]
    assert positions == sorted(positions)
    assert positions[-1] < load.size
    assert JobProcess(place, tmp_path, load.size).finish()["done"] == load.size
    assert inspect(place, load.size) == SOUND
    in_flight = IN_FLIGHT * (BATCH + 2)  # a batch's last document may have two chunks more
    assert embedded(tmp_path) <= pieces(load.size) + load.ends * in_flight
    assert not list(tmp_path.glob("point*"))


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_job_that_is_told_to_end_leaves_nothing_running(
    one: Place, tmp_path: Path, load: Load, number: signal.Signals
) -> None:
    for said, position in end_often(one, tmp_path, load, number):
        told = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
        assert told == {"left": [], "done": position, "stopped": "cancelled"}
        assert said.endswith("}\n")  # and nothing on its errors
    assert JobProcess(one, tmp_path, load.size).finish()["done"] == load.size
    assert inspect(one, load.size) == SOUND


@pytest.mark.parametrize("seam", SEAMS)
def test_a_job_may_be_killed_at_any_seam(place: Place, tmp_path: Path, seam: str) -> None:
    store_an_earlier_version(place, 200)
    for times in (2, 1):
        process = JobProcess(place, tmp_path, 200, hold=(seam, times))
        process.wait_for(100, last="held")
        process.end(signal.SIGKILL)
    JobProcess(place, tmp_path, 200).finish()
    assert inspect(place, 200) == SOUND


def test_random_ids_are_found_out(place: Place, tmp_path: Path) -> None:
    process = JobProcess(place, tmp_path, 200, hold=("written", 2), random_ids=True)
    process.wait_for(100, last="held")
    process.end(signal.SIGKILL)
    JobProcess(place, tmp_path, 200, random_ids=True).finish()
    assert inspect(place, 200).duplicated


def test_a_checkpoint_before_the_write_is_found_out(place: Place, tmp_path: Path) -> None:
    process = JobProcess(place, tmp_path, 200, hold=("write", 2), early=True)
    process.wait_for(100, last="held")
    process.end(signal.SIGKILL)
    JobProcess(place, tmp_path, 200, early=True).finish()
    assert inspect(place, 200).lost
