"""A loop and a thread for a job, whoever calls it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import TypeVar

from samespace.ingest.worker import Worker

T = TypeVar("T")


def served(work: Callable[[Worker], Awaitable[T]]) -> T:
    """What ``work`` returns in a loop and thread of its own; this thread serves as its worker.

    What interrupts this thread, and wherever, cancels the work, and passes on once that has ended.
    """
    reading, outcome = Worker(), Future[T]()
    begun, ending = list[Callable[[], object]](), threading.Event()

    async def run() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101  asyncio.run makes one
        begun.append(lambda: loop.call_soon_threadsafe(task.cancel))
        if ending.is_set():  # nobody may have seen that it has begun
            raise asyncio.CancelledError
        return await work(reading)

    def in_a_loop() -> None:
        try:
            outcome.set_result(asyncio.run(run()))
        except BaseException as error:  # noqa: BLE001  raised in the caller's thread
            outcome.set_exception(error)
        finally:
            reading.end()

    thread = threading.Thread(target=in_a_loop, name="samespace-job", daemon=True)
    try:
        thread.start()
        reading.serve()
        thread.join()
    except BaseException:
        ending.set()
        reading.leave()
        with suppress(RuntimeError):  # it has ended
            for cancel in begun:
                cancel()
        if thread.ident is not None:  # it has begun, though start() may not have heard of it
            wait([outcome])
            thread.join()
        raise
    return outcome.result()
