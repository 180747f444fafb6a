"""What the guard costs on the wire: at most one round trip an open, none a query or a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest
from tests.faults.test_lost_answers import PLACES, Place
from tests.servers.cutting import Calls, Wire

from samespace import VectorStore
from samespace.testing.backends import TaskBackend
from samespace.testing.corpus import documents

BATCH = 3
CONNECTING = {"PostgreSQL": 3, "Qdrant REST": 0, "Qdrant gRPC": 0, "Elasticsearch": 1}
"""Round trips before the first request: greeting, session and type; which server it is."""
Trips = Callable[[Callable[[], object]], int]


@pytest.fixture(params=CONNECTING)
def place(request: pytest.FixtureRequest) -> Place:
    return PLACES[request.param](request)


@contextmanager
def counted(place: Place) -> Iterator[tuple[VectorStore, Trips]]:
    """A handle, and what says how many round trips a piece of work of its costs."""
    with ExitStack() as stack:
        if place.connect_beside is None:
            wires = [stack.enter_context(Wire(place.connect))]
        else:
            wires = [
                stack.enter_context(Calls(place.connect)),
                stack.enter_context(Wire(place.connect_beside)),
            ]

        def trips(work: Callable[[], object]) -> int:
            before = sum(wire.round_trips for wire in wires)
            work()
            return sum(wire.round_trips for wire in wires) - before

        ports = [wire.port for wire in wires]
        yield stack.enter_context(place.open(*ports, backend=TaskBackend())), trips


def test_opening_costs_one_more_and_a_query_none(
    place: Place, request: pytest.FixtureRequest
) -> None:
    connecting = CONNECTING[request.node.callspec.params["place"]]
    with place.open(backend=TaskBackend()) as store:
        store.upsert(documents(4))
    with counted(place) as (store, trips):
        first, *others = [trips(lambda: store.search("a garden")) for _ in range(4)]
    assert others == [1, 1, 1]
    assert first <= connecting + 1 + others[0]


def test_a_batch_costs_what_it_writes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("samespace.stores.base.BATCH_DOCUMENTS", BATCH)
    with place.open(backend=TaskBackend()) as store:
        store.upsert(documents(4))
    with counted(place) as (store, trips):
        for _ in range(8):  # a driver prepares what it is asked for often
            store.upsert(documents(BATCH))
        one, two, three = (
            trips(partial(store.upsert, documents(batches * BATCH))) for batches in (1, 2, 3)
        )
    assert three - two == two - one
    assert two - one <= 2  # the rows, and on PostgreSQL what finishes them
