# Generated from contract_guard_async.py by tools/generate_sync.py; change that file, not this one.
"""The promises about embedding spaces: records, refusals, handles that outlive a collection."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import pytest

from samespace.backends.caching import CachingBackend
from samespace.documents import Document
from samespace.errors import CollectionNotFound, InvalidInput, SpaceMismatch, SpaceUnknown
from samespace.filters import everything
from samespace.guard import FORMAT, SlotRecord, SlotState, SpaceRecord
from samespace.protocols import VectorStore
from samespace.space import EmbeddingSpace
from samespace.testing.backends import (
    UNLIKE,
    V3,
    ChangingBackend,
    LyingBackend,
    TaskBackend,
)
from samespace.testing.corpus import BAD_COLLECTION_NAMES, documents
from samespace.testing.gaps import DeclaresGaps
from samespace.testing.harness import StoreHarness

ROWS: Final = 6
OTHERS: Final[Mapping[str, EmbeddingSpace]] = {
    "model": replace(V3, model="another-model"),
    "dimensions": replace(V3, dimensions=32),
    "task": replace(V3, task="text-matching"),
    "normalized": replace(V3, normalized=False),
    "variant": replace(V3, variant="fine-tuned"),
}
"""Spaces that differ from :data:`V3` in one field."""
UNREADABLE: Final[Mapping[str, Callable[[dict[str, Any]], Any]]] = {
    "empty": lambda _: {},
    "no object": lambda _: "text",
    "a list": lambda record: [record],
    "no slots": lambda record: {**record, "slots": []},
    "slots left out": lambda record: {"format": record["format"]},
    "a newer format": lambda record: {**record, "format": FORMAT + 1},
    "a format that is text": lambda record: {**record, "format": "1"},
    "an unknown state": lambda record: _with(record, state="open"),
    "a name that is none": lambda record: _with(record, name=7),
    "a space without a model": lambda record: _with(record, space={"dimensions": 64}),
    "a canary cut short": lambda record: _with(record, canary={"documents": "AAAA"}),
    "a layout that is text": lambda record: {**record, "layout": "ours"},
    "a layout of nothing": lambda record: {**record, "layout": {}},
    "a layout that names no columns": lambda record: {
        **record,
        "layout": {"id": 7, "text": ["text"], "slot": "embedding"},
    },
}
"""What each makes of a record cannot be read."""


def _with(record: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**record, "slots": [{**record["slots"][0], **changes}]}


def _uses(store: VectorStore) -> Sequence[Callable[[], object]]:
    """What compares, writes or reads by the handle's space."""
    vector = TaskBackend(store.space).embed_query("text")
    return (
        lambda: store.search("text"),
        lambda: store.search_vector(vector, space=store.space),
        lambda: store.upsert([Document("x", "text")]),
        lambda: store.upsert_vectors([Document("x", "text")], [vector], space=store.space),
        lambda: store.update_metadata({"d0": {"k": 1}}),
        lambda: store.delete(where=everything),
        lambda: store.get(["d0"], with_vectors=True),
        lambda: store.pending(store.space, limit=1),
        lambda: store.stale(store.space, limit=1),
        lambda: store.drop_slot(store.space),
        lambda: store.mark(store.space, SlotState.READY),
        lambda: store.build_index(store.space),
    )


class GuardContract(DeclaresGaps):
    """One space in a collection, whoever asks."""

    @pytest.fixture
    def guarded(self, harness: StoreHarness) -> Iterator[VectorStore]:
        with harness.open("guarded", backend=TaskBackend()) as store:
            store.upsert(documents(ROWS))
            yield store

    @pytest.mark.usefixtures("guarded")
    @pytest.mark.parametrize("field", OTHERS)
    def test_spaces_that_differ_in_one_field_are_refused_everywhere(
        self, harness: StoreHarness, field: str
    ) -> None:
        offered = OTHERS[field]
        before = harness.dump("guarded"), harness.get_record("guarded")
        with harness.open("guarded", backend=TaskBackend(offered)) as other:
            for refused in (*_uses(other), other.create, other.info):
                with pytest.raises(SpaceMismatch) as caught:
                    refused()
                error = caught.value
                assert [difference.field for difference in error.differences] == [field]
                assert (error.stored, error.offered) == (V3, offered)
                verdict = "derivable" if field in {"dimensions", "normalized"} else "incompatible"
                assert f"verdict: {verdict}" in str(error)
        assert (harness.dump("guarded"), harness.get_record("guarded")) == before

    def test_equal_dimensions_do_not_make_spaces_equal(self, harness: StoreHarness) -> None:
        v2 = EmbeddingSpace(model="jina-embeddings-v2-base-en", dimensions=768)
        v3 = replace(V3, dimensions=768)
        with harness.open("guarded", backend=TaskBackend(v3)) as store:
            store.upsert(documents(1))
        with harness.open("guarded", backend=TaskBackend(v2)) as other:
            with pytest.raises(SpaceMismatch) as caught:
                other.search("text")
        assert [difference.field for difference in caught.value.differences] == ["model", "task"]
        for part in ("model", "task", "jina-embeddings-v3", "jina-embeddings-v2-base-en"):
            assert part in str(caught.value)

    @pytest.mark.usefixtures("guarded")
    @pytest.mark.parametrize("fault", UNREADABLE)
    def test_a_record_that_cannot_be_read_stops_everything(
        self, harness: StoreHarness, fault: str
    ) -> None:
        spoiled = UNREADABLE[fault](harness.get_record("guarded"))
        harness.set_record("guarded", spoiled)
        before = harness.dump("guarded")
        with harness.open("guarded", backend=TaskBackend()) as store:
            for refused in (*_uses(store), store.create, store.info, store.drop):
                with pytest.raises(SpaceUnknown, match="guarded"):
                    refused()
        assert harness.dump("guarded") == before
        assert harness.get_record("guarded") == spoiled

    @pytest.mark.usefixtures("guarded")
    def test_a_record_of_another_space_is_believed(self, harness: StoreHarness) -> None:
        record = SpaceRecord(slots=(SlotRecord(name=UNLIKE.id, space=UNLIKE),))
        harness.set_record("guarded", record.to_dict())
        with harness.open("guarded", backend=TaskBackend()) as store:
            for refused in _uses(store):
                with pytest.raises(SpaceMismatch, match="another-model"):
                    refused()

    @pytest.mark.usefixtures("guarded")
    def test_a_record_that_a_stranger_added_to_is_read(self, harness: StoreHarness) -> None:
        record = harness.get_record("guarded")
        harness.set_record("guarded", {**record, "note": "of somebody's"})
        with harness.open("guarded", backend=TaskBackend()) as store:
            assert len(store.search("text", limit=100)) == ROWS

    @pytest.mark.usefixtures("guarded")
    def test_without_a_record_nothing_is_changed_by_any_method(
        self, harness: StoreHarness, caplog: pytest.LogCaptureFixture
    ) -> None:
        harness.set_record("guarded", None)
        before = harness.dump("guarded")
        with harness.open("guarded", backend=TaskBackend()) as store:
            for change in (
                lambda: store.upsert(documents(1)),
                lambda: store.delete(where=everything),
                lambda: store.update_metadata({"d0": {}}),
                lambda: store.add_slot(UNLIKE),
                lambda: store.mark(V3, SlotState.READY),
                lambda: store.pending(V3, limit=1),
                store.create,
                store.drop,
            ):
                with pytest.raises(SpaceUnknown, match="guarded"):
                    change()
            with caplog.at_level(logging.WARNING, logger="samespace"):
                assert store.count() == ROWS
                assert len(store.search("a garden", limit=100)) == ROWS
            warned = [record for record in caplog.records if record.name == "samespace"]
            assert len(warned) == 1
        assert harness.dump("guarded") == before

    def test_slots_need_a_collection(self, harness: StoreHarness) -> None:
        with harness.open("nowhere", space=V3) as store:
            for refused in (
                lambda: store.add_slot(UNLIKE),
                lambda: store.drop_slot(V3),
                lambda: store.mark(V3, SlotState.READY),
                lambda: store.pending(V3, limit=1),
                lambda: store.stale(V3, limit=1),
                store.build_index,
            ):
                with pytest.raises(CollectionNotFound, match="nowhere"):
                    refused()

    def test_a_handle_outlives_its_collection_in_another_space(
        self, harness: StoreHarness, guarded: VectorStore
    ) -> None:
        warm = [harness.open("guarded", backend=TaskBackend()) for _ in _uses(guarded)]
        for store in warm:
            store.search("warm")
            store.pending(V3, limit=1)
        guarded.drop()
        with pytest.raises(CollectionNotFound):
            guarded.search("text")
        with harness.open("guarded", backend=TaskBackend(UNLIKE)) as new:
            new.upsert(documents(ROWS))
        before = harness.dump("guarded")
        for place, store in enumerate(warm):  # each with what it knew before
            with pytest.raises(SpaceMismatch):
                _uses(store)[place]()
            store.close()
        assert harness.dump("guarded") == before

    def test_a_handle_outlives_its_collection_in_the_same_space(
        self, harness: StoreHarness, guarded: VectorStore
    ) -> None:
        guarded.search("warm")
        with harness.open("guarded", backend=TaskBackend()) as another:
            another.drop()
            another.upsert(documents(2))
        assert len(guarded.search("text")) == 2
        assert guarded.upsert(documents(3)).written == 3
        assert guarded.count() == 3

    def test_a_slot_that_names_its_space_can_be_read_without_a_record(
        self, harness: StoreHarness, caplog: pytest.LogCaptureFixture
    ) -> None:
        with harness.open("guarded", backend=TaskBackend()) as store:
            store.upsert(documents(ROWS))
        harness.set_record("guarded", None)
        with harness.open("guarded", backend=TaskBackend()) as store:
            with caplog.at_level(logging.WARNING, logger="samespace"):
                assert store.search("a garden in the rain")[0].document.id == "d5"
            assert "no record" in caplog.text
        with harness.open("guarded", space=UNLIKE) as other:
            with pytest.raises(SpaceUnknown):
                other.count()

    def test_no_cache_answers_for_a_model_that_has_changed(self, harness: StoreHarness) -> None:
        honest = TaskBackend()
        model = ChangingBackend(honest)
        behind: Any = model
        cache = CachingBackend(CachingBackend(behind))
        for _ in range(2):
            with harness.open("guarded", backend=cache) as store:
                store.upsert(documents(3))
                assert len(store.search("text")) == 3
        assert len(honest.documents) == 3  # the cache answers what is asked again
        model.model = LyingBackend()
        with harness.open("guarded", backend=cache) as store:
            for _ in range(2):
                with pytest.raises(SpaceMismatch, match="suggests another model"):
                    store.upsert(documents(3))
                with pytest.raises(SpaceMismatch, match="suggests another model"):
                    store.search("text")

    def test_the_backend_must_be_of_the_space_that_is_said(self, harness: StoreHarness) -> None:
        with pytest.raises(SpaceMismatch):
            harness.open("guarded", backend=TaskBackend(), space=UNLIKE)
        with pytest.raises(InvalidInput, match="backend"):
            harness.open("guarded")

    @pytest.mark.parametrize("name", [*BAD_COLLECTION_NAMES, None, 7], ids=ascii)
    def test_a_bad_name_is_refused_before_anything_is_sent(
        self, harness: StoreHarness, name: Any
    ) -> None:
        with pytest.raises(InvalidInput):
            harness.open(name, space=V3)
