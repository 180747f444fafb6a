"""``samespace ingest``."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from samespace.cli.checkpoints import checkpoint_of
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
)
from samespace.cli.progress import MILLION, Watch, console_of, cost_of, counted
from samespace.errors import InvalidInput, SamespaceError, excerpt
from samespace.ingest.chunking import DEFAULT_CHARACTERS, TextChunker
from samespace.ingest.job import IngestJob
from samespace.ingest.report import Estimate, IngestReport
from samespace.ingest.source import Files
from samespace.protocols import ReportsUsage, SupportsLateChunking, VectorStore

KINDS: Final = "Files and folders of .md .txt .html .jsonl .csv"
NAMED: Final = 20
"""How many of the documents that were left out are named for people."""
WITHHELD: Final = (
    "nothing is pruned: nobody can say which rows all that was left out has; mend it first"
)
INTERRUPTED: Final = 130
SPENT: Final = 4
"""The exit code of a job that its budget has ended."""

Chunk = Annotated[
    int | None,
    typer.Option(
        "--chunk-size", min=1, metavar="N", help="Cut texts into chunks of at most N characters."
    ),
]
Late = Annotated[
    bool,
    typer.Option("--late-chunking", help="Embed the chunks of a document in sight of each other."),
]
Prune = Annotated[
    bool, typer.Option("--prune", help="Delete what files at or below these paths no longer have.")
]
Point = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint", metavar="FILE", help="Note progress here, not in the data folder."
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be embedded and cost; change nothing.")
]
Price = Annotated[
    float | None,
    typer.Option("--price", metavar="X", help="Show costs, at X for a million tokens."),
]
Budget = Annotated[
    int | None,
    typer.Option("--budget-tokens", min=1, metavar="N", help="Stop once N tokens are spent."),
]
Share = Annotated[
    float | None,
    typer.Option("--share", metavar="X", help="Use only X of the account's rate limits, say 0.5."),
]


def ingest(
    context: typer.Context,
    paths: Annotated[list[str], typer.Argument(help=KINDS)],
    collection: Collection = "documents",
    store: Store = "embedded",
    backend: Backend = "hashing",
    dimensions: Dimensions = None,
    scope: Scope = None,
    canary_threshold: CanaryThreshold = None,
    chunk_size: Chunk = None,
    late_chunking: Late = False,
    prune: Prune = False,
    checkpoint: Point = None,
    dry_run: DryRun = False,
    budget_tokens: Budget = None,
    price: Price = None,
    share: Share = None,
    as_json: AsJson = False,
) -> None:
    """Read documents, embed those that are new or changed, and store them.

    Ids begin with the path of a file, relative to the working directory.
    Run again after an interruption, it goes on from there.
    """
    if price is not None and not 0 <= price < math.inf:
        raise InvalidInput(f"--price is {price}; pass what a million tokens cost, like 0.05")
    files = Files(paths)
    size = DEFAULT_CHARACTERS if late_chunking and chunk_size is None else chunk_size
    chunker = None if size is None else TextChunker(max_characters=size)
    first = "counting" if dry_run else "reading"
    console = console_of(sys.stderr.isatty())
    with opened(
        store,
        collection,
        backend,
        dimensions,
        context,
        share=share,
        scope=scope,
        canary_threshold=canary_threshold,
    ) as target:
        _check_backend(target, backend, late_chunking, budget_tokens, price)
        watch = Watch(console, files, first=first, price=price, budget=budget_tokens)
        job = IngestJob(
            target,
            files,
            chunker=chunker,
            late_chunking=late_chunking,
            checkpoint=checkpoint or _own_checkpoint(store, collection, files, scope),
            prune=prune,
            budget_tokens=budget_tokens,
            on_progress=watch.tell,
        )
        if dry_run:
            with watch:
                found = job.estimate()
            _show_estimate(found, price, as_json=as_json)
        else:
            _show(_run(job, watch), collection, price, as_json=as_json)


def _check_backend(
    store: VectorStore, named: str, late: bool, budget: int | None, price: float | None
) -> None:
    """:class:`InvalidInput` for what this backend cannot do."""
    counts = isinstance(store.backend, ReportsUsage)
    refusals = {
        "--late-chunking": late and not isinstance(store.backend, SupportsLateChunking),
        "--budget-tokens": budget is not None and not counts,
        "--price": price is not None and not counts,
    }
    for option, is_refused in refusals.items():
        if is_refused:
            does = "embeds each chunk alone" if option == "--late-chunking" else "costs no tokens"
            raise InvalidInput(
                f"backend {excerpt(named)} {does}; leave {option} out, or use another --backend"
            )


def _own_checkpoint(
    store: str, collection: str, files: Files, scope: Sequence[str] | None
) -> Path | None:
    found = checkpoint_of(store, collection, files.identity, scope=scope or ())
    if found is None:
        typer.echo(
            "samespace: warning: the data folder cannot be written to, so no progress is noted; "
            "pass --checkpoint PATH",
            err=True,
        )
    return found


def _run(job: IngestJob, watch: Watch) -> IngestReport:
    """The job; of one that is ended, how far it came."""
    try:
        with watch:
            return job.run()
    except (KeyboardInterrupt, SystemExit) as ending:
        typer.echo(f"samespace: interrupted; {_how_far(job)}", err=True)
        raise SystemExit(getattr(ending, "code", INTERRUPTED)) from None
    except SamespaceError as error:
        if _done(job):
            error.add_note(_how_far(job))
        raise


def _done(job: IngestJob) -> int:
    return job.report.resumed_at + job.report.documents


def _how_far(job: IngestJob) -> str:
    done = _done(job)
    if not done:
        return "no document done in this run, run it again to go on"
    return f"{counted(done, 'document')} done, run it again to go on"


def _show_estimate(found: Estimate, price: float | None, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(_estimated(found, price)))
        return
    before = f", {found.resumed_at:,} done before" if found.resumed_at else ""
    unchanged = f", {found.unchanged:,} of them unchanged" if found.unchanged else ""
    typer.echo(f"{counted(found.documents, 'document')}{before}")
    typer.echo(f"{counted(found.pieces, 'row')}{unchanged}")
    typer.echo(
        f"{counted(found.to_embed, 'text')} to embed: {counted(found.characters, 'character')}"
        + _said_of_tokens(found.tokens, price)
    )
    if found.pruned:
        typer.echo(f"{counted(found.pruned, 'row')} to prune")
    if found.rejected:
        typer.echo(f"{found.rejected:,} cannot be read or stored", err=True)
    if found.prune_withheld:
        typer.echo(WITHHELD, err=True)


def _said_of_tokens(tokens: int | None, price: float | None) -> str:
    if tokens is None:
        return ""
    said = f", about {counted(tokens, 'token')}"
    return said if price is None else f"{said}, cost {cost_of(tokens, price)}"


def _estimated(found: Estimate, price: float | None) -> dict[str, object]:
    return {
        "documents": found.documents,
        "resumed_at": found.resumed_at,
        "pieces": found.pieces,
        "unchanged": found.unchanged,
        "to_embed": found.to_embed,
        "characters": found.characters,
        "tokens": found.tokens,
        "cost": _cost(found.tokens, price),
        "pruned": found.pruned,
        "prune_withheld": found.prune_withheld,
        "rejected": found.rejected,
    }


def _cost(tokens: int | None, price: float | None) -> float | None:
    return None if tokens is None or price is None else round(tokens * price / MILLION, 6)


def _show(done: IngestReport, collection: str, price: float | None, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(_reported(done, price)))
    else:
        _show_counts(done, collection, price)
    if done.stopped == "budget":
        typer.echo("the budget is spent; run it again to go on", err=True)
        raise typer.Exit(SPENT)
    if done.write.rejected or done.rejected_before:
        raise typer.Exit(1)


def _reported(done: IngestReport, price: float | None) -> dict[str, object]:
    report = done.write
    return {
        "documents": done.documents,
        "resumed_at": done.resumed_at,
        "written": report.written,
        "unchanged": report.skipped,
        "removed": done.removed,
        "pruned": done.pruned,
        "prune_withheld": done.prune_withheld,
        "embedded": done.embedded,
        "tokens": report.tokens,
        "cost": _cost(report.tokens, price),
        "truncated": list(report.truncated),
        "complete": done.complete,
        "stopped": done.stopped,
        "rejected_before": done.rejected_before,
        "rejected": [{"id": item.id, "error": str(item.error)} for item in report.rejected],
    }


def _show_counts(done: IngestReport, collection: str, price: float | None) -> None:
    report = done.write
    counts = {
        "unchanged": report.skipped,
        "outdated removed": done.removed,
        "pruned": done.pruned,
        "cut to fit": len(report.truncated),
        "left out": len(report.rejected),
    }
    before = f", {done.resumed_at:,} done before" if done.resumed_at else ""
    said = [f"{counted(report.written, 'row')} written"]
    said += [f"{count:,} {what}" for what, count in counts.items() if count]
    said += [f"and {done.rejected_before:,} left out before"] if done.rejected_before else []
    said += [counted(report.tokens, "token")] if report.tokens else []
    said += [f"cost {cost_of(report.tokens, price)}"] if price is not None else []
    typer.echo(f"collection {collection}: {counted(done.documents, 'document')} read{before}")
    typer.echo(", ".join(said))
    _show_rejected(done)


def _show_rejected(done: IngestReport) -> None:
    rejected = done.write.rejected
    for item in rejected[:NAMED]:
        typer.echo(f"left out {one_line(item.id, 60)}: {item.error}", err=True)
    if len(rejected) > NAMED:
        typer.echo(f"and {len(rejected) - NAMED:,} more, all named with --json", err=True)
    if done.prune_withheld:
        typer.echo(WITHHELD, err=True)
