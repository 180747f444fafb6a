"""``samespace audit`` and ``samespace repair``."""

from __future__ import annotations

import errno
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated, Final

import orjson
import typer

from samespace.audit.auditing import MOST_SAMPLED, SAMPLED, AuditJob
from samespace.audit.notes import AuditFile
from samespace.audit.page import page_of
from samespace.audit.repairing import RepairJob, RepairReport
from samespace.audit.report import AuditReport, taken_away
from samespace.audit.verdicts import Verdict
from samespace.cli.checkpoints import place_of
from samespace.cli.options import (
    AsJson,
    Backend,
    CanaryThreshold,
    Collection,
    Dimensions,
    Scope,
    Store,
    one_line,
    opened,
    opened_backend,
)
from samespace.cli.progress import Counter, console_of, counted
from samespace.errors import InvalidInput, SamespaceError, excerpt
from samespace.ingest.durable import replace_file
from samespace.protocols import VectorStore

INTERRUPTED: Final = 130
SPENT: Final = 4
NAMED: Final = 20
_WANTED: Final = (Verdict.FOREIGN, Verdict.STALE, Verdict.DUPLICATE)

Point = Annotated[
    Path | None,
    typer.Option("--checkpoint", metavar="FILE", help="Note progress here, and go on from there."),
]


def audit(
    context: typer.Context,
    collection: Collection = "documents",
    store: Store = "embedded",
    backend: Backend = "hashing",
    dimensions: Dimensions = None,
    scope: Scope = None,
    canary_threshold: CanaryThreshold = None,
    sample: Annotated[int, typer.Option(metavar="N", help="Look at N rows.")] = SAMPLED,
    all_rows: Annotated[bool, typer.Option("--all", help="Look at every row.")] = False,
    free: Annotated[
        bool, typer.Option("--free", help="Call no model; name what is out of place.")
    ] = False,
    candidate: Annotated[
        list[str] | None,
        typer.Option(metavar="SPEC", help="What foreign vectors may be of; may be given again."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write the report here, too.")
    ] = None,
    checkpoint: Point = None,
    budget_tokens: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Stop once N tokens are spent.")
    ] = None,
    max_share: Annotated[
        float | None,
        typer.Option(metavar="X", help="Fail (1) where the foreign share may be above X: 0.01."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Embed texts again and compare: whose vectors are in a collection?

    Nothing is written to it. Without --all a random sample bounds the share.
    """
    _check_rows(context, sample, all_rows)
    _check_share(max_share)
    if free:
        _check_free(candidate, max_share)
    if report is not None:
        _check_writable(report)
    with ExitStack() as stack:
        source = stack.enter_context(
            opened(
                store, collection, backend, dimensions, context,
                scope=scope, canary_threshold=canary_threshold,
            )
        )  # fmt: skip
        watch = Counter(console_of(sys.stderr.isatty()), "judged")
        job = AuditJob(
            source,
            sample="all" if all_rows else sample,
            candidates=[stack.enter_context(opened_backend(spec)) for spec in candidate or ()],
            only="free" if free else None,
            checkpoint=checkpoint,
            place=place_of(store, scope=scope or ()),
            budget_tokens=budget_tokens,
            on_progress=lambda found: watch.tell(
                found.looked_at, found.population if all_rows else sample
            ),
        )
        found = _ended(job, watch, checkpoint)
    _show_audit(found, _repairing(context, checkpoint, found), as_json=as_json)
    if report is not None:
        _write(report, page_of(found))
    if found.stopped == "budget":
        raise typer.Exit(SPENT)
    if _is_above(found, max_share):
        raise typer.Exit(1)


def _check_share(max_share: float | None) -> None:
    if max_share is not None and not 0 <= max_share < 1:
        raise InvalidInput(f"--max-share is {max_share}; pass a share, like 0.01")


def _check_free(candidates: Sequence[str] | None, max_share: float | None) -> None:
    """:class:`InvalidInput` for what an audit without a model would not look at."""
    if max_share is not None:
        raise InvalidInput(
            "--free judges no row, so that --max-share would never fail; leave one of them out"
        )
    if candidates:
        raise InvalidInput(
            "--free asks no model, so that no --candidate would be asked; leave one of them out"
        )


def _check_rows(context: typer.Context, sample: int, all_rows: bool) -> None:
    if all_rows and _is_given(context, "sample"):
        raise InvalidInput("--all looks at every row, --sample at some; leave one of them out")
    if not 1 <= sample <= MOST_SAMPLED:
        raise InvalidInput(
            f"--sample is {sample}; pass a whole number from 1 to {MOST_SAMPLED:,}, or --all for every row"
        )


def _ended(job: AuditJob, watch: Counter, checkpoint: Path | None) -> AuditReport:
    """The job's report; of one that is ended, how far it came and how to go on."""
    try:
        with watch:
            return job.run()
    except (KeyboardInterrupt, SystemExit) as ending:
        looked = counted(job.report.looked_at, "row")
        typer.echo(f"samespace: interrupted; {looked} judged, {_going_on(checkpoint)}", err=True)
        raise SystemExit(getattr(ending, "code", INTERRUPTED)) from None
    except SamespaceError as error:
        if job.report.looked_at:
            error.add_note(
                f"{counted(job.report.looked_at, 'row')} judged, {_going_on(checkpoint)}"
            )
        raise


def _going_on(checkpoint: Path | None) -> str:
    if checkpoint is None:
        return "and nothing noted: with --checkpoint FILE it could go on"
    return "run it again to go on"


def _check_writable(path: Path) -> None:
    """Before an audit is paid for that has nowhere to go."""
    with _writing(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=path.parent):
            pass


def _write(path: Path, page: str) -> None:
    with _writing(path):
        replace_file(path, page.encode())


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidInput(
            f"cannot write the report {excerpt(str(path))}: {error.strerror}; pass another path"
        ) from error


def _is_above(found: AuditReport, most: float | None) -> bool:
    """Whether more than ``most`` may be foreign: by the upper bound, where not all were judged."""
    if most is None:
        return False
    if found.share is None:
        typer.echo("no row was judged, so that any share may be foreign", err=True)
        return True
    return (found.interval[1] if found.interval else found.share) > most


def _show_audit(found: AuditReport, repairing: str, *, as_json: bool) -> None:
    if as_json:
        typer.echo(orjson.dumps(found.to_dict()).decode())
        return
    for line in found.lines():
        typer.echo(line)
    if found.foreign or found.stale:
        typer.echo(f"\nto repair them: {repairing}")


def _repairing(context: typer.Context, checkpoint: Path | None, found: AuditReport) -> str:
    """The commands that repair what this one has found."""
    kept = ("store", "collection", "backend", "dimensions", "canary_threshold")
    given = [
        part
        for name in kept
        if context.params.get(name) is not None and _is_given(context, name)
        for part in (f"--{name.replace('_', '-')}", str(context.params[name]))
    ]
    given += [part for each in context.params.get("scope") or () for part in ("--scope", each)]
    repair = ["samespace", "repair", *given]
    wrong = found.ids()
    if checkpoint:
        return shlex.join([*repair, "--checkpoint", str(checkpoint)])
    if not found.sampled and len(wrong) <= NAMED:
        return shlex.join([*repair, *(part for id in wrong for part in ("--id", id))])
    again = shlex.join(["samespace", "audit", *given, "--all", "--json"])
    return f"{again} > AUDIT.json\n  {shlex.join([*repair, '--from', 'AUDIT.json'])}"


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def repair(
    context: typer.Context,
    collection: Collection = "documents",
    store: Store = "embedded",
    backend: Backend = "hashing",
    dimensions: Dimensions = None,
    scope: Scope = None,
    canary_threshold: CanaryThreshold = None,
    audited: Annotated[
        Path | None, typer.Option("--from", metavar="AUDIT.json", help="What an audit printed.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The checkpoint of an audit.")
    ] = None,
    ids: Annotated[
        list[str] | None, typer.Option("--id", metavar="ID", help="This row; may be given again.")
    ] = None,
    pending: Annotated[
        bool, typer.Option("--pending", help="Also the rows that have no vector.")
    ] = False,
    stale: Annotated[
        bool, typer.Option("--stale", help="Also the rows whose text changed behind their vector.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be written; write nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Embed certain rows again and write the vectors that are not right.

    Rows that somebody else writes meanwhile are left as they are then. Run again, it does nothing.
    """
    with ExitStack() as stack:
        source = stack.enter_context(
            opened(
                store,
                collection,
                backend,
                dimensions,
                context,
                scope=scope,
                canary_threshold=canary_threshold,
            )
        )
        rows = _rows(audited, checkpoint, ids, has_others=pending or stale)
        if checkpoint is not None:
            rows = stack.enter_context(
                _noted(checkpoint, source, place_of(store, scope=scope or ()))
            )
        if not (yes or dry_run):
            _ask(f"Embed and write rows of {collection}?")
        watch = Counter(console_of(sys.stderr.isatty()), "looked at")
        job = RepairJob(
            source,
            rows,
            pending=pending,
            stale=stale,
            dry_run=dry_run,
            on_progress=lambda done: watch.tell(done.asked, None),
        )
        done = _repaired(job, watch)
    _show_repair(done, collection, as_json=as_json)
    mistyped = set(ids or ()).intersection(done.deleted)
    for id in islice(sorted(mistyped), NAMED):
        typer.echo(f"there is no row {one_line(id, 60)}", err=True)
    if mistyped or not done.is_whole:
        raise typer.Exit(1)


def _ask(question: str) -> None:
    try:
        if typer.confirm(question, err=True):
            return
    except typer.Abort:
        if sys.stdin.isatty():  # somebody pressed Ctrl-C
            raise
        raise InvalidInput(
            "nobody answered, so nothing was written; pass --yes to be asked nothing"
        ) from None
    typer.echo("nothing written", err=True)
    raise typer.Exit(1)


def _rows(
    audited: Path | None, checkpoint: Path | None, ids: Sequence[str] | None, *, has_others: bool
) -> AuditReport | Iterable[str]:
    given = [each for each in (audited, checkpoint, ids) if each]
    if len(given) > 1 or not (given or has_others):
        raise InvalidInput(
            "say which rows: one of --from AUDIT.json, --checkpoint FILE, --id ID, or --pending or --stale"
        )
    return _read(audited) if audited is not None else list(ids or ())


def _read(path: Path) -> AuditReport:
    try:
        return AuditReport.from_dict(orjson.loads(path.read_bytes()))
    except OSError as error:
        raise InvalidInput(
            f"cannot read {excerpt(str(path))}: {error.strerror}; check --from"
        ) from error
    except orjson.JSONDecodeError as error:
        raise InvalidInput(
            f"{excerpt(str(path))} is not JSON; pass what samespace audit --json has written"
        ) from error


@contextmanager
def _noted(path: Path, source: VectorStore, place: str) -> Iterator[Iterator[str]]:
    file = AuditFile(path)
    with file.found(collection=source.collection, space=source.space.id, place=place) as found:
        yield (each.id for each in found if each.verdict in _WANTED)


def _repaired(job: RepairJob, watch: Counter) -> RepairReport:
    try:
        with watch:
            return job.run()
    except (KeyboardInterrupt, SystemExit) as ending:
        done = counted(job.report.repaired, "row")
        typer.echo(f"samespace: interrupted; {done} repaired, run it again to go on", err=True)
        raise SystemExit(getattr(ending, "code", INTERRUPTED)) from None


def _show_repair(done: RepairReport, collection: str, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(done.to_dict()))
        return
    verb = "to repair" if done.dry_run else "repaired"
    said = [f"{counted(done.repaired, 'row')} {verb}", f"{done.right:,} right already"]
    said += [f"{len(done.deleted):,} no longer there"] if done.deleted else []
    said += [counted(done.tokens, "token")] if done.tokens else []
    typer.echo(", ".join(said))
    for id, reason in islice(done.refused, NAMED):
        typer.echo(f"left as it is {one_line(id, 60)}: {reason}", err=True)
    if len(done.refused) > NAMED:
        typer.echo(f"and {len(done.refused) - NAMED:,} more, all named with --json", err=True)
    _show_unreachable(done, collection)
    if done.unsettled:
        typer.echo(
            f"{counted(len(done.unsettled), 'row')} left: written by others each time, like "
            f"{one_line(done.unsettled[0], 60)}; run it again",
            err=True,
        )


def _show_unreachable(done: RepairReport, collection: str) -> None:
    for id, points in islice(done.shared, NAMED):
        typer.echo(
            f"left as they are, rows with one id {one_line(id, 60)}: {one_line(', '.join(points), 200)}",
            err=True,
        )
    if done.shared:
        typer.echo(
            f"{counted(len(done.shared), 'id')} of several rows; to take one of them away: "
            f"{taken_away(collection)}",
            err=True,
        )
    lost = sorted(set(done.unreachable).difference(id for id, _ in done.shared))
    if lost:
        typer.echo(
            f"{counted(len(lost), 'row')} left: its id leads to none, or to another with the same, like "
            f"{one_line(lost[0], 60)}; take it away (store.delete(ids=[…])), and write again with upsert "
            "what is missed then",
            err=True,
        )
