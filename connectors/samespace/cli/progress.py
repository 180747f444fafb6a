"""How far a job is: two lines at a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from samespace.ingest.report import IngestReport
from samespace.ingest.source import Files

SECONDS: Final = 30.0
"""Between two lines where nobody watches."""
BAR: Final = 12
"""Columns of the bar, and ``ROOMY`` those of a terminal that has room for it."""
ROOMY: Final = 60
BESIDE: Final = 6
"""Columns that are left free: a terminal shows each ``^C`` there, and may wrap in the last."""
MILLION: Final = 1_000_000


def cost_of(tokens: int, price: float) -> str:
    """What tokens cost at a price for a million of them; small amounts with more digits."""
    cost = tokens * price / MILLION
    return f"{cost:,.2f}" if cost >= 1 or not cost else f"{cost:.4f}"


def counted(count: int, what: str) -> str:
    """``1 document``, ``1,200 documents``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def short(count: int) -> str:
    """A number in few characters: 950, 12.3k, 4.5M."""
    if count < 10_000:
        return str(count)
    return f"{count / 1000:.1f}k" if count < MILLION else f"{count / MILLION:.1f}M"


def lasting(seconds: float) -> str:
    """A time in few characters: 0:07, 12:03, 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def fitted(parts: Sequence[str], width: int) -> str:
    """As many of the first parts as a line of this width has room for."""
    while parts and len(", ".join(parts)) > width:
        parts = parts[:-1]
    return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class State:
    """How far a job is; ``part`` of its source is done, of which it had ``began`` at the start."""

    report: IngestReport
    part: float | None = None
    began: float = 0.0
    price: float | None = None
    budget: int | None = None

    @property
    def progress(self) -> list[str]:
        """How much, how fast, how long still: the most wanted first."""
        report, part = self.report, self.part
        said = [] if part is None else [f"{part:.0%}"]
        said.append(counted(report.resumed_at + report.documents, "document"))
        if part is not None and part > self.began:
            said.append(self._to_go(part))
        if report.wall > 0 and report.documents:
            rate = report.documents / report.wall
            said.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s")
        return said

    def _to_go(self, part: float) -> str:
        if part >= 1:
            return "finishing"
        return f"{lasting(self.report.wall * (1 - part) / (part - self.began))} to go"

    @property
    def balance(self) -> list[str]:
        """What was left out, and what was spent."""
        report, tokens = self.report, self.report.write.tokens
        rejected = report.rejected_before + len(report.write.rejected)
        said = [f"{rejected:,} rejected"] if rejected else []
        if tokens:
            said.append(f"{short(tokens)} tokens")
            if self.budget is not None:
                said.append(f"{short(max(self.budget - tokens, 0))} left")
            if self.price is not None:
                said.append(f"cost {cost_of(tokens, self.price)}")
        return said


class Watch:
    """Shows on ``console`` what a job tells while it is entered."""

    def __init__(
        self,
        console: Console,
        files: Files,
        *,
        first: str = "reading",
        price: float | None = None,
        budget: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console, self._files, self._first = console, files, first
        self._price, self._budget = price, budget
        self._began: float | None = None
        self._state: State | None = None
        self._clock, self._last = clock, clock()
        self._live: Live | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            self._live = Live(
                console=console, get_renderable=self._lines, transient=True, redirect_stdout=False
            )

    def __enter__(self) -> Self:
        if self._live is not None:
            try:
                self._live.start(refresh=True)
            except BaseException:  # Ctrl-C, once the first frame is there
                self._live.stop()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def tell(self, report: IngestReport) -> None:
        """The job is so far."""
        if self._began is None:
            self._began = self._files.part(report.resumed_at) or 0.0
        part = self._files.part(report.resumed_at + report.documents)
        self._state = State(report, part, self._began, self._price, self._budget)
        if self._live is None:
            self._say_now_and_then(self._state)

    def _say_now_and_then(self, state: State) -> None:
        if self._clock() - self._last >= SECONDS:
            self._last = self._clock()
            said = ", ".join((*state.progress, *state.balance))
            line = f"{said}; busiest: {state.report.limiter}"
            self._console.print(line, soft_wrap=True, highlight=False, markup=False)

    def _lines(self) -> Group | Text:
        """Two lines that fit; the second only where there is something to say."""
        width, state = self._console.width - BESIDE, self._state
        if state is None:
            return Text(self._first[:width])
        lines = [_with_bar(state, width) if width >= ROOMY else _line(state.progress, width)]
        lines += [_line(state.balance, width)] if state.balance else []
        return Group(*lines)


def _line(parts: Sequence[str], width: int) -> Text:
    return Text(fitted(parts, width), no_wrap=True, overflow="crop")


def _with_bar(state: State, width: int) -> Table | Text:
    if state.part is None:
        return _line(state.progress, width)
    line = Table.grid(padding=(0, 1, 0, 0))
    bar = ProgressBar(total=1.0, completed=state.part, width=BAR)
    line.add_row(bar, _line(state.progress, width - BAR - 2))
    return line


def console_of(stream_is_terminal: bool) -> Console:
    """For what is said on stderr; no variable of the environment makes a pipe a terminal."""
    return Console(stderr=True, force_terminal=None if stream_is_terminal else False)


class Counter:
    """Shows on ``console`` how many rows are done, while it is entered."""

    def __init__(
        self, console: Console, done: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console, self._done = console, done
        self._clock, self._last = clock, clock()
        self._said = ""
        self._live: Live | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            self._live = Live(
                console=console,
                get_renderable=lambda: Text(self._said[: console.width - BESIDE]),
                transient=True,
                redirect_stdout=False,
            )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def tell(self, count: int, total: int | None) -> None:
        """So many are done."""
        of = f" of {total:,}" if total else ""
        self.say(f"{counted(count, 'row')}{of} {self._done}")

    def say(self, text: str) -> None:
        """It is so far, in these words."""
        self._said = text
        if self._live is None and self._clock() - self._last >= SECONDS:
            self._last = self._clock()
            self._console.print(self._said, soft_wrap=True, highlight=False, markup=False)
