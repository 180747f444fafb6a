"""What is said of a job that is under way."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from samespace import IngestReport, Rejected, WriteReport
from samespace.cli.progress import SECONDS, State, Watch, cost_of, counted, fitted, lasting, short
from samespace.errors import InvalidInput
from samespace.ingest.source import Files

REPORT = IngestReport(
    write=WriteReport(
        written=118_000, tokens=4_520_000, rejected=(Rejected("a", InvalidInput("no")),) * 12
    ),
    documents=120_000,
    resumed_at=3_456,
    wall=100.0,
)


@pytest.mark.parametrize(
    ("state", "progress", "balance"),
    [
        (State(REPORT), "123,456 documents, 1,200/s", "12 rejected, 4.5M tokens"),
        (
            State(REPORT, part=0.5, began=0.25, price=0.05, budget=9_000_000),
            "50%, 123,456 documents, 3:20 to go, 1,200/s",
            "12 rejected, 4.5M tokens, 4.5M left, cost 0.2260",
        ),
        (
            State(REPORT, part=1.0, budget=4_000_000),
            "100%, 123,456 documents, finishing, 1,200/s",
            "12 rejected, 4.5M tokens, 0 left",
        ),
        (State(IngestReport(rejected_before=7)), "0 documents", "7 rejected"),
        (State(IngestReport(), part=0.0), "0%, 0 documents", ""),
        (State(IngestReport(resumed_at=1), part=0.5, began=0.5), "50%, 1 document", ""),
    ],
)
def test_a_report_is_said_in_few_words(state: State, progress: str, balance: str) -> None:
    assert (", ".join(state.progress), ", ".join(state.balance)) == (progress, balance)


def test_numbers_are_short() -> None:
    assert [short(count) for count in (9_999, 12_345, 4_520_000)] == ["9999", "12.3k", "4.5M"]
    assert [lasting(time) for time in (6.6, 723, 3723)] == ["0:07", "12:03", "1:02:03"]
    assert [counted(count, "row") for count in (0, 1, 1200)] == ["0 rows", "1 row", "1,200 rows"]
    costs = [cost_of(tokens, 0.05) for tokens in (0, 2_000, 30_000_000)]
    assert costs == ["0.00", "0.0001", "1.50"]


@pytest.mark.parametrize(
    ("width", "said"), [(12, "one, two, 33"), (11, "one, two"), (4, "one"), (2, "")]
)
def test_a_line_has_whole_words_and_the_first_ones(width: int, said: str) -> None:
    assert fitted(["one", "two", "33"], width) == said


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Four files, half of which were read."""
    for n in range(4):
        (tmp_path / f"{n}.md").write_text("x")
    files = Files([tmp_path])
    files.version()
    units = files.units(None)
    for _ in range(3):
        next(units)
    return files


def test_without_a_terminal_there_is_a_line_now_and_then(files: Files) -> None:
    now = [0.0]
    out = io.StringIO()
    with Watch(Console(file=out, width=40), files, clock=lambda: now[0]) as watch:
        for seconds in (1, SECONDS + 1, SECONDS + 2, 2 * SECONDS + 1):
            now[0] = seconds
            watch.tell(replace(REPORT, documents=1, resumed_at=1))
    said = "50%, 2 documents, 3:20 to go, 0.0/s, 12 rejected, 4.5M tokens; busiest: read"
    assert out.getvalue().splitlines() == [said] * 2


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_at_a_terminal_there_are_two_lines_that_fit(files: Files, width: int) -> None:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True)
    with Watch(console, files, price=0.05, budget=9_000_000) as watch:
        watch.tell(replace(REPORT, documents=2, resumed_at=0))
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    lines = plain.replace("\r", "\n").splitlines()
    assert max(map(len, lines)) <= width - 6
    assert any("50%" in line for line in lines)
    assert any("12 rejected" in line for line in lines)
    assert any("to go" in line for line in lines) == (width > 20)


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(files: Files) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, _environ={"TERM": "dumb"})
    with Watch(console, files) as watch:
        watch.tell(REPORT)
    assert not out.getvalue()
