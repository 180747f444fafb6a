"""``samespace guard``: what a store refuses of writers who go around us, and what adds to that."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from samespace.cli.options import (
    AsJson,
    CanaryThreshold,
    Collection,
    Scope,
    Store,
    check_shown,
    comparing,
    opened_as_it_is,
    opened_backend,
    scoped,
)
from samespace.documents import SlotInfo
from samespace.errors import InvalidInput
from samespace.hardening import Change, RawWrite
from samespace.opening import open_unrecorded
from samespace.protocols import FacesRawWriters, RebuildsRecords, VectorStore
from samespace.space import EmbeddingSpace

app = typer.Typer(no_args_is_help=True, help="See and add to what a store itself refuses.")

_CANARY: Final = "repair-record with --backend keeps one, if whole documents show that it is right"
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")
]
Ddl = Annotated[
    bool, typer.Option("--ddl", help="Print the statements for who may run them; change nothing.")
]


@app.command("check")
def check(
    context: typer.Context,
    collection: Collection = "documents",
    store: Store = "embedded",
    scope: Scope = None,
    as_json: AsJson = False,
) -> None:
    """Say what becomes of writes with the store's own driver, in the collection as it is now."""
    with _opened(store, collection, context, scope) as source:
        found = _facing(source).guard_check()
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found], ensure_ascii=False))
    else:
        _show(found)


def _show(found: Sequence[RawWrite]) -> None:
    table = Table("raw write", "what becomes of it", "why", "what mends it", box=None)
    for each in found:
        table.add_row(*(escape(str(cell)) for cell in asdict(each).values()))
    Console().print(table)


@app.command("install")
def install(
    context: typer.Context,
    collection: Collection = "documents",
    store: Store = "embedded",
    scope: Scope = None,
    dry_run: DryRun = False,
    ddl: Ddl = False,
    as_json: AsJson = False,
) -> None:
    """Have the server refuse more: checks in PostgreSQL, a final pipeline in Elasticsearch."""
    with _opened(store, collection, context, scope) as source:
        facing = _facing(source)
        changes = facing.guard_install(dry_run=dry_run or ddl)
    _tell(changes, limit=facing.guard_limit, ddl=ddl, as_json=as_json)


@app.command("remove")
def remove(
    context: typer.Context,
    collection: Collection = "documents",
    store: Store = "embedded",
    scope: Scope = None,
    dry_run: DryRun = False,
    ddl: Ddl = False,
    as_json: AsJson = False,
) -> None:
    """Take away what install has added."""
    with _opened(store, collection, context, scope) as source:
        facing = _facing(source)
        changes = facing.guard_remove(dry_run=dry_run or ddl)
    _tell(changes, limit=facing.guard_limit, ddl=ddl, as_json=as_json)


@app.command("repair-record")
def repair_record(
    context: typer.Context,
    collection: Collection = "documents",
    store: Store = "embedded",
    space: Annotated[
        list[str] | None,
        typer.Option("--space", help="MODEL@DIMENSIONS:TASK of a slot; may be given again."),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option("--backend", help="What made the vectors; it is compared with some rows."),
    ] = None,
    scope: Scope = None,
    canary_threshold: CanaryThreshold = None,
    as_json: AsJson = False,
) -> None:
    """Write a lost record anew, of the names of the collection's slots."""
    check_shown(store, context)
    spaces = [EmbeddingSpace.parse(spec) for spec in space or []]
    options: dict[str, Any] = {
        **comparing(canary_threshold, backend),
        "layout": scoped(store, collection, scope, reads_texts=backend is not None),
    }
    with (
        opened_backend(backend) if backend else nullcontext() as embedder,
        open_unrecorded(store, collection=collection, backend=embedder, **options) as source,
    ):
        slots = _rebuilding(source).repair_record(spaces=spaces)
    if as_json:
        typer.echo(json.dumps([_described(slot) for slot in slots]))
        return
    for slot in slots:
        canary = "with a canary" if slot.has_canary else f"without a canary; {_CANARY}"
        typer.echo(
            f"slot {slot.name}: {slot.space}, {slot.state}, {slot.pending} pending, {canary}"
        )


def _described(slot: SlotInfo) -> dict[str, object]:
    return {
        "name": slot.name, "space": slot.space.to_dict(), "state": slot.state,
        "pending": slot.pending, "has_canary": slot.has_canary,
    }  # fmt: skip


def _rebuilding(store: VectorStore) -> RebuildsRecords:
    if not isinstance(store, RebuildsRecords):
        raise InvalidInput("this store cannot write a record anew")
    return store


def _opened(
    store: str, collection: str, context: typer.Context, scope: list[str] | None
) -> AbstractContextManager[VectorStore]:
    return opened_as_it_is(store, collection, context, scope=scope, reads_texts=False)


def _facing(store: VectorStore) -> FacesRawWriters:
    if not isinstance(store, FacesRawWriters):
        raise InvalidInput("this store does not say what becomes of raw writes")
    return store


def _tell(changes: Sequence[Change], *, limit: str, ddl: bool, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([asdict(change) for change in changes], ensure_ascii=False))
    elif ddl:
        for change in changes:
            typer.echo(change.statement)
    else:
        nothing = f"nothing to change: {limit}" if limit else "nothing to change"
        typer.echo("\n".join(map(_diff, changes)) or nothing)


def _diff(change: Change) -> str:
    before, after = change.before.splitlines(), change.after.splitlines()
    lines = difflib.unified_diff(
        before, after, f"{change.what} (before)", f"{change.what} (after)", lineterm=""
    )
    return "\n".join([*lines, *([f"note: {change.note}"] if change.note else [])])
