"""A contestant in a process of its own: a line of JSON asks for a task, a line answers seconds."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from benchmarks.workload import Workload, workload

Answer = dict[str, Any]


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
