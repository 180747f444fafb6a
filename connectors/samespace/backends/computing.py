"""Computing beside an event loop, and no longer than somebody waits for it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from samespace.protocols import Matrix, Usage
from samespace.space import EmbeddingSpace

T = TypeVar("T")
Stop = Callable[[], bool]
"""Whether nobody waits for the rest any more."""


NOTHING: Final = Usage(0)
AT_ONCE: Final = 4
"""Calls under way in each pool; a device does one after the other anyway."""
LOOKING: Final = 0.1
"""Seconds after which one who waits looks whether it is still for somebody."""


class Stopped(Exception):
    """The caller is gone."""


class Answer(NamedTuple):
    """Vectors, and what they cost."""

    vectors: Matrix
    usage: Usage


class Model(Protocol):
    """A model with one space, which any number of threads may ask."""

    @property
    def space(self) -> EmbeddingSpace:
        """The space of its vectors."""

    def documents(self, texts: Sequence[str], stop: Stop = bool) -> Answer:
        """Vectors of documents."""

    def queries(self, texts: Sequence[str], stop: Stop = bool) -> Answer:
        """Vectors of queries."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as a document has it."""

    def provenance(self) -> Mapping[str, str]:
        """What makes the vectors."""


class Errand(Generic[T]):
    """Work that waits for others, such as a fetch, and computes nothing; begun when it is first asked for.

    It has a thread that a program's end does not wait for, so neither does Ctrl-C.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._starting = threading.Lock()
        self._found: Future[T] | None = None

    def result(self, stop: Stop = bool) -> T:
        """What the work returns, or its error, after which it is begun anew; :class:`Stopped` if told so."""
        found = self._begun()
        while not wait([found], LOOKING).done:
            if stop():
                raise Stopped
        return found.result()

    def _begun(self) -> Future[T]:
        with self._starting:
            if self._found is None or (self._found.done() and self._found.exception()):
                self._found = Future()
                given = (self._found,)
                threading.Thread(
                    target=self._do, args=given, name="samespace-errand", daemon=True
                ).start()
            return self._found

    def _do(self, found: Future[T]) -> None:
        try:
            found.set_result(self._work())
        except BaseException as error:  # noqa: BLE001  whoever waits gets it
            found.set_exception(error)


class Threads:
    """Two pools of threads, of which one is for queries alone, so that none waits for documents.

    asyncio's own pool is everybody's, and a call has its thread until it is done.
    """

    def __init__(self) -> None:
        self._making, self._pools = threading.Lock(), dict[bool, ThreadPoolExecutor]()

    def pool(self, *, urgent: bool) -> ThreadPoolExecutor:
        """The pool for queries, or that for all else, made when it is first needed."""
        with self._making:
            if urgent not in self._pools:
                name = "samespace-queries" if urgent else "samespace-documents"
                self._pools[urgent] = ThreadPoolExecutor(AT_ONCE, name)
            return self._pools[urgent]

    def end(self) -> None:
        """Wait for what is under way."""
        for pool in self._pools.values():
            pool.shutdown()
        self._pools.clear()

    def forget(self) -> None:
        """A process that was forked has none of them."""
        self._making, self._pools = threading.Lock(), {}


THREADS: Final = Threads()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=THREADS.forget)


async def computed_async(work: Callable[[Stop], T], *, urgent: bool = False) -> T:
    """What ``work`` returns; in a worker thread, which ends after its batch once the task is cancelled."""
    left, loop = threading.Event(), asyncio.get_running_loop()
    try:
        return await loop.run_in_executor(THREADS.pool(urgent=urgent), work, left.is_set)
    finally:
        left.set()


def computed(work: Callable[[Stop], T], *, urgent: bool = False) -> T:  # noqa: ARG001  as its twin
    """What ``work`` returns."""
    return work(bool)
