"""Audits and repairs of collections that a stranger has poisoned, on every store."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from tests.audit.poisoning import (
    NEW,
    OLD,
    change_text,
    client_of,
    documents,
    every,
    insert,
    model,
    poison,
    turned,
)
from tests.contract.ingesting import (
    PLACES,
    Bars,
    ChunkBackend,
    Place,
    awaitable,
    elasticsearch_place,
    postgres_place,
    qdrant_place,
    qdrant_server_place,
)
from tests.contract.test_elasticsearch_contract import raw
from tests.contract.test_qdrant_contract import prefix

import samespace
from samespace import Document, EmbeddingSpace, Layout
from samespace.audit import AuditJob, AuditReport, RepairJob, audit, check, repair
from samespace.audit.notes import AuditFile, Notes
from samespace.audit.repairing import RepairReport
from samespace.audit.verdicts import ANOTHER_LENGTH, ANOTHER_TASK, AS_QUERIES, NONE_OF_THEM, Verdict
from samespace.errors import BackendUnavailable, InvalidInput, SpaceMismatch, StoreUnavailable
from samespace.protocols import Matrix
from samespace.stores.qdrant.requests import point_id
from samespace.testing.backends import (
    V3,
    DistortingBackend,
    LyingBackend,
    RefusingBackend,
    TaskBackend,
)
from samespace.testing.corpus import texts

__all__ = ["prefix", "raw"]  # fixtures
STORES: dict[str, Callable[[pytest.FixtureRequest], Place]] = {
    "PostgreSQL": postgres_place,
    "Qdrant local": qdrant_place,
    "Qdrant REST": qdrant_server_place,
    "Elasticsearch": elasticsearch_place,
}
FULL = [pytest.mark.soak, pytest.mark.timeout(3600)]


@pytest.fixture(params=STORES)
def place(request: pytest.FixtureRequest) -> Place:
    return STORES[request.param](request)


@pytest.fixture
def one(request: pytest.FixtureRequest) -> Place:
    """For what does not depend on the store."""
    return PLACES[getattr(request, "param", "Qdrant local")](request)


def audited(place: Place, backend: Any, **asked: Any) -> AuditReport:
    with place.open(backend) as store:
        return audit(store, **asked)


def is_poisoned(place: Place, backend: Any, rows: Sequence[Document]) -> list[str]:
    """The rows whose stored vector is not the backend's, looked at without an audit."""
    with place.open(backend) as store:
        stored = {row.id: row.vector for row in store.scan(with_vectors=True)}
    own = backend.embed_documents([row.embedded_text for row in rows])
    return [
        row.id for row, vector in zip(rows, own, strict=True)
        if not np.allclose(np.asarray(stored[row.id]), vector, atol=1e-3)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "size", [pytest.param(300, id="small"), pytest.param(20_000, id="full", marks=FULL)]
)
def test_every_foreign_row_is_found_and_repaired_and_no_other(place: Place, size: int) -> None:
    if place.kind == "QdrantStore" and not place.source.startswith("http"):
        size = min(size // 3, 1_000)  # local mode syncs point by point and looks at all for each
    own, other, rows = model(NEW, 1), model(OLD, 2), documents(size)
    with place.open(own) as store:
        store.upsert(rows)
    report = AuditReport(collection=place.collection, space=NEW, population=size)
    for number in (100, 10, 2):
        bad = every(number, rows)
        poison(place, bad, other, slot=NEW.id)
        report = audited(place, own, sample="all", candidates=[other])
        check_findings(report, {row.id for row in bad}, size)
        with place.open(own) as store:
            mended = repair(store, report)
        assert (mended.repaired, mended.is_whole) == (report.foreign, True)
        assert is_poisoned(place, own, rows) == []
    with place.open(own) as store:
        again = repair(store, report)
        assert store.stale(NEW, limit=10) == ([], None)
        assert store.info().slots[0].pending == 0
    assert (again.repaired, again.right) == (0, report.foreign)
    assert audited(place, own, sample="all").foreign == 0


def check_findings(report: AuditReport, bad: set[str], size: int) -> None:
    found = set(report.ids(Verdict.FOREIGN))
    assert len(found & bad) >= 0.99 * len(bad)
    assert len(found - bad) <= 0.001 * size
    assert report.complete
    assert (report.looked_at, report.interval) == (size, None)
    assert report.likely == {str(OLD): len(found)}
    assert report.free is not None
    assert (report.free.recall, report.free.precision) == (1.0, 1.0)


def test_a_sample_bounds_the_share(one: Place) -> None:
    own, rows = model(NEW, 1), documents(400)
    with one.open(own) as store:
        store.upsert(rows)
    poison(one, every(10, rows), model(OLD, 2), slot=NEW.id)
    report = audited(one, own, sample=100)
    assert (report.sampled, report.looked_at) == (True, 100)
    low, high = report.interval or (1, 0)
    assert low <= report.share <= high  # type: ignore[operator]
    assert high - low < 0.25
    assert set(report.ids()) <= {row.id for row in every(10, rows)}


def test_a_small_sample_sees_the_last_keys_as_well_as_the_first(place: Place) -> None:
    rows = documents(200)
    with place.open(TaskBackend()) as store:
        store.upsert(rows)
        ordered = [row.document for row in store.filled(V3, limit=200)[0]]
    poison(place, ordered[-80:], LyingBackend(), slot=V3.id)
    drawn = [audited(place, TaskBackend(), sample=20) for _ in range(2)]
    assert 0 < sum(report.foreign for report in drawn) < 40  # but once in a billion runs
    assert drawn[0].interval is not None


def test_without_a_model_suspects_are_named_and_nothing_is_embedded(one: Place) -> None:
    own, rows = model(NEW, 1), documents(400)
    with one.open(own) as store:
        store.upsert(rows)
    poison(one, every(10, rows), model(OLD, 2), slot=NEW.id)
    silent = DistortingBackend(own, documents=lambda _: pytest.fail("a model was asked"))
    report = audited(one, silent, sample="all", only="free")
    assert set(report.ids(Verdict.SUSPECT)) == {row.id for row in every(10, rows)}
    assert (report.foreign, report.judged, report.share) == (0, 0, None)


def test_a_foreign_vector_is_told_by_what_it_resembles(one: Place) -> None:
    rows = documents(40)
    backend = TaskBackend()
    with one.open(backend) as store:
        store.upsert(rows)
    poison(one, rows[:1], Queries(backend), slot=V3.id)
    halfway = DistortingBackend(backend, documents=lambda own: turned(own, 0.63))
    poison(one, rows[1:2], halfway, slot=V3.id)
    poison(one, rows[2:3], LyingBackend(), slot=V3.id)
    found = {
        each.id: each.likely
        for each in audited(one, backend, sample=None, threshold=0.999).findings
    }
    assert found == {"d0": AS_QUERIES, "d1": ANOTHER_TASK, "d2": NONE_OF_THEM}


def test_what_an_audit_costs_and_whom_it_could_not_ask_is_told(one: Place) -> None:
    rows = documents(40)
    with one.open(TaskBackend()) as store:
        store.upsert(rows)
    poison(one, rows[:10], LyingBackend(), slot=V3.id)
    asked = 0

    def fail_once(_: object) -> Any:
        nonlocal asked
        asked += 1
        raise BackendUnavailable("it is down")

    down = samespace.CallableBackend(OLD, fail_once)
    backend = Paid()
    report = audited(one, backend, sample="all", batch_size=5, candidates=[down])
    assert (report.foreign, report.unasked, asked) == (10, {str(OLD): "it is down"}, 1)
    assert f"  not compared with {OLD}: it is down" in report.lines()
    assert AuditReport.from_dict(report.to_dict()) == report
    assert backend.spent == report.tokens


class Paid(TaskBackend):
    """Counts what all calls cost."""

    def __init__(self) -> None:
        super().__init__()
        self.spent = 0

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        found = super().embed_documents(texts)
        self.spent += self.usage().tokens
        return found

    def embed_queries(self, texts: Sequence[str]) -> Matrix:
        found = super().embed_queries(texts)
        self.spent += self.usage().tokens
        return found


class Queries(DistortingBackend):
    """Embeds documents as queries."""

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        return self.embed_queries(texts)


def test_a_text_changed_behind_its_vector_is_stale_and_not_foreign(place: Place) -> None:
    backend, rows = TaskBackend(), documents(30)
    with place.open(backend) as store:
        store.upsert(rows)
    if place.kind == "PgVectorStore":
        pytest.importorskip("psycopg")
        return  # there a trigger empties the slot: pending, and counted as such below
    change_text(place, "d3", "the whole text is another one now")
    report = audited(place, backend, sample="all")
    assert (report.stale, report.foreign, report.ids()) == (1, 0, ["d3"])
    with place.open(backend) as store:
        assert repair(store, stale=True).repaired == 1
        assert store.stale(V3, limit=10) == ([], None)
        assert repair(store, report).right == 1
    assert audited(place, backend, sample="all").judged == 30


def test_what_cannot_be_judged_or_has_no_vector_is_counted_apart(place: Place) -> None:
    rows = documents(20)
    backend = RefusingBackend("part 7")
    with place.open(TaskBackend()) as store:
        store.upsert(rows)
        store.upsert_vectors([Document("none", "of its own")], [None], space=V3)
    report = audited(place, backend, sample="all")
    assert report.counts == dict.fromkeys(map(str, Verdict), 0) | {"agrees": 19, "unjudged": 1}
    assert {each.id for each in report.findings} == {"d7"}
    assert report.pending == 1
    with place.open(backend) as store:
        mended = repair(store, ["d1", "d7", "none", "gone"], pending=True)
    assert (mended.right, mended.repaired, mended.deleted) == (1, 1, ("gone",))
    assert [id for id, _ in mended.refused] == ["d7"]
    assert not mended.is_whole


def test_rows_that_a_stranger_inserted_are_found_and_repaired_like_others(place: Place) -> None:
    with place.open(TaskBackend()) as store:
        store.upsert(documents(20))
    id = insert(place, "a text of their own", LyingBackend(), slot=V3.id)
    report = audited(place, TaskBackend(), sample="all")
    assert (report.ids(), report.foreign) == ([id], 1)
    assert audited(place, TaskBackend(), sample=20).looked_at == 20
    with place.open(TaskBackend()) as store:
        assert [row.id for row in store.get([id])] == [id]
        assert repair(store, report).is_whole
        assert store.info().slots[0].pending == 0
        assert store.stale(V3, limit=10) == ([], None)
        assert repair(store, [id]).repaired == 0
    assert audited(place, TaskBackend(), sample="all").counts[Verdict.AGREES] == 21


def test_a_vector_that_is_not_finite_is_found_and_repaired(request: pytest.FixtureRequest) -> None:
    place, rows = qdrant_server_place(request, grpc=True), documents(30)
    with place.open(TaskBackend()) as store:
        store.upsert(rows)
    client = QdrantClient(
        url=place.source, prefer_grpc=True, check_compatibility=False, **place.options
    )
    with closing(client):
        points, _ = client.scroll(place.collection, limit=2)
        nowhere = [float("nan")] * V3.dimensions
        changes = [models.PointVectors(id=point.id, vector={V3.id: nowhere}) for point in points]
        client.update_vectors(place.collection, changes, wait=True)
    report = audited(place, TaskBackend(), sample="all")
    assert (report.foreign, report.counts[Verdict.CHANGED]) == (2, 0)
    with place.open(TaskBackend()) as store:
        assert repair(store, report).repaired == 2
    assert audited(place, TaskBackend(), sample="all").counts[Verdict.AGREES] == 30


# Chunks that were embedded together


def test_chunks_that_see_one_another_are_judged_and_repaired_by_document(place: Place) -> None:
    backend = ChunkBackend()
    sources = [
        Document(f"d{n}", "".join(f"piece {p} of {n}|" for p in range(3))) for n in range(12)
    ]
    place.run(backend, sources, chunker=Bars(), late_chunking=True)
    report = audited(place, backend, sample="all", batch_size=7)
    assert (report.judged, report.foreign) == (36, 0)
    assert len(backend.together) == 24  # once by the job, and once by the audit
    assert audited(place, backend, sample=9).foreign == 0
    with place.open(backend) as store:
        chunks = [row for row in store.scan() if row.id in {"d3#1", "d5#0"}]
    poison(place, chunks, LyingBackend(), slot=V3.id)
    report = audited(place, backend, sample="all", batch_size=7)
    assert set(report.ids()) == {"d3#1", "d5#0"}
    with place.open(backend) as store:
        assert repair(store, report).repaired == 2
    assert audited(place, backend, sample="all").foreign == 0
    with pytest.raises(InvalidInput, match="has no embed_chunks"):
        audited(place, TaskBackend(), sample="all")


def test_chunks_embedded_alone_would_all_look_foreign(one: Place) -> None:
    with one.open(TaskBackend()) as store:  # which says nothing of late chunking
        store.create()
    rows = [Document(f"d{n}", f"piece {n}", parent=samespace.Parent("d", n)) for n in range(20)]
    vectors = ChunkBackend().embed_chunks([[row.text for row in rows]])[0]
    with one.open(TaskBackend()) as store:
        store.upsert_vectors(rows, vectors, space=V3)
    assert audited(one, ChunkBackend(), sample="all").foreign == 20


# Writers at work


class Overtaken(TaskBackend):
    """While it embeds for the first time, somebody writes."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self.act: Callable[[], object] | None = act

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        if self.act is not None and any("part" in text for text in texts):
            act, self.act = self.act, None
            act()
        return super().embed_documents(texts)


@pytest.fixture
def shared(request: pytest.FixtureRequest) -> Iterator[Callable[[Place, Any], Any]]:
    """Handles that may be open at once: in local mode these are of one client."""
    clients: dict[str, QdrantClient] = {}

    def opened(place: Place, backend: Any) -> Any:
        if place.kind != "QdrantStore" or place.source.startswith("http"):
            return place.open(backend)
        if place.source not in clients:
            clients[place.source] = QdrantClient(path=place.source)
        client = clients[place.source]
        return samespace.QdrantStore(client, collection=place.collection, backend=backend)

    yield opened
    for client in clients.values():
        client.close()


def test_a_writer_at_work_is_not_overwritten(place: Place, shared: Any) -> None:
    rows = documents(12)
    with place.open(TaskBackend()) as store:
        store.upsert(rows)
    poison(place, rows[:4], LyingBackend(), slot=V3.id)
    changed = Document("d0", "another text, of a writer at work")

    def write() -> None:
        with shared(place, TaskBackend()) as writer:
            writer.upsert([changed])
            writer.delete(ids=["d1"])

    with shared(place, Overtaken(write)) as store:
        mended = repair(store, [row.id for row in rows[:4]])
        assert store.get(["d0", "d1"]) == [changed]
    assert mended.looked_again >= 1
    assert (mended.deleted, mended.unsettled) == (("d1",), ())
    with shared(place, TaskBackend()) as store:
        report = audit(store, sample="all")
    assert report.counts[Verdict.AGREES] == 11


def test_of_two_repairs_at_once_each_counts_what_it_wrote(place: Place, shared: Any) -> None:
    rows = documents(6)
    with place.open(TaskBackend()) as store:
        store.upsert(rows)
    poison(place, rows[:4], LyingBackend(), slot=V3.id)
    others: list[RepairReport] = []

    def repair_two() -> None:
        with shared(place, TaskBackend()) as other:
            others.append(repair(other, ["d0", "d1"]))

    with shared(place, Overtaken(repair_two)) as store:
        mine = repair(store, [row.id for row in rows])
    assert [(each.repaired, each.right) for each in (mine, *others)] == [(2, 4), (2, 0)]
    assert (mine.is_whole, mine.looked_again) == (True, 2)


def test_a_row_that_is_written_while_it_is_judged_is_no_finding(place: Place, shared: Any) -> None:
    rows = documents(12)
    with place.open(TaskBackend()) as store:
        store.upsert(rows)

    def write() -> None:
        with shared(place, TaskBackend()) as writer:
            writer.upsert([Document("d0", "another text")])
            writer.delete(ids=["d1"])

    with shared(place, Overtaken(write)) as store:
        poisoned = LyingBackend().embed_documents([rows[0].text])
        store.upsert_vectors([rows[0]], poisoned, space=V3)
        report = audit(store, sample="all")
    assert report.foreign == 0
    assert report.counts[Verdict.CHANGED] == 1


def test_a_row_that_cannot_be_embedded_any_more_is_not_called_repaired(
    one: Place, shared: Any
) -> None:
    rows = documents(4)
    with one.open(TaskBackend()) as store:
        store.upsert(rows)
    poison(one, rows[:2], LyingBackend(), slot=V3.id)

    class Overtaking(RefusingBackend):
        """Gets a text that it refuses while it embeds the one before."""

        def embed_documents(self, texts: Sequence[str]) -> Matrix:
            if rows[0].text in texts:
                with shared(one, TaskBackend()) as writer:
                    writer.upsert_vectors([Document("d0", "a poison")], [None], space=V3)
            return super().embed_documents(texts)

    with shared(one, Overtaking("poison")) as store:
        mended = repair(store, ["d0", "d1"])
    assert (mended.repaired, [id for id, _ in mended.refused]) == (1, ["d0"])


def test_what_an_id_does_not_lead_to_is_told_and_not_called_right(one: Place) -> None:
    with one.open(TaskBackend()) as store:
        store.upsert(documents(4))
    twin = models.PointStruct(
        id=7, payload={"text": "a twin", "samespace": {"id": "d3"}}, vector={}
    )
    with closing(client_of(one)) as client:
        client.upsert(one.collection, [twin], wait=True)
    with one.open(TaskBackend()) as store:
        mended = repair(store, pending=True)
        assert (mended.asked, mended.unreachable, mended.is_whole) == (1, ("7",), False)
        assert (mended.right, mended.deleted, mended.repaired) == (0, (), 0)


def test_two_points_with_one_id_are_told_from_one_that_changed(one: Place) -> None:
    """The second is a copy, with the payload of the first and a vector of another model."""
    with one.open(TaskBackend()) as store:
        store.upsert(documents(4))
    wrong = LyingBackend().embed_documents([documents(4)[3].text])[0]
    twin, key = str(uuid.uuid4()), V3.id
    with closing(client_of(one)) as client:
        points, _ = client.scroll(one.collection, limit=10, with_payload=True)
        (copied,) = [p.payload for p in points if (p.payload or {})["samespace"]["id"] == "d3"]
        made = models.PointStruct(id=twin, payload=copied, vector={key: wrong.tolist()})
        client.upsert(one.collection, [made], wait=True)
    with one.open(TaskBackend()) as store:
        found = audit(store, sample="all")
        for each in (found, audit(store, sample=5)):
            told = [(each.id, each.verdict, "'d3'" in each.likely) for each in each.findings]
            assert told == [(twin, Verdict.DUPLICATE, True)]
        assert f"store.delete(ids=['{twin}'])" in "\n".join(found.lines())
        mended = repair(store, found)
        assert (mended.asked, mended.unreachable, mended.deleted) == (1, (twin,), ())
        assert (store.get([twin])[0].id, store.get(["d3"])[0].id) == (twin, "d3")
        physical = str(point_id("d0"))
        assert (store.get([physical]), store.delete(ids=[physical])) == ([], 0)
        assert store.delete(ids=[twin]) == 1
        assert audit(store, sample="all").counts[Verdict.AGREES] == store.count() == 4


@pytest.mark.parametrize("one", ["Qdrant local", "Qdrant REST"], indirect=True)
@pytest.mark.parametrize(("batch", "has_vector"), [(1, True), (10, True), (1, False)])
def test_a_foreign_row_whose_id_others_have_is_named_and_never_called_right(
    one: Place, batch: int, has_vector: bool
) -> None:
    """The id is in the payload, which nothing keeps unique; the wrong point is the first of the two."""
    rows = [Document(f"k{n}", text) for n, text in enumerate(texts(5))]
    right = TaskBackend().embed_documents([row.text for row in rows])
    wrong = LyingBackend().embed_documents([rows[3].text])[0]
    points = [
        models.PointStruct(
            id=n + 10, payload={"key": row.id, "text": row.text}, vector={"v": vector.tolist()}
        )
        for n, (row, vector) in enumerate(zip(rows, right, strict=True))
    ]
    points.append(points[3].model_copy(update={"id": 2, "vector": {"v": wrong.tolist()}}))
    if not has_vector:
        points[3] = points[3].model_copy(update={"vector": {}})
    size = models.VectorParams(size=V3.dimensions, distance=models.Distance.COSINE)
    with closing(client_of(one)) as client:
        client.create_collection(one.collection, vectors_config={"v": size})
        client.upsert(one.collection, points, wait=True)
    layout = Layout(id="key", text="text", slot="v", metadata=())
    with one.open(TaskBackend(), layout=layout) as store:
        store.adopt()
        found = audit(store, sample="all", batch_size=batch)
        assert found.foreign == 0
        assert {(each.id, each.verdict) for each in found.findings} == {("k3", Verdict.DUPLICATE)}
        assert found.findings[0].points == ("2", "13")
        said = "\n".join(found.lines())
        assert f"client.delete({one.collection!r}, points_selector=[…])" in said
        assert ("2, 13" in said, "store.delete" in said) == (True, False)
        assert AuditReport.from_dict(found.to_dict()) == found
        for named in (found, ["k3"], AuditReport.from_dict(found.to_dict())):
            mended = repair(store, named)
            assert (mended.right, mended.repaired, mended.deleted) == (0, 0, ())
            assert (mended.unreachable, mended.is_whole) == (("k3",), False)
            assert mended.shared == (("k3", ("2", "13")),)
        assert repair(store, ["k2", "k3", "k4"]).right == 2


def test_a_vector_of_another_length_is_foreign_where_lengths_say_something(place: Place) -> None:
    backend = TaskBackend(EmbeddingSpace(model="of-lengths", dimensions=64, normalized=False))
    lengthened = DistortingBackend(backend, documents=lambda made: made * np.float32(7.5))
    rows = documents(20)
    with place.open(lengthened) as store:
        store.upsert_vectors(
            rows, lengthened.embed_documents([row.text for row in rows]), space=backend.space
        )
    wrong = rows[3:6]
    with place.open(lengthened) as store:
        store.upsert_vectors(
            wrong, backend.embed_documents([row.text for row in wrong]), space=backend.space
        )
        found = audit(store, sample="all")
        told = {(each.id, each.verdict, each.likely) for each in found.findings}
        assert told == {(row.id, Verdict.FOREIGN, ANOTHER_LENGTH) for row in wrong}
        assert repair(store, found).repaired == 3
        assert audit(store, sample="all").counts[Verdict.AGREES] == 20


# How it is checked


def test_no_cosine_that_is_refused_reads_like_the_bound(one: Place) -> None:
    with one.open(TaskBackend()) as store:
        store.upsert(documents(3))
    near = DistortingBackend(TaskBackend(), documents=lambda made: turned(made, 0.99496))
    with one.open(TaskBackend()) as store:
        (said,) = check(store, backend=near).problems
    assert re.search(r"cosine 0\.9949\d*, at least 0\.995 expected", said)


# How it runs


def test_the_handle_says_how_near_a_backend_must_be(one: Place) -> None:
    rows = documents(30)
    with one.open(TaskBackend()) as store:
        store.upsert(rows)
    poison(one, rows[:2], LyingBackend(), slot=V3.id)
    quantised = DistortingBackend(
        TaskBackend(),
        documents=lambda own: turned(own, 0.99),
        queries=lambda own: turned(own, 0.99),
    )
    with one.open(quantised) as store, pytest.raises(SpaceMismatch):
        audit(store)
    with one.open(quantised) as store:
        assert "cosine 0.990, at least 0.995" in check(store).problems[0]
        assert check(store, threshold=0.98).is_fine
    with one.open(quantised, canary_threshold=0.985) as store:
        assert (store.canary_threshold, check(store).is_fine) == (0.985, True)
        assert audit(store, sample="all").foreign == 2
        mended = repair(store, [row.id for row in rows])
        assert (mended.repaired, mended.right) == (2, 28)


def test_a_canary_that_misses_its_bound_does_not_read_like_it(one: Place) -> None:
    with one.open(TaskBackend()) as store:
        store.create()
        near = DistortingBackend(TaskBackend(), documents=lambda own: turned(own, 0.99))
        cosine = check(store, backend=near, threshold=0.9).canary["documents"]
        least = math.nextafter(cosine, 1)
        found = check(store, backend=near, threshold=least)
    assert not found.is_fine
    assert float(found.problems[0].partition("cosine ")[2].partition(",")[0]) < least


def test_what_an_audit_calls_foreign_is_not_right_whatever_the_handle_permits(one: Place) -> None:
    backend, rows = TaskBackend(), documents(4)
    with one.open(backend) as store:
        store.upsert(rows)
    near = DistortingBackend(backend, documents=lambda own: turned(own, 0.9))
    poison(one, rows[:1], near, slot=V3.id)
    with one.open(backend, canary_threshold=0.5) as store:
        report = audit(store, sample="all")
        assert (report.ids(), repair(store, report).repaired) == (["d0"], 1)


def test_a_dry_run_writes_nothing(one: Place) -> None:
    rows, backend = documents(10), TaskBackend()
    with one.open(backend) as store:
        store.upsert(rows)
    poison(one, rows[:3], LyingBackend(), slot=V3.id)
    before = one.stored()
    with one.open(backend) as store:
        report = repair(store, [row.id for row in rows], dry_run=True)
    assert (report.repaired, report.right) == (3, 7)
    assert one.stored() == before


@pytest.mark.parametrize("kind", ["PostgreSQL, async", "Qdrant local, async"])
def test_an_async_store_and_backend_are_audited_and_repaired_too(
    request: pytest.FixtureRequest, kind: str
) -> None:
    place, rows = PLACES[kind](request), documents(20)
    with place.open(TaskBackend()) as store:
        store.upsert(rows)
    poison(place, rows[:2], LyingBackend(), slot=V3.id)

    def opened() -> Any:
        cls = getattr(samespace, f"Async{place.kind}")
        backend = awaitable(TaskBackend())
        return cls(place.source, collection=place.collection, backend=backend, **place.options)

    report = AuditJob(opened(), sample="all").run()
    assert report.foreign == 2
    assert RepairJob(opened(), report).run().repaired == 2


def test_a_budget_ends_an_audit_and_the_next_goes_on(one: Place, tmp_path: Path) -> None:
    rows, point = documents(50), tmp_path / "point"
    with one.open(TaskBackend()) as store:
        store.upsert(rows)
    poison(one, every(10, rows), LyingBackend(), slot=V3.id)
    asked: dict[str, Any] = {"sample": "all", "checkpoint": point, "batch_size": 10}
    first = audited(one, TaskBackend(), budget_tokens=60, **asked)
    assert (first.complete, first.stopped) == (False, "budget")
    backend = TaskBackend()
    last = audited(one, backend, **asked)
    assert last.resumed_at == first.looked_at > 0
    assert len(backend.documents) == 50 - first.looked_at
    assert (last.foreign, last.looked_at) == (5, 50)
    assert [each.id for each in AuditFile(point).findings] == last.ids()


def test_an_audit_that_failed_at_its_very_end_counts_nothing_twice(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point, rows = tmp_path / "point", documents(40)
    with place.open(TaskBackend()) as store:
        store.upsert(rows)
    poison(place, every(10, rows), LyingBackend(), slot=V3.id)
    asked: dict[str, Any] = {"sample": "all", "checkpoint": point, "batch_size": 10}
    with place.open(TaskBackend()) as store:
        with monkeypatch.context() as patch:
            patch.setattr(store, "stale", lambda *_, **__: fail(StoreUnavailable("it is down")))
            with pytest.raises(StoreUnavailable):
                audit(store, **asked)
        backend = TaskBackend()
        report = audit(store, backend=backend, **asked)
    assert (report.looked_at, report.population, report.foreign) == (40, 40, 4)
    assert (report.resumed_at, report.embedded) == (40, 0)


def fail(error: BaseException) -> Any:
    raise error


def test_an_audit_that_fails_at_once_leaves_what_the_one_before_has_found(
    one: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point, rows = tmp_path / "point", documents(40)
    with one.open(TaskBackend()) as store:
        store.upsert(rows)
    poison(one, rows[:3], LyingBackend(), slot=V3.id)
    asked: dict[str, Any] = {"sample": "all", "checkpoint": point}
    found = audited(one, TaskBackend(), **asked).ids()
    with one.open(TaskBackend()) as store:
        with pytest.raises(SpaceMismatch):
            audit(store, backend=LyingBackend(), **asked)
        with monkeypatch.context() as patch:
            patch.setattr(store, "sample", lambda *_, **__: fail(StoreUnavailable("it is down")))
            with pytest.raises(StoreUnavailable):
                audit(store, **asked)
        with AuditFile(point).found(collection=store.collection, space=V3.id) as kept:
            assert repair(store, [each.id for each in kept]).repaired == len(found) == 3
    assert audited(one, TaskBackend(), **asked).foreign == 0
    assert list(AuditFile(point).findings) == []


def test_a_kill_between_findings_and_checkpoint_leaves_no_contradiction(
    one: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point, rows = tmp_path / "point", documents(40)
    with one.open(TaskBackend()) as store:
        store.upsert(rows)
    change_text(one, "d3", "the whole text is another one now")
    poison(one, rows[10:12], LyingBackend(), slot=V3.id)
    with monkeypatch.context() as patch:
        patch.setattr(Notes, "complete", lambda _: fail(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            audited(one, TaskBackend(), sample=39, checkpoint=point)
    report = audited(one, TaskBackend(), sample=39, checkpoint=point)
    found = [each.verdict for each in report.findings]
    assert report.foreign + report.stale == len(found)
    assert (report.foreign, report.stale) == (
        found.count(Verdict.FOREIGN), found.count(Verdict.STALE)
    )  # fmt: skip


def test_a_sample_goes_on_with_the_rows_that_were_drawn(place: Place, tmp_path: Path) -> None:
    point = tmp_path / "point"
    with place.open(TaskBackend()) as store:
        store.upsert(documents(30))
    inserted = insert(place, "a text of their own", LyingBackend(), slot=V3.id)
    asked: dict[str, Any] = {"sample": 30, "checkpoint": point, "batch_size": 10}
    first = audited(place, TaskBackend(), budget_tokens=1, **asked)
    assert (first.looked_at, first.sampled, first.population) == (10, True, 31)
    last = audited(place, TaskBackend(), **asked)
    assert (last.looked_at, last.judged, last.resumed_at) == (30, 30, 10)
    assert set(last.ids()) <= {inserted}


@pytest.mark.parametrize("are_gone", [False, True])
def test_a_sample_that_goes_on_knows_the_twins_that_were_drawn(
    one: Place, tmp_path: Path, are_gone: bool
) -> None:
    rows, twins = documents(4), [str(uuid.uuid4()) for _ in range(4)]
    with one.open(TaskBackend()) as store:
        store.upsert(rows)
    vectors = TaskBackend().embed_documents([row.text for row in rows])
    made = [
        models.PointStruct(
            id=twin,
            payload={"text": row.text, "samespace": {"id": row.id}},
            vector={V3.id: vector.tolist()},
        )
        for twin, row, vector in zip(twins, rows, vectors, strict=True)
    ]
    with closing(client_of(one)) as client:
        client.upsert(one.collection, made, wait=True)
    asked: dict[str, Any] = {"sample": 7, "checkpoint": tmp_path / "point", "batch_size": 1}

    def stop_after_one(report: AuditReport) -> None:
        if report.looked_at:
            raise InterruptedError

    with one.open(TaskBackend()) as store:
        with pytest.raises(InterruptedError):
            audit(store, on_progress=stop_after_one, **asked)
        if are_gone:
            assert store.delete(ids=twins) == 4
        done = audit(store, **asked)
    assert (done.resumed_at, done.looked_at) == (1, 7)
    lost = done.counts[Verdict.CHANGED]
    assert (lost >= 2) if are_gone else (lost == 0)
    assert done.counts[Verdict.AGREES] == 7 - lost - done.counts[Verdict.DUPLICATE]


@pytest.mark.parametrize("foreign", [9, 10])
def test_an_audit_goes_on_after_what_it_found_so_far_is_repaired(
    one: Place, tmp_path: Path, foreign: int
) -> None:
    point = tmp_path / "point"
    with one.open(TaskBackend()) as store:
        store.upsert(documents(40))
        first = [row.document for row in store.filled(V3, limit=10)[0]]
    poison(one, first[:foreign], LyingBackend(), slot=V3.id)
    asked: dict[str, Any] = {"sample": "all", "checkpoint": point, "batch_size": 10}
    begun = audited(one, TaskBackend(), budget_tokens=1, **asked)
    with one.open(TaskBackend()) as store:
        assert repair(store, begun).repaired == begun.foreign == foreign
    done = audited(one, TaskBackend(), **asked)
    assert (done.resumed_at, done.looked_at, done.complete) == (10, 40, True)


@pytest.mark.parametrize("same", ["ids", "ids and texts"])
def test_what_was_seen_of_another_collection_is_not_taken_over(
    place: Place, tmp_path: Path, same: str
) -> None:
    point, rows = tmp_path / "point", documents(40)
    with place.open(TaskBackend()) as store:
        store.upsert(rows)
    asked: dict[str, Any] = {"sample": "all", "checkpoint": point, "batch_size": 10}
    audited(place, TaskBackend(), budget_tokens=1, **asked)
    told: list[AuditReport] = []
    audited(place, TaskBackend(), on_progress=told.append, budget_tokens=1, **asked)
    assert told[0].looked_at == told[0].resumed_at == 10
    backend = TaskBackend(seed=7)
    others = [Document(row.id, f"other {row.text}") for row in rows] if same == "ids" else rows
    with place.open(TaskBackend() if same == "ids" else backend) as store:
        store.drop()
        store.upsert(others)
        with pytest.raises(InvalidInput, match="another collection of that name"):
            audit(store, **asked)


def test_what_cannot_be_is_refused_before_anything_is_embedded(one: Place, tmp_path: Path) -> None:
    with one.open(TaskBackend()) as store:
        store.upsert(documents(3))
        for asked, said in {
            "sample": (0, 'pass a whole number from 1 to 10,000, or "all"'),
            "threshold": (1, "a cosine between 0 and 1"),
            "only": ("model", 'pass "free"'),
            "batch_size": (True, "whole number"),
            "budget_tokens": (0, "whole number"),
            "checkpoint": (7, "path of a file"),
            "candidates": (["jina"], "lacks"),
        }.items():
            with pytest.raises(InvalidInput, match=said[1]):
                audit(store, **{asked: said[0]})
        with pytest.raises(InvalidInput, match="candidates would not be asked"):
            audit(store, only="free", candidates=[model(OLD, 2)])
        with pytest.raises(SpaceMismatch, match="every row would look foreign"):
            audit(store, backend=model(NEW, 1))
        with pytest.raises(SpaceMismatch, match="embeds known texts"):
            audit(store, backend=LyingBackend())
        with pytest.raises(InvalidInput, match="list of ids"):
            repair(store, "d1")
        with pytest.raises(InvalidInput, match="the report is of collection 'other'"):
            repair(store, AuditReport(collection="other", space=V3, population=1))
    with one.open() as store, pytest.raises(InvalidInput, match="no backend to embed with"):
        audit(store)
