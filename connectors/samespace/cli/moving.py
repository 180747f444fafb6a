"""``samespace migrate run``."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from samespace.cli.archiving import archived_backend
from samespace.cli.options import (
    AsJson,
    CanaryThreshold,
    PlanFile,
    Scope,
    Store,
    comparing,
    opened_backend,
    opened_source,
    read_plan,
)
from samespace.cli.progress import Counter, console_of, counted, short
from samespace.errors import InvalidInput, SamespaceError, excerpt
from samespace.migrate.notes import RunNotes
from samespace.migrate.plan import MigrationPlan, PlannedCollection
from samespace.migrate.progress import MigrationReport
from samespace.migrate.reading import Finished
from samespace.migrate.running import BATCH_SIZE, MigrationRun
from samespace.protocols import EmbeddingBackend

SPENT = 4


def run(
    context: typer.Context,
    plan: PlanFile,
    backend: Annotated[
        str, typer.Option("--backend", help="What embeds from then on, as for migrate plan.")
    ],
    store: Store = "embedded",
    scope: Scope = None,
    old_backend: Annotated[
        str | None,
        typer.Option(
            "--old-backend",
            help="What embedded so far: with --follow the old slot is kept fresh by it, too.",
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on and keep every slot fresh, until Ctrl-C.")
    ] = False,
    interval: Annotated[
        float, typer.Option(metavar="SECONDS", help="Between two looks while nothing changes.")
    ] = 2.0,
    worker: Annotated[
        str, typer.Option(metavar="I/N", help="Take the I-th of N parts of the rows: 0/4 to 3/4.")
    ] = "0/1",
    share: Annotated[
        float | None,
        typer.Option("--share", metavar="X", help="Part of the account's rate limits; else 0.5."),
    ] = None,
    budget_tokens: Annotated[
        int | None,
        typer.Option("--budget-tokens", min=1, metavar="N", help="Stop before N tokens are spent."),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(metavar="N", help="Rows that are embedded and written together.")
    ] = BATCH_SIZE,
    late_chunking: Annotated[
        bool | None,
        typer.Option(
            "--late-chunking/--no-late-chunking",
            help="Embed the chunks of a document in sight of one another; else as before.",
        ),
    ] = None,
    keep_full: Annotated[
        Path | None,
        typer.Option(
            "--keep-full",
            metavar="DIR",
            help="Embed at full size and keep that here: another size later costs no tokens.",
        ),
    ] = None,
    canary_threshold: CanaryThreshold = None,
    as_json: AsJson = False,
) -> None:
    """Fill the new slot of a plan's collections, beside the old one and while they are in use.

    Run again after an interruption, it goes on from there; several may run at once.
    """
    found, part = read_plan(plan), _worker(worker)
    # A folder of Qdrant's serves one handle at a time; to follow takes all at once.
    groups = [found.collections] if follow else [(each,) for each in found.collections]
    report, ended = MigrationReport(complete=True), list[int]()
    with (
        _target(backend, share_of(backend, share), keep_full, found) as target,
        ExitStack() as kept,
        Counter(console_of(sys.stderr.isatty()), "") as counter,
    ):
        notes = _Notes(lambda: kept.enter_context(RunNotes(plan, found.hash, worker=part)))
        for group in groups:
            told = _telling(report, notes, counter)
            opened = _opened_each(group, store, context, scope, old_backend, canary_threshold)
            with opened as stores:
                job = MigrationRun(
                    stores,
                    target,
                    found,
                    worker=part,
                    follow=follow,
                    interval=interval,
                    budget_tokens=_left(budget_tokens, report),
                    batch_size=batch_size,
                    late_chunking=late_chunking,
                    on_progress=told,
                )
                report += _ran(job, ended)
            if ended and group is not groups[-1]:
                report = replace(report, stopped="asked", complete=False)
            if report.stopped:
                break
    if not report.stopped and all(each.finished for each in report.collections):
        raise Finished.of(found.collections[0])
    _show(report, ended, as_json=as_json)


class _Notes:
    """A run's notes, from when it has begun: one that is refused leaves those of earlier runs as they are."""

    def __init__(self, begin: Callable[[], RunNotes]) -> None:
        self._begin = begin
        self._notes: RunNotes | None = None

    def tell(self, report: MigrationReport) -> None:
        """Note how far the run is; of one that waits to begin, too."""
        if self._notes is None and (report.is_begun or report.trouble):
            self._notes = self._begin()
        if self._notes is not None:
            self._notes.tell(report)


def _telling(
    before: MigrationReport, notes: _Notes, counter: Counter
) -> Callable[[MigrationReport], None]:
    """Show how far a run is, after those that ended before it, and note it beside the plan."""

    def tell(done: MigrationReport) -> None:
        report = before + done
        notes.tell(report)
        counter.say(_how_far(report))

    return tell


def _left(budget: int | None, before: MigrationReport) -> int | None:
    """What is left of a budget; of none that is spent is a token left, which no batch takes less than."""
    return None if budget is None else max(1, budget - before.tokens)


@contextmanager
def _target(
    spec: str, share: float | None, keep_full: Path | None, plan: MigrationPlan
) -> Iterator[EmbeddingBackend]:
    """The backend to move to, if the plan does: a run that may not begin leaves no note."""
    opened = opened_backend(spec, None, share)
    if keep_full is not None:
        opened = archived_backend(spec, keep_full, share=share)
    with opened as target:
        for each in plan.collections:
            each.check_target(target.space)
        yield target


def share_of(backend: str, share: float | None) -> float | None:
    """Half of the rate limits unless said, where a backend has some."""
    return 0.5 if share is None and not backend.startswith("hashing") else share


@contextmanager
def _opened_each(
    planned: Sequence[PlannedCollection],
    store: str,
    context: typer.Context,
    scope: list[str] | None,
    backend: str | None,
    threshold: float | None,
) -> Iterator[Sequence[Any]]:
    with ExitStack() as handles:
        comparison = comparing(threshold, "the target's")
        yield [
            handles.enter_context(
                opened_source(store, each, context, scope=scope, backend=backend, **comparison)
            )
            for each in planned
        ]


def _ran(job: MigrationRun, ended: list[int]) -> MigrationReport:
    """The run; the first Ctrl-C or signal, noted in ``ended``, ends it after the batches under way."""
    before: dict[signal.Signals, Any] = {}

    def end(number: int, _frame: object) -> None:
        ended.append(number)
        _end(job, before)

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if callable(handler):  # else nohup has seen to it
                before[number] = handler
                signal.signal(number, end)
        return job.run()
    except SamespaceError as error:
        if job.report.filled:
            error.add_note(f"{_how_far(job.report)}; run again to go on")
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(job: MigrationRun, before: dict[signal.Signals, Any]) -> None:
    typer.echo(
        "samespace: ending what is under way; again ends it at once, which does no harm", err=True
    )
    for number, handler in before.items():
        signal.signal(number, handler)
    job.stop()


def _worker(text: str) -> tuple[int, int]:
    place, slash, count = text.partition("/")
    if slash and place.isdecimal() and count.isdecimal() and int(place) < int(count):
        return int(place), int(count)
    raise InvalidInput(f"--worker is {excerpt(text)}; write I/N with I from 0 to N - 1, say 0/4")


def _how_far(report: MigrationReport) -> str:
    said = [f"{counted(report.filled, 'row')} filled"]
    said += [f"{short(report.tokens)} tokens"] if report.tokens else []
    if report.trouble:
        said.append(f"waiting: {report.trouble}")
    elif report.following:
        said.append("following" + (", nothing to do" if report.idle else ""))
    return ", ".join(said)


def _show(report: MigrationReport, ended: Sequence[int], *, as_json: bool) -> None:
    typer.echo(orjson.dumps(report.to_dict()) if as_json else "\n".join(report.lines()))
    if report.stopped == "budget":
        raise typer.Exit(SPENT)
    if report.stopped == "asked":
        raise typer.Exit(128 + ended[0])
    if not report.complete:
        raise typer.Exit(1)
