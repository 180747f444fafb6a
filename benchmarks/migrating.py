"""samespace: searches alone, and beside a migration whose backend has an API's rate."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.serving import Answer, latencies
from benchmarks.workload import Workload
from samespace import CallableBackend, EmbeddingSpace, VectorStore
from samespace.migrate import MigrationRun, plan

API_RATE: Final = 111
"""Texts a second: two million tokens a minute, in texts of 300."""
LIMIT: Final = 10
REPEATED: Final = 10
"""How often each query is asked: for as long as several batches take."""
TARGET: Final = EmbeddingSpace(model="benchmark-2", dimensions=256)


class ApiRate(CallableBackend):
    """One vector for all texts, as late as an API at its limit would have it."""

    def __init__(self) -> None:
        super().__init__(TARGET, self._made)

    @staticmethod
    def _made(texts: Sequence[str]) -> NDArray[np.float32]:
        time.sleep(len(texts) / API_RATE)
        vector = np.zeros(TARGET.dimensions, np.float32)
        vector[0] = 1
        return np.tile(vector, (len(texts), 1))


class _Beside:
    """A migration in a thread, which is stopped in the end and leaves nothing."""

    def __init__(self, store: VectorStore) -> None:
        self._store = store
        self._begun = threading.Event()
        backend = ApiRate()
        made = plan(store, backend)
        self._run = MigrationRun(store, backend, made, on_progress=lambda _: self._begun.set())
        self._thread = threading.Thread(target=self._run.run)

    def __enter__(self) -> MigrationRun:
        self._thread.start()
        self._begun.wait()
        return self._run

    def __exit__(self, *error: object) -> None:
        self._run.stop()
        self._thread.join()
        self._store.drop_slot(TARGET)


def beside(store: VectorStore, given: Workload) -> Answer:
    """The 95th percentile of a search's milliseconds: beside a migration, and before and after it."""

    def measured() -> float:
        found = latencies(
            lambda query: store.search_vector(query, space=store.space, limit=LIMIT),
            list(given.queries) * REPEATED,
        )
        return float(np.percentile(found["milliseconds"], 95))

    before = measured()
    with _Beside(store) as run:
        during = measured()
        if run.report.complete:
            raise RuntimeError("the migration has ended before the searches; take more rows")
    return {"beside": during, "alone": (before + measured()) / 2}
