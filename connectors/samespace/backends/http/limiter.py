"""When the next request may be sent: counted, without a clock; the time is passed in.

Requests and tokens are counted in a sliding window, not as a bucket that refills: "per minute"
promises no more than so many within any minute, and a bucket gives up to twice that in its first
one. What the server counted lies between the sending and the answer, so an amount leaves the window
one window after its *answer*: then neither a sliding nor a fixed window of the server can hold more
than was allowed, whatever the network does. That costs the time of one request a window.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

from samespace.backends.http.limits import Limits

MOST_AT_ONCE: Final = 64
"""Requests in flight where ``in_flight`` is None: beyond it nothing gets faster."""
ANSWERS_PER_STEP: Final = 200
"""Answers after which one more request in flight is tried: at worst one refusal in so many."""

_SHORTEST: Final = 1e-6
"""Seconds: less may be lost in rounding, and a clock that has moved would not have."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """A request that may be sent. ``tokens`` are reserved for it."""

    number: int
    started: float
    tokens: int


class Limiter:
    """Counts what one backend sends; times are seconds of any clock that never goes back."""

    def __init__(self, limits: Limits) -> None:
        self._requests = _Window(limits.requests_per_window, limits)
        self._tokens = _Window(limits.tokens_per_window, limits)
        most = limits.in_flight or MOST_AT_ONCE
        self._most = max(1, math.floor(most * limits.share + 1e-9))
        self._allowed = self._most
        self._running = 0
        self._answers = 0
        self._started = 0
        self._held_until = -math.inf

    @property
    def most_in_flight(self) -> int:
        """Requests at the same time, however well it goes."""
        return self._most

    @property
    def allowed_in_flight(self) -> int:
        """Requests at the same time, as it goes now."""
        return self._allowed

    def held(self, now: float) -> float:
        """Seconds for which the server has asked that nothing be sent."""
        return max(0.0, self._held_until - now)

    def wait(self, tokens: int, now: float) -> float:
        """Seconds until a request may start: 0 at once, infinity not before another has ended."""
        if self._running >= self._allowed:
            return math.inf
        wait = max(self.held(now), self._requests.wait(1, now), self._tokens.wait(tokens, now))
        return wait and max(wait, _SHORTEST)

    def start(self, tokens: int, now: float) -> Ticket:
        """A request starts, for which :meth:`wait` is 0; to be ended, whatever comes of it."""
        self._started += 1
        self._running += 1
        ticket = Ticket(self._started, now, tokens)
        self._requests.start(ticket, 1)
        self._tokens.start(ticket, tokens)
        return ticket

    def end(self, ticket: Ticket, now: float, *, tokens: int | None = None) -> None:
        """A request has ended; ``tokens`` are what it cost, None if nobody said."""
        self._running -= 1
        self._requests.end(ticket, 1, now)
        self._tokens.end(ticket, ticket.tokens if tokens is None else tokens, now)
        self._answers += 1
        if self._answers >= ANSWERS_PER_STEP and self._allowed < self._most:
            self._allowed += 1
            self._answers = 0

    def remaining(
        self, ticket: Ticket, now: float, *, requests: int | None, tokens: int | None
    ) -> None:
        """The server said, in this request's answer, how much is left; None where it did not."""
        if requests is not None:
            self._requests.remaining(ticket, requests, now)
        if tokens is not None:
            self._tokens.remaining(ticket, tokens, now)

    def hold(self, seconds: float, now: float) -> None:
        """The server asked to wait so long: nobody sends anything meanwhile."""
        self._held_until = max(self._held_until, now + seconds)

    def crowded(self) -> None:
        """The server refused a request, which has not ended here, as one too many at a time."""
        self._allowed = max(1, min(self._allowed, self._running) - 1)
        self._answers = 0


@dataclass(slots=True)
class _Said:
    """What the server said is left, less what it may not have counted; good for one window."""

    number: int
    left: int
    heard: float


@dataclass(frozen=True, slots=True)
class _Ended:
    """An amount that counts until it leaves the window; the server counted it in between."""

    amount: int
    started: float
    ended: float


class _Window:
    """Amounts of one kind within a window, against a limit (or none) and the server's word."""

    def __init__(self, limit: int | None, limits: Limits) -> None:
        self._limit = limit
        self._share = limits.share if limit is None else 1.0
        self._seconds = limits.window
        self._used = 0
        self._running: dict[int, int] = {}
        self._ended: deque[_Ended] = deque()
        self._said: _Said | None = None

    def wait(self, amount: int, now: float) -> float:
        self._forget(now)
        wait = 0.0
        if self._limit is not None:  # what is more than the whole limit goes when nothing else does
            lack = self._used + min(amount, self._limit) - self._limit
            wait = self._until_returned(lack, now)
        if (said := self._said) is not None:
            back = self._until_returned(amount - said.left, now, said)
            wait = max(wait, min(back, said.heard + self._seconds - now))
        return wait

    def start(self, ticket: Ticket, amount: int) -> None:
        self._running[ticket.number] = amount
        self._used += amount
        if self._said is not None:
            self._said.left -= amount

    def end(self, ticket: Ticket, amount: int, now: float) -> None:
        reserved = self._running.pop(ticket.number)
        self._used += amount - reserved
        if self._said is not None and ticket.number != self._said.number:
            self._said.left += reserved - amount
        self._ended.append(_Ended(amount, ticket.started, now))

    def remaining(self, ticket: Ticket, left: int, now: float) -> None:
        """Believe the newest word, less all that was under way beside its request."""
        if self._said is not None and self._said.number > ticket.number:
            return
        beside = sum(self._running.values()) - self._running[ticket.number]
        for each in reversed(self._ended):
            if each.ended < ticket.started:
                break
            beside += each.amount
        self._said = _Said(ticket.number, math.floor(left * self._share) - beside, now)

    def _until_returned(self, lack: int, now: float, said: _Said | None = None) -> float:
        if lack <= 0:
            return 0.0
        for each in self._ended:
            lack -= each.amount if said is None or self._is_in(each, said) else 0
            if lack <= 0:
                return each.ended + self._seconds - now
        return math.inf

    def _is_in(self, each: _Ended, said: _Said) -> bool:
        """Whether what the server said is left was surely without this amount."""
        return each.started + self._seconds > said.heard

    def _forget(self, now: float) -> None:
        while self._ended and self._ended[0].ended + self._seconds <= now:
            each = self._ended.popleft()
            self._used -= each.amount
            if self._said is not None and self._is_in(each, self._said):
                self._said.left += each.amount
        if self._said is not None and self._said.heard + self._seconds <= now:
            self._said = None
