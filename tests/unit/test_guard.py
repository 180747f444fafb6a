"""The guard: what a collection says of itself, and what is said to those it refuses."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from samespace.errors import InvalidInput, SlotNotReady, SpaceMismatch, SpaceUnknown
from samespace.guard import (
    CANARY_TEXTS,
    CANARY_THRESHOLD,
    FORMAT,
    Canary,
    Direction,
    SlotRecord,
    SlotState,
    SpaceRecord,
    check_canary,
    check_distinct_ids,
    check_threshold,
    mismatch,
    missing_record,
    not_ready,
    suggestion,
)
from samespace.space import EmbeddingSpace

V3 = EmbeddingSpace(model="jina-embeddings-v3", dimensions=1024, task="retrieval.passage")
V3_768 = EmbeddingSpace(model="jina-embeddings-v3", dimensions=768, task="retrieval.passage")
V2 = EmbeddingSpace(model="jina-embeddings-v2-base-en", dimensions=768)
SMALL = EmbeddingSpace(model="own", dimensions=4)


def canary(dimensions: int, seed: int = 1) -> Canary:
    """Unit vectors as a backend might have embedded the canary texts."""
    numbers = np.random.default_rng(seed).standard_normal((2, len(CANARY_TEXTS), dimensions))
    documents, queries = numbers / np.linalg.norm(numbers, axis=2, keepdims=True)
    return Canary(documents.astype(np.float16), queries.astype(np.float16))


def slot(space: EmbeddingSpace, **changes: Any) -> SlotRecord:
    return SlotRecord(**{"name": space.id, "space": space, **changes})


def record(*spaces: EmbeddingSpace) -> SpaceRecord:
    return SpaceRecord(slots=tuple(slot(space) for space in spaces))


FULL = SpaceRecord(
    slots=(
        slot(V3, provenance={"backend": "api"}, canary=canary(1024)),
        slot(V2, name="embedding", state=SlotState.FILLING),
    ),
    layout={"id": "chunk_id", "text": "body", "slot": "embedding"},
)


# The record


def written(kept: SpaceRecord) -> Any:
    """A record as a store gives it back."""
    return json.loads(json.dumps(kept.to_dict()))


def read(values: object) -> SpaceRecord:
    return SpaceRecord.from_dict(values, collection="manuals")


def test_a_record_is_read_back_as_it_was_written() -> None:
    again = read(written(FULL))
    assert written(again) == written(FULL)
    assert [s.space for s in again.slots] == [V3, V2]
    assert [s.state for s in again.slots] == [SlotState.READY, SlotState.FILLING]
    assert again.slots[1].name == "embedding"
    assert again.slots[0].provenance == {"backend": "api"}
    assert again.layout == FULL.layout


def test_a_canary_is_read_back_to_the_last_bit() -> None:
    kept, again = FULL.slots[0].canary, read(written(FULL)).slots[0].canary
    assert kept is not None
    assert again is not None
    np.testing.assert_array_equal(again.documents, kept.documents)
    np.testing.assert_array_equal(again.queries, kept.queries)
    assert again.documents.shape == (3, 1024)


def test_the_format_is_number_one() -> None:
    assert FORMAT == 1
    assert written(FULL)["format"] == 1
    assert written(record(V3))["layout"] is None


@pytest.mark.parametrize(
    "values", [{**written(FULL), "format": 2}, {"format": 99}], ids=["2", "99"]
)
def test_a_newer_record_asks_for_an_upgrade(values: object) -> None:
    with pytest.raises(SpaceUnknown, match=r"newer than 1.*upgrade samespace"):
        read(values)


def changed_slot(**changes: object) -> dict[str, object]:
    """The record with one slot's JSON changed."""
    values: dict[str, object] = written(FULL)
    return {**values, "slots": [{**written(FULL)["slots"][0], **changes}]}


@pytest.mark.parametrize(
    "values",
    [
        None,
        5,
        "text",
        [],
        {},
        {"format": None},
        {"format": "1"},
        {"format": 1},
        {"format": 1, "slots": None},
        {"format": 1, "slots": 5},
        {"format": 1, "slots": "abc"},
        {"format": 1, "slots": []},
        {"format": 1, "slots": [None]},
        {"format": 1, "slots": [{}]},
        {**written(FULL), "layout": "garbage"},
        changed_slot(name=5),
        changed_slot(space=None),
        changed_slot(space={}),
        changed_slot(space={**V3.to_dict(), "dimensions": 0}),
        changed_slot(space={**V3.to_dict(), "dimensions": "1024"}),
        changed_slot(space={**V3.to_dict(), "colour": "red"}),
        changed_slot(state="half"),
        changed_slot(state=None),
        changed_slot(provenance="text"),
        changed_slot(canary="text"),
        changed_slot(canary={"documents": "AAAA"}),
        changed_slot(canary={"documents": "!", "queries": "!"}),
        changed_slot(canary={"documents": 5, "queries": 5}),
        changed_slot(canary={"documents": "", "queries": ""}),
        changed_slot(canary=canary(768).to_dict()),
    ],
)
def test_an_unreadable_record_is_refused_with_the_mend(values: object) -> None:
    with pytest.raises(SpaceUnknown, match=r"'manuals' cannot be read .*call adopt\(\)"):
        read(values)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
PATHS = st.sampled_from(["name", "space", "state", "provenance", "canary"])


@given(PATHS, JSON)
def test_a_damaged_slot_is_read_or_refused_and_nothing_else(key: str, value: object) -> None:
    try:
        found = read(changed_slot(**{key: value}))
    except SpaceUnknown:
        return
    assert found.find(V3) is not None


def test_a_missing_record_is_refused_with_the_mend() -> None:
    error = missing_record("manuals")
    assert isinstance(error, SpaceUnknown)
    assert "collection 'manuals' exists and does not say which embedding space" in str(error)
    assert "adopt()" in str(error)


# Slots


def test_a_slot_is_found_by_its_space() -> None:
    assert FULL.find(V2) is FULL.slots[1]
    assert FULL.find(V3_768) is None
    assert FULL.require(V3, collection="manuals") is FULL.slots[0]


def test_a_slot_is_added_or_replaced() -> None:
    added = record(V3).with_slot(slot(V2))
    assert [s.space for s in added.slots] == [V3, V2]
    replaced = added.with_slot(slot(V3, name="other"))
    assert [s.name for s in replaced.slots] == [V2.id, "other"]


def test_a_state_changes_in_place() -> None:
    changed = FULL.with_state(V2, SlotState.READY)
    assert [s.state for s in changed.slots] == [SlotState.READY, SlotState.READY]
    assert [s.space for s in changed.slots] == [V3, V2]
    assert FULL.slots[1].state is SlotState.FILLING


def test_the_last_slot_cannot_go() -> None:
    assert record(V3, V2).without(V3) == record(V2)
    with pytest.raises(InvalidInput, match=r"use drop\(\)"):
        record(V3).without(V3)


def test_a_slot_that_is_being_filled_says_how_far_it_is() -> None:
    error = not_ready(FULL.slots[1], collection="manuals", pending=3, rows=10)
    assert isinstance(error, SlotNotReady)
    assert "3 of 10 rows have no vector of jina-embeddings-v2-base-en@768 yet" in str(error)


def test_unequal_spaces_with_one_id_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_distinct_ids([V3, V2, V3])
    monkeypatch.setattr(
        EmbeddingSpace, "id", property(lambda _: "the_same")
    )  # no real pair is known
    with pytest.raises(
        SpaceMismatch, match="have the same id the_same; give one a variant"
    ) as caught:
        check_distinct_ids([V3, V2])
    assert (caught.value.stored, caught.value.offered) == (V3, V2)


# Refusals


def test_a_refusal_is_a_diff() -> None:
    with pytest.raises(SpaceMismatch) as caught:
        record(V3_768).require(V2, collection="manuals")
    assert str(caught.value) == (
        "collection 'manuals' holds jina-embeddings-v3@768:retrieval.passage; "
        "this handle offers jina-embeddings-v2-base-en@768\n"
        "  field  stored              offered\n"
        "  model  jina-embeddings-v3  jina-embeddings-v2-base-en\n"
        "  task   retrieval.passage   None\n"
        "verdict: incompatible. Vectors of another model cannot be compared though the dimensions "
        "are equal. Open the collection with jina-embeddings-v3@768:retrieval.passage, use another "
        "collection, or add a slot for the offered space (add_slot) and embed the texts again."
    )


def test_a_refusal_carries_the_spaces() -> None:
    error = mismatch(record(V3), V2, collection="manuals")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  our own bytes
    for refusal in (error, again):
        assert (refusal.stored, refusal.offered) == (V3, V2)
        assert [d.field for d in refusal.differences] == ["model", "dimensions", "task"]


def test_a_derivable_space_needs_no_model() -> None:
    message = str(mismatch(record(V3), V3_768, collection="manuals"))
    assert "  dimensions  1024    768\nverdict: derivable." in message
    assert "without the model" in message
    assert "add_slot(jina-embeddings-v3@768:retrieval.passage)" in message


def test_the_nearest_slot_is_the_one_compared_with() -> None:
    assert mismatch(record(V2, V3), V3_768, collection="manuals").stored == V3
    assert mismatch(record(V3, V2), replace(V2, normalized=False), collection="m").stored == V2


def test_a_refusal_quotes_little_of_a_variant() -> None:
    long = replace(V3, variant="a prompt of many words " * 50)
    message = str(mismatch(record(V3), long, collection="manuals"))
    assert max(len(line) for line in message.splitlines()) < 500
    assert "words " * 2 not in message.replace("a prompt of many words a", "")


@pytest.mark.parametrize("field", ["normalized", "variant", "task", "dimensions"])
def test_every_difference_is_a_line(field: str) -> None:
    others: dict[str, Any] = {
        "normalized": False,
        "variant": "tuned",
        "task": "text-matching",
        "dimensions": 64,
    }
    message = str(mismatch(record(V3), replace(V3, **{field: others[field]}), collection="m"))
    assert [line.split()[0] for line in message.splitlines() if line.startswith("  ")] == [
        "field",
        field,
    ]


# The canary


def turned(vectors: NDArray[np.float16], cosine: float) -> NDArray[np.float32]:
    """Unit vectors at this cosine to ``vectors``, of shape ``(n, dimensions)``."""
    base = vectors.astype(np.float64)
    base /= np.linalg.norm(base, axis=1, keepdims=True)
    aside = np.roll(base, 1, axis=1)
    aside -= np.sum(aside * base, axis=1, keepdims=True) * base
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    answers: NDArray[np.float64] = cosine * base + np.sqrt(1 - cosine**2) * aside
    return answers.astype(np.float32)


WITH_CANARY = slot(SMALL, canary=canary(4))


def check(direction: Direction, answers: NDArray[np.float32], **options: Any) -> None:
    found = check_canary(WITH_CANARY, direction, answers, collection="manuals", **options)
    assert found is not None
    assert found >= options.get("threshold", CANARY_THRESHOLD)


def kept(direction: Direction) -> NDArray[np.float16]:
    vectors: NDArray[np.float16] = getattr(WITH_CANARY.canary, direction)
    return vectors


@pytest.mark.parametrize("direction", ["documents", "queries"])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("cosine", [1.0, 0.9999, 0.996])
def test_the_same_backend_passes(direction: Direction, count: int, cosine: float) -> None:
    check(direction, turned(kept(direction)[:count], cosine))


@pytest.mark.parametrize(
    ("cosine", "suggests"),
    [
        (0.994, "another revision of the weights, a lower precision or a changed prompt"),
        (0.96, "another revision of the weights"),
        (0.94, "a wrong task, or a prompt that was changed or left out"),
        (0.80, "a wrong task"),
        (0.73, "a wrong task"),
        (0.71, "a task or prompt that was ignored or left out"),
        (0.63, "a task or prompt that was ignored"),
        (0.46, "a task or prompt that was ignored"),
        (0.44, "another model, or vectors cut to another size"),
        (0.1, "another model"),
        (-1.0, "another model"),
    ],
)
def test_another_backend_is_refused_with_what_the_number_suggests(
    cosine: float, suggests: str
) -> None:
    assert suggestion(cosine).startswith(suggests)
    with pytest.raises(SpaceMismatch, match=f"This suggests {suggests}") as caught:
        check("queries", turned(kept("queries"), cosine))
    assert "Nothing was written or searched." in str(caught.value)
    assert f"cosine {cosine:.3f}, at least 0.995 expected" in str(caught.value)
    assert caught.value.stored == caught.value.offered == SMALL
    assert caught.value.differences == ()


def test_one_text_that_differs_is_enough() -> None:
    answers = kept("documents").astype(np.float32)
    answers[2] = turned(kept("documents"), 0.5)[2]
    with pytest.raises(SpaceMismatch):
        check("documents", answers)


def test_documents_and_queries_have_each_their_own() -> None:
    directions: tuple[Direction, ...] = ("documents", "queries")
    for direction, other in zip(directions, reversed(directions), strict=True):
        with pytest.raises(
            SpaceMismatch, match=f"as {direction} otherwise.*the vectors of {other}"
        ):
            check(direction, kept(other).astype(np.float32))


def test_vectors_that_were_cut_and_filled_up_are_recognised() -> None:
    answers = kept("documents").astype(np.float32)
    answers[:, 3] = 0
    with pytest.raises(SpaceMismatch, match="cut to 3 dimensions and filled up with zeros"):
        check("documents", answers)


def test_vectors_in_another_order_are_recognised() -> None:
    answers = kept("documents").astype(np.float32)
    for order in ([1, 2, 0], [0, 2, 1], [2, 1, 0]):
        with pytest.raises(SpaceMismatch, match="in another order than their texts"):
            check("documents", answers[order])


@pytest.mark.parametrize("threshold", [0, 1, -0.5, 1.5, float("nan"), True, "0.9", None])
def test_a_threshold_is_a_cosine_that_can_be_reached_and_missed(threshold: Any) -> None:
    with pytest.raises(InvalidInput, match="^canary_threshold is .*between 0 and 1"):
        check_threshold(threshold)
    assert check_threshold(0.98) == 0.98


def test_a_canary_is_the_same_to_the_last_bit_or_another() -> None:
    assert canary(4).equals(canary(4))
    assert not canary(4).equals(canary(4, seed=2))
    assert not canary(4).equals(None)


def test_the_length_of_a_vector_does_not_matter() -> None:
    check("documents", kept("documents").astype(np.float32) * 7)


def test_the_threshold_can_be_chosen() -> None:
    answers = turned(kept("documents"), 0.9)
    assert CANARY_THRESHOLD == 0.995
    check("documents", answers, threshold=0.85)
    with pytest.raises(SpaceMismatch, match=r"at least 0\.95 expected"):
        check("documents", answers, threshold=0.95)


def test_what_is_not_a_number_is_refused() -> None:
    with pytest.raises(SpaceMismatch):
        check("documents", np.full((1, 4), np.nan, dtype=np.float32))


def test_a_slot_without_a_canary_proves_nothing() -> None:
    ones = np.ones((1, 4), np.float32)
    assert check_canary(slot(SMALL), "documents", ones, collection="manuals") is None


def test_a_canary_knows_its_size() -> None:
    assert canary(4).fits(SMALL)
    assert not canary(5).fits(SMALL)
    assert not replace(canary(4), queries=canary(5).queries).fits(SMALL)


@pytest.mark.parametrize(
    "damaged", [canary(5).to_dict()["documents"][:-4], 5, "é"], ids=["cut", "int", "é"]
)
def test_a_damaged_canary_is_no_canary(damaged: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        Canary.from_dict({**canary(5).to_dict(), "documents": damaged})
