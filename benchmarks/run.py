"""``make bench``: the same rows through samespace, its peers and psycopg, in turn, on one server.

Every contestant is a process of its own; peers run in their own environment. In each round each
does the task once, so that what slows the machine slows them all; figures are medians of rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, cast

import psycopg
from rich.console import Console
from rich.table import Table

from samespace.stores.pgvector import embedded
from samespace.stores.pgvector.sql import AUTO_INDEX_ROWS

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / ".bench" / "bin" / "python"
OURS, RAW, LANGCHAIN, LLAMAINDEX = "samespace", "psycopg by hand", "LangChain", "LlamaIndex"
CONTESTANTS = {
    OURS: (sys.executable, "ours"),
    RAW: (sys.executable, "raw"),
    LANGCHAIN: (str(PEERS), "langchain"),
    LLAMAINDEX: (str(PEERS), "llamaindex"),
}
Samples = dict[str, list[float]]


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


class Process:
    """A contestant's process."""

    def __init__(self, python: str, module: str, arguments: list[str]) -> None:
        self._process = subprocess.Popen(
            [python, "-m", f"benchmarks.contestants.{module}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )
        self._name = module
        self._conninfo = arguments[0]
        self._tasks = cast("IO[str]", self._process.stdin)
        self._answers = cast("IO[str]", self._process.stdout)

    def do(self, task: str) -> dict[str, Any]:
        """What the contestant measured, once what others wrote is on the disk."""
        with psycopg.connect(self._conninfo, autocommit=True) as connection:
            connection.execute("CHECKPOINT")
        self._tasks.write(task + "\n")
        self._tasks.flush()
        found: dict[str, Any] = self.answer(task)
        return found

    def answer(self, task: str = "its preparation") -> Any:
        """What it says next; the first word comes when it is ready."""
        answer = self._answers.readline()
        if not answer:
            raise SystemExit(f"contestant {self._name} ended during {task}")
        return json.loads(answer)

    def end(self) -> None:
        """Close its input and wait."""
        self._tasks.close()
        self._process.wait()


def main() -> int:
    """Run all tasks; 1 if a figure misses its bound."""
    options = _options()
    with _server() as conninfo, ExitStack() as ending:
        arguments = [conninfo, str(options.rows), str(options.dimensions)]
        processes = {}
        for name, (python, module) in CONTESTANTS.items():
            processes[name] = Process(python, module, arguments)
            ending.callback(processes[name].end)
        for process in processes.values():
            process.answer()
        lines = list(_measured(processes, options.rounds))
    _show(lines, options.rows, options.dimensions)
    report = {"rows": options.rows, "dimensions": options.dimensions, "rounds": options.rounds}
    lines_ = [{**asdict(line), "met": line.met} for line in lines]
    options.json.parent.mkdir(exist_ok=True)
    options.json.write_text(json.dumps({**report, "lines": lines_}, indent=1) + "\n")
    print(f"as JSON: {options.json}")
    return 0 if all(line.met for line in lines) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rows", type=int, default=20_000, help="at least 10,000: less is not indexed"
    )
    parser.add_argument("--dimensions", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=ROOT / ".bench" / "results.json")
    options = parser.parse_args()
    if options.rows < AUTO_INDEX_ROWS:
        parser.error(f"--rows: {AUTO_INDEX_ROWS} or more, or no index is built")
    return options


@contextmanager
def _server() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="samespace-bench-") as folder:
        Path(folder).chmod(0o755)  # the server's account must get through
        with embedded.start(Path(folder) / "postgres") as lease:
            yield lease.conninfo


def _measured(processes: dict[str, Process], rounds: int) -> Iterator[Line]:
    loads = _rates(processes, dict.fromkeys(CONTESTANTS, "load"), rounds)
    yield _faster("upsert", "none", loads, LANGCHAIN, 30)
    yield _faster("upsert", "none", loads, LLAMAINDEX, 15)
    yield _faster("upsert", "none", loads, RAW, 0.85)
    for name in (RAW, LANGCHAIN, LLAMAINDEX):
        processes[name].do("index")
    tasks = {OURS: "load_and_index", LANGCHAIN: "load_in_place"}
    yield _faster("load + HNSW", "inside", _rates(processes, tasks, rounds), LANGCHAIN, 10)
    times = _latencies(processes, dict.fromkeys(CONTESTANTS, "search"), rounds)
    yield _quicker("search", times, LANGCHAIN, 0.6)
    yield _quicker("search", times, LLAMAINDEX, 0.6)
    yield _quicker("search", times, RAW, 1.15)
    yield from _ours_alone(processes[OURS], rounds)


def _ours_alone(ours: Process, rounds: int) -> Iterator[Line]:
    recall = ours.do("recall")["recall"]
    yield Line("recall@10, default search", "built", recall, "", "", None, recall, at_least=0.95)
    filtered = ours.do("filtered")
    fewest = float(filtered["fewest"])
    yield Line("hits at 1 % selectivity", "built", fewest, "", "", None, fewest, at_least=10)
    share = filtered["recall"]
    yield Line("recall@10 at 1 %", "built", share, "", "", None, share, at_least=0.95)
    times = ours.do("search_filtered")["milliseconds"]
    median = statistics.median(times)
    yield Line("search at 1 % selectivity, p50", "built", median, "ms", "", None, median)
    filled = statistics.median(ours.do("fill")["rate"] for _ in range(rounds))
    yield Line("fill a second slot", "first one's", filled, "rows/s", "", None, filled, 5000)


def _rates(processes: dict[str, Process], tasks: dict[str, str], rounds: int) -> Samples:
    samples: Samples = defaultdict(list)
    for number in range(rounds):
        for name, task in tasks.items():
            samples[name].append(processes[name].do(task)["rate"])
            _say(f"round {number + 1}: {task}: {name}: {samples[name][-1]:,.0f} rows/s")
    return samples


def _latencies(processes: dict[str, Process], tasks: dict[str, str], rounds: int) -> Samples:
    samples: Samples = defaultdict(list)
    for number in range(rounds):
        for name, task in tasks.items():
            samples[name].append(statistics.median(processes[name].do(task)["milliseconds"]))
            _say(f"round {number + 1}: {task}: {name}: {samples[name][-1]:.2f} ms")
    return samples


def _faster(task: str, index: str, samples: Samples, against: str, at_least: float) -> Line:
    ours, theirs = statistics.median(samples[OURS]), statistics.median(samples[against])
    return Line(task, index, ours, "rows/s", against, theirs, ours / theirs, at_least=at_least)


def _quicker(task: str, samples: Samples, against: str, at_most: float) -> Line:
    ours, theirs = statistics.median(samples[OURS]), statistics.median(samples[against])
    named = f"{task}, p50"
    return Line(named, "built", ours, "ms", against, theirs, ours / theirs, at_most=at_most)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _show(lines: list[Line], rows: int, dimensions: int) -> None:
    table = Table(
        "task", "index in the clock", "samespace", "against", "theirs", "ratio", "wanted", ""
    )
    for line in lines:
        bound = ""
        if line.at_least is not None:
            bound = f"≥ {line.at_least:g}"
        if line.at_most is not None:
            bound = f"≤ {line.at_most:g}"
        table.add_row(
            line.task,
            line.index,
            _figure(line.ours, line.unit),
            line.against,
            "" if line.theirs is None else _figure(line.theirs, line.unit),
            "" if line.theirs is None else f"{line.ratio:.2f}",
            bound,
            "met" if line.met else "MISSED",
        )
    Console(width=120).print(f"{rows:,} rows of {dimensions:,} dimensions", table)


def _figure(value: float, unit: str) -> str:
    number = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{number} {unit}".strip()


if __name__ == "__main__":
    sys.exit(main())
