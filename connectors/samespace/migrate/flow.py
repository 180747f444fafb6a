"""Batches under way."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class InFlight:
    """Batches under way, so many at most; what one of them raises ends the others."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._tasks: set[asyncio.Task[None]] = set()

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

    async def end(self) -> None:
        """Cancel what is under way, and wait until that has ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _until(self, left: int) -> None:
        while len(self._tasks) > left:
            done, self._tasks = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            errors = [error for task in done if (error := task.exception()) is not None]
            if errors:
                raise errors[0]
