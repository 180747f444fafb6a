"""A process that streams documents into a collection: ``python -m tests.faults.streaming JSON``.

It prints how far the source was ahead of what was stored, and how much memory that took.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from samespace import (
    AsyncPgVectorStore,
    Document,
    HashingBackend,
    Index,
    IngestJob,
    PgVectorStore,
    everything,
)

WARM_UP = 5_000
JOB_BATCH = 500
LOOK_EVERY = 333
"""No divisor of a batch, so that every state of one is met."""
WORDS = tuple(f"word{number:03}" for number in range(500))


def text_of(number: int) -> str:
    """A text of its own for each number, of few words: what a backend keeps of words is bounded."""
    digits = (number, number // 500, number // 250_000, number * 7, number * 13)
    return " ".join(WORDS[digit % 500] for digit in digits)


def resident() -> int:
    """Bytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Source:
    """A generator that looks, as it is pulled, at what has come of what it gave before."""

    def __init__(self, connection: psycopg.Connection[Any], last_id: Composed, size: int) -> None:
        self.connection, self.last_id, self.size = connection, last_id, size
        self.furthest_ahead = 0
        self.memory: list[int] = []

    def __iter__(self) -> Iterator[Document]:
        for number in range(self.size):
            if number % LOOK_EVERY == 0:
                self.look(number)
            yield Document(f"{number:09}", text_of(number), {"number": number})

    def look(self, pulled: int) -> None:
        """Ids are stored in their order, so the last one tells how many are."""
        row = self.connection.execute(self.last_id).fetchone()
        stored = int(row[0]) + 1 if row else 0
        self.furthest_ahead = max(self.furthest_ahead, pulled - stored)
        if pulled >= WARM_UP:
            self.memory.append(resident())


def ingest(store: PgVectorStore, source: Source) -> int:
    """By a job, whose marks of what it has seen are on disk."""
    job = IngestJob(store, source, batch_size=JOB_BATCH, prune=everything)
    return job.run().write.written


async def upsert_async(conninfo: str, options: dict[str, Any], source: Source) -> int:
    async with AsyncPgVectorStore(conninfo, **options) as store:
        return (await store.upsert(source)).written


def main(kind: str, conninfo: str, schema: str, size: int) -> dict[str, int]:
    """Stream ``size`` documents through a sync or async store, or by a job; what was seen."""
    options: dict[str, Any] = {
        "collection": "streamed",
        "backend": HashingBackend(64),
        "index": Index(kind="flat"),
        "schema": schema,
        "registry": f"{schema}_registry",
    }
    last_id = SQL("SELECT id FROM {} ORDER BY id DESC LIMIT 1").format(
        Identifier(schema, "streamed")
    )
    with (
        psycopg.connect(conninfo, autocommit=True) as connection,
        PgVectorStore(conninfo, **options) as store,
    ):
        store.create()
        source = Source(connection, last_id, size)
        if kind == "async":
            written = asyncio.run(upsert_async(conninfo, options, source))
        elif kind == "job":
            written = ingest(store, source)
        else:
            written = store.upsert(source).written
        stored = store.count()
    return {
        "written": written,
        "stored": stored,
        "furthest_ahead": source.furthest_ahead,
        "growth": max(source.memory) - source.memory[0],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(**json.loads(sys.argv[1]))))
