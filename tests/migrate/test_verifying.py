"""Verifications on every store: an honest migration passes, and each planted fault is named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import count, groupby
from pathlib import Path
from typing import Any

import orjson
import pytest
from qdrant_client import QdrantClient
from qdrant_client.models import Distance, PointStruct, PointVectors, VectorParams
from tests.audit.poisoning import change_text, documents, insert, poison
from tests.contract.ingesting import (
    ChunkBackend,
    Place,
    awaitable,
    elasticsearch_place,
    postgres_place,
    qdrant_place,
)
from tests.contract.test_elasticsearch_contract import raw
from tests.contract.test_pgvector_rights import Role, role
from tests.contract.test_qdrant_contract import prefix
from tests.faults.filling import fill

import samespace
from samespace import Document, Layout, Parent, VectorStore
from samespace.embedding import make_canary
from samespace.errors import InvalidInput, MigrationError, SpaceMismatch
from samespace.filters import field
from samespace.ingest.pipeline import LATE
from samespace.migrate import (
    Judgement,
    MigrationPlan,
    MigrationRun,
    Verification,
    asking,
    comparing,
    open_slot,
    plan,
    verification_page,
    verify,
)
from samespace.migrate.verification import CheckName
from samespace.protocols import NamesRights
from samespace.space import EmbeddingSpace
from samespace.testing.backends import UNLIKE, V3, DistortingBackend, RefusingBackend, TaskBackend

__all__ = ["prefix", "raw", "role"]  # fixtures
STORES: dict[str, Callable[[pytest.FixtureRequest], Place]] = {
    "PostgreSQL": postgres_place,
    "Qdrant local": qdrant_place,
    "Elasticsearch": elasticsearch_place,
}
ROWS = documents(40)
OLD = TaskBackend(UNLIKE, seed=1)
SEED = 2


def new(**options: Any) -> TaskBackend:
    """The target's model."""
    return TaskBackend(V3, seed=SEED, **options)


@pytest.fixture(params=STORES)
def place(request: pytest.FixtureRequest) -> Place:
    return STORES[request.param](request)


@pytest.fixture
def one(request: pytest.FixtureRequest) -> Place:
    """For what does not depend on the store."""
    return postgres_place(request)


def moved(place: Place, rows: Sequence[Document] = ROWS, **asked: Any) -> MigrationPlan:
    """A collection that was migrated, and its plan."""
    with place.open(OLD) as store:
        store.upsert(rows)
        planned = plan(store, new(), **asked)
        MigrationRun(store, new(), planned).run()
    return planned


def verified(
    place: Place, planned: MigrationPlan, backend: Any = None, **asked: Any
) -> Verification:
    """What is found, once it was written to a file and read again."""
    with place.open(OLD) as store:
        before = store.info()
        found = verify(
            store, backend or new(), planned, **{"repetitions": 1, "patience": 0, **asked}
        )
        assert store.info() == before
    assert found.plan == planned.hash
    again = Verification.from_dict(orjson.loads(orjson.dumps(found.to_dict())))
    assert again == found
    return found


def failing(found: Verification) -> list[CheckName]:
    return [each.name for each in found.failures]


def test_an_honest_migration_passes_and_says_what_was_looked_at(place: Place) -> None:
    planned = moved(place)
    seconds = count()
    told: list[str] = []
    found = verified(
        place,
        planned,
        thresholds=[0.3],
        repetitions=2,
        clock=lambda: float(next(seconds)),
        on_progress=lambda _, check: told.append(check),
    )
    assert failing(found) == []
    assert found.passed
    assert found.verdict.startswith("passed")
    checks = {each.name: each for each in found.collections[0].checks}
    unbound = {"overlap", "rank-shift", "judgements", "latency"}
    assert {name for name, each in checks.items() if each.passed is None} == unbound
    assert checks["sample"].figures["judged"] == len(ROWS)
    assert checks["self-retrieval"].figures["new"] == 1
    assert checks["overlap"].figures["queries"] == len(ROWS)
    assert checks["latency"].figures["new"] == {"p50": 1, "p95": 1}
    assert checks["latency"].figures["searches"] == 2 * 2 * len(ROWS)
    (threshold,) = found.collections[0].thresholds
    assert threshold.low is not None
    assert threshold.high is not None
    assert threshold.low <= threshold.new <= threshold.high
    assert found.tokens > 0
    assert told[:4] == ["pending", "stale", "canary", "sample"]


def test_a_text_that_changed_behind_its_vector_is_stale_or_pending(place: Place) -> None:
    planned = moved(place)
    if place.kind == "PgVectorStore":
        with place.open(OLD) as store:
            store.upsert([Document("d7", "something else")])  # which empties the other slot
    else:
        change_text(place, "d7", "something else")
    found = verified(place, planned)
    name: CheckName = "pending" if place.kind == "PgVectorStore" else "stale"
    assert name in failing(found)
    assert found.collections[0].check(name).figures["ids"] == ["d7"]


def test_a_vector_of_a_text_that_went_away_and_came_back_is_found(place: Place) -> None:
    planned = moved(place)
    returned = [Document("d7", "the text that was there for a moment")]
    poison(place, returned, new(), slot=V3.id)
    found = verified(place, planned)
    assert failing(found) == ["sample"]  # its source is that of the text that it has
    assert found.collections[0].check("sample").figures["ids"] == ["d7"]


def test_a_row_of_another_space_is_found(place: Place) -> None:
    planned = moved(place)
    poison(place, [ROWS[3], ROWS[30]], TaskBackend(V3, seed=99), slot=V3.id)
    found = verified(place, planned)
    sample = found.collections[0].check("sample")
    assert "sample" in failing(found)
    assert sorted(sample.figures["ids"]) == ["d3", "d30"]
    assert "2 of 40 vectors are not those of their texts" in sample.sentence


def test_a_row_without_a_vector_is_named(place: Place) -> None:
    planned = moved(place)
    id = insert(place, "a row that an application wrote", OLD, slot=UNLIKE.id)
    found = verified(place, planned)
    assert failing(found) == ["pending"]
    assert found.collections[0].check("pending").figures["ids"] == [id]


def test_what_a_follower_comes_to_meanwhile_is_no_failure(place: Place) -> None:
    planned = moved(place)
    waiting = [insert(place, f"written just now, {n}", OLD, slot=UNLIKE.id) for n in range(2)]
    with place.open(OLD) as store:

        def follow(_: str, check: str) -> None:
            if check != "sample":
                return
            rows, _cursor = store.pending(V3, limit=1)
            store.fill(V3, rows, new().embed_documents([row.document.text for row in rows]))

        found = verify(store, new(), planned, repetitions=1, patience=0, on_progress=follow)
        pending = found.collections[0].check("pending")
        assert pending.figures["settled"] == 1
        assert pending.figures["ids"][0] in waiting
        assert pending.passed is False
        assert verify(store, new(), planned, repetitions=1, on_progress=follow).passed


def test_a_text_that_was_cut_is_found_by_what_the_model_says_and_by_its_vector(
    place: Place,
) -> None:
    planned = moved(place)
    text = ROWS[5].text
    assert failing(verified(place, planned, new(truncated=[text]))) == ["truncated"]
    poison(place, [Document("d5", text.split()[0])], new(), slot=V3.id)
    assert "sample" in failing(verified(place, planned))


def test_a_backend_with_the_wrong_task_is_refused_or_found_by_its_vectors(place: Place) -> None:
    planned = moved(place)
    other = EmbeddingSpace(model=V3.model, dimensions=V3.dimensions, task="text-matching")
    with place.open(OLD) as store, pytest.raises(SpaceMismatch, match="text-matching") as error:
        verify(store, TaskBackend(other), planned)
    assert [each.field for each in error.value.differences] == ["task"]
    found = verified(place, planned, TaskBackend(V3, seed=99))  # it only says passage
    assert failing(found) == ["canary", "sample"]
    assert "what filled the slot" in found.collections[0].check("sample").sentence


def test_a_slot_that_was_filled_with_the_wrong_task_is_found(one: Place) -> None:
    with one.open(OLD) as store:
        store.upsert(ROWS)
        planned = plan(store, new())
        store.add_slot(V3, canary=make_canary(new()))
        fill(store, TaskBackend(V3, seed=99), lambda _: None)
    found = verified(one, planned)
    assert "sample" in failing(found)
    assert found.collections[0].check("canary").passed
    assert found.collections[0].check("sample").figures["foreign"] == len(ROWS)


def test_queries_and_judgements_are_asked_of_both_slots(one: Place) -> None:
    planned = moved(one)
    queries = [" ".join(row.text.split()[-5:]) for row in ROWS[:20]]
    judged = [Judgement(query=q, id=row.id, grade=1) for q, row in zip(queries, ROWS, strict=False)]
    judged += [Judgement(query=queries[0], id="gone", grade=3)]
    found = verified(one, planned, queries=queries, judgements=judged).collections[0]
    assert found.check("overlap").figures["queries"] == len(set(queries))
    assert found.check("overlap").figures["asked"] == "queries that were given"
    assert found.check("judgements").passed is True
    assert found.check("judgements").figures["pairs"] == len(set(queries))
    assert "1 judged rows are not there" in found.check("judgements").sentence
    for example in found.examples:
        assert example.overlap < 1
        assert len(example.old) == len(example.new) == 5


def test_a_new_slot_that_finds_less_fails(one: Place) -> None:
    planned = moved(one)
    others = [Document(row.id, ROWS[place - 1].text) for place, row in enumerate(ROWS)]
    poison(one, others, new(), slot=V3.id)  # every row has its neighbour's vector
    assert failing(verified(one, planned)) == ["sample", "self-retrieval"]


def test_without_a_backend_of_the_source_the_stored_vectors_ask(one: Place) -> None:
    planned = moved(one)
    with opened_without_backend(one) as store:
        found = verify(store, new(), planned, thresholds=[0.5]).collections[0]
    assert found.passed
    assert found.check("overlap").figures["queries"] == len(ROWS)
    assert "by their own vectors" in found.check("overlap").sentence
    for name in ("self-retrieval", "judgements", "thresholds"):
        assert found.check(name).passed is None
    assert "--old-backend" in found.check("self-retrieval").sentence
    assert "--old-backend" in found.check("thresholds").sentence


def opened_without_backend(place: Place) -> VectorStore:
    store: VectorStore = getattr(samespace, place.kind)(
        place.source, collection=place.collection, space=UNLIKE, **place.options
    )
    return store


def test_a_backend_that_is_not_the_sources_asks_nothing(one: Place) -> None:
    planned = moved(one)
    with one.open(TaskBackend(UNLIKE, seed=77)) as store:
        found = verify(store, new(), planned).collections[0]
    assert found.passed
    assert "otherwise than what filled the old slot" in found.check("self-retrieval").sentence


def test_only_the_planned_rows_are_looked_at(one: Place) -> None:
    rows = [Document(row.id, row.text, {"n": n % 2}) for n, row in enumerate(ROWS)]
    planned = moved(one, rows, where=field("n") == 1)
    poison(one, [ROWS[0]], TaskBackend(V3, seed=99), slot=V3.id)  # of the others
    found = verified(one, planned)
    assert failing(found) == []
    assert found.collections[0].rows == len(ROWS) // 2
    assert found.collections[0].check("sample").figures["judged"] == len(ROWS) // 2


def test_blank_rows_are_no_reason_to_fail(one: Place) -> None:
    planned = moved(one)
    with one.open(OLD) as store:
        store.upsert_vectors([Document("blank", " ")], [None], space=UNLIKE)
    found = verified(one, planned)
    assert failing(found) == []
    assert found.collections[0].check("pending").figures["blank"] == 1
    picture = DistortingBackend(OLD, documents=lambda _: OLD.embed_documents(["a picture, say"]))
    id = insert(one, " ", picture, slot=UNLIKE.id)
    found = verified(one, planned)
    assert failing(found) == ["pending"]
    assert f"no text to make another from: '{id}'" in found.failures[0].sentence


def test_a_text_that_the_backend_refuses_is_said(one: Place) -> None:
    class Refusing(RefusingBackend):
        def __init__(self) -> None:
            super().__init__("unwanted")
            self.__dict__.update(vars(new()))

    planned = moved(one, [*ROWS, Document("long", "an unwanted text")])
    found = verified(one, planned, Refusing())
    assert failing(found) == ["truncated"]
    assert "text refused" in found.failures[0].sentence


def test_what_was_not_run_or_is_not_planned_is_refused(one: Place) -> None:
    with one.open(OLD) as store:
        store.upsert(ROWS)
        planned = plan(store, new())
        with pytest.raises(MigrationError, match="samespace migrate run"):
            verify(store, new(), planned)
        with pytest.raises(InvalidInput, match="too; pass a handle"):
            verify([], new(), planned)
        with pytest.raises(InvalidInput, match="threshold"):
            verify(store, new(), planned, thresholds=[2])
        with pytest.raises(InvalidInput, match="no text"):
            verify(store, new(), planned, queries=[" "])


def test_an_open_slot_is_verified_as_one_that_is_filling(one: Place) -> None:
    planned = moved(one)
    with one.open(OLD) as store:
        open_slot(store, planned, force=True)
    assert failing(verified(one, planned)) == []


def test_a_file_of_a_passing_verification_opens_the_slot(one: Place) -> None:
    planned = moved(one)
    found = verified(one, planned)
    with one.open(OLD) as store:
        open_slot(store, planned, found)
    with one.open(new()) as opened:
        assert opened.search(ROWS[3].text, limit=1)[0].document.id == ROWS[3].id


def test_a_reader_s_rights_are_enough(one: Place, role: Role) -> None:
    planned = moved(one)
    with one.open(OLD) as store:
        assert isinstance(store, NamesRights)
        role.run(store.grants("reader", to=role.name).splitlines())
    theirs = replace(one, source=role.own_conninfo)
    with theirs.open(OLD) as store:
        assert verify(store, new(), planned, repetitions=1).passed


def test_an_empty_collection_passes(one: Place) -> None:
    with one.open(OLD) as store:
        store.create()
        planned = plan(store, new())
        store.add_slot(V3, canary=make_canary(new()))
    assert failing(verified(one, planned)) == []


def test_an_async_store_and_async_backends_are_verified(place: Place) -> None:
    planned = moved(place)
    opened = getattr(samespace, f"Async{place.kind}")(
        place.source, collection=place.collection, backend=awaitable(OLD), **place.options
    )
    found = verify(opened, awaitable(new()), planned)
    assert failing(found) == []
    assert found.collections[0].check("self-retrieval").passed


def test_chunks_that_were_embedded_together_are_so_again(one: Place) -> None:
    rows = [
        Document(f"p{n}-{k}", text, parent=Parent(f"p{n}", ordinal=k))
        for n, row in enumerate(ROWS[:12])
        for k, text in enumerate([row.text[:30], row.text[30:60], row.text[60:90]])
        if text.strip()
    ]
    model = ChunkBackend()
    with one.open(OLD) as store:
        store.upsert(rows)
        planned = plan(store, model)
        store.add_slot(V3, canary=make_canary(model), provenance=LATE)
        pending, _ = store.pending(V3, limit=1_000)
        pending.sort(key=lambda row: row.document.id)
        for _, chunks in groupby(pending, lambda row: row.document.id.split("-")[0]):
            together = list(chunks)
            (vectors,) = model.embed_chunks([[row.document.embedded_text for row in together]])
            store.fill(V3, together, vectors)
    assert failing(verified(one, planned, model)) == []
    with one.open(OLD) as store, pytest.raises(InvalidInput, match="embed_chunks"):
        verify(store, TaskBackend(), planned)
    poison(one, [rows[4]], TaskBackend(), slot=V3.id)  # alone, out of sight of the others
    found = verified(one, planned, model)
    assert found.collections[0].check("sample").figures["ids"] == [rows[4].id]


@pytest.mark.parametrize(
    ("size", "sample"),
    [(1_200, 50), pytest.param(100_000, 500, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])],
)
def test_memory_does_not_grow_with_rows(
    postgres: str, schema: str, tmp_path: Path, size: int, sample: int
) -> None:
    """A process of its own makes the table, so that its memory does not count."""
    place = {"conninfo": postgres, "schema": schema, "path": str(tmp_path / "plan")}
    asked = {**place, "size": size, "sample": sample}

    def run(part: str) -> str:
        command = [
            sys.executable,
            "-m",
            "tests.migrate.looking",
            json.dumps({"part": part, **asked}),
        ]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    run("make")
    seen = json.loads(run("verify"))
    assert seen["first"] == {"failing": [], "missing": 0, "judged": sample, "rows": size}
    assert seen["second"]["failing"] == ["pending"]
    assert seen["second"]["missing"] == size
    assert seen["peak"] <= 256 * 2**20


@pytest.mark.parametrize("slot", ["v", V3.id])
def test_a_vector_without_a_direction_is_reported_and_asks_nothing(
    tmp_path: Path, slot: str
) -> None:
    path, layout = str(tmp_path / "q"), Layout(id="doc", text="body", slot="v")
    with closing(QdrantClient(path=path)) as client:
        size = VectorParams(size=UNLIKE.dimensions, distance=Distance.COSINE)
        client.create_collection("docs", vectors_config={"v": size})
        made = zip(ROWS, OLD.embed_documents([row.text for row in ROWS]), strict=True)
        points = [
            PointStruct(id=n, payload={"doc": row.id, "body": row.text}, vector={"v": v.tolist()})
            for n, (row, v) in enumerate(made)
        ]
        client.upsert("docs", points)
    with samespace.QdrantStore(path, collection="docs", layout=layout, backend=OLD) as store:
        store.adopt()
        planned = plan(store, new())
        MigrationRun(store, new(), planned).run()
    with closing(QdrantClient(path=path)) as client:
        wrong = [0.0] * (UNLIKE if slot == "v" else V3).dimensions
        client.update_vectors("docs", [PointVectors(id=3, vector={slot: wrong})])
    with samespace.QdrantStore(path, collection="docs", layout=layout, space=UNLIKE) as store:
        found = verify(store, new(), planned, repetitions=1)
    assert failing(found) == ([] if slot == "v" else ["sample"])
    asked = found.collections[0].check("overlap").figures["queries"]
    assert asked == len(ROWS) - 1
    assert verification_page(found)


def test_judged_rows_beyond_the_plan_are_no_part_of_what_can_be_gained(one: Place) -> None:
    rows = [Document(row.id, row.text, {"n": n % 2}) for n, row in enumerate(ROWS)]
    planned = moved(one, rows, where=field("n") == 1)
    mine, others = rows[1::2], rows[::2]
    judged = [Judgement(query=row.text, id=row.id, grade=1) for row in mine]
    judged += [
        Judgement(query=row.text, id=other.id, grade=3)
        for row, other in zip(mine, others, strict=True)
    ]
    check = verified(one, planned, judgements=judged).collections[0].check("judgements")
    assert check.figures["new"] > 0.9  # with the others in it, at most 1 of 1 + 3 / log2(3)
    assert f"{len(others)} judged rows are not there, or not of the plan" in check.sentence


def test_judged_queries_beyond_those_that_are_asked_are_counted(
    one: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = moved(one)
    monkeypatch.setattr(comparing, "MOST_ASKED", 15)
    judged = [Judgement(query=row.text, id=row.id, grade=1) for row in ROWS]
    check = verified(one, planned, judgements=judged).collections[0].check("judgements")
    assert "over 14 judged queries (some of 40)" in check.sentence


def test_of_all_vectors_one_of_a_text_that_came_back_is_found(
    one: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "BATCH", 7)  # several pages
    planned = moved(one)
    assert verified(one, planned, sample="all").passed
    poison(one, [Document("d7", "the text that was there for a moment")], new(), slot=V3.id)
    check = verified(one, planned, sample="all").collections[0].check("sample")
    assert (check.passed, check.figures["ids"]) == (False, ["d7"])
    assert (check.figures["judged"], check.figures["population"]) == (len(ROWS), len(ROWS))
    assert "all were looked at" in check.sentence
    with one.open(OLD) as store, pytest.raises(InvalidInput, match="sample.*or 'all'"):
        verify(store, new(), planned, sample="some")  # type: ignore[arg-type]
