"""``samespace demo``: the main job in one command."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.progress import track

from samespace.cli.collections import show_hits
from samespace.errors import SpaceMismatch
from samespace.ingest.corpus import language_reference
from samespace.opening import open_store
from samespace.space import EmbeddingSpace

COLLECTION = "demo"
QUESTIONS = (
    "How do I catch an exception?",
    "What does the with statement do?",
    "Which operators compare two objects for identity?",
    "How are default parameter values evaluated?",
)


def demo() -> None:
    """Store Python's language reference, ask it questions, and refuse a second model."""
    console = Console(stderr=True)
    typer.echo("Starting the embedded PostgreSQL; embedding the topics of Python's reference")
    with open_store("embedded", collection=COLLECTION, backend="hashing@768") as store:
        documents = track(
            list(language_reference()), description="Ingesting", console=console, transient=True,
            disable=not console.is_terminal,
        )  # fmt: skip
        report = store.upsert(documents, on_conflict="skip")
        typer.echo(f"{report.written} passages stored, {report.skipped} were there already")
        for question in QUESTIONS:
            typer.echo(f"\n{question}")
            show_hits(store.search(question, limit=3))
    typer.echo("\nNow another model of the same 768 dimensions opens the collection:\n")
    other = EmbeddingSpace(model="jina-embeddings-v2-base-en", dimensions=768)
    with open_store("embedded", collection=COLLECTION, space=other) as store:
        try:
            store.info()
        except SpaceMismatch as refusal:
            typer.echo(f"refused: {refusal}")
    typer.echo(
        "\nThe vectors above are lexical, made without a model.\n"
        f"Remove the data: samespace drop --collection {COLLECTION}"
    )
