"""The arguments of every store: what is refused before anything is sent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from samespace.documents import encode_value
from samespace.errors import InvalidInput
from samespace.filters import everything
from samespace.guard import Canary, SlotState
from samespace.space import EmbeddingSpace
from samespace.stores.base import (
    check_changes,
    check_cursor,
    check_fit,
    check_ids,
    check_selectors,
    check_shard,
    check_space,
    check_state,
)

NO_STRINGS = [None, 7, b"id", ["id"]]
UNSTORABLE = ["a\x00", "\ud83d", "a\udfff"]


@pytest.mark.parametrize("ids", [[], ["a"], ("a", "b"), {"a"}, {"a": 1}.keys(), ["x" * 9000, ""]])
def test_ids_are_any_strings_that_a_store_can_be_asked_for(ids: Any) -> None:
    check_ids(ids)


@pytest.mark.parametrize("ids", ["abc", None, 7, (id for id in "abc")])
def test_what_is_no_list_is_no_list_of_ids(ids: Any) -> None:
    with pytest.raises(InvalidInput, match="ids is .*; pass a list"):
        check_ids(ids)


@pytest.mark.parametrize("id", [*NO_STRINGS, *UNSTORABLE], ids=ascii)
def test_one_bad_id_is_named(id: Any) -> None:
    with pytest.raises(InvalidInput, match="^id "):
        check_ids(["good", id])


@pytest.mark.parametrize("text", [*NO_STRINGS[1:], *UNSTORABLE], ids=ascii)
def test_parents_and_cursors_are_strings_too(text: Any) -> None:
    with pytest.raises(InvalidInput, match="^parent "):
        check_selectors(None, everything, text)
    with pytest.raises(InvalidInput, match="^the cursor "):
        check_cursor(text)


def test_a_first_page_has_no_cursor() -> None:
    check_cursor(None)
    check_cursor("")


@pytest.mark.parametrize("id", [1, None, "a\x00", "\ud83d"], ids=ascii)
def test_changes_are_keyed_by_ids(id: Any) -> None:
    with pytest.raises(InvalidInput, match="^id "):
        check_changes({id: {"k": 1}}, None)


def test_a_value_is_written_as_metadata_is() -> None:
    assert encode_value("é", what="after") == '"é"'.encode()
    assert encode_value(1e17, what="after") == b"100000000000000000.0"


@pytest.mark.parametrize("value", [*UNSTORABLE, float("nan"), {1}, ("a",)], ids=ascii)
def test_what_metadata_cannot_have_is_named(value: Any) -> None:
    with pytest.raises(InvalidInput, match="'after'"):
        encode_value(value, what="after")


@pytest.mark.parametrize("shard", [None, (0, 1), (2, 3), [0, 2]])
def test_a_shard_is_one_of_several_parts(shard: Any) -> None:
    check_shard(shard)


@pytest.mark.parametrize(
    "shard", [(1, 1), (-1, 2), (0, 0), (0,), (0, 1, 2), "01", 3, (0.5, 2), (False, True), {0, 1}]
)
def test_what_is_no_shard(shard: Any) -> None:
    with pytest.raises(InvalidInput, match="^shard "):
        check_shard(shard)


def test_a_state_may_be_given_by_its_name() -> None:
    assert check_state("ready") is SlotState.READY
    assert check_state(SlotState.FILLING) is SlotState.FILLING


@pytest.mark.parametrize("state", ["open", "", None, 1, ["ready"]])
def test_what_is_no_state_names_those_that_are(state: Any) -> None:
    with pytest.raises(InvalidInput, match="^state .*filling, ready"):
        check_state(state)


@pytest.mark.parametrize("space", [None, "jina-embeddings-v3@64", {"model": "m"}])
def test_what_is_no_space(space: Any) -> None:
    with pytest.raises(InvalidInput, match="^space "):
        check_space(space)


def test_a_canary_has_the_size_of_its_slot() -> None:
    space = EmbeddingSpace(model="own", dimensions=3)
    check_fit(None, space)
    check_fit(Canary(np.ones((3, 3), np.float16), np.ones((3, 3), np.float16)), space)
    with pytest.raises(InvalidInput, match="has 2 dimensions"):
        check_fit(Canary(np.ones((3, 2), np.float16), np.ones((3, 2), np.float16)), space)
