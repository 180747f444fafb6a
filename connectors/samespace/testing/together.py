"""Doing several things at once, and doing one elsewhere: with tasks, or with threads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

Outcome = Any
"""What a function returned, or the exception that it raised."""


async def together_async(functions: Sequence[Callable[[], Awaitable[Any]]]) -> list[Outcome]:
    """The outcome of each function; they run at the same time."""
    return await asyncio.gather(*(function() for function in functions), return_exceptions=True)


def together(functions: Sequence[Callable[[], Any]]) -> list[Outcome]:
    """The outcome of each function; they run at the same time."""
    with ThreadPoolExecutor(max_workers=max(1, len(functions))) as threads:
        return list(threads.map(_outcome, functions))


async def elsewhere_async(function: Callable[[], Awaitable[Any]]) -> Outcome:
    """The outcome of a function that runs in another thread, on an event loop of its own."""

    async def run() -> Any:
        return await function()

    return await asyncio.to_thread(_outcome, lambda: asyncio.run(run()))


def elsewhere(function: Callable[[], Any]) -> Outcome:
    """The outcome of a function that runs in another thread."""
    return together([function])[0]


def _outcome(function: Callable[[], Any]) -> Outcome:
    try:
        return function()
    except Exception as error:  # noqa: BLE001  the outcome is what the caller judges
        return error
