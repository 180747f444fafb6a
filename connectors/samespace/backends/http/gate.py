"""Where requests wait for their turn, and how several are asked at once: in tasks or in threads.

Both kinds do the same; what waits differs. Everything that waits here can be stopped.
"""

from __future__ import annotations

import asyncio
import math
import socket
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from weakref import WeakSet

import httpx

from samespace.backends.http.limiter import Limiter, Ticket

T = TypeVar("T")
_LONGEST_SLEEP: Final = 3600.0


@dataclass(slots=True)
class Stop:
    """Whether a call is to end: set once, by whoever sees why."""

    asked: bool = False


class Stopped(Exception):
    """The call or the backend has ended while a request waited for its turn."""


class TooLate(Exception):
    """The server asked to wait after a request had its turn, and before it was sent."""


class Held(Exception):
    """The server has asked to wait for longer than the request may: ``seconds`` from now."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class _Queue:
    """What both gates share: who is next, and whether the next may go."""

    _waiting: deque[Any]

    def __init__(self, limiter: Limiter, clock: Callable[[], float] = time.monotonic) -> None:
        self.limiter = limiter
        self._clock = clock
        self._closed = False

    def _started(self, place: object, tokens: int, most: float, stop: Stop) -> Ticket | float:
        """The ticket of a request that may start now, or the seconds until it is worth a look."""
        if self._closed or stop.asked:
            raise Stopped
        now = self._clock()
        if (held := self.limiter.held(now)) > max(most, 0.0):  # a pause may outlast its budget
            raise Held(held)
        if self._waiting[0] is not place:
            return math.inf
        seconds = self.limiter.wait(tokens, now)
        return min(seconds, _LONGEST_SLEEP) if seconds > 0 else self.limiter.start(tokens, now)

    def check(self, stop: Stop) -> None:
        """:class:`TooLate` if nothing may be sent now: connecting may have taken a while."""
        if self._closed or stop.asked or self.limiter.held(self._clock()) > 0:
            raise TooLate

    def _left(self, end: float, stop: Stop) -> float:
        if self._closed or stop.asked:
            raise Stopped
        return min(end - self._clock(), _LONGEST_SLEEP)

    def _end(self, ticket: Ticket, tokens: int | None, *, crowded: bool) -> None:
        if crowded:
            self.limiter.crowded()
        self.limiter.end(ticket, self._clock(), tokens=tokens)

    def _hear(self, ticket: Ticket, requests: int | None, tokens: int | None) -> None:
        self.limiter.remaining(ticket, self._clock(), requests=requests, tokens=tokens)


class AsyncGate(_Queue):
    """Lets the tasks of one event loop through, in the order in which they came."""

    def __init__(self, limiter: Limiter, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(limiter, clock)
        self._waiting = deque[asyncio.Event]()
        self._changed = asyncio.Event()

    async def enter(self, tokens: int, *, most: float, stop: Stop) -> Ticket:
        """Wait until a request may start; :class:`Held` if the server has it wait beyond ``most``."""
        place = asyncio.Event()
        self._waiting.append(place)
        try:
            while not isinstance(found := self._started(place, tokens, most, stop), Ticket):
                await _change(place, found)
            return found
        finally:
            self._waiting.remove(place)
            self._wake_next()

    async def pause(self, seconds: float, stop: Stop) -> None:
        """Wait so long, outside the queue."""
        end = self._clock() + seconds
        while (left := self._left(end, stop)) > 0:
            await _change(self._changed, left)

    def leave(self, ticket: Ticket, tokens: int | None, *, crowded: bool = False) -> None:
        """A request has ended, and cost so many tokens if anybody said."""
        self._end(ticket, tokens, crowded=crowded)
        self._wake_next()

    def hear(self, ticket: Ticket, *, requests: int | None, tokens: int | None) -> None:
        """What an answer says remains."""
        self._hear(ticket, requests, tokens)

    def hold(self, seconds: float) -> None:
        """Nobody starts a request for so long."""
        self.limiter.hold(seconds, self._clock())
        self.wake()

    def wake(self) -> None:
        """Let everyone who waits look again."""
        for place in self._waiting:
            place.set()
        self._changed.set()
        self._changed = asyncio.Event()

    def _wake_next(self) -> None:
        """Let the next in the queue look again: nobody else may go, and there may be thousands."""
        if self._waiting:
            self._waiting[0].set()

    def close(self) -> None:
        """Whoever waits, waits no longer, and nobody enters."""
        self._closed = True
        self.wake()


async def _change(event: asyncio.Event, seconds: float) -> None:
    """Wait for the event, at most so long."""
    with suppress(TimeoutError):
        async with asyncio.timeout(None if seconds == math.inf else seconds):
            await event.wait()
    event.clear()


class Gate(_Queue):
    """Lets threads through, in the order in which they came."""

    def __init__(self, limiter: Limiter, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(limiter, clock)
        self._waiting = deque[object]()
        self._changed = threading.Condition()

    def enter(self, tokens: int, *, most: float, stop: Stop) -> Ticket:
        """Wait until a request may start; :class:`Held` if the server has it wait beyond ``most``."""
        place = object()
        with self._changed:
            self._waiting.append(place)
            try:
                while not isinstance(found := self._started(place, tokens, most, stop), Ticket):
                    self._changed.wait(None if found == math.inf else found)
                return found
            finally:
                self._waiting.remove(place)
                self._changed.notify_all()

    def pause(self, seconds: float, stop: Stop) -> None:
        """Wait so long, outside the queue."""
        end = self._clock() + seconds
        with self._changed:
            while (left := self._left(end, stop)) > 0:
                self._changed.wait(left)

    def leave(self, ticket: Ticket, tokens: int | None, *, crowded: bool = False) -> None:
        """A request has ended, and cost so many tokens if anybody said."""
        with self._changed:
            self._end(ticket, tokens, crowded=crowded)
            self._changed.notify_all()

    def hear(self, ticket: Ticket, *, requests: int | None, tokens: int | None) -> None:
        """What an answer says remains."""
        with self._changed:
            self._hear(ticket, requests, tokens)

    def hold(self, seconds: float) -> None:
        """Nobody starts a request for so long."""
        with self._changed:
            self.limiter.hold(seconds, self._clock())

    def wake(self) -> None:
        """Let everyone who waits look again."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Whoever waits, waits no longer, and nobody enters."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


Heard = Callable[[int, Sequence[tuple[bytes, bytes]]], None]
"""Takes the status and the headers of an answer."""


class AsyncSockets:
    """The exchanges of a client. A task that is cancelled closes its connection by itself."""

    def extensions(self, before: Callable[[], None], heard: Heard) -> dict[str, Any]:
        """For one request: ``before`` may still stop it, ``heard`` gets the head of its answer."""

        async def trace(event: str, info: dict[str, Any]) -> None:
            _tell(event, info, before, heard)

        return {"trace": trace}

    def close(self) -> None:
        """End every exchange, for good."""


class Sockets:
    """The exchanges of a client, so that threads can be called back that wait for an answer."""

    def __init__(self) -> None:
        self._streams: WeakSet[Any] = WeakSet()
        self._changing = threading.Lock()
        self._closed = False

    def extensions(self, before: Callable[[], None], heard: Heard) -> dict[str, Any]:
        """For one request: ``before`` may still stop it, ``heard`` gets the head of its answer."""

        def trace(event: str, info: dict[str, Any]) -> None:
            if event.endswith(("connect_tcp.complete", "start_tls.complete")):
                with self._changing:
                    self._streams.add(info["return_value"])
                if self._closed:
                    self.cut()
            _tell(event, info, before, heard)

        return {"trace": trace}

    def close(self) -> None:
        """End every exchange, for good: a thread would wait on at a socket that is only closed."""
        self._closed = True
        self.cut()

    def cut(self) -> None:
        """End every exchange."""
        with self._changing:
            streams = list(self._streams)
        for stream in streams:
            # The plain socket's own: that of TLS would first let what is sent meanwhile go out bare.
            with suppress(OSError, TypeError):
                socket.socket.shutdown(stream.get_extra_info("socket"), socket.SHUT_RDWR)


def _tell(event: str, info: dict[str, Any], before: Callable[[], None], heard: Heard) -> None:
    if event == "http11.send_request_headers.started":
        before()
    elif event == "http11.receive_response_headers.complete":
        _, status, _, headers, *_ = info["return_value"]
        heard(status, headers)


@dataclass(frozen=True, slots=True)
class AsyncSession:
    """One process's connections, and its count of what the account may send."""

    client: httpx.AsyncClient
    gate: AsyncGate
    sockets: AsyncSockets


@dataclass(frozen=True, slots=True)
class Session:
    """One process's connections, and its count of what the account may send."""

    client: httpx.Client
    gate: Gate
    sockets: Sockets


async def in_thread_async(function: Callable[[], T]) -> T:
    """What ``function`` returns; it runs in a worker thread."""
    return await asyncio.to_thread(function)


def in_thread(function: Callable[[], T]) -> T:
    """What ``function`` returns."""
    return function()


async def each_async(
    work: Callable[[T], Awaitable[None]],
    parts: Sequence[T],
    *,
    session: AsyncSession,
    stop: Stop,
) -> None:
    """Do the work of each part, several at once; the first failure ends all, and is raised."""
    left = iter(parts)
    count = min(session.gate.limiter.most_in_flight, len(parts))

    async def take() -> None:
        for part in left:
            await work(part)

    if count <= 1:
        return await take()
    failure: BaseException
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(take())
    except BaseExceptionGroup as failed:
        failure = failed.exceptions[0]
    else:
        return None
    stop.asked = True
    session.gate.wake()
    raise failure  # outside, so that the group is no part of its chain


def each(
    work: Callable[[T], None],
    parts: Sequence[T],
    *,
    session: Session,
    stop: Stop,
) -> None:
    """Do the work of each part, several at once; the first failure ends all, and is raised.

    Every thread has ended when this returns. Where the caller's own thread is interrupted, the
    others' exchanges are cut off.
    """
    left = iter(parts)  # a sequence's: to take from it is one step
    failures: list[BaseException] = []
    count = min(session.gate.limiter.most_in_flight, len(parts))
    if count <= 1:
        for part in left:
            work(part)
        return
    with ThreadPoolExecutor(count, thread_name_prefix="samespace-embed") as threads:
        try:
            wait(
                [
                    threads.submit(copy_context().run, _take, work, left, stop, failures)
                    for _ in range(count)
                ],
                return_when=FIRST_EXCEPTION,
            )
        except BaseException:
            stop.asked = True
            session.sockets.cut()
            raise
        finally:
            session.gate.wake()
    if failures:
        raise failures[0]


def _take(
    work: Callable[[T], None], left: Iterator[T], stop: Stop, failures: list[BaseException]
) -> None:
    """Work until nothing is left; a failure is noted before it makes the others stop."""
    try:
        for part in left:
            if stop.asked:
                return
            work(part)
    except BaseException as error:
        failures.append(error)
        stop.asked = True
        raise
