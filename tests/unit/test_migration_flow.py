"""Batches of a migration that are under way."""

from __future__ import annotations

import asyncio

import pytest

from samespace.errors import BackendUnavailable
from samespace.migrate.flow import InFlight


class Batches:
    """Some that take as long as they are told, and what became of them."""

    def __init__(self) -> None:
        self.done: list[str] = []

    async def good(self, name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self.done.append(name)

    async def bad(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        raise BackendUnavailable("away for a moment")

    async def given_up(self) -> None:
        raise asyncio.CancelledError


def test_what_one_batch_raises_comes_after_the_others_have_ended() -> None:
    async def work() -> None:
        await in_flight.add(batches.bad(0.01))
        await in_flight.add(batches.good("slow", 0.1))
        await in_flight.add(batches.good("slower", 0.2))
        with pytest.raises(BackendUnavailable):
            await in_flight.add(batches.good("never begun", 0))
        await in_flight.drain()

    batches, in_flight = Batches(), InFlight(3)
    asyncio.run(work())
    assert batches.done == ["slow", "slower"]


def test_a_batch_that_was_given_up_ends_nothing() -> None:
    async def work() -> None:
        await in_flight.add(batches.given_up())
        await in_flight.add(batches.good("other", 0.05))
        await in_flight.drain()

    batches, in_flight = Batches(), InFlight(2)
    asyncio.run(work())
    assert batches.done == ["other"]


def test_settling_waits_for_all_and_raises_nothing() -> None:
    async def work() -> None:
        await in_flight.add(batches.bad(0.01))
        await in_flight.add(batches.good("slow", 0.1))
        await in_flight.settle()
        await in_flight.drain()

    batches, in_flight = Batches(), InFlight(2)
    asyncio.run(work())
    assert batches.done == ["slow"]


def test_ending_cancels_what_is_under_way() -> None:
    async def work() -> None:
        await in_flight.add(batches.good("slow", 10))
        await asyncio.sleep(0)
        await in_flight.end()
        await in_flight.drain()

    batches, in_flight = Batches(), InFlight(2)
    asyncio.run(work())
    assert batches.done == []
