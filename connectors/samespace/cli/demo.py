"""``samespace demo``: the main job in one command."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

import typer
from rich.console import Console
from rich.progress import track

from samespace.cli.collections import show_hits
from samespace.cli.options import opened_backend
from samespace.errors import SpaceMismatch
from samespace.ingest.corpus import language_reference
from samespace.opening import open_store
from samespace.protocols import EmbeddingBackend, ReportsUsage, VectorStore
from samespace.space import EmbeddingSpace

KEY: Final = "JINA_API_KEY"
QUESTIONS = (
    "How do I catch an exception?",
    "What does the with statement do?",
    "Which operators compare two objects for identity?",
    "How are default parameter values evaluated?",
)
OTHER: Final = EmbeddingSpace(model="jina-embeddings-v2-base-en", dimensions=768)
"""Of the same size as what is stored, and of another space."""


@dataclass(frozen=True, slots=True)
class Way:
    """What embeds, and the collection that holds its vectors: one for each space."""

    spec: str
    collection: str
    said: str


LEXICAL: Final = Way(
    "hashing@768", "demo", f"a lexical hash, without a model (for jina-embeddings-v3 set {KEY})"
)
JINA: Final = Way("jina@768", "demo_jina_v3_768", "jina-embeddings-v3 through its API")


def demo() -> None:
    """Store Python's language reference, ask it questions, and refuse a second model."""
    way = JINA if os.environ.get(KEY) else LEXICAL
    typer.echo(
        "Starting the embedded PostgreSQL; embedding the topics of Python's reference with "
        f"{way.said}"
    )
    with opened_backend(way.spec) as backend:
        with open_store("embedded", collection=way.collection, backend=backend) as store:
            tokens = _ingest(store) + _ask(store, backend)
        if tokens:
            typer.echo(f"\n{tokens} tokens spent")
    _refuse(way.collection)
    typer.echo(f"\nRemove the data: samespace drop --collection {way.collection}")


def _ingest(store: VectorStore) -> int:
    """Store what is not there yet; the tokens that it cost."""
    console = Console(stderr=True)
    documents = track(
        list(language_reference()), description="Ingesting", console=console, transient=True,
        disable=not console.is_terminal,
    )  # fmt: skip
    report = store.upsert(documents, on_conflict="skip")
    typer.echo(f"{report.written} passages stored, {report.skipped} were there already")
    return report.tokens


def _ask(store: VectorStore, backend: EmbeddingBackend) -> int:
    """Show the best passages for each question; the tokens that they cost."""
    tokens = 0
    for question in QUESTIONS:
        typer.echo(f"\n{question}")
        show_hits(store.search(question, limit=3))
        tokens += backend.usage().tokens if isinstance(backend, ReportsUsage) else 0
    return tokens


def _refuse(collection: str) -> None:
    """Open the collection with another model and show what that is told."""
    typer.echo("\nNow another model of the same 768 dimensions opens the collection:\n")
    with open_store("embedded", collection=collection, space=OTHER) as store:
        try:
            store.info()
        except SpaceMismatch as refusal:
            typer.echo(f"refused: {refusal}")
