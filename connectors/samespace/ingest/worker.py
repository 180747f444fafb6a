"""Threads for what blocks: a source, a sync store, a sync backend."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Final, TypeVar

T = TypeVar("T")

GRACE: Final = 1.5
"""Seconds that a cancelled job waits for a call that may be left behind."""


class Left(Exception):
    """Whoever served was interrupted; what by is its cause."""

    def __init__(self, cause: BaseException | None = None) -> None:
        by = "" if cause is None else f", interrupted by {type(cause).__name__}"
        super().__init__(f"a thread of the job has ended{by}")
        self.__cause__ = cause


@dataclass(slots=True, eq=False)
class _Piece:
    """A piece of work, and whom to tell; telling twice does no harm."""

    work: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]

    def tell(self, result: Any, error: Exception | None) -> None:
        """From any thread; nobody hears it once the loop has ended."""
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._settle, result, error)

    def _settle(self, result: Any, error: Exception | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


class Worker:
    """Does what it is asked, piece by piece, in the thread that calls :meth:`serve`.

    ``grace`` is how many seconds a caller that is cancelled waits for the piece under way; None is
    until it has ended. Whatever interrupts the thread, and wherever, nobody waits for it in vain.
    """

    def __init__(self, *, grace: float | None = None) -> None:
        self._asked: SimpleQueue[_Piece | None] = SimpleQueue()
        self._open: set[_Piece] = set()
        self._grace = grace
        self._lock = threading.Lock()
        self._left = False
        self._cause: BaseException | None = None
        self._is_behind = False

    @property
    def is_behind(self) -> bool:
        """Whether a piece was left to end by itself."""
        return self._is_behind

    async def do(self, work: Callable[[], T], *, grace: float | None = None) -> T:
        """What ``work`` returns or raises; :class:`Left` if nobody serves any more.

        ``grace`` is for this piece, where the worker has none.
        """
        loop = asyncio.get_running_loop()
        piece = _Piece(work, loop, loop.create_future())
        self._ask(piece)
        try:
            result: T = await asyncio.shield(piece.future)
        except asyncio.CancelledError:
            await self._let_end(piece.future, self._grace if grace is None else grace)
            raise
        finally:
            self._open.discard(piece)
        return result

    def _ask(self, piece: _Piece) -> None:
        with self._lock:
            self._open.add(piece)
            if self._left:
                piece.tell(None, Left(self._cause))
            else:
                self._asked.put(piece)

    async def _let_end(self, future: asyncio.Future[Any], grace: float | None) -> None:
        await asyncio.wait([future], timeout=grace)
        if future.done():
            future.exception()  # which nobody is there to hear
        else:
            self._is_behind = True
            future.cancel()

    def serve(self) -> None:
        """Do what is asked until :meth:`end`; what interrupts it passes through."""
        try:
            while (piece := self._asked.get()) is not None:
                _do(piece)
                del piece  # or the next wait would hold on to it
        except BaseException as error:
            self.leave(error)
            raise
        finally:
            self.leave()

    def leave(self, cause: BaseException | None = None) -> None:
        """Serve no more; whoever waits hears of it, and of the first cause."""
        with self._lock:
            self._left = True
            self._cause = self._cause or cause
            for piece in tuple(self._open):
                piece.tell(None, Left(self._cause))

    def end(self) -> None:
        """Have :meth:`serve` return after what it was asked before."""
        self._asked.put(None)


def _do(piece: _Piece) -> None:
    try:
        result = piece.work()
    except StopIteration as error:  # which no future takes
        piece.tell(None, _as_runtime_error(error))
    except Exception as error:  # noqa: BLE001  it is the caller's
        piece.tell(None, error)
    else:
        piece.tell(result, None)


def _as_runtime_error(error: StopIteration) -> RuntimeError:
    """As a generator does it."""
    raised = RuntimeError("a backend or a store raised StopIteration, which ends nothing here")
    raised.__cause__ = error
    return raised


def _serving(worker: Worker) -> None:
    with suppress(BaseException):  # of which whoever waits hears
        worker.serve()


@contextmanager
def in_a_thread(name: str, *, grace: float | None = None) -> Iterator[Worker]:
    """A worker with a thread of its own, which has ended afterwards unless it was left behind."""
    worker = Worker(grace=grace)
    thread = threading.Thread(
        target=_serving, args=(worker,), name=f"samespace-{name}", daemon=True
    )
    thread.start()
    try:
        yield worker
    finally:
        worker.end()
        if not worker.is_behind:
            thread.join()
