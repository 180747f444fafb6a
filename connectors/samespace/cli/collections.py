"""``samespace search``, ``info`` and ``drop``."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from samespace.cli.checkpoints import forget
from samespace.cli.options import (
    AsJson,
    Asked,
    Backend,
    CanaryThreshold,
    Collection,
    Dimensions,
    Scope,
    Store,
    comparing,
    condition,
    is_confirmed,
    one_line,
    opened,
    opened_as_it_is,
    proved,
)
from samespace.documents import CollectionInfo, Hit
from samespace.layout import Layout
from samespace.survey import scope_text

CONDITION = "lang=de, or with != < <= > >=; several options must all hold."


def search(
    context: typer.Context,
    query: Annotated[str, typer.Argument(help="What to look for.")],
    collection: Collection = "documents",
    where: Annotated[list[str] | None, typer.Option(help=CONDITION)] = None,
    limit: Annotated[int, typer.Option(help="At most so many hits.")] = 5,
    store: Store = "embedded",
    backend: Backend = "hashing",
    dimensions: Dimensions = None,
    scope: Scope = None,
    canary_threshold: CanaryThreshold = None,
    as_json: AsJson = False,
) -> None:
    """Find the documents nearest to a query."""
    filtered = condition(where or [])
    with opened(
        store,
        collection,
        backend,
        dimensions,
        context,
        scope=scope,
        canary_threshold=canary_threshold,
    ) as source:
        hits = source.search(query, limit=limit, where=filtered)
    if as_json:
        typer.echo(json.dumps([_plain(hit) for hit in hits], ensure_ascii=False))
    else:
        show_hits(hits)


def _plain(hit: Hit) -> dict[str, object]:
    document = hit.document
    return {
        "id": document.id,
        "score": round(hit.score, 6),
        "text": document.text,
        "metadata": document.metadata,
    }


def show_hits(hits: list[Hit]) -> None:
    """Hits as a table."""
    console = Console()
    table = Table("score", "id", "text", box=None, pad_edge=False)
    room = max(20, console.width - 40)
    for hit in hits:
        text = escape(one_line(hit.document.text, room))
        table.add_row(f"{hit.score:.3f}", escape(one_line(hit.document.id, 28)), text)
    console.print(table if hits else "nothing found")


def info(
    context: typer.Context,
    collection: Collection = "documents",
    store: Store = "embedded",
    backend: Asked = None,
    dimensions: Dimensions = None,
    scope: Scope = None,
    canary_threshold: CanaryThreshold = None,
    as_json: AsJson = False,
) -> None:
    """Say what a collection holds, and with --backend whether that embeds alike."""
    comparing(canary_threshold, backend)
    if backend is None:
        with opened_as_it_is(store, collection, context, scope=scope, reads_texts=False) as source:
            found = source.info()
    else:
        with opened(
            store,
            collection,
            backend,
            dimensions,
            context,
            scope=scope,
            canary_threshold=canary_threshold,
        ) as source:
            found = proved(source)
    if as_json:
        typer.echo(json.dumps(_described(found)))
        return
    typer.echo(f"{found.name}: {found.rows} documents in {found.space}")
    typer.echo(f"index: {'built' if found.index_built else 'not built'}")
    for slot in found.slots:
        typer.echo(f"slot {slot.name}: {slot.space}, {slot.state}, {slot.pending} pending")
        if slot.documents_cosine is not None and slot.queries_cosine is not None:
            typer.echo(
                f"canary: cosine {slot.documents_cosine:.4f} of documents, {slot.queries_cosine:.4f} "
                "of queries"
            )
        elif backend is not None and slot.space == found.space:
            typer.echo("canary: none was kept, so nothing is known of the backend")
    made_by = dict(sorted(found.provenance.items()))  # Elasticsearch keeps no order
    for what, values in (("made by", made_by), ("layout", _laid_out(found.layout))):
        if values:
            typer.echo(f"{what}: " + ", ".join(f"{name} {value}" for name, value in values.items()))


def _described(found: CollectionInfo) -> dict[str, object]:
    slots = [
        {"name": slot.name, "space": slot.space.to_dict(), "state": slot.state,
         "pending": slot.pending, "documents_cosine": slot.documents_cosine,
         "queries_cosine": slot.queries_cosine}
        for slot in found.slots
    ]  # fmt: skip
    return {
        "name": found.name,
        "rows": found.rows,
        "space": found.space.to_dict(),
        "index_built": found.index_built,
        "slots": slots,
        "provenance": dict(sorted(found.provenance.items())),
        "layout": _laid_out(found.layout) or None,
    }


def _laid_out(layout: Layout | None) -> dict[str, object]:
    """The parts of a layout that say something; a text that is no column as its expression."""
    if layout is None:
        return {}
    parts = {part.name: getattr(layout, part.name) for part in fields(layout)}
    if isinstance(layout.metadata, tuple):
        parts["metadata"] = list(layout.metadata)
    plain = (str, list)
    if layout.scope is not None:
        parts["scope"] = scope_text(layout)
    return {
        name: value if isinstance(value, plain) else getattr(value, "expression", repr(value))
        for name, value in parts.items()
        if value is not None
    }


def drop(
    context: typer.Context,
    collection: Annotated[str, typer.Option("--collection", "-c", help="The collection's name.")],
    store: Store = "embedded",
    scope: Scope = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove a collection with all its documents."""
    with opened_as_it_is(store, collection, context, scope=scope) as source:
        rows = source.count()
        if not yes and not is_confirmed(f"Remove {collection} with {rows} documents?", "removed"):
            typer.echo("nothing removed", err=True)
            raise typer.Exit(1)
        source.drop()
    forget(store, collection)
    if as_json:
        typer.echo(json.dumps({"name": collection, "rows": rows}))
    else:
        typer.echo(f"removed {collection} ({rows} documents)")
