"""Which requests go through the model together, and in whose turn."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np

from samespace.backends.jina_api.serving import Request, room_for, too_long
from samespace.protocols import Matrix
from samespace.server.servable import Servable

TOGETHER: Final = 100_000
"""Characters: requests join the one before them up to here, about what keeps a GPU busy for a batch."""
SHORT: Final = 2_000
"""Characters of a single text that is taken for a query."""


class Computed(NamedTuple):
    """Vectors as the model makes them, shape ``(n, model.dimensions)``, and tokens."""

    means: Matrix
    tokens: int


@dataclass(eq=False, slots=True)
class Job:
    """A request, its answer to come, and whether whoever asked is gone."""

    request: Request
    left: threading.Event
    computed: Future[Computed] = field(default_factory=Future)

    @property
    def is_query(self) -> bool:
        """Whether it is small and somebody may be waiting for it."""
        texts = self.request.texts
        return len(texts) == 1 and len(texts[0]) <= SHORT


class Lane:
    """Computes jobs one batch after the other, in a thread of its own.

    Jobs that came while another was computed are computed together if they are alike.
    """

    def __init__(self, servable: Servable, name: str, *, urgent: bool = False) -> None:
        self._servable, self._urgent = servable, urgent
        self._waiting: deque[Job] = deque()
        self._turn = threading.Lock()
        self._awake = False
        self._thread = ThreadPoolExecutor(1, f"samespace-{name}")

    def put(self, job: Job) -> None:
        """Compute a job in its turn, unless it is cancelled before that."""
        with self._turn:
            if not self._awake:
                self._thread.submit(self._run)
            self._awake = True
            self._waiting.append(job)
        job.computed.add_done_callback(lambda _: self._forget(job))

    def close(self) -> None:
        """Take no more, and wait for what is under way."""
        with self._turn:
            waiting = list(self._waiting)
        for job in waiting:
            job.computed.cancel()
        self._thread.shutdown()

    def _forget(self, job: Job) -> None:
        """A job that nobody waits for keeps no texts here."""
        with self._turn, suppress(ValueError):  # it may have been taken
            self._waiting.remove(job)

    def _run(self) -> None:
        """Everything that waits, until nothing does."""
        while jobs := self._taken():
            there = [job for job in jobs if job.computed.set_running_or_notify_cancel()]
            if there:
                self._compute(there)

    def _taken(self) -> list[Job]:
        """The job that has waited longest, and those that can join it."""
        with self._turn:
            jobs = taken(self._waiting)
            self._awake = bool(jobs)
            return jobs

    def _compute(self, jobs: Sequence[Job]) -> None:
        def stop() -> bool:
            return all(job.left.is_set() for job in jobs)

        try:
            found = self._found(jobs, stop)
        except BaseException as error:  # noqa: BLE001  whoever asked gets it, a panic in Rust, too
            self._failed(jobs, error)
            return
        for job, computed in zip(jobs, found, strict=True):
            job.computed.set_result(computed)

    def _failed(self, jobs: Sequence[Job], error: BaseException) -> None:
        if len(jobs) == 1:
            jobs[0].computed.set_exception(error)
            return
        for job in jobs:  # one of them may be to blame
            self._compute([job])

    def _found(self, jobs: Sequence[Job], stop: Callable[[], bool]) -> list[Computed]:
        first = jobs[0].request
        if first.late_chunking:
            return self._late(jobs, stop)
        texts = [text for job in jobs for text in job.request.texts]
        found = self._servable.texts(
            texts, first.task, cuts=first.truncate, stop=stop, urgent=self._urgent
        )
        ends = np.cumsum([0, *(len(job.request.texts) for job in jobs)])
        return [Computed(found.means[a:b], int(sum(found.counts[a:b]))) for a, b in pairwise(ends)]

    def _late(self, jobs: Sequence[Job], stop: Callable[[], bool]) -> list[Computed]:
        """The texts of each request as one document, which sees no other's."""
        tokens = [self._counted(job.request) for job in jobs]
        documents = [job.request.texts for job in jobs]
        means, _ = self._servable.chunks(documents, jobs[0].request.task, stop=stop)
        return [Computed(*each) for each in zip(means, tokens, strict=True)]

    def _counted(self, request: Request) -> int:
        """Tokens of a document, which has to fit as it has to for the API."""
        tokens = self._servable.count_together(request.texts, request.task)
        room = room_for(request)
        if tokens > room:
            raise too_long(f"Inputs of {tokens} tokens together exceed the limit of {room} tokens")
        return tokens


def taken(waiting: deque[Job]) -> list[Job]:
    """Take the first job out of those that wait, and others like it while there is room."""
    if not waiting:
        return []
    jobs = [waiting.popleft()]
    room = TOGETHER - _size(jobs[0])
    for job in list(waiting):
        if _kind(job) == _kind(jobs[0]) and _size(job) <= room:
            waiting.remove(job)
            jobs.append(job)
            room -= _size(job)
    return jobs


def _kind(job: Job) -> tuple[str | None, bool, bool]:
    """What jobs have in common that can be computed together."""
    return job.request.task, job.request.truncate, job.request.late_chunking


def _size(job: Job) -> int:
    return sum(map(len, job.request.texts))
