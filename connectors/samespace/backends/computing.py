"""Computing beside an event loop, and no longer than somebody waits for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
Stop = Callable[[], bool]
"""Whether nobody waits for the rest any more."""


class Stopped(Exception):
    """The caller is gone."""


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
