"""Running blocking work: in a thread from async code, right here from sync code."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_thread_async(function: Callable[[], T]) -> T:
    """What ``function`` returns; it runs in a worker thread."""
    return await asyncio.to_thread(function)


def in_thread(function: Callable[[], T]) -> T:
    """What ``function`` returns."""
    return function()
