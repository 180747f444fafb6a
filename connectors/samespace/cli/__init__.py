"""The command ``samespace``."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
import warnings
from contextlib import suppress
from typing import Annotated, Final, cast

import typer

from samespace import __version__
from samespace.cli import (
    adopting,
    auditing,
    checking,
    collections,
    demo,
    doctor,
    ending,
    guard,
    ingesting,
    migrating,
    moving,
    server,
    serving,
    verifying,
)
from samespace.cli.printed import Migrating
from samespace.errors import InvalidInput, SamespaceError, SpaceError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
app.command("ingest")(ingesting.ingest)
app.command("search")(collections.search)
app.command("info")(collections.info)
app.command("drop")(collections.drop)
app.command("audit")(auditing.audit)
app.command("repair")(auditing.repair)
app.command("check")(checking.check_collection)
app.command("doctor")(doctor.doctor)
app.command("identify")(adopting.identify_collection)
app.command("adopt")(adopting.adopt)
app.command("grants")(migrating.grants)
app.command("embed-server")(serving.embed_server)
app.add_typer(server.app, name="embedded")
app.add_typer(guard.app, name="guard")
migrating.app.command("run", cls=Migrating)(moving.run)
migrating.app.command("status", cls=Migrating)(ending.status)
migrating.app.command("open", cls=Migrating)(ending.open_slots)
migrating.app.command("finish", cls=Migrating)(ending.finish)
migrating.app.command("abort", cls=Migrating)(ending.abort)
migrating.app.command("expose", cls=Migrating)(ending.expose)
migrating.app.command("verify", cls=Migrating)(verifying.verify)
app.add_typer(migrating.app, name="migrate")


_UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])
"""The base of all of typer's complaints; typer may or may not bring its own click."""
_INTERRUPTED: Final = 130
_LOADING: Final = "samespace-load"
"""What :mod:`samespace.server.app` calls the thread that loads the weights."""
_SHOW_CURSOR: Final = "\x1b[?25h"
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"samespace {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Say it and end."),
    ] = False,
) -> None:
    """Collections of vectors, each in one embedding space."""


def main() -> None:
    """Run the command.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 space refused, 4 budget spent, 130 Ctrl-C, 128 and
    the signal's number where another signal ended it.
    """
    logging.getLogger("stamina").addHandler(logging.NullHandler())  # retries are no news here
    warnings.showwarning = _warn
    for number in _ENDING[1:]:
        if signal.getsignal(number) is signal.SIG_DFL:  # else nohup has seen to it
            signal.signal(number, _end)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    _leave(_run())


def _leave(code: int) -> None:
    """End; without the interpreter's own end where a server's weights are still being loaded.

    That end takes the GIL from their thread for ever. Torch cannot bear it, and aborts the process.
    """
    if any(thread.name == _LOADING for thread in threading.enumerate()):
        atexit._run_exitfuncs()  # noqa: SLF001  it has no other name
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    """Say what a driver warns of, without the place in its source."""
    _say(f"warning: {message}", 0)


def _end(number: int, _frame: object) -> None:
    """End as a program does, so that the embedded server is given back."""
    _hear_no_more()
    sys.exit(128 + number)


def _interrupt(_number: int, _frame: object) -> None:
    _hear_no_more()
    with suppress(OSError, RuntimeError):  # RuntimeError if it was in the middle of a line
        _announce("ending what is under way; Ctrl-C again ends it at once, which does no harm")
    raise KeyboardInterrupt


def _announce(message: str) -> None:
    """Say it above what is being shown, and leave a terminal as it should be."""
    if sys.__stderr__ is not None and sys.__stderr__.isatty():
        sys.__stderr__.write(_SHOW_CURSOR)
        sys.__stderr__.flush()
    sys.stderr.write(f"samespace: {message}\n")


def _hear_no_more() -> None:
    """What is ending is not ended again in the middle of that, but for Ctrl-C, which ends it hard."""
    for number in _ENDING:
        if callable(signal.getsignal(number)):
            last = signal.SIG_DFL if number == signal.SIGINT else lambda *_: None
            signal.signal(number, last)


def _run() -> int:
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except (typer.Abort, KeyboardInterrupt):
        code = _INTERRUPTED
    except _UsageError as error:
        return _say(error.format_message(), 2)
    except InvalidInput as error:
        return _say(_told(error), 2)
    except SpaceError as error:
        return _say(_told(error), 3)
    except SamespaceError as error:
        return _say(_told(error), 1)
    except OSError as error:
        return _unwritten(error)
    if code == _INTERRUPTED:
        return _say("interrupted; what was stored stays, run it again to go on", code)
    return code if isinstance(code, int) else 0


def _told(error: SamespaceError) -> str:
    """An error, and what a command has to say of it."""
    return "\n".join((str(error), *getattr(error, "__notes__", ())))


def _unwritten(error: OSError) -> int:
    """Say why the output cannot be written, and let nobody try that again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1 if isinstance(error, BrokenPipeError) else _say(f"cannot write: {error.strerror}", 1)


def _say(message: str, code: int) -> int:
    if message:  # else the help is what there was to say
        typer.echo(f"samespace: {message}", err=True)
    return code
