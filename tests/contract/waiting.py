"""A process that works on a row which is locked: ``python waiting.py CONNINFO SCHEMA WAY ROW``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from samespace import Document, PgVectorStore
from samespace.stores.base import BATCH_DOCUMENTS
from samespace.testing.backends import TaskBackend


def two_batches(row: str) -> Iterator[Document]:
    """The row in the first one, which is written in a thread."""
    yield Document(row, "changed")
    for number in range(BATCH_DOCUMENTS):
        yield Document(f"{number:04}", f"text {number}")


WAYS: dict[str, Callable[[PgVectorStore, str], object]] = {
    "upsert": lambda store, row: store.upsert([Document(row, "changed")]),
    "upsert in batches": lambda store, row: store.upsert(two_batches(row)),
    "delete": lambda store, row: store.delete(ids=[row]),
}


def main(conninfo: str, schema: str, way: str, row: str) -> None:
    """Wait for the row in one way."""
    registry = f"{schema}_registry"
    with PgVectorStore(
        conninfo, collection="held", backend=TaskBackend(), schema=schema, registry=registry
    ) as store:
        WAYS[way](store, row)


if __name__ == "__main__":
    main(*sys.argv[1:])
