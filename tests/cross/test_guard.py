"""Whoever names a slot that is not there reaches no vector: strangers by the engine, handles by us."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
from tests.cross.conftest import stranger_of
from tests.strangers import Stranger

from samespace import Document, VectorStore
from samespace.errors import SpaceMismatch
from samespace.guard import SlotState
from samespace.testing.backends import UNLIKE, V3, TaskBackend
from samespace.testing.corpus import documents
from samespace.testing.harness import StoreHarness

RAW = 7
VECTOR = TaskBackend().embed_documents(["text"])[0]
OTHER = TaskBackend(UNLIKE, seed=5)

WRITES: dict[str, Callable[[Stranger, str], object]] = {
    "inserting": lambda raw, slot: raw.put(RAW + 1, {"text": "x", "metadata": {}}, {slot: VECTOR}),
    "replacing": lambda raw, slot: raw.put(RAW, {"text": "x", "metadata": {}}, {slot: VECTOR}),
    "changing": lambda raw, slot: raw.change(RAW, {}, {slot: VECTOR}),
}


@pytest.fixture
def stranger(harness: StoreHarness) -> Iterator[Stranger]:
    """A stranger in a collection of ours, with a row of its own."""
    with harness.open("guarded", backend=TaskBackend()) as store:
        store.upsert([Document("a", "text")])
    with closing(stranger_of(harness, "guarded")) as raw:
        raw.put(RAW, {"text": "x", "metadata": {}}, {V3.id: VECTOR})
        yield raw


@pytest.mark.parametrize("way", WRITES)
def test_a_stranger_who_names_another_space_writes_nothing(
    harness: StoreHarness, stranger: Stranger, way: str
) -> None:
    before = harness.dump("guarded")
    with pytest.raises(stranger.refusals, match=UNLIKE.id):
        WRITES[way](stranger, UNLIKE.id)
    assert harness.dump("guarded") == before
    WRITES[way](stranger, V3.id)


def found(raw: Stranger, slot: str) -> list[tuple[str, float]]:
    """What a search finds; one that is refused finds nothing."""
    with suppress(*raw.refusals):
        return raw.nearest(slot, VECTOR)
    return []


def test_a_stranger_who_names_another_space_finds_nothing(stranger: Stranger) -> None:
    assert found(stranger, UNLIKE.id) == []
    assert len(found(stranger, V3.id)) == 2


REQUESTS: dict[str, Callable[[VectorStore], Any]] = {
    "search": lambda store: store.search("text"),
    "search_many": lambda store: store.search_many(["text", "other"]),
    "search_vector": lambda store: store.search_vector(VECTOR, space=V3),
    "get": lambda store: store.get(["d0"], with_vectors=True),
    "upsert": lambda store: store.upsert([Document("x", "text")]),
    "upsert_vectors": lambda store: store.upsert_vectors([Document("x", "t")], [VECTOR], space=V3),
    "skip": lambda store: store.upsert([Document("x", "text")], on_conflict="skip"),
}


@pytest.mark.parametrize("asked", REQUESTS)
def test_a_handle_that_outlived_its_slot_is_refused(harness: StoreHarness, asked: str) -> None:
    with (
        harness.open("guarded", backend=TaskBackend()) as warm,
        harness.open("guarded", backend=TaskBackend()) as cold,
        harness.open("guarded", backend=OTHER) as new,
    ):
        warm.upsert(documents(4))
        REQUESTS[asked](warm)
        warm.add_slot(UNLIKE)
        rows, _ = warm.pending(UNLIKE, limit=10)
        warm.fill(UNLIKE, rows, OTHER.embed_documents([row.document.text for row in rows]))
        new.mark(UNLIKE, SlotState.READY)
        new.drop_slot(V3)
        before = harness.dump("guarded")
        for store in (warm, cold):
            with pytest.raises(SpaceMismatch, match="holds another-model@64"):
                REQUESTS[asked](store)
        assert harness.dump("guarded") == before
        assert len(new.search("a garden")) == len(rows)
    with closing(stranger_of(harness, "guarded")) as raw:
        assert found(raw, V3.id) == []
