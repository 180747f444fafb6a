"""The command ``samespace``."""

from __future__ import annotations

import logging
import sys
from typing import cast

import typer

from samespace.cli import collections, demo, server
from samespace.errors import InvalidInput, SamespaceError, SpaceError

app = typer.Typer(
    help="Collections of vectors, each in one embedding space.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
app.command("ingest")(collections.ingest)
app.command("search")(collections.search)
app.command("info")(collections.info)
app.command("drop")(collections.drop)
app.add_typer(server.app, name="embedded")


_UsageError = cast("type[Exception]", typer.BadParameter.__mro__[1])
"""The base of all of typer's complaints; typer may or may not bring its own click."""


def main() -> None:
    """Run the command; exit codes: 0 done, 1 failed, 2 wrong usage, 3 space refused, 130 Ctrl-C."""
    logging.getLogger("stamina").addHandler(logging.NullHandler())  # retries are no news here
    try:
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(_say("interrupted; what was stored stays, run it again to go on", 130))
    except _UsageError as error:
        sys.exit(_say(str(error), 2))
    except InvalidInput as error:
        sys.exit(_say(str(error), 2))
    except SpaceError as error:
        sys.exit(_say(str(error), 3))
    except SamespaceError as error:
        sys.exit(_say(str(error), 1))


def _say(message: str, code: int) -> int:
    typer.echo(f"samespace: {message}", err=True)
    return code
