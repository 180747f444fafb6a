"""``samespace embedded``: the PostgreSQL that comes with the package."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from samespace.cli.options import AsJson

app = typer.Typer(help="The embedded PostgreSQL.", no_args_is_help=True)


@app.command()
def status(as_json: AsJson = False) -> None:
    """Say whether the embedded server runs, and where its data is."""
    from samespace.stores.pgvector import embedded  # noqa: PLC0415  loads the driver

    found = embedded.status()
    if as_json:
        typer.echo(
            json.dumps(
                {"folder": str(found.folder), "running": found.running, "in_use": found.in_use,
                 "pid": found.pid, "version": found.version, "size": found.size}
            )
        )  # fmt: skip
        return
    state = f"running as process {found.pid}" if found.running else "not running"
    used = "in use" if found.in_use else "not in use"
    typer.echo(f"{state}, {used}; {found.size / 2**20:.0f} MiB in {found.folder}")


@app.command()
def stop(
    force: Annotated[bool, typer.Option("--force", help="Even while somebody uses it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Stop the embedded server; its data stays."""
    from samespace.stores.pgvector import embedded  # noqa: PLC0415  loads the driver

    stopped = embedded.stop(force=force)
    if as_json:
        typer.echo(json.dumps({"stopped": stopped}))
    else:
        typer.echo("stopped" if stopped else "it was not running")
