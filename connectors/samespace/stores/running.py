"""Running work elsewhere: in threads and tasks from async code, in threads from sync code."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar, copy_context
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

T = TypeVar("T")


async def in_thread_async(function: Callable[[], T]) -> T:
    """What ``function`` returns; it runs in a worker thread."""
    return await asyncio.to_thread(function)


def in_thread(function: Callable[[], T]) -> T:
    """What ``function`` returns."""
    return function()


class _Endings:
    """How what a thread waits for is ended from outside; what comes too late for that is ended at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ends: list[Callable[[], None]] = []
        self._is_ended = False

    def add(self, end: Callable[[], None]) -> None:
        with self._lock:
            self._ends.append(end)
        if self._is_ended:
            end()

    def remove(self, end: Callable[[], None]) -> None:
        with self._lock:
            self._ends.remove(end)

    def end(self) -> None:
        with self._lock:
            self._is_ended = True
            for end in self._ends:
                end()


_endings: Final = ContextVar[_Endings | None]("_endings", default=None)


class AsyncEndable:
    """Nothing: a task that waits is cancelled where it waits."""

    def __init__(self, end: Callable[[], Awaitable[None]]) -> None:
        """The twin's ``end`` is what would be called."""

    def withdraw(self) -> None:
        """Nothing is to be withdrawn."""


class Endable:
    """Waiting that ``end``, called in another thread, ends; :class:`Beside` calls it if it must."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end
        self._endings = _endings.get()
        if self._endings is not None:
            self._endings.add(end)

    def withdraw(self) -> None:
        """The waiting is over."""
        if self._endings is not None:
            self._endings.remove(self._end)


class AsyncBeside(Generic[T]):
    """One piece of work at a time, in a task beside the caller's own; never left running."""

    def __init__(self) -> None:
        self._under_way: asyncio.Task[T] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._under_way is not None and kind is not None and not issubclass(kind, Exception):
            self._under_way.cancel()  # as the caller is
        with suppress(Exception, asyncio.CancelledError):
            await self.finished()

    async def start(self, work: Callable[[], Awaitable[T]]) -> None:
        """Begin a piece of work; the one before must have :meth:`finished`."""

        async def run() -> T:
            return await work()

        self._under_way = asyncio.create_task(run())

    async def finished(self) -> T | None:
        """What the work under way returns or raises, once; None if there is none."""
        task, self._under_way = self._under_way, None
        return None if task is None else await task


class Beside(Generic[T]):
    """One piece of work at a time, in a thread beside the caller's own; never left running.

    A Ctrl-C in the caller's thread ends what the work waits for, as far as that is :class:`Endable`.
    """

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._under_way: Future[T] | None = None
        self._endings = _Endings()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._thread is None:
            return
        if kind is not None and not issubclass(kind, Exception):
            self._endings.end()
        try:
            self._thread.shutdown(wait=True)
        except BaseException:
            self._endings.end()
            self._thread.shutdown(wait=True)
            raise

    def start(self, work: Callable[[], T]) -> None:
        """Begin a piece of work; the one before must have :meth:`finished`."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="samespace-write")
        context = copy_context()
        context.run(_endings.set, self._endings)
        self._under_way = self._thread.submit(context.run, work)

    def finished(self) -> T | None:
        """What the work under way returns or raises, once; None if there is none."""
        future, self._under_way = self._under_way, None
        return None if future is None else future.result()
