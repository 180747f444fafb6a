"""Commands that a migration prints, as they are typed here: with this plan's file, store and backend."""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import typer
from typer.core import TyperCommand

from samespace.cli.options import read_plan
from samespace.errors import InvalidInput, SamespaceError
from samespace.migrate.walking import typed
from samespace.opening import has_password, parse_address

_PLAN: Final = "--plan PLAN.json"
_AGAIN: Final = re.compile(r"samespace migrate plan(?= --)")
_BACKEND: Final = re.compile(r"(?<= )--backend SPEC(?![\w@:-])")


class Migrating(TyperCommand):
    """A command about a plan, whose refusals print commands that can be run as they stand."""

    def invoke(self, ctx: Any) -> Any:
        """The command; a refusal's words are those of whoever typed it."""
        try:
            return super().invoke(ctx)
        except SamespaceError as error:
            error.args = tuple(
                as_typed(each, ctx) if isinstance(each, str) else each for each in error.args
            )
            raise


def as_typed(text: str, context: typer.Context) -> str:
    """A text in whose commands this command's own plan, store and backend stand for placeholders."""
    given = context.params
    place = _place(context)
    plan, backend = given.get("plan"), given.get("backend") or _planned(context)
    if isinstance(plan, Path) and str(plan).isprintable():
        text = text.replace(_PLAN, f"--plan {shlex.quote(str(plan))}{place}")
    text = _AGAIN.sub(lambda found: f"{found[0]}{place}", text)
    if isinstance(backend, str) and _can_be_shown(backend):
        text = _BACKEND.sub(lambda _: f"--backend {shlex.quote(backend)}", text)
    return text


def _planned(context: typer.Context) -> str | None:
    """The backend that the plan was made with, where a spec can name that; abort prints others, too."""
    if context.info_name == "abort":
        return None
    with suppress(SamespaceError):
        made = read_plan(context.params["plan"])
        spec = typed("SPEC", made.collections[0].target.space, made.target)
        return None if spec == "SPEC" else shlex.split(spec)[0]
    return None


def _place(context: typer.Context) -> str:
    """The store, if it was given here and not by the environment, and which of its collections."""
    store, source = context.params.get("store"), context.get_parameter_source("store")
    words = []
    if source is not None and source.name == "COMMANDLINE" and not _is_secret(str(store)):
        words += ["--store", str(store)]
    for each in context.params.get("scope") or ():
        words += ["--scope", each]
    found = "".join(f" {shlex.quote(each)}" for each in words)
    return found if found.isprintable() else ""


def _is_secret(store: str) -> bool:
    try:
        return has_password(parse_address(store).source)
    except InvalidInput:
        return True


def _can_be_shown(backend: str) -> bool:
    """Whether a spec has no address that may hold a login."""
    address = backend.partition("#")[0]
    return backend.isprintable() and not ("//" in address and ("@" in address or "?" in address))
