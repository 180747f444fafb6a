"""The limiter against a server's own count, with clocks that are numbers."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samespace import Limits
from samespace.backends.http.gate import AsyncGate, Gate, Held, Stop, Stopped
from samespace.backends.http.limiter import ANSWERS_PER_STEP, MOST_AT_ONCE, Limiter, Ticket
from samespace.errors import InvalidInput
from samespace.testing.jina_quota import Quota, QuotaUsed

# Configuration


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"texts_per_request": 0}, "texts_per_request"),
        ({"texts_per_request": None}, "texts_per_request"),
        ({"tokens_per_request": 2.5}, "tokens_per_request"),
        ({"requests_per_minute": 0}, "None for no limit"),
        ({"tokens_per_minute": True}, "tokens_per_minute"),
        ({"in_flight": -1}, "in_flight"),
        ({"share": 0}, "share"),
        ({"share": 1.1}, "share"),
        ({"share": float("nan")}, "share"),
        ({"window": 0}, "window"),
        ({"window": float("inf")}, "window"),
    ],
)
def test_a_wrong_limit_is_refused_by_name(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        Limits(**options)


def test_a_share_is_of_what_the_account_has() -> None:
    limits = Limits(requests_per_minute=500, tokens_per_minute=1_000_000, in_flight=5, share=0.25)
    assert (limits.requests_per_window, limits.tokens_per_window) == (125, 250_000)
    assert Limiter(limits).most_in_flight == 1
    assert Limits(requests_per_minute=3, share=0.1).requests_per_window == 1


def test_a_window_has_its_part_of_a_minute() -> None:
    limits = Limits(requests_per_minute=600, tokens_per_minute=60_000, window=1)
    assert (limits.requests_per_window, limits.tokens_per_window) == (10, 1000)
    assert limits.tokens_at_once == 1000
    assert Limits(tokens_per_request=70).tokens_at_once == 70


# One limit at a time


def limiter(**limits: Any) -> Limiter:
    return Limiter(Limits(**{"window": 60, "in_flight": None, **limits}))


def one(limits: Limiter, now: float, *, tokens: int = 1) -> None:
    """One request that is answered at once."""
    assert limits.wait(tokens, now) == 0
    limits.end(limits.start(tokens, now), now, tokens=tokens)


def test_without_limits_nothing_is_held_back() -> None:
    free = limiter()
    tickets = [free.start(10**6, 0.0) for _ in range(MOST_AT_ONCE)]
    assert free.wait(1, 0.0) == math.inf
    free.end(tickets[0], 0.0)
    assert free.wait(10**9, 0.0) == 0


def test_an_amount_counts_until_a_window_after_its_answer() -> None:
    two = limiter(requests_per_minute=2)
    first, second = two.start(1, 0.0), two.start(1, 1.0)
    two.end(second, 2.0)
    two.end(first, 5.0)
    assert two.wait(1, 10.0) == 52.0
    assert two.wait(1, 62.0) == 0


def test_a_request_that_is_not_answered_counts_as_long_as_it_takes() -> None:
    single = limiter(requests_per_minute=1)
    ticket = single.start(1, 0.0)
    assert single.wait(1, 500.0) == math.inf
    single.end(ticket, 500.0)
    assert single.wait(1, 500.0) == 60.0


def test_tokens_are_reserved_by_estimate_and_corrected_by_what_was_paid() -> None:
    some = limiter(tokens_per_minute=100)
    ticket = some.start(80, 0.0)
    assert some.wait(30, 0.0) == math.inf
    some.end(ticket, 1.0, tokens=40)
    assert some.wait(60, 1.0) == 0
    assert some.wait(61, 1.0) == 60.0


def test_what_nobody_counted_was_what_it_was_estimated_as() -> None:
    some = limiter(tokens_per_minute=100)
    some.end(some.start(80, 0.0), 1.0)
    assert some.wait(21, 1.0) == 60.0


def test_a_request_beyond_a_whole_windows_tokens_goes_when_nothing_else_counts() -> None:
    some = limiter(tokens_per_minute=100)
    one(some, 0.0, tokens=1)
    assert some.wait(500, 0.0) == 60.0
    assert some.wait(500, 60.0) == 0


def test_nothing_starts_while_the_server_asks_to_wait() -> None:
    free = limiter()
    free.hold(7.0, 10.0)
    free.hold(1.0, 10.0)
    assert (free.wait(1, 12.0), free.held(12.0)) == (5.0, 5.0)
    assert (free.wait(1, 17.0), free.held(17.0)) == (0, 0)


def test_what_the_server_says_is_left_is_all_there_is() -> None:
    free = limiter()
    first = free.start(1, 0.0)
    free.remaining(first, 0.1, requests=1, tokens=50)
    free.end(first, 0.1, tokens=1)
    assert free.wait(50, 0.1) == 0
    assert free.wait(51, 0.1) == 60.0
    one(free, 1.0, tokens=10)
    assert free.wait(1, 1.0) == pytest.approx(59.1)
    assert free.wait(1, 61.0) == 0


def test_what_was_sent_after_an_answers_question_is_not_in_what_it_says() -> None:
    free = limiter()
    first, second = free.start(1, 0.0), free.start(1, 0.1)
    free.end(second, 0.2, tokens=1)
    third = free.start(1, 0.3)
    free.remaining(first, 0.4, requests=2, tokens=None)
    free.end(first, 0.4, tokens=1)
    assert free.wait(1, 0.4) > 0
    free.remaining(third, 0.5, requests=5, tokens=None)
    free.end(third, 0.5, tokens=1)
    assert free.wait(1, 0.5) == 0


def test_an_older_word_does_not_replace_a_newer_one() -> None:
    free = limiter()
    first, second = free.start(1, 0.0), free.start(1, 0.1)
    free.remaining(second, 0.2, requests=0, tokens=None)
    free.remaining(first, 0.3, requests=9, tokens=None)
    free.end(first, 0.3)
    free.end(second, 0.3)
    assert free.wait(1, 0.4) > 0


def test_of_what_is_only_said_a_share_is_taken_too() -> None:
    part = limiter(share=0.5)
    first = part.start(1, 0.0)
    part.remaining(first, 0.0, requests=3, tokens=None)
    part.end(first, 0.0, tokens=1)
    one(part, 0.0)
    assert part.wait(1, 0.0) > 0


# In flight


def test_one_too_many_at_a_time_is_one_fewer_from_then_on() -> None:
    crowd = limiter(in_flight=5)
    tickets = [crowd.start(1, 0.0) for _ in range(5)]
    for ticket in tickets[3:]:  # the server takes three
        crowd.crowded()
        crowd.end(ticket, 0.1)
    assert crowd.allowed_in_flight == 3
    assert crowd.wait(1, 0.1) == math.inf


def test_there_is_always_one() -> None:
    crowd = limiter(in_flight=2)
    for _ in range(4):
        ticket = crowd.start(1, 0.0)
        crowd.crowded()
        crowd.end(ticket, 0.0)
    assert crowd.allowed_in_flight == 1


def test_it_grows_again_slowly_and_never_beyond_what_is_allowed() -> None:
    crowd = limiter(in_flight=3)
    tickets = [crowd.start(1, 0.0) for _ in range(3)]
    crowd.crowded()
    for ticket in tickets:
        crowd.end(ticket, 0.0)
    for _ in range(ANSWERS_PER_STEP - 4):
        one(crowd, 0.0)
    assert crowd.allowed_in_flight == 2
    for _ in range(3 * ANSWERS_PER_STEP):
        one(crowd, 0.0)
    assert crowd.allowed_in_flight == 3


# All together, against a server that counts for itself


@dataclass(order=True)
class Event:
    at: float
    number: int
    happens: Callable[[], None] = field(compare=False)


@dataclass
class Simulation:
    """Workers that send ``todo`` requests as the limiter lets them, to a server with a quota.

    Every request has its own time to the server and back; ``cost`` makes of the tokens that were
    estimated those that it has.
    """

    quota: Quota
    limits: Limits
    trips: list[tuple[float, float]]
    todo: int = 400
    estimate: int = 10
    cost: int = 10
    now: float = 0.0
    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    hasty: int = 0

    def run(self) -> None:
        self.limiter = Limiter(self.limits)
        self.server = QuotaUsed(self.quota)
        self.events: list[Event] = []
        self.held_until = -math.inf
        self.number = 0
        self.send()
        while self.events:
            event = heapq.heappop(self.events)
            self.now = max(self.now, event.at)
            event.happens()
            self.send()
        assert self.todo == 0

    def later(self, seconds: float, happens: Callable[[], None]) -> None:
        self.number += 1
        heapq.heappush(self.events, Event(self.now + seconds, self.number, happens))

    def send(self) -> None:
        while self.todo:
            wait = self.limiter.wait(self.estimate, self.now)
            if wait > 0:
                if wait < math.inf:
                    self.later(wait, lambda: None)
                return
            self.todo -= 1
            self.hasty += self.now < self.held_until
            ticket = self.limiter.start(self.estimate, self.now)
            there, back = self.trips[ticket.number % len(self.trips)]
            self.later(there, partial(self.arrive, ticket, back))

    def arrive(self, ticket: Ticket, back: float) -> None:
        code = self.server.enter(self.cost, self.now)
        (self.refused if code else self.accepted).append(self.now)
        headers = self.server.headers(self.now, code)
        self.later(back / 2, lambda: None if code else self.server.leave())
        self.later(back, lambda: self.hear(ticket, code, headers))

    def hear(self, ticket: Ticket, code: str | None, headers: dict[str, str]) -> None:
        if code and "CONCURRENCY" in code:
            self.limiter.crowded()
        if "Retry-After" in headers:
            self.limiter.hold(float(headers["Retry-After"]), self.now)
            self.held_until = max(self.held_until, self.now + float(headers["Retry-After"]))
        left = [headers.get(f"X-RateLimit-Remaining-{name}") for name in ("Requests", "Tokens")]
        requests, tokens = (None if each is None else int(each) for each in left)
        self.limiter.remaining(ticket, self.now, requests=requests, tokens=tokens)
        self.limiter.end(ticket, self.now, tokens=0 if code else self.cost)
        self.todo += code is not None


TRIPS = st.lists(st.tuples(st.floats(0.001, 0.3), st.floats(0.001, 0.3)), min_size=1, max_size=9)


@given(TRIPS, st.integers(1, 40), st.integers(10, 400), st.integers(1, 8), st.booleans())
@settings(max_examples=60)
def test_who_knows_the_limits_is_never_refused(
    trips: list[tuple[float, float]], requests: int, tokens: int, in_flight: int, tells: bool
) -> None:
    limits = Limits(
        requests_per_minute=requests, tokens_per_minute=tokens, in_flight=in_flight, window=60
    )
    quota = Quota(requests=requests, tokens=tokens, in_flight=in_flight, tells=tells)
    found = Simulation(quota, limits, trips, todo=150)
    found.run()
    assert found.refused == []


@given(TRIPS, st.integers(2, 6), st.booleans())
@settings(max_examples=40)
def test_who_knows_no_limit_obeys_what_is_said(
    trips: list[tuple[float, float]], in_flight: int, tells: bool
) -> None:
    quota = Quota(requests=20, tokens=300, in_flight=in_flight, tells=tells)
    found = Simulation(quota, Limits(in_flight=8), trips, todo=100)
    found.run()
    assert found.hasty == 0


@given(TRIPS, st.integers(1, 9), st.integers(10, 60))
@settings(max_examples=80)
def test_who_is_told_what_is_left_is_never_refused_one_at_a_time(
    trips: list[tuple[float, float]], requests: int, tokens: int
) -> None:
    quota = Quota(requests=requests, tokens=tokens, window=0.7, retry_after=False)
    found = Simulation(quota, Limits(in_flight=1, window=0.7), trips, todo=60)
    found.run()
    assert found.refused == []


@pytest.mark.parametrize(
    "scarce",
    [{"requests": 50}, {"tokens": 500}, {"requests": 60, "tokens": 550, "in_flight": 4}],
    ids=["requests", "tokens", "all"],
)
def test_what_is_allowed_is_used(scarce: dict[str, Any]) -> None:
    quota = Quota(**scarce, window=2)
    limits = Limits(
        requests_per_minute=scarce.get("requests", 10**6) * 30,
        tokens_per_minute=scarce.get("tokens", 10**8) * 30,
        in_flight=4,
        window=2,
    )
    found = Simulation(quota, limits, [(0.01, 0.03), (0.02, 0.05)], todo=1000, estimate=13)
    found.run()
    assert found.refused == []
    per_window = min(scarce.get("requests", 10**6), scarce.get("tokens", 10**8) // found.cost)
    settled = [at for at in found.accepted if at >= 4]
    allowed = per_window / 2 * (settled[-1] - settled[0])
    assert len(settled) >= 0.9 * allowed


def test_a_server_that_takes_fewer_at_a_time_refuses_hardly_any() -> None:
    found = Simulation(Quota(in_flight=3), Limits(in_flight=8), [(0.01, 0.03)], todo=3000)
    found.run()
    settled = len(found.refused) - 5  # from eight to three
    assert settled <= 0.01 * 3000


def test_a_pause_that_outlasts_its_budget_ends_with_an_attempt() -> None:
    gate = Gate(Limiter(Limits()))
    assert gate.enter(1, most=-0.4, stop=Stop()).tokens == 1
    gate.hold(10)
    with pytest.raises(Held):
        gate.enter(1, most=-0.4, stop=Stop())


# Who waits


class Looks(AsyncGate):
    """Counts how often those who wait are woken to look."""

    looks = 0

    def _started(self, *arguments: Any) -> Ticket | float:
        self.looks += 1
        return super()._started(*arguments)


async def test_only_the_next_of_a_queue_is_woken() -> None:
    gate = Looks(Limiter(Limits(in_flight=1)))
    order: list[int] = []

    async def ask(number: int) -> None:
        ticket = await gate.enter(1, most=math.inf, stop=Stop())
        order.append(number)
        await asyncio.sleep(0)
        gate.leave(ticket, 1)

    await asyncio.gather(*map(ask, range(300)))
    assert order == [*range(300)]
    assert gate.looks <= 4 * 300


def stop_all(gate: AsyncGate, stop: Stop) -> None:
    stop.asked = True
    gate.wake()


@pytest.mark.parametrize(
    ("ends", "kind"),
    [
        (lambda gate, stop: gate.hold(10), Held),
        (lambda gate, stop: gate.close(), Stopped),
        (stop_all, Stopped),
    ],
    ids=["held", "closed", "stopped"],
)
async def test_what_concerns_all_wakes_all(
    ends: Callable[[AsyncGate, Stop], object], kind: type[Exception]
) -> None:
    gate, stop = AsyncGate(Limiter(Limits(in_flight=1))), Stop()
    await gate.enter(1, most=0, stop=stop)
    waiting = [asyncio.create_task(gate.enter(1, most=5, stop=stop)) for _ in range(3)]
    await asyncio.sleep(0)
    ends(gate, stop)
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in found] == [kind] * 3
