"""Threads for what blocks: a source, a sync store, a sync backend."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, Final, TypeVar

T = TypeVar("T")

GRACE: Final = 1.5
"""Seconds that a cancelled job waits for a call that may be left behind."""


class Left(Exception):
    """Whoever served was interrupted."""


class Worker:
    """Does what it is asked, piece by piece, in the thread that calls :meth:`serve`.

    ``grace`` is how many seconds a caller that is cancelled waits for the piece under way; None is
    until it has ended.
    """

    def __init__(self, *, grace: float | None = None) -> None:
        self._asked: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._grace = grace
        self._under_way: asyncio.Future[Any] | None = None
        self._lock = threading.Lock()
        self._left = False

    async def do(self, work: Callable[[], T]) -> T:
        """What ``work`` returns or raises; :class:`Left` if nobody serves any more."""
        future: Future[T] = Future()
        self._ask(future, work)
        self._under_way = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(self._under_way)
        except asyncio.CancelledError:
            await self._let_end(self._under_way)
            raise

    def _ask(self, future: Future[Any], work: Callable[[], Any]) -> None:
        with self._lock:
            if self._left:
                future.set_exception(Left())
            else:
                self._asked.put((future, work))

    async def _let_end(self, under_way: asyncio.Future[Any]) -> None:
        await asyncio.wait([under_way], timeout=self._grace)
        if not under_way.done():
            under_way.cancel()  # its result would come to a loop that has ended
        elif not under_way.cancelled():
            under_way.exception()  # which nobody is there to hear

    @property
    def is_busy(self) -> bool:
        """Whether a piece was left behind."""
        return self._under_way is not None and self._under_way.cancelled()

    def serve(self) -> None:
        """Do what is asked until :meth:`end`; what interrupts it passes through."""
        try:
            while (asked := self._asked.get()) is not None:
                self._serve(*asked)
                del asked  # or the next wait would hold on to it
        finally:
            self._leave()

    def _serve(self, future: Future[Any], work: Callable[[], Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = work()
        except Exception as error:  # noqa: BLE001  it is the caller's
            future.set_exception(error)
        except BaseException:
            future.set_exception(Left())
            raise
        else:
            future.set_result(result)

    def _leave(self) -> None:
        with self._lock:
            self._left = True
        while not self._asked.empty():
            asked = self._asked.get()
            if asked is not None:
                asked[0].set_exception(Left())

    def end(self) -> None:
        """Have :meth:`serve` return after what it was asked before."""
        self._asked.put(None)


@contextmanager
def in_a_thread(name: str, *, grace: float | None = None) -> Iterator[Worker]:
    """A worker with a thread of its own, which has ended afterwards unless it was left behind."""
    worker = Worker(grace=grace)
    thread = threading.Thread(target=worker.serve, name=f"samespace-{name}", daemon=True)
    thread.start()
    try:
        yield worker
    finally:
        worker.end()
        if not worker.is_busy:
            thread.join()
