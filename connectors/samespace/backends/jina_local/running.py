"""Computing beside an event loop, and no longer than somebody waits for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

from samespace.backends.jina_local.engine import Stop

T = TypeVar("T")


async def computed_async(work: Callable[[Stop], T]) -> T:
    """What ``work`` returns; in a worker thread, which ends after its batch once the task is cancelled."""
    left = threading.Event()
    try:
        return await asyncio.to_thread(work, left.is_set)
    finally:
        left.set()


def computed(work: Callable[[Stop], T]) -> T:
    """What ``work`` returns."""
    return work(bool)
