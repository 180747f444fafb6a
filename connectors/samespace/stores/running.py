"""Running work elsewhere: in threads and tasks from async code, in threads from sync code."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")


async def in_thread_async(function: Callable[[], T]) -> T:
    """What ``function`` returns; it runs in a worker thread."""
    return await asyncio.to_thread(function)


def in_thread(function: Callable[[], T]) -> T:
    """What ``function`` returns."""
    return function()


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
    """One piece of work at a time, in a thread beside the caller's own; never left running."""

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._under_way: Future[T] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=True)

    def start(self, work: Callable[[], T]) -> None:
        """Begin a piece of work; the one before must have :meth:`finished`."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="samespace-write")
        self._under_way = self._thread.submit(copy_context().run, work)

    def finished(self) -> T | None:
        """What the work under way returns or raises, once; None if there is none."""
        future, self._under_way = self._under_way, None
        return None if future is None else future.result()
