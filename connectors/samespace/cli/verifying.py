"""``samespace migrate verify``."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from samespace.cli.ending import PATIENCE as FOLLOWED
from samespace.cli.migrating import check_writable, read_queries, write
from samespace.cli.options import (
    AsJson,
    Scope,
    Store,
    opened_as_it_is,
    opened_backend,
    read_plan,
)
from samespace.cli.printed import as_typed
from samespace.errors import InvalidInput, excerpt
from samespace.migrate import Judgement, MigrationPlan, verification_page
from samespace.migrate.evidence import AGREEMENT
from samespace.migrate.notes import is_followed, read_notes
from samespace.migrate.ranking import judgements_from
from samespace.migrate.sweeping import PATIENCE
from samespace.migrate.verifying import REPETITIONS, SAMPLED
from samespace.migrate.verifying import verify as verified
from samespace.protocols import EmbeddingBackend, VectorStore


def verify(
    context: typer.Context,
    plan: Annotated[Path, typer.Option("--plan", metavar="PLAN.json", help="What was planned.")],
    backend: Annotated[
        str, typer.Option("--backend", help="What the plan moves to, as it was planned with.")
    ],
    store: Store = "embedded",
    scope: Scope = None,
    old_backend: Annotated[
        str | None,
        typer.Option(
            "--old-backend",
            help="What embeds questions to the old slot; without it, what needs that is not judged.",
        ),
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="What both are asked, a query a line; else first sentences."
        ),
    ] = None,
    judgements: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help='Lines of {"query": "…", "id": "…", "grade": 2}, for nDCG.'
        ),
    ] = None,
    threshold: Annotated[
        list[float] | None,
        typer.Option(metavar="X", help="A score that the application goes by; may be given again."),
    ] = None,
    sample: Annotated[
        str,
        typer.Option(metavar="N", help="How many vectors are made anew, drawn at random; or all."),
    ] = str(SAMPLED),
    agreement: Annotated[
        float,
        typer.Option(
            metavar="COSINE", help="From which on such a vector counts as the stored one."
        ),
    ] = AGREEMENT,
    repetitions: Annotated[
        int, typer.Option(metavar="N", help="How often each question is asked, for the latency.")
    ] = REPETITIONS,
    give_up_textless: Annotated[
        bool,
        typer.Option(
            "--give-up-textless",
            help="Pass rows without a text, whose vectors finish is to give up, too.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="VERIFICATION.json", help="Write the evidence here, too."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page of it here, too.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Gather the evidence that the new slot holds what it must: 0 if it does, 1 if not.

    Nothing is changed. The sample's texts and all questions are embedded, and paid.
    """
    check_writable(out, html)
    planned = read_plan(plan)
    asked, judged = read_queries(queries), _read_judgements(judgements)
    with (
        opened_backend(backend) as target,
        nullcontext() if old_backend is None else opened_backend(old_backend) as source,
        closing(_opened_each(planned, store, scope, context, source)) as stores,
    ):
        found = verified(
            stores,
            target,
            planned,
            queries=asked,
            judgements=judged,
            thresholds=threshold or (),
            sample=_sample(sample),
            agreement=agreement,
            repetitions=repetitions,
            give_up_textless=give_up_textless,
            patience=_patience(plan, planned),
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            on_progress=_tell,
        )
    shown = as_typed("\n".join(found.lines()), context)
    typer.echo(orjson.dumps(found.to_dict()) if as_json else shown)
    if out is not None:
        write(out, orjson.dumps(found.to_dict(), option=orjson.OPT_INDENT_2) + b"\n")
    if html is not None:
        write(html, verification_page(found).encode())
    if not found.passed:
        raise typer.Exit(1)


def _patience(plan: Path, planned: MigrationPlan) -> float:
    """As for opening where a run follows that is noted; what others run may follow, too."""
    is_noted = is_followed(read_notes(plan, planned.hash))
    return FOLLOWED if is_noted else PATIENCE


def _sample(said: str) -> Any:
    """A number where it is one; what else it is, is judged where it is used."""
    return int(said) if said.isascii() and said.isdecimal() else said


def _tell(collection: str, check: str) -> None:
    typer.echo(f"{excerpt(collection).strip(chr(39))}: {check} …", err=True)


def _opened_each(
    plan: MigrationPlan,
    store: str,
    scope: list[str] | None,
    context: typer.Context,
    source: EmbeddingBackend | None,
) -> Generator[VectorStore, None, None]:
    """A handle on each collection's old slot, closed before the next."""
    for each in plan.collections:
        with opened_as_it_is(store, each.name, context, scope=scope) as handle:
            yield handle.in_space(each.source.space, backend=source)


def _read_judgements(path: Path | None) -> list[Judgement] | None:
    if path is None:
        return None
    try:
        with path.open(encoding="utf-8-sig") as lines:
            return judgements_from(lines)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"cannot read the judgements {excerpt(str(path))}: {getattr(error, 'strerror', 'not UTF-8')}; "
            "pass a file with a judgement a line"
        ) from error
