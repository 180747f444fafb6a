"""``samespace migrate status``, ``open``, ``finish``, ``abort`` and ``expose``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Protocol

import orjson
import typer

from samespace.cli.options import (
    AsJson,
    PlanFile,
    Scope,
    Store,
    is_confirmed,
    opened_as_it_is,
    read_plan,
)
from samespace.cli.printed import as_typed
from samespace.errors import InvalidInput, excerpt
from samespace.migrate import dropping
from samespace.migrate.ending import SlotChange, open_slot
from samespace.migrate.exposing import expose as exposed
from samespace.migrate.notes import is_followed, read_notes
from samespace.migrate.plan import MigrationPlan
from samespace.migrate.status import status as found_status
from samespace.migrate.verification import Verification
from samespace.protocols import VectorStore

_WROTE: Final = "pass the file that samespace migrate verify --out FILE wrote"
PATIENCE: Final = 30.0
"""Seconds that a run which follows is given for what is pending when a slot is opened."""
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
OfAnotherPlan = Annotated[
    bool,
    typer.Option(
        "--of-another-plan", help="Also where another plan filled or opened the new slot."
    ),
]


class _Shown(Protocol):
    def lines(self) -> list[str]: ...
    def to_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class _Handles:
    """A handle on each of a plan's collections, closed before the next: a folder of Qdrant's serves one."""

    plan: MigrationPlan
    store: str
    scope: list[str] | None
    context: typer.Context

    def __iter__(self) -> Iterator[VectorStore]:
        for each in self.plan.collections:
            with opened_as_it_is(
                self.store, each.name, self.context, scope=self.scope, reads_texts=False
            ) as handle:
                yield handle


def status(
    context: typer.Context,
    plan: PlanFile,
    store: Store = "embedded",
    scope: Scope = None,
    stale: Annotated[
        bool,
        typer.Option("--stale/--no-stale", help="Look at every row for a text that has changed."),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Say how a migration stands: its slots, the runs that keep them fresh, and what those cannot see."""
    made = read_plan(plan)
    runs = read_notes(plan, made.hash)
    handles = _Handles(made, store, scope, context)
    found = found_status(handles, made, stale=stale, runs=runs)
    shown = as_typed("\n".join(found.lines()), context)
    typer.echo(orjson.dumps(found.to_dict()) if as_json else shown)


def open_slots(
    context: typer.Context,
    plan: PlanFile,
    store: Store = "embedded",
    scope: Scope = None,
    verification: Annotated[
        Path | None,
        typer.Option(
            "--verification",
            metavar="VERIFICATION.json",
            help="What samespace migrate verify --out wrote; it must have passed.",
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Open without a verification, or with rows still pending."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Mark the new slots ready: from then on both models' applications work on the same rows."""
    made = read_plan(plan)
    handles = _Handles(made, store, scope, context)
    evidence = None if verification is None else _read_verification(verification)
    patience = PATIENCE if _is_followed(plan, made) else 0.0
    changes = open_slot(handles, made, evidence, force=force, patience=patience)
    _show(changes, as_json=as_json)


def _is_followed(plan: Path, made: MigrationPlan) -> bool:
    """Whether a run fills what others write meanwhile."""
    return is_followed(read_notes(plan, made.hash))


def finish(
    context: typer.Context,
    plan: PlanFile,
    store: Store = "embedded",
    scope: Scope = None,
    give_up_textless: Annotated[
        bool,
        typer.Option(
            "--give-up-textless",
            help="Give up vectors of rows without a text to make another from.",
        ),
    ] = False,
    of_another_plan: OfAnotherPlan = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Drop the old slots; what still uses the old model is refused from then on."""
    made = read_plan(plan)
    handles = _Handles(made, store, scope, context)
    _warn_of_runs(plan, made)
    changes = dropping.finish(
        handles,
        made,
        give_up_textless=give_up_textless,
        of_another_plan=of_another_plan,
        confirm=_asking(yes),
    )
    _told(changes, as_json=as_json)


def abort(
    context: typer.Context,
    plan: PlanFile,
    store: Store = "embedded",
    scope: Scope = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Give up vectors of texts that the old slot does not have."),
    ] = False,
    of_another_plan: OfAnotherPlan = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Drop the new slots, open or not; the collections are then what they were."""
    made = read_plan(plan)
    handles = _Handles(made, store, scope, context)
    _warn_of_runs(plan, made)
    changes = dropping.abort(
        handles, made, force=force, of_another_plan=of_another_plan, confirm=_asking(yes)
    )
    _told(changes, as_json=as_json)


def expose(
    context: typer.Context,
    plan: PlanFile,
    store: Store = "embedded",
    scope: Scope = None,
    schema: Annotated[
        str | None,
        typer.Option(
            "--schema",
            metavar="NAME",
            help="PostgreSQL: print the SQL of a view there with the new slot under the old one's name.",
        ),
    ] = None,
    role: Annotated[
        str | None, typer.Option("--role", metavar="NAME", help="Who uses that view.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what applications change to go on with the new slots; nothing is changed here."""
    made = read_plan(plan)
    handles = _Handles(made, store, scope, context)
    _show(exposed(handles, made, schema=schema, role=role), as_json=as_json)


def _read_verification(path: Path) -> Verification:
    try:
        return Verification.from_dict(orjson.loads(path.read_bytes()))
    except OSError as error:
        raise InvalidInput(
            f"cannot read the verification {excerpt(str(path))}: {error.strerror}; {_WROTE}"
        ) from error
    except orjson.JSONDecodeError as error:
        raise InvalidInput(
            f"{excerpt(str(path))} is no JSON, so no verification; {_WROTE}"
        ) from error


def _warn_of_runs(plan: Path, made: MigrationPlan) -> None:
    """Say which runs may fill or follow a slot that is to go."""
    for run in read_notes(plan, made.hash):
        if run.is_alive is not False:
            typer.echo(
                f"samespace: {run.line(time.time())}; stop it first, or it ends with an error",
                err=True,
            )


def _asking(yes: bool) -> Callable[[str], bool] | None:
    return None if yes else lambda question: is_confirmed(question, "dropped")


def _told(changes: Sequence[SlotChange], *, as_json: bool) -> None:
    if not changes:
        typer.echo("nothing dropped", err=True)
        raise typer.Exit(1)
    _show(changes, as_json=as_json)


def _show(found: Sequence[_Shown], *, as_json: bool) -> None:
    if as_json:
        typer.echo(orjson.dumps([each.to_dict() for each in found]))
    else:
        typer.echo("\n".join(line for each in found for line in each.lines()))
