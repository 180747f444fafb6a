"""What the guard costs on the wire: at most one round trip an open, none a query or a batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from tests.faults.test_lost_answers import PLACES, Place
from tests.servers.cutting import Wire

from samespace.testing.backends import TaskBackend
from samespace.testing.corpus import documents

BATCH = 3
CONNECTING = {"PostgreSQL": 3, "Qdrant REST": 0, "Elasticsearch": 1}
"""Round trips before the first request: greeting, session and type; which server it is."""


@pytest.fixture(params=CONNECTING)
def place(request: pytest.FixtureRequest) -> Place:
    return PLACES[request.param](request)


def trips(wire: Wire, work: Callable[[], object]) -> int:
    before = wire.round_trips
    work()
    return wire.round_trips - before


def test_opening_costs_one_more_and_a_query_none(
    place: Place, request: pytest.FixtureRequest
) -> None:
    connecting = CONNECTING[request.node.callspec.params["place"]]
    with place.open(backend=TaskBackend()) as store:
        store.upsert(documents(4))
    with Wire(place.connect) as wire, place.open(wire.port, backend=TaskBackend()) as store:
        first, *others = [trips(wire, lambda: store.search("a garden")) for _ in range(4)]
    assert others == [1, 1, 1]
    assert first <= connecting + 1 + others[0]


def test_a_batch_costs_what_it_writes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("samespace.stores.base.BATCH_DOCUMENTS", BATCH)
    with place.open(backend=TaskBackend()) as store:
        store.upsert(documents(4))
    with Wire(place.connect) as wire, place.open(wire.port, backend=TaskBackend()) as store:
        for _ in range(8):  # a driver prepares what it is asked for often
            store.upsert(documents(BATCH))
        one, two, three = (
            trips(wire, partial(store.upsert, documents(batches * BATCH))) for batches in (1, 2, 3)
        )
    assert three - two == two - one
    assert two - one <= 2  # the rows, and on PostgreSQL what finishes them
