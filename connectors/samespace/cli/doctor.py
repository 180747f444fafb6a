"""``samespace doctor``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from samespace.cli.options import STORE, AsJson, Scope, check_shown, scope_of
from samespace.doctor import examine
from samespace.findings import Finding, is_usable
from samespace.opening import FORMS


def doctor(
    context: typer.Context,
    store: Annotated[
        str | None,
        typer.Option(
            "--store", envvar=STORE, help=f"{FORMS}; without, what is installed here is examined."
        ),
    ] = None,
    collection: Annotated[
        str | None, typer.Option("--collection", "-c", help="A collection there.")
    ] = None,
    scope: Scope = None,
    as_json: AsJson = False,
) -> None:
    """Say what a store is, what may be done there, and what stands in the way.

    The exit code is 0 if it can be used, and 1 if not. Nothing is changed.
    """
    if store is not None:
        check_shown(store, context)
    found = examine(store, collection=collection, scope=scope_of(scope))
    usable = is_usable(found)
    if as_json:
        typer.echo(json.dumps({"usable": usable, "findings": [asdict(each) for each in found]}))
    else:
        for finding in found:
            _show(finding)
    if not usable:
        raise typer.Exit(1)


def _show(finding: Finding) -> None:
    typer.echo(f"{finding.level:8} {finding.what}")
    if finding.mend:
        typer.echo(f"{'':8} -> {finding.mend}")
