"""Many processes that create one collection at the same moment, and some that drop it."""

from __future__ import annotations

import uuid
from collections import Counter

import pytest
from tests.faults.racing import RACERS, Part, Place, racing

from samespace import EmbeddingSpace
from samespace.errors import CollectionNotFound
from samespace.testing.backends import UNLIKE, V3

ROUNDS = [2, pytest.param(50, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])]
SAID_OF_A_DROP = (
    "was dropped while it was created",
    "there is no collection",
    "there is no index",
    "is still there",
    "changed meanwhile",
)
"""What whoever creates or drops may be told where others do the other."""


@pytest.fixture(params=["PostgreSQL", "Qdrant REST", "Elasticsearch"])
def place(request: pytest.FixtureRequest) -> Place:
    fixtures = {"PostgreSQL": "postgres", "Qdrant REST": "qdrant", "Elasticsearch": "elasticsearch"}
    address: str = request.getfixturevalue(fixtures[request.param])
    if request.param == "PostgreSQL":
        request.getfixturevalue("schema")  # which sees to the extension
    return Place(request.param, address, f"r{uuid.uuid4().hex[:12]}")


@pytest.mark.parametrize("spaces", [[V3], [V3, UNLIKE]], ids=["one space", "two spaces"])
@pytest.mark.parametrize("rounds", ROUNDS)
def test_of_racing_creators_one_wins(
    place: Place, spaces: list[EmbeddingSpace], rounds: int
) -> None:
    losers = RACERS - RACERS // len(spaces)
    with racing(place, rounds, [("create", space) for space in spaces]) as race:
        for _ in range(rounds):
            said = race.run()
            (winner,) = set(said) - {"mismatch"}
            assert said == Counter({winner: RACERS - losers, "mismatch": losers})
            assert winner in {space.id for space in spaces}
            assert place.slots() == ([winner], [[winner]])
            place.forget()
            race.end()


@pytest.mark.parametrize("rounds", ROUNDS)
def test_a_collection_that_is_created_and_dropped_is_there_whole_or_not_at_all(
    place: Place, rounds: int
) -> None:
    parts: list[Part] = [("create", V3), ("drop", V3)]
    with place.open(V3) as store, racing(place, rounds, parts) as race:
        for _ in range(rounds):
            store.create()
            said = race.run()
            unexpected = [
                each
                for each in said
                if each not in {V3.id, "dropped"} and not any(w in each for w in SAID_OF_A_DROP)
            ]
            assert unexpected == []
            physical, recorded = place.slots()
            assert (physical, recorded) in (([], []), ([V3.id], [[V3.id]]))
            if physical:
                assert store.info().rows == 0
                store.drop()
            else:
                with pytest.raises(CollectionNotFound):
                    store.info()
            race.end()
