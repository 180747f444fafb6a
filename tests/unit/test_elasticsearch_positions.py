"""How far a shard's changes are known: which copy is asked, and what another history does."""

from __future__ import annotations

from typing import Any

import pytest

from samespace.errors import InvalidInput, StoreUnavailable
from samespace.stores.elasticsearch import positions
from samespace.stores.elasticsearch.positions import Reached


def copy(number: int, *, primary: bool = True, state: str = "STARTED") -> dict[str, Any]:
    return {
        "routing": {"state": state, "primary": primary},
        "seq_no": {"global_checkpoint": number},
        "commit": {"user_data": {"history_uuid": "h"}},
    }


def answer(**shards: list[dict[str, Any]]) -> dict[str, Any]:
    named = {name.removeprefix("shard"): copies for name, copies in shards.items()}
    return {"indices": {"any": {"shards": named}}}


def test_a_shard_is_as_far_as_its_active_primary_says() -> None:
    moving = [copy(-1, state="INITIALIZING"), copy(7, primary=False), copy(9, state="RELOCATING")]
    found = positions.reached(answer(shard0=moving, shard1=[copy(2)]), shards=2)
    assert found == {0: Reached("h", 9), 1: Reached("h", 2)}


def test_a_shard_without_a_primary_is_not_passed_over() -> None:
    lost = [copy(2, primary=False)]
    for given in (answer(shard0=[copy(9)], shard1=lost), answer(shard1=[copy(9)]), {}):
        with pytest.raises(StoreUnavailable, match="of 2 shards"):
            positions.reached(given, shards=2)


def test_what_is_spelt_is_read_again() -> None:
    position = {0: Reached("h", 9), 11: Reached("other", -1)}
    assert positions.read(positions.spelt(position)) == position


@pytest.mark.parametrize(
    "text",
    ["", "x", "1", "[]", '{"0": 1}', '{"x": ["h", 1]}', '{"0": ["h", "1"]}', '{"0": [1, 1]}'],
)
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="position"):
        positions.read(text)


def test_a_shard_in_another_history_is_looked_at_from_its_beginning() -> None:
    since = {0: Reached("h", 9), 1: Reached("before", 5)}
    now = {0: Reached("h", 12), 1: Reached("restored", 4), 2: Reached("new", 3)}
    carried = {0: Reached("h", 9), 1: Reached("restored", -1), 2: Reached("new", -1)}
    assert positions.carried(since, now) == carried


def test_a_new_primary_that_knows_less_takes_nothing_back() -> None:
    since = {0: Reached("h", 9), 1: Reached("h", 5)}
    assert positions.carried(since, {0: Reached("h", 7)}) == since
