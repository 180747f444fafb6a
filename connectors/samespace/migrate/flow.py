"""Batches under way."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class InFlight:
    """Batches under way, so many at most; what one of them raises is raised once the others have ended.

    These may have been paid for, and are written.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors: list[BaseException] = []

    async def add(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin a batch once there is room for it."""
        try:
            await self._until(self._most - 1)
        except BaseException:
            work.close()
            raise
        self._tasks.add(asyncio.create_task(work))

    async def drain(self) -> None:
        """Wait until all have ended."""
        await self._until(0)

    async def settle(self) -> None:
        """Wait until all have ended, whatever they raise."""
        while self._tasks:
            await self._one_more()
        self._errors.clear()

    async def end(self) -> None:
        """Cancel what is under way, and wait until that has ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self._errors.clear()

    async def _until(self, left: int) -> None:
        while len(self._tasks) > (0 if self._errors else left):
            await self._one_more()
        if self._errors:
            error = self._errors[0]
            self._errors.clear()
            raise error

    async def _one_more(self) -> None:
        done, self._tasks = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        self._errors += [error for task in done if (error := _error_of(task)) is not None]


def _error_of(task: asyncio.Task[None]) -> BaseException | None:
    """What a batch raised; nothing of one that was cancelled, whose rows are still to be filled."""
    return None if task.cancelled() else task.exception()
