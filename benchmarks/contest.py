"""Contestants at one server, each a process of its own that does its tasks in turn with others."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self, cast

from benchmarks.pacing import RATE

ROOT = Path(__file__).resolve().parent.parent
OURS = "samespace"
HERE = sys.executable
PEERS = str(ROOT / ".bench" / "bin" / "python")
"""The environment of the peers, whose pins conflict with ours."""
Contestants = Mapping[str, tuple[str, str]]
"""By name: the interpreter and the module."""
Samples = dict[str, list[float]]
Loading = Literal["encode", "flat", "hnsw"]
LOADING: Mapping[Loading, tuple[str, str]] = {
    "encode": ("encode and send", "no server"),
    "flat": ("ingest", "none"),
    "hnsw": ("ingest", "inside"),
}
"""What the tasks of a ``serving.Loader`` are called, and whether an index is in the clock."""


@dataclass(frozen=True)
class Options:
    """How much of everything."""

    rows: int
    dimensions: int
    rounds: int


@dataclass(frozen=True)
class Line:
    """One figure of ours against one bound: ``at_least`` or ``at_most``."""

    task: str
    index: str
    """Whether building an index over the vectors is inside the clock."""
    ours: float
    unit: str
    against: str
    theirs: float | None
    ratio: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def met(self) -> bool:
        """Whether the ratio (without a rival: the figure) keeps its bound."""
        above = self.at_least is None or self.ratio >= self.at_least
        return above and (self.at_most is None or self.ratio <= self.at_most)


@dataclass(frozen=True)
class LeftOut:
    """What could not be measured on this machine, and why."""

    task: str
    reason: str


class Process:
    """A module of ours in a process of its own: it is asked by lines, and answers lines of JSON."""

    def __init__(self, python: str, module: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [python, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )
        self._name = module
        self._tasks = cast("IO[str]", self._process.stdin)
        self._answers = cast("IO[str]", self._process.stdout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def do(self, task: str) -> dict[str, Any]:
        """What it measured."""
        self._tasks.write(task + "\n")
        self._tasks.flush()
        found: dict[str, Any] = self.answer(task)
        return found

    def answer(self, task: str = "its preparation") -> Any:
        """What it says next; the first word comes when it is ready."""
        answer = self._answers.readline()
        if not answer:
            raise SystemExit(f"{self._name} ended during {task}")
        return json.loads(answer)

    def end(self) -> None:
        """Close its input and wait."""
        self._tasks.close()
        self._process.wait()
        self._answers.close()


class Contest:
    """In each round each contestant does the task once, so that what slows the machine slows all.

    ``settle`` is called before each, so that nobody pays for what others left to be done.
    """

    def __init__(
        self,
        contestants: Contestants,
        address: str,
        options: Options,
        *,
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        arguments = (address, str(options.rows), str(options.dimensions))
        self.rounds = options.rounds
        self._settle = settle
        self._processes = {
            name: Process(python, module, *arguments)
            for name, (python, module) in contestants.items()
        }

    def __enter__(self) -> Self:
        for process in self._processes.values():
            process.answer()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._processes.values():
            process.end()

    def do(self, name: str, task: str) -> dict[str, Any]:
        """What one contestant measured once."""
        self._settle()
        return self._processes[name].do(task)

    def warm_up(self, tasks: Mapping[str, str]) -> None:
        """A round that does not count: a server on Java compiles what it does often."""
        for name, task in tasks.items():
            self.do(name, task)

    def rates(self, tasks: Mapping[str, str]) -> Samples:
        """Rows a second in each round, of each contestant at its task."""
        return self._sampled(tasks, lambda answer: answer["rate"], "rows/s")

    def latencies(self, tasks: Mapping[str, str]) -> Samples:
        """Milliseconds of the median search in each round."""
        return self._sampled(tasks, lambda answer: statistics.median(answer["milliseconds"]), "ms")

    def _sampled(
        self, tasks: Mapping[str, str], read: Callable[[dict[str, Any]], float], unit: str
    ) -> Samples:
        samples: Samples = defaultdict(list)
        for number in range(self.rounds):
            for name, task in tasks.items():
                samples[name].append(read(self.do(name, task)))
                say(f"round {number + 1}: {task}: {name}: {figure(samples[name][-1], unit)}")
        return samples


def faster(
    task: str, index: str, samples: Samples, against: str, at_least: float | None = None
) -> Line:
    """Our rows a second as a multiple of theirs."""
    ours, theirs = statistics.median(samples[OURS]), statistics.median(samples[against])
    return Line(task, index, ours, "rows/s", against, theirs, ours / theirs, at_least=at_least)


def loading(
    contestants: Contestants,
    address: str,
    options: Options,
    task: Loading,
    bounds: Mapping[str, float],
) -> Iterator[Line]:
    """Our rows a second in a task of ``serving.Loader``, as multiples of all others'."""
    tasks = dict.fromkeys(contestants, task)
    with Contest(contestants, address, options) as contest:
        contest.warm_up(tasks)
        rates = contest.rates(tasks)
    shown, index = LOADING[task]
    for rival in contestants:
        if rival != OURS:
            yield faster(shown, index, rates, rival, bounds.get(rival))


def overlapped(
    contest: Contest, rivals: Sequence[str], at_least: float | None = None
) -> Iterator[Line]:
    """The embedder's share of the time of a job, ours and others'; with what limits ours."""
    shares: Samples = defaultdict(list)
    limiters = []
    for number in range(contest.rounds):
        for name in (OURS, *rivals):
            answer = contest.do(name, "job")
            shares[name].append(answer["share"])
            limiters += [answer["limiter"]] if name == OURS else []
            say(f"round {number + 1}: job: {name}: {figure(answer['share'], '')}")
    ours = statistics.median(shares[OURS])
    task = f"embed ‖ write at {RATE:,} texts/s, limit: {statistics.mode(limiters)}"
    yield Line(task, "none", ours, "of the time", "", None, ours, at_least=at_least)
    for name in rivals:
        theirs = statistics.median(shares[name])
        yield Line("likewise", "none", ours, "of the time", name, theirs, ours / theirs)


def beside(contest: Contest, index: str, at_most: float) -> Iterator[Line]:
    """Our slow searches while a migration runs in the same process, as a multiple of those without."""
    samples: Samples = defaultdict(list)
    for number in range(contest.rounds):
        answer = contest.do(OURS, "beside")
        samples[OURS].append(answer["beside"])
        samples["alone"].append(answer["alone"])
        said = [figure(answer[name], "ms") for name in ("beside", "alone")]
        say(f"round {number + 1}: search beside a migration: {said[0]}, alone: {said[1]}")
    ours, theirs = statistics.median(samples[OURS]), statistics.median(samples["alone"])
    task = "search beside a migration, p95"
    yield Line(task, index, ours, "ms", "alone", theirs, ours / theirs, at_most=at_most)


def quicker(task: str, samples: Samples, against: str, at_most: float) -> Line:
    """Our milliseconds as a part of theirs."""
    ours, theirs = statistics.median(samples[OURS]), statistics.median(samples[against])
    named = f"{task}, p50"
    return Line(named, "built", ours, "ms", against, theirs, ours / theirs, at_most=at_most)


def figure(value: float, unit: str) -> str:
    """A number as it is shown."""
    number = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{number} {unit}".strip()


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)
