"""A process that fills both slots of a collection: ``python -m tests.faults.filling JSON``.

It prints a line for each batch that it filled, 0 for a pass that found none. When its input ends,
it goes on until it finds nothing to fill; until then it may be killed at any moment.
"""

from __future__ import annotations

import asyncio
import json
import select
import sys
from typing import Any

from samespace import AsyncPgVectorStore, PgVectorStore
from samespace.testing.backends import UNLIKE, V3, TaskBackend

BATCH = 64
OLD = TaskBackend(V3, seed=1)
NEW = TaskBackend(UNLIKE, seed=2)


def is_over(seconds: float) -> bool:
    """Whether the input has ended; asks for as long as that."""
    return bool(select.select([sys.stdin], [], [], seconds)[0])


def report(filled: int) -> None:
    print(filled, flush=True)  # noqa: T201  the test reads it


def fill(store: PgVectorStore, backend: TaskBackend) -> int:
    """One pass over what is pending in a backend's slot; how many rows there were."""
    after, seen = None, 0
    while True:
        rows, after = store.pending(backend.space, limit=BATCH, after=after)
        if rows:
            vectors = backend.embed_documents([row.document.embedded_text for row in rows])
            report(store.fill(backend.space, rows, vectors).filled)
        seen += len(rows)
        if after is None:
            return seen


async def fill_async(store: AsyncPgVectorStore, backend: TaskBackend) -> int:
    """:func:`fill` through the async store."""
    after, seen = None, 0
    while True:
        rows, after = await store.pending(backend.space, limit=BATCH, after=after)
        if rows:
            vectors = backend.embed_documents([row.document.embedded_text for row in rows])
            report((await store.fill(backend.space, rows, vectors)).filled)
        seen += len(rows)
        if after is None:
            return seen


def follow(store: PgVectorStore) -> None:
    while True:
        ending = is_over(0.01)
        seen = fill(store, OLD) + fill(store, NEW)
        if not seen:
            report(0)
        if ending and not seen:
            return


async def follow_async(store: AsyncPgVectorStore) -> None:
    while True:
        ending = is_over(0.01)
        seen = await fill_async(store, OLD) + await fill_async(store, NEW)
        if not seen:
            report(0)
        if ending and not seen:
            return


async def run_async(conninfo: str, options: dict[str, Any]) -> None:
    async with AsyncPgVectorStore(conninfo, space=OLD.space, **options) as store:
        await follow_async(store)


def main(kind: str, conninfo: str, options: dict[str, Any]) -> None:
    """``kind`` is sync or async; ``options`` are collection, schema and registry."""
    if kind == "async":
        asyncio.run(run_async(conninfo, options))
        return
    with PgVectorStore(conninfo, space=OLD.space, **options) as store:
        follow(store)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
