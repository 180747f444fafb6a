"""Rows of which several have one id, as chunks whose ids are their document's own: each is told by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from qdrant_client import QdrantClient
from tests.migrate.following import Follower
from tests.migrate.test_filling import CHANGED, Reluctant
from tests.migrate.test_making import adopted, waiting

from samespace import QdrantStore
from samespace.errors import MigrationError
from samespace.guard import SlotState
from samespace.migrate import MigrationRun, abort, finish, open_slot, plan
from samespace.testing.backends import UNLIKE, TaskBackend

pytestmark = pytest.mark.usefixtures("qdrant_local")


@contextmanager
def repeated(backend: TaskBackend) -> Iterator[tuple[QdrantClient, QdrantStore]]:
    """Three documents of two chunks: points 0, 2 and 4 have one id, and so have 1, 3 and 5."""
    with adopted(backend, 6) as (client, store):
        for n in range(6):
            said = {"doc": str(n % 2), "of": "abc"[n // 2], "nth": n % 2}
            client.set_payload("docs", said, points=[n])
        yield client, store


def new() -> Reluctant:
    return Reluctant(UNLIKE, seed=5)


def test_each_row_that_is_refused_is_counted_and_named() -> None:
    with repeated(TaskBackend()) as (client, store):
        client.set_payload("docs", {"body": " "}, points=[0])
        client.set_payload("docs", {"body": "it is too long"}, points=[2])
        report = MigrationRun(store, new(), plan(store, new())).run()
    slot = report.collections[0].slots[0]
    assert (report.complete, slot.filled, slot.refused, slot.left) == (True, 4, 2, 0)
    reasons = [("0", "there is nothing to embed"), ("0", "it is too long")]
    assert sorted(slot.named) == sorted(reasons)


def test_a_row_is_filled_though_another_of_its_id_is_refused() -> None:
    backend = new()
    with repeated(TaskBackend()) as (client, store):
        client.set_payload("docs", {"body": "it is too long"}, points=[0])
        with Follower(store, backend, plan(store, backend), interval=0.05) as follower:
            follower.wait_until_idle()
            client.set_payload("docs", {"body": CHANGED}, points=[2])
            slot = follower.wait_until_idle().collections[0].slots[0]
            assert (slot.refused, backend.refused) == (1, 1)
            texts = [row.document.text for row in store.filled(UNLIKE, limit=9)[0]]
            assert (len(texts), texts.count(CHANGED), waiting(store)) == (5, 1, (["0"], []))
            client.set_payload("docs", {"body": "a short one"}, points=[0])
            slot = follower.wait_until_idle().collections[0].slots[0]
    assert (slot.refused, slot.named) == (0, ())


def test_the_old_model_is_asked_once_for_each_of_several_rows_that_it_refuses() -> None:
    backend, old = TaskBackend(UNLIKE, seed=5), Reluctant()
    with repeated(old) as (client, store):
        with Follower(store, backend, plan(store, backend), interval=0.05) as follower:
            follower.wait_until_idle()
            for n in (0, 2):
                client.set_payload("docs", {"body": f"it is too long {n}"}, points=[n])
            client.set_payload("docs", {"body": CHANGED}, points=[4])
            assert follower.wait_until_idle().complete
            asked = old.refused
            follower.wait_until_idle()
        assert (asked, old.refused) == (2, 2)
        assert waiting(store) == ([], [])


THIRD = replace(UNLIKE, model="third-model")


@pytest.mark.parametrize(
    "change",
    [
        lambda client: client.set_payload("docs", {"body": f"{CHANGED} too"}, points=[2]),
        lambda client: client.delete_vectors("docs", [THIRD.id], points=[2]),
    ],
)
def test_no_slot_is_dropped_that_alone_has_a_vector_of_a_row_s_text(
    change: Callable[[QdrantClient], object],
) -> None:
    """Another row of its id has none of its text in the new slot, either."""
    second, third = TaskBackend(UNLIKE, seed=5), TaskBackend(THIRD, seed=9)
    with repeated(TaskBackend()) as (client, first):
        MigrationRun(first, second, plan(first, second)).run()
        first.mark(UNLIKE, SlotState.READY)
        with QdrantStore(client, collection="docs", backend=second) as store:
            made = plan(store, third)
            MigrationRun(store, third, made).run()
            client.set_payload("docs", {"body": CHANGED}, points=[0])
            MigrationRun(store, third, made).run()
            change(client)
            with pytest.raises(MigrationError, match="1 row has one of an earlier text"):
                abort(store, made)
            open_slot(store, made, force=True)
            with pytest.raises(
                MigrationError, match="1 row has (no vector|one of an earlier text)"
            ):
                finish(store, made)
