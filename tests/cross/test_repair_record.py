"""A record that is lost, unreadable or wrong is written anew out of the names of the slots."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.contract.pgvector import Harness as PostgresHarness
from tests.contract.test_elasticsearch_contract import Harness as ElasticsearchHarness
from tests.cross.conftest import make_harness

from samespace import Document, EmbeddingSpace, HashingBackend, Parent
from samespace.errors import CollectionNotFound, InvalidInput, SpaceMismatch, SpaceUnknown
from samespace.guard import SlotRecord, SlotState
from samespace.space import spaces_named
from samespace.testing.backends import UNLIKE, V3, DistortingBackend, TaskBackend

OTHER = EmbeddingSpace(model="jina-embeddings-v3", dimensions=64, task="text-matching")
TRIGGERS = "SELECT tgname FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal"
IDLE = """CREATE OR REPLACE FUNCTION {r}.{trigger}() RETURNS trigger LANGUAGE plpgsql AS
'BEGIN RETURN NEW; END'"""
ROWS = [Document("a", "the first text"), Document("b", "a second one")]


def made(harness: Any, *, backend: Any = None) -> Any:
    """A handle on a collection of two rows."""
    store = harness.open("made", backend=backend or TaskBackend())
    store.upsert(ROWS)
    return store


def reopened(harness: Any, backend: Any = None) -> Any:
    return harness.open("made", backend=backend or TaskBackend())


def without_canaries(record: Any) -> Any:
    slots = [
        {k: v for k, v in slot.items() if k not in {"canary", "provenance"}}
        for slot in record["slots"]
    ]
    return {**record, "slots": sorted(slots, key=lambda slot: str(slot["name"]))}


LOST: dict[str, Any] = {"lost": None, "unreadable": {"format": "one"}}


@pytest.mark.parametrize("record", LOST)
def test_slots_and_their_states_come_back(harness: Any, record: str) -> None:
    with made(harness) as store:
        store.add_slot(OTHER)
        rows, _ = store.pending(OTHER, limit=1)
        store.fill(OTHER, rows, TaskBackend(OTHER).embed_documents([rows[0].document.text]))
    before = harness.get_record("made")
    harness.set_record("made", LOST[record])
    with reopened(harness) as store, pytest.raises(SpaceUnknown, match="repair-record"):
        store.upsert(ROWS)
    with harness.open("made", space=UNLIKE) as store:
        slots = {slot.space: slot for slot in store.repair_record()}
    assert {space: (slot.state, slot.pending) for space, slot in slots.items()} == {
        V3: ("ready", 0),
        OTHER: ("filling", 1),
    }
    assert not any(slot.has_canary for slot in slots.values())
    assert without_canaries(harness.get_record("made")) == without_canaries(before)
    with reopened(harness) as store:
        assert store.search("second")[0].document.id == "b"
        store.upsert([Document("c", "a third")])
        assert store.count() == 3


def test_a_record_that_is_in_order_stays(harness: Any) -> None:
    with made(harness) as store:
        before = harness.get_record("made")
        (slot,) = store.repair_record()
        assert (slot.name, slot.has_canary) == (V3.id, True)
        assert harness.get_record("made") == before


def test_the_only_slot_is_ready_whatever_is_pending(harness: Any) -> None:
    with made(harness) as store:
        store.upsert_vectors([Document("c", "later")], [None], space=V3)
    harness.set_record("made", None)
    with reopened(harness) as store:
        (slot,) = store.repair_record()
        assert (slot.state, slot.pending) == ("ready", 1)
        assert store.search("first")


def test_a_slot_of_an_unknown_model_asks_for_its_space(harness: Any) -> None:
    made(harness, backend=TaskBackend(UNLIKE)).close()
    harness.set_record("made", None)
    with harness.open("made", space=V3) as store:
        with pytest.raises(SpaceUnknown, match=f"{UNLIKE.id}.*nothing was written.*--space"):
            store.repair_record()
        assert harness.get_record("made") is None
        with pytest.raises(SpaceUnknown, match=f"no slot .* is named {V3.id}"):
            store.repair_record(spaces=[UNLIKE, V3])
        assert harness.get_record("made") is None
        (slot,) = store.repair_record(spaces=[UNLIKE])
        assert slot.space == UNLIKE


@pytest.mark.parametrize("record", LOST)
def test_a_backend_is_compared_with_rows_before_anything_is_kept(harness: Any, record: str) -> None:
    made(harness).close()
    harness.set_record("made", LOST[record])
    with reopened(harness, TaskBackend(seed=1)) as store:
        with pytest.raises(SpaceMismatch, match=r"nothing was recorded.*2 rows.*cosine"):
            store.repair_record()
        with pytest.raises(SpaceUnknown):
            store.upsert(ROWS)
    assert harness.get_record("made") == LOST[record]
    with reopened(harness) as store:
        assert store.repair_record()[0].has_canary
    refused = pytest.raises(SpaceMismatch, match="embeds known texts")
    with reopened(harness, TaskBackend(seed=1)) as store, refused:
        store.search("first")


@pytest.mark.parametrize("pending", [False, True])
def test_without_vectors_nothing_speaks_against_the_canary(harness: Any, *, pending: bool) -> None:
    with harness.open("made", backend=TaskBackend()) as store:
        store.create()
        if pending:
            store.upsert_vectors(ROWS, [None] * len(ROWS), space=V3)
    before = harness.get_record("made")
    refused = pytest.raises(SpaceMismatch, match=r"stays as it is.*no row has a vector.*info")
    with reopened(harness, TaskBackend(seed=1)) as store, refused:
        store.repair_record()
    assert harness.get_record("made") == before


def test_queries_that_differ_alone_leave_the_canary_as_it_is(harness: Any) -> None:
    """No row shows how queries are to be embedded."""
    made(harness).close()
    before = harness.get_record("made")
    half = DistortingBackend(TaskBackend(), queries=lambda vectors: vectors[:, ::-1].copy())
    refused = pytest.raises(SpaceMismatch, match=r"stays as it is.*no rows of queries.*info")
    with reopened(harness, half) as store, refused:
        store.repair_record()
    assert harness.get_record("made") == before


def test_chunks_leave_a_canary_as_it_is(harness: Any) -> None:
    with reopened(harness) as store:
        store.upsert([Document("c", "a chunk", parent=Parent("p", 0))])
    before = harness.get_record("made")
    refused = pytest.raises(SpaceMismatch, match=r"stays as it is.*chunks.*info")
    with reopened(harness, TaskBackend(seed=1)) as store, refused:
        store.repair_record()
    assert harness.get_record("made") == before


def test_chunks_alone_prove_no_backend(harness: Any) -> None:
    with reopened(harness) as store:
        store.upsert([Document("c", "a chunk", parent=Parent("p", 0))])
    harness.set_record("made", None)
    with reopened(harness) as store:
        assert not store.repair_record()[0].has_canary


def test_a_slot_that_is_not_there_goes_out_of_the_record(harness: Any) -> None:
    made(harness).close()
    record = harness.get_record("made")
    gone = SlotRecord(name=OTHER.id, space=OTHER, state=SlotState.FILLING).to_dict()
    harness.set_record("made", {**record, "slots": [gone, *record["slots"]]})
    refused = pytest.raises(SpaceUnknown, match="repair-record")
    with reopened(harness, TaskBackend(OTHER)) as store, refused:
        store.upsert(ROWS)
    with reopened(harness) as store:
        store.repair_record()
    assert harness.get_record("made") == record


def test_collections_of_others_are_to_be_adopted(
    harness: Any, caplog: pytest.LogCaptureFixture
) -> None:
    backend = TaskBackend()
    row = Document("1", "a text", {"lang": "en", "year": 2020})
    name, layout = harness.make_foreign([row], backend.embed_documents([row.text]))
    with harness.open(name, backend=backend) as store, pytest.raises(SpaceUnknown, match=r"adopt"):
        store.repair_record()
    with harness.open(name, backend=backend, layout=layout) as store:
        with pytest.raises(InvalidInput, match=r"adopt"):
            store.repair_record()
        assert store.search("a text")
        assert "adopt() mends" in caplog.text
        with pytest.raises(SpaceUnknown, match=r"adopt\(\)") as caught:
            store.upsert([row])
        assert "repair" not in f"{caught.value} {caplog.text}"
        store.adopt()
        store.add_slot(OTHER)
    harness.set_record(name, None)
    with harness.open(name, backend=backend) as store, pytest.raises(SpaceUnknown, match=r"adopt"):
        store.repair_record()
    assert harness.get_record(name) is None
    with reopened(harness) as store, pytest.raises(CollectionNotFound):
        store.repair_record()


def test_a_text_that_changes_empties_its_slot_again(postgres: str, schema: str) -> None:
    """A restore without the registry's schema has no trigger either."""
    harness = PostgresHarness(postgres, schema)
    made(harness).close()
    harness.execute(
        "SET client_min_messages = warning; DROP SCHEMA {r} CASCADE", r=harness.registry
    )
    with reopened(harness) as store:
        assert store.search("first")
        store.repair_record()
        harness.set_text("made", "a", "another text")
        rows, _ = store.pending(V3, limit=10)
        assert [row.document.id for row in rows] == ["a"]


def test_a_trigger_that_is_lost_comes_back_though_the_record_is_in_order(
    postgres: str, schema: str
) -> None:
    harness = PostgresHarness(postgres, schema)
    made(harness).close()
    with reopened(harness) as store:
        for broken in (
            "DROP TRIGGER {trigger} ON {t}",
            "ALTER TABLE {t} DISABLE TRIGGER {trigger}",
            IDLE,
        ):
            ((trigger,),) = harness.execute(TRIGGERS, (f'"{schema}"."made"',))
            harness.execute(broken, t="made", r=harness.registry, trigger=trigger)
            store.repair_record()
            harness.set_text("made", "a", broken[:20])
            rows, _ = store.pending(V3, limit=10)
            assert [row.document.id for row in rows] == ["a"]
            store.upsert(ROWS)


def test_handles_ask_through_the_alias_again(request: pytest.FixtureRequest) -> None:
    harness = make_harness("Elasticsearch", request)
    assert isinstance(harness, ElasticsearchHarness)
    with made(harness) as store:
        store.add_slot(OTHER)
        store.drop_slot(OTHER)  # whose field stays
    name = harness.named("made")
    before = harness.client.indices.get_alias(index=name)[name]
    harness.client.indices.delete_alias(index=name, name="*")
    harness.client.indices.put_mapping(index=name, meta={"owner": "somebody"})
    with reopened(harness) as store:
        assert [slot.space for slot in store.repair_record()] == [V3]
    assert harness.client.indices.get_alias(index=name)[name] == before
    assert harness._mapping("made")["_meta"]["owner"] == "somebody"


@pytest.mark.parametrize("name", ["PostgreSQL", "Elasticsearch", "Qdrant REST"])
def test_several_at_once_write_one_record(name: str, request: pytest.FixtureRequest) -> None:
    harness: Any = make_harness(name, request)
    made(harness).close()
    harness.set_record("made", None)

    def repair(_: int) -> Any:
        with harness.open("made", space=UNLIKE) as store:
            return [slot.space for slot in store.repair_record()]

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(repair, range(4))) == [[V3]] * 4
    with reopened(harness) as store:
        assert [slot.state for slot in store.info().slots] == ["ready"]


@pytest.mark.parametrize(
    "space",
    [V3, OTHER, HashingBackend(256).space, EmbeddingSpace(model="jina-embeddings-v2-base-en", dimensions=768),
     EmbeddingSpace(model="jina-embeddings-v3", dimensions=1000, normalized=False),
     EmbeddingSpace(model="jina-code-embeddings-0.5b", dimensions=896, task="code2completion.passage"),
     EmbeddingSpace(model="jina-embeddings-v5-omni-small", dimensions=64, task="separation")],
    ids=str,
)  # fmt: skip
def test_a_slots_name_tells_its_space(space: EmbeddingSpace) -> None:
    assert spaces_named(space.id) == [space]


@pytest.mark.parametrize("name", ["", "embedding", UNLIKE.id, V3.id[:-1] + "x", f"x{V3.id}"])
def test_other_names_tell_of_none(name: str) -> None:
    assert spaces_named(name) == []
