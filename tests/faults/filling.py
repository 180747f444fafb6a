"""A process that fills both slots of a collection: ``python -m tests.faults.filling JSON``.

It prints a line for each batch that it filled, 0 for a pass that found none. When its input ends,
it goes on until it finds nothing to fill; until then it may be killed at any moment.
"""

from __future__ import annotations

import asyncio
import json
import select
import sys
from collections.abc import Callable
from typing import Any

import samespace
from samespace.documents import VersionedRow
from samespace.protocols import AsyncVectorStore, Matrix, VectorStore
from samespace.testing.backends import UNLIKE, V3, TaskBackend

BATCH = 64
OLD = TaskBackend(V3, seed=1)
NEW = TaskBackend(UNLIKE, seed=2)
Report = Callable[[int], None]


def is_over(seconds: float) -> bool:
    """Whether the input has ended; asks for as long as that."""
    return bool(select.select([sys.stdin], [], [], seconds)[0])


def report(filled: int) -> None:
    print(filled, flush=True)  # noqa: T201  the test reads it


def embedded(backend: TaskBackend, rows: list[VersionedRow]) -> Matrix:
    return backend.embed_documents([row.document.embedded_text for row in rows])


def fill(store: VectorStore, backend: TaskBackend, told: Report) -> int:
    """One pass over what is pending or stale in a backend's slot; how many rows there were."""
    seen, space = 0, backend.space
    for find in (store.pending, store.stale):
        cursor: str | None = None
        while True:
            rows, cursor = find(space, limit=BATCH, **_from(find, cursor))
            if rows:
                told(store.fill(space, rows, embedded(backend, rows)).filled)
            seen += len(rows)
            if cursor is None:
                break
    return seen


async def fill_async(store: AsyncVectorStore, backend: TaskBackend) -> int:
    """:func:`fill` through an async store."""
    seen, space = 0, backend.space
    for find in (store.pending, store.stale):
        cursor: str | None = None
        while True:
            rows, cursor = await find(space, limit=BATCH, **_from(find, cursor))
            if rows:
                report((await store.fill(space, rows, embedded(backend, rows))).filled)
            seen += len(rows)
            if cursor is None:
                break
    return seen


def _from(find: Callable[..., Any], cursor: str | None) -> dict[str, Any]:
    """Where to go on, as each of the two methods calls it."""
    return {"after" if find.__name__ == "pending" else "since": cursor}


def follow(store: VectorStore, is_over: Callable[[float], bool], told: Report) -> None:
    """Fill until it is over and nothing is left."""
    while True:
        ending = is_over(0.01)
        seen = fill(store, OLD, told) + fill(store, NEW, told)
        if not seen:
            told(0)
        if ending and not seen:
            return


async def follow_async(store: AsyncVectorStore) -> None:
    while True:
        ending = is_over(0.01)
        seen = await fill_async(store, OLD) + await fill_async(store, NEW)
        if not seen:
            report(0)
        if ending and not seen:
            return


async def run_async(store: AsyncVectorStore) -> None:
    async with store:
        await follow_async(store)


def main(store: str, source: str, options: dict[str, Any]) -> None:
    """``store`` is the name of a class; ``options`` are what it is opened with."""
    opened = getattr(samespace, store)(source, space=OLD.space, **options)
    if opened.is_async:
        asyncio.run(run_async(opened))
        return
    with opened:
        follow(opened, is_over, report)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
