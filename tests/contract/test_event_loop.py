"""What may take long of a backend is asked in worker threads, never on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest

from samespace import AsyncQdrantStore, IngestJob
from samespace.embedding import make_canary_async
from samespace.migrate import MigrationRun, plan
from samespace.protocols import Usage
from samespace.space import EmbeddingSpace
from samespace.testing.backends import UNLIKE, V3, AwaitableBackend, TaskBackend
from samespace.testing.corpus import documents

ROWS = documents(5)


class Noting(AwaitableBackend):
    """Notes what is asked of its plain methods, and what of that on an event loop."""

    def __init__(self, space: EmbeddingSpace = V3) -> None:
        super().__init__(TaskBackend(space))
        self.asked: list[str] = []
        self.on_a_loop: list[str] = []

    def _note(self, what: str) -> None:
        self.asked.append(what)
        with suppress(RuntimeError):
            asyncio.get_running_loop()
            self.on_a_loop.append(what)

    def provenance(self) -> dict[str, str]:
        self._note("provenance")
        return {"backend": "noting"}

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        self._note("count_tokens")
        return [len(text.split()) for text in texts]

    def usage(self) -> Usage:
        return Usage(1)


def check(backend: Noting, *asked: str) -> None:
    assert set(backend.asked) >= set(asked)
    assert backend.on_a_loop == []


def opened(backend: Any, collection: str = "c") -> AsyncQdrantStore:
    return AsyncQdrantStore(":memory:", collection=collection, backend=backend)


async def test_a_store_asks_for_provenance_beside_the_loop() -> None:
    backend, other = Noting(), Noting(UNLIKE)
    async with opened(backend) as store:
        await store.create()
        check(backend, "provenance")
        again = store.in_space(UNLIKE, backend=other)
        await again.add_slot(UNLIKE, canary=await make_canary_async(other))
        check(other, "provenance")


async def test_a_job_counts_beside_the_loop() -> None:
    backend = Noting()
    async with opened(backend) as store:
        await IngestJob(store, ROWS).run_async()
        check(backend, "provenance")


def test_an_estimate_counts_beside_the_loop() -> None:
    backend = Noting()
    IngestJob(opened(backend), ROWS).estimate()
    check(backend, "count_tokens")


@pytest.mark.parametrize("late", [False, True])
async def test_a_migration_counts_beside_the_loop(tmp_path: Any, late: bool) -> None:
    backend, folder = Noting(UNLIKE), str(tmp_path)
    backend.embed_chunks = lambda each: chunks(backend, each)  # type: ignore[attr-defined]
    async with AsyncQdrantStore(folder, collection="c", backend=TaskBackend()) as store:
        await store.upsert(ROWS)
    async with AsyncQdrantStore(folder, collection="c", backend=TaskBackend()) as store:
        made = await asyncio.to_thread(plan, store, backend)
    check(backend, "provenance", "count_tokens")
    backend.asked.clear()
    async with AsyncQdrantStore(folder, collection="c", backend=TaskBackend()) as store:
        run = MigrationRun(store, backend, made, budget_tokens=10_000, late_chunking=late)
        report = await run.run_async()
        assert report.collections[0].slots[0].filled == len(ROWS)
    check(backend, "provenance", "count_tokens")


async def chunks(backend: Noting, documents: Sequence[Sequence[str]]) -> list[Any]:
    return [await backend.embed_documents(list(each)) for each in documents]
