"""``samespace check``."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Final

import typer

from samespace.audit.checking import CheckReport, check, metrics
from samespace.cli.options import (
    AsJson,
    CanaryThreshold,
    Collection,
    Scope,
    Store,
    comparing,
    opened_as_it_is,
    opened_backend,
)
from samespace.errors import InvalidInput, SamespaceError, SpaceError, excerpt
from samespace.ingest.durable import replace_file
from samespace.space import EmbeddingSpace

NOT_FINE: Final = 1
UNTOLD: Final = 2


def check_collection(
    context: typer.Context,
    collection: Collection = "documents",
    store: Store = "embedded",
    scope: Scope = None,
    canary_threshold: CanaryThreshold = None,
    expect: Annotated[
        str | None, typer.Option(metavar="SPACE", help="MODEL@DIMS:TASK that it must hold.")
    ] = None,
    backend: Annotated[
        str | None, typer.Option(metavar="SPEC", help="Compare the canary with this, as --backend.")
    ] = None,
    max_pending: Annotated[
        int, typer.Option(min=0, metavar="N", help="So many rows may have no vector.")
    ] = 0,
    max_stale: Annotated[
        int, typer.Option(min=0, metavar="N", help="So many may have one of an earlier text.")
    ] = 0,
    metrics_file: Annotated[
        Path | None, typer.Option("--metrics", metavar="FILE", help="For Prometheus, in one piece.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Does a collection hold what is expected, ready and up to date? For CI and cron.

    Exit codes: 0 it does, 1 it does not, 2 nobody can tell.
    """
    found: CheckReport | None = None
    code, said = UNTOLD, ""
    try:
        comparing(canary_threshold, backend)
        with ExitStack() as stack:
            source = stack.enter_context(opened_as_it_is(store, collection, context, scope=scope))
            model = stack.enter_context(opened_backend(backend)) if backend else None
            wanted = EmbeddingSpace.parse(expect) if expect else None
            found = check(
                source,
                expect=wanted,
                backend=model,
                max_pending=max_pending,
                max_stale=max_stale,
                threshold=canary_threshold,
            )
        code = 0 if found.is_fine else NOT_FINE
    except SpaceError as error:
        code, said = NOT_FINE, str(error)
    except SamespaceError as error:
        said = str(error)
    finally:  # whatever it was: an earlier success must not stay
        if metrics_file is not None:
            told = None if code == UNTOLD else found
            _write(metrics_file, metrics(collection, told, timestamp=time.time()))
    _show(collection, found, said, as_json=as_json)
    raise typer.Exit(code)


def _write(path: Path, text: str) -> None:
    try:
        replace_file(path, text.encode())
    except OSError as error:
        raise InvalidInput(
            f"cannot write the metrics {excerpt(str(path))}: {error.strerror}; pass another path"
        ) from error


def _show(collection: str, found: CheckReport | None, said: str, *, as_json: bool) -> None:
    if as_json:
        values = {"collection": collection, "fine": False, "problems": [said]}
        typer.echo(json.dumps(values if found is None else found.to_dict()))
    elif found is None:
        typer.echo(f"samespace: {said}", err=True)
    elif found.is_fine:
        canary = [f"{which} {cosine:.4f}" for which, cosine in found.canary.items()]
        proved = f", canary {', '.join(canary)}" if canary else ""
        untold = ", stale ones cannot be told in a slot of others" if found.stale is None else ""
        typer.echo(f"{collection}: fine, {found.rows:,} rows of {found.expected}{proved}{untold}")
    else:
        for problem in found.problems:
            typer.echo(f"{collection}: {problem}", err=True)
