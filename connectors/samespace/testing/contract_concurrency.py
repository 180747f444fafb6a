# Generated from contract_concurrency_async.py by tools/generate_sync.py; change that file, not this one.
"""The promises about several handles at once: tasks of one loop, or threads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from samespace.documents import Document
from samespace.errors import DocumentExists, InvalidInput, SpaceMismatch
from samespace.filters import everything
from samespace.guard import SlotState
from samespace.protocols import VectorStore
from samespace.testing.backends import UNLIKE, V3, TaskBackend
from samespace.testing.corpus import documents
from samespace.testing.gaps import DeclaresGaps
from samespace.testing.harness import StoreHarness
from samespace.testing.together import elsewhere, together

RACERS = 6


def _failures(outcomes: list[object]) -> list[BaseException]:
    return [outcome for outcome in outcomes if isinstance(outcome, BaseException)]


class ConcurrencyContract(DeclaresGaps):
    """Nothing is lost, doubled or mixed because others are at work too."""

    @pytest.fixture
    def shared(self, harness: StoreHarness) -> Iterator[VectorStore]:
        with harness.open("shared", backend=TaskBackend()) as store:
            yield store

    def test_of_racing_creators_all_get_the_one_collection(self, harness: StoreHarness) -> None:
        stores = [harness.open("shared", backend=TaskBackend()) for _ in range(RACERS)]
        assert _failures(together([store.create for store in stores])) == []
        assert [slot.space for slot in stores[0].info().slots] == [V3]
        for store in stores:
            store.close()

    def test_of_racing_spaces_exactly_one_wins(self, harness: StoreHarness) -> None:
        spaces = [(V3, UNLIKE)[n % 2] for n in range(RACERS)]
        stores = [harness.open("shared", backend=TaskBackend(space)) for space in spaces]
        outcomes = together([store.create for store in stores])
        won = {s for s, outcome in zip(spaces, outcomes, strict=True) if outcome is None}
        assert len(won) == 1
        assert [type(error) for error in _failures(outcomes)] == [SpaceMismatch] * (RACERS // 2)
        for store in stores:
            store.close()

    def test_slots_that_are_added_at_once_are_all_there(
        self, harness: StoreHarness, shared: VectorStore
    ) -> None:
        shared.create()
        spaces = [replace(UNLIKE, variant=str(n)) for n in range(RACERS)]
        stores = [harness.open("shared", space=V3) for _ in spaces]

        def adding(n: int) -> object:
            return lambda: stores[n].add_slot(spaces[n])

        outcomes = together([adding(n) for n in range(RACERS)])  # type: ignore[misc]
        assert _failures(outcomes) == []
        assert {slot.space for slot in shared.info().slots} == {V3, *spaces}
        for store in stores:
            store.close()

    def test_racing_first_writes_create_the_collection_once(self, harness: StoreHarness) -> None:
        stores = [harness.open("shared", backend=TaskBackend()) for _ in range(RACERS)]

        def writer(n: int) -> object:
            return lambda: stores[n].upsert(documents(20, prefix=f"w{n}-"))

        outcomes = together([writer(n) for n in range(RACERS)])  # type: ignore[misc]
        assert _failures(outcomes) == []
        assert stores[0].count() == 20 * RACERS
        for store in stores:
            store.close()

    def test_of_racing_writers_of_one_id_under_fail_exactly_one_writes(
        self, shared: VectorStore
    ) -> None:
        shared.create()

        def write() -> object:
            return shared.upsert(documents(5), on_conflict="fail", on_error="report")

        outcomes = together([write] * RACERS)
        assert _failures(outcomes) == []
        rejected = [one for report in outcomes for one in report.rejected]
        assert sum(report.written for report in outcomes) == 5
        assert Counter(one.id for one in rejected) == dict.fromkeys(
            [document.id for document in documents(5)], RACERS - 1
        )
        assert {type(one.error) for one in rejected} == {DocumentExists}

    def test_racing_writers_of_the_same_rows_do_not_block_one_another(
        self, shared: VectorStore
    ) -> None:
        shared.create()
        rows = documents(60)

        def writer(n: int) -> object:
            return lambda: shared.upsert(rows if n % 2 else rows[::-1])

        outcomes = together([writer(n) for n in range(RACERS)])  # type: ignore[misc]
        assert _failures(outcomes) == []
        assert sorted([d for d in shared.scan()], key=str) == sorted(rows, key=str)

    def test_one_handle_serves_many_readers(self, shared: VectorStore) -> None:
        shared.upsert(documents(30))
        alone = shared.search("old maps in the library", limit=5)

        def read() -> object:
            return shared.search("old maps in the library", limit=5)

        outcomes = together([read] * 20)
        assert _failures(outcomes) == []
        assert all(hits == alone for hits in outcomes)

    def test_a_handle_works_elsewhere_or_says_that_it_does_not(self, shared: VectorStore) -> None:
        shared.upsert(documents(3))
        outcome = elsewhere(shared.count)
        assert isinstance(outcome, InvalidInput) if shared.is_async else outcome == 3
        assert shared.count() == 3

    def test_a_scan_yields_what_is_present_throughout_once(self, shared: VectorStore) -> None:
        shared.upsert(documents(40, prefix="stays"))
        shared.upsert(documents(40, prefix="goes"))
        seen: Counter[str] = Counter()
        for document in shared.scan(batch_size=7):
            if not seen:
                shared.delete(ids=[f"goes{n}" for n in range(0, 40, 2)])
                shared.upsert(documents(40, prefix="comes"))
                shared.upsert(Document(f"stays{n}", "changed") for n in range(40))
            seen[document.id] += 1
        assert max(seen.values()) == 1
        assert {f"stays{n}" for n in range(40)} <= set(seen)
        assert {f"goes{n}" for n in range(1, 40, 2)} <= set(seen)

    def test_two_models_writers_and_two_fillers_end_with_right_vectors(
        self, harness: StoreHarness
    ) -> None:
        first, second = TaskBackend(), TaskBackend(UNLIKE, seed=5)
        old, new = harness.open("two", backend=first), harness.open("two", backend=second)
        old.upsert(documents(40))
        old.add_slot(UNLIKE)

        def rewrite() -> None:
            for round_ in range(4):
                old.upsert(Document(f"d{n}", f"old {round_} {n}") for n in range(20))
                old.delete(ids=[f"d{n}" for n in range(round_, 40, 8)])

        def write_both() -> None:
            for round_ in range(4):
                new.upsert(Document(f"d{n}", f"new {round_} {n}") for n in range(10, 30))
                new.update_metadata({"round": round_}, where=everything, merge=True)

        def fill() -> None:
            for _ in range(6):
                self._fill_once(old, second)

        outcomes = together([rewrite, write_both, fill, fill])
        assert _failures(outcomes) == []
        while self._fill_once(new, first) + self._fill_once(old, second):
            pass
        old.mark(UNLIKE, SlotState.READY)
        self._check_vectors(old, first)
        self._check_vectors(new, second)
        for store in (old, new):
            store.close()

    @staticmethod
    def _fill_once(store: VectorStore, backend: TaskBackend) -> int:
        """One pass over what is pending in the slot of ``backend``; how many rows that were."""
        rows, _ = store.pending(backend.space, limit=100)
        texts = [row.document.embedded_text for row in rows]
        store.fill(backend.space, rows, backend.embed_documents(texts))
        return len(rows)

    @staticmethod
    def _check_vectors(store: VectorStore, backend: TaskBackend) -> None:
        found = [document for document in store.scan(with_vectors=True)]
        assert found
        expected = backend.embed_documents([document.text for document in found])
        for document, vector in zip(found, expected, strict=True):
            assert document.vector is not None, document.id
            np.testing.assert_allclose(document.vector, vector, atol=1e-6)
        assert store.stale(backend.space, limit=100)[0] == []
