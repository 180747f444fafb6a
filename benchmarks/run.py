"""``make bench``: the same rows through samespace, its peers and the raw drivers, in one run.

Every contestant is a process of its own; peers run in their own environment. In each round each
does the task once, so that what slows the machine slows them all; figures are medians of rounds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.contest import ROOT, LeftOut, Line, Options, figure
from benchmarks.elasticsearch import lines as elasticsearch
from benchmarks.local import lines as local
from benchmarks.postgres import lines as postgres
from benchmarks.qdrant import lines as qdrant
from samespace.stores.pgvector.sql import AUTO_INDEX_ROWS

STORES: dict[str, tuple[Callable[[Options], Iterator[Line | LeftOut]], int]] = {
    "postgres": (postgres.lines, postgres.ROWS),
    "elasticsearch": (elasticsearch.lines, elasticsearch.ROWS),
    "qdrant": (qdrant.lines, qdrant.ROWS),
    "local": (local.lines, local.TEXTS),
}


def main() -> int:
    """Run all tasks; 1 if a figure misses its bound."""
    given = _options()
    stores = []
    for name in given.store or STORES:
        lines, rows = STORES[name]
        options = Options(given.rows or rows, given.dimensions, given.rounds)
        found = list(lines(options))
        measured = [line for line in found if isinstance(line, Line)]
        left_out = [line for line in found if isinstance(line, LeftOut)]
        _show(name, measured, options)
        for line in left_out:
            print(f"NOT MEASURED: {name}: {line.task}: {line.reason}")
        stores.append(
            {
                "store": name,
                **asdict(options),
                "lines": [{**asdict(line), "met": line.met} for line in measured],
                "left_out": [asdict(line) for line in left_out],
            }
        )
    given.json.parent.mkdir(exist_ok=True)
    given.json.write_text(json.dumps({"stores": stores}, indent=1) + "\n")
    print(f"as JSON: {given.json}")
    return 0 if all(line["met"] for store in stores for line in store["lines"]) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", action="append", choices=STORES, help="default: all")
    parser.add_argument(
        "--rows", type=int, help=f"with postgres at least {AUTO_INDEX_ROWS}: less is not indexed"
    )
    parser.add_argument("--dimensions", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, default=ROOT / ".bench" / "results.json")
    options = parser.parse_args()
    indexed = "postgres" in (options.store or STORES)
    if indexed and options.rows is not None and options.rows < AUTO_INDEX_ROWS:
        parser.error(f"--rows: {AUTO_INDEX_ROWS} or more, or no index is built")
    return options


def _show(store: str, lines: list[Line], options: Options) -> None:
    table = Table(
        "task", "index in the clock", "samespace", "against", "theirs", "ratio", "wanted", ""
    )
    for line in lines:
        table.add_row(
            line.task,
            line.index,
            figure(line.ours, line.unit),
            line.against,
            "" if line.theirs is None else figure(line.theirs, line.unit),
            "" if line.theirs is None else f"{line.ratio:.2f}",
            _bound(line),
            "met" if line.met else "MISSED",
        )
    title = f"{store}: {options.rows:,} rows of {options.dimensions:,} dimensions"
    Console(width=120).print(title, table)


def _bound(line: Line) -> str:
    if line.at_least is not None:
        return f"≥ {line.at_least:g}"
    return "" if line.at_most is None else f"≤ {line.at_most:g}"


if __name__ == "__main__":
    sys.exit(main())
