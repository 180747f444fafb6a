"""A contestant in a process of its own: a line of JSON asks for a task, a line answers seconds."""

from __future__ import annotations

import json
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol

from benchmarks.workload import Workload, workload

Answer = dict[str, Any]
Kind = Literal["flat", "hnsw"]
M, EF_CONSTRUCTION = 16, 64
"""The graph that every contestant has built: our default."""


class Contestant(Protocol):
    """Tasks are methods that return what they measured; each prepares its table outside the clock."""

    def __init__(self, address: str, given: Workload, /) -> None: ...


class Clock:
    """Seconds spent in a ``with`` block."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - begun


def rate(work: Callable[[], object], rows: int) -> Answer:
    """Rows a second of one piece of work."""
    clock = Clock()
    with clock.running():
        work()
    return {"rate": rows / clock.seconds}


def latencies(search: Callable[[Any], object], queries: list[Any]) -> Answer:
    """Milliseconds of each search; the first few warm up caches and prepared statements."""
    for query in queries[:20]:
        search(query)
    times = []
    for query in queries:
        clock = Clock()
        with clock.running():
            search(query)
        times.append(1000 * clock.seconds)
    return {"milliseconds": times}


class Loader(ABC):
    """A contestant that sends all rows: into a sink, or into a server that has a graph or none."""

    def __init__(self, address: str, given: Workload) -> None:
        self.address = address
        self.given = given
        self.rows = len(given.ids)

    kind: Kind
    """Of the task at hand."""

    @abstractmethod
    def create(self) -> None:
        """Make place of this kind, where another place was or none."""

    @abstractmethod
    def write(self) -> None:
        """Send all rows."""

    @abstractmethod
    def finish(self) -> None:
        """Do what is in the clock too, once all was sent."""

    @abstractmethod
    def count(self) -> int:
        """How many rows there are."""

    @abstractmethod
    def drop(self) -> None:
        """Leave nothing that could be busy while others are measured."""

    def encode(self) -> Answer:
        """Send to a server that keeps nothing."""
        return self._loaded("flat")

    def flat(self) -> Answer:
        """Store without a graph over the vectors."""
        return self._stored("flat")

    def hnsw(self) -> Answer:
        """Store, and have the graph built."""
        return self._stored("hnsw")

    def _stored(self, kind: Kind) -> Answer:
        answer = self._loaded(kind)
        if self.count() != self.rows:
            raise RuntimeError(f"{self.rows - self.count()} rows are missing")
        self.drop()
        return answer

    def _loaded(self, kind: Kind) -> Answer:
        self.kind = kind
        self.create()
        return rate(self._load, self.rows)

    def _load(self) -> None:
        self.write()
        self.finish()


def serve(kind: type[Contestant]) -> None:
    """Answer until stdin ends. Arguments: where the server is, rows, dimensions."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a peer prints is no answer
    address, rows, dimensions = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    contestant = kind(address, workload(rows, dimensions))
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        answer = getattr(contestant, line.strip())()
        print(json.dumps(answer), file=answers, flush=True)
