"""A run that follows, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from samespace.migrate import MigrationPlan, MigrationReport, MigrationRun
from samespace.protocols import EmbeddingBackend, VectorStore


class Follower:
    """Fills, and then keeps every slot fresh, until it is left; an error of its is raised there."""

    def __init__(
        self,
        store: VectorStore | Sequence[VectorStore],
        backend: EmbeddingBackend,
        plan: MigrationPlan,
        **options: Any,
    ) -> None:
        self._changed = threading.Condition()
        self._report = MigrationReport()
        self.run = MigrationRun(
            store, backend, plan, follow=True, on_progress=self._note, **options
        )
        self._thread = ThreadPoolExecutor(1)

    def wait_until_idle(self) -> MigrationReport:
        """Until a sweep that began after this has found nothing."""
        with self._changed:
            begun = self._report.sweeps
            self._changed.wait_for(
                lambda: (
                    self._running.done() or (self._report.idle and self._report.sweeps > begun + 1)
                )
            )
            assert not self._running.done(), self._running.result()
            return self._report

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Until something is so, looked at whenever the run tells how far it is."""
        with self._changed:
            self._changed.wait_for(lambda: self._running.done() or is_so())
            assert not self._running.done(), self._running.result()

    def _note(self, report: MigrationReport) -> None:
        with self._changed:
            self._report = report
            self._changed.notify_all()

    def __enter__(self) -> Self:
        self._running = self._thread.submit(self.run.run)
        self._running.add_done_callback(lambda _: self._note(self.run.report))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.run.stop()
        self._thread.shutdown()
        if error is None:
            self._running.result()
