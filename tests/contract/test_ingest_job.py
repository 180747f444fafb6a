"""Ingestion jobs on every store: what is stored in the end, and what that cost."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType, FunctionType, ModuleType, TracebackType
from typing import Any

import orjson
import psycopg
import pytest
from psycopg import sql
from tests.contract.ingesting import (
    PLACES,
    Bars,
    ChunkBackend,
    Ending,
    Interrupted,
    Place,
    folder_of,
    made,
)
from tests.contract.test_elasticsearch_contract import raw
from tests.contract.test_qdrant_contract import prefix
from tests.rights import ordinary

from samespace import (
    Document,
    HashingBackend,
    IngestJob,
    IngestReport,
    Rejected,
    TextChunker,
    everything,
    field,
)
from samespace.errors import (
    AuthenticationFailed,
    BackendUnavailable,
    CollectionNotFound,
    EmbeddingError,
    InvalidInput,
    QuotaExhausted,
    SpaceMismatch,
)
from samespace.filters import Filter
from samespace.guard import CANARY_TEXTS
from samespace.ingest.pipeline import IN_FLIGHT
from samespace.ingest.seen import SeenIds
from samespace.protocols import Matrix
from samespace.testing.backends import LyingBackend, RefusingBackend, TaskBackend
from samespace.testing.together import elsewhere

__all__ = ["prefix", "raw"]  # fixtures
BATCH = 10


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Place:
    return PLACES[request.param](request)


@pytest.fixture
def one(request: pytest.FixtureRequest) -> Place:
    """For what does not depend on the store."""
    return PLACES["Qdrant local"](request)


@pytest.fixture
def backend() -> TaskBackend:
    return TaskBackend()


def test_a_job_stores_what_an_upsert_would_store(place: Place, backend: TaskBackend) -> None:
    documents = made(35)
    report = place.run(backend, documents, batch_size=BATCH)
    assert report.complete
    assert (report.documents, report.write.written, report.embedded) == (35, 35, 35)
    assert report.write.tokens == 35 * 5
    by_job = place.stored()
    place.without(embedding=documents)
    assert place.stored() == by_job


def test_a_second_run_embeds_and_changes_nothing(place: Place, backend: TaskBackend) -> None:
    place.run(backend, made(35), batch_size=BATCH)
    before = place.stored()
    again = TaskBackend()
    report = place.run(again, made(35), batch_size=BATCH)
    assert (report.write.written, report.write.skipped, report.embedded) == (0, 35, 0)
    assert (again.documents, again.canaries) == ([], 0)
    assert place.stored() == before


def test_what_has_changed_is_embedded_and_nothing_else(place: Place, backend: TaskBackend) -> None:
    documents = made(35)
    place.run(backend, documents, batch_size=BATCH)
    documents[7] = Document("d7", "a text that is new", {"n": 7})
    documents[21] = Document("d21", documents[21].text, {"n": 22})
    documents[22] = Document("d22", documents[22].text, {"n": 22}, embed_text=documents[22].text)
    again = TaskBackend()
    report = place.run(again, documents, batch_size=BATCH)
    assert again.documents == ["a text that is new"]
    assert (report.write.written, report.write.skipped) == (3, 32)
    stored = place.stored()
    place.without(embedding=documents)
    assert place.stored() == stored


@pytest.mark.parametrize(
    ("place", "files"),
    [
        ("PostgreSQL", 1_000),
        ("Qdrant local", 100),
        ("Qdrant REST", 1_000),
        ("Elasticsearch", 400),
    ],
    indirect=["place"],
)
def test_of_a_thousand_files_only_what_has_changed_is_embedded(
    place: Place, backend: TaskBackend, tmp_path: Path, files: int
) -> None:
    """Each in three chunks; the second run finds nothing to do, the third one chunk of one file."""

    def ingest() -> IngestReport:
        return place.run(backend, str(folder), chunker=TextChunker(max_characters=30))

    folder = tmp_path / "texts"
    folder.mkdir()
    for n in range(files):
        (folder / f"{n}.txt").write_text(
            f"File {n:04} begins so.\n\nIt goes on: {n:04}.\n\nThe end of {n:04}."
        )
    assert ingest().write.written == 3 * files
    before = place.stored()
    backend.documents.clear()
    again = ingest()
    assert (again.write.written, again.write.skipped, again.removed) == (0, 3 * files, 0)
    assert (backend.documents, place.stored()) == ([], before)
    changed_file = folder / "50.txt"
    changed_file.write_text(changed_file.read_text().replace("goes on", "went on"))
    changed = ingest()
    assert backend.documents == ["It went on: 0050.\n\n"]
    assert (changed.write.written, changed.write.skipped) == (1, 3 * files - 1)


def test_an_ended_job_goes_on_where_it_was(
    place: Place, backend: TaskBackend, tmp_path: Path
) -> None:
    documents = made(95)
    asked: dict[str, Any] = {
        "identity": "numbers",
        "checkpoint": tmp_path / "point",
        "batch_size": BATCH,
    }
    with pytest.raises(Interrupted):
        place.run(backend, Ending(documents, 57), **asked)
    assert orjson.loads((tmp_path / "point").read_bytes())["position"] == 50
    assert len(place.stored()) == 50
    report = place.run(backend, documents, **asked)
    assert (report.resumed_at, report.documents, report.complete) == (50, 45, True)
    assert len(backend.documents) == 95
    assert not list(tmp_path.glob("point*"))
    resumed = place.stored()
    place.without(embedding=documents)
    assert place.stored() == resumed


def test_refused_documents_are_reported_once_and_no_others_are_held_up(place: Place) -> None:
    documents = made(35)
    for n in (0, 7, 33):
        documents[n] = Document(f"d{n}", f"poison {n}", {"n": n})
    documents[8] = Document("d8", " ")
    documents[9] = Document("d9", "good text", {"n": {1, 2}})
    report = place.run(RefusingBackend("poison"), documents, batch_size=BATCH)
    assert report.complete
    assert sorted(item.id for item in report.write.rejected) == ["d0", "d33", "d7", "d8", "d9"]
    reasons = {item.id: str(item.error) for item in report.write.rejected}
    assert ["refused" in reasons[id] for id in ("d0", "d7", "d33")] == [True] * 3
    assert "blank" in reasons["d8"]
    assert "JSON lacks" in reasons["d9"]
    assert place.stored().keys() == {f"d{n}" for n in range(35)} - reasons.keys()


@pytest.mark.parametrize("bad", [1, 2, 50, 99, 100])
def test_of_a_batch_every_good_document_is_stored(place: Place, bad: int) -> None:
    """Those that the store refuses have a text that no store can keep."""
    chosen = [(n * 37) % 100 for n in range(bad)]
    by_embedder, by_store = set(chosen[::2]), set(chosen[1::2])
    documents = [
        Document(f"d{n}", "poison" if n in by_embedder else "a\x00b" if n in by_store else "good")
        for n in range(100)
    ]
    report = place.run(RefusingBackend("poison"), documents, batch_size=100)
    assert sorted(item.id for item in report.write.rejected) == sorted(f"d{n}" for n in chosen)
    assert report.write.written == 100 - bad
    if bad < 100:
        assert place.stored().keys() == {f"d{n}" for n in range(100) if n not in chosen}


def test_equal_texts_are_embedded_once(place: Place, backend: TaskBackend) -> None:
    documents = [Document(f"d{n}", f"text {n % 3}") for n in range(10)]
    report = place.run(backend, documents, batch_size=100)
    assert sorted(backend.documents) == ["text 0", "text 1", "text 2"]
    assert (report.embedded, report.write.written) == (3, 10)


def test_of_equal_ids_the_last_one_wins(place: Place, backend: TaskBackend) -> None:
    documents = [*made(15), Document("d3", "other", {}), *made(5, start=20), *made(1, start=3)]
    place.run(backend, [Document("d3", "before")])
    place.run(backend, documents, batch_size=BATCH)
    assert place.stored()["d3"][0] == made(1, start=3)[0]


def test_of_equal_ids_the_last_one_wins_though_the_first_is_stored_meanwhile(
    one: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is stored is read before the first batch is written, and heard of after that."""
    was_read, is_stored = threading.Event(), threading.Event()
    asked: list[Sequence[str]] = []

    class Late(TaskBackend):
        def embed_documents(self, texts: Sequence[str]) -> Matrix:
            assert "two" not in texts or was_read.wait(60)
            return super().embed_documents(texts)

    one.run(TaskBackend(), [Document("x", "one")])
    with one.open(Late()) as store:
        get = store.get

        def held(ids: Sequence[str], **options: Any) -> list[Document]:
            asked.append(ids)
            rows = get(ids, **options)
            if len(asked) == 2:
                was_read.set()
                assert is_stored.wait(60)
            return rows

        monkeypatch.setattr(store, "get", held)
        documents = [Document("x", "two"), Document("x", "one")]
        IngestJob(store, documents, batch_size=1, on_progress=lambda _: is_stored.set()).run()
    assert one.stored()["x"][0].text == "one"


def test_a_collection_that_is_dropped_meanwhile_ends_the_job(one: Place) -> None:
    """All that was stored is gone: who goes on would call a part of it complete."""
    is_stored = threading.Event()

    def source() -> Iterator[Document]:
        yield from made(BATCH)
        assert is_stored.wait(60)
        store.drop()
        yield from made(2 * BATCH, start=BATCH)

    with one.open(TaskBackend()) as store:
        job = IngestJob(store, source(), batch_size=BATCH, on_progress=lambda _: is_stored.set())
        with pytest.raises(CollectionNotFound, match="run the job again"):
            job.run()
        assert not job.report.complete
        assert IngestJob(store, made(3 * BATCH)).run().write.written == 3 * BATCH


def test_a_liar_writes_nothing(place: Place, backend: TaskBackend) -> None:
    place.run(backend, made(5))
    before = place.stored()
    with pytest.raises(SpaceMismatch, match="suggests another model"):
        place.run(LyingBackend(), made(5, start=5))
    with pytest.raises(SpaceMismatch, match="dimensions"):
        place.run(HashingBackend(32), made(5))
    assert place.stored() == before


class Chunks:
    """Documents of numbered sentences, each a chunk."""

    @staticmethod
    def of(name: str, *sentences: str) -> Document:
        return Document(name, "".join(f"{sentence}|" for sentence in sentences), {"name": name})


@pytest.mark.parametrize("late", [False, True], ids=["apart", "together"])
def test_a_document_with_fewer_chunks_leaves_none_of_the_old_ones(
    place: Place, *, late: bool
) -> None:
    asked: dict[str, Any] = {"chunker": Bars(), "late_chunking": late, "batch_size": BATCH}
    names = [f"s{n}" for n in range(12)]
    before = [Chunks.of("a", *names), Chunks.of("b", "one"), Chunks.of("c", "x", "y")]
    after = [Chunks.of("a", "s0", "s1"), Chunks.of("b", "one", "two"), Chunks.of("c", "x", "y")]
    place.run(ChunkBackend(), before, **asked)
    assert len(place.stored()) == 15
    report = place.run(ChunkBackend(), after, **asked)
    assert report.removed == 10
    changed = place.stored()
    assert sorted(changed) == ["a#0", "a#1", "b#0", "b#1", "c#0", "c#1"]
    parent = changed["b#1"][0].parent
    assert parent is not None
    assert (parent.id, parent.ordinal, parent.span) == ("b", 1, (4, 8))
    with place.open() as store:
        store.delete(where=everything)
    place.run(ChunkBackend(), after, **asked)
    assert place.stored() == changed
    with place.open() as store:
        assert store.delete(parent="a") == 2


@pytest.mark.parametrize(
    ("late", "texts", "together"),
    [(False, ["2|"], []), (True, [], [["one|", "2|", "three|"]])],
    ids=["apart", "together"],
)
def test_a_change_of_one_chunk_embeds_that_chunk_or_its_whole_document(
    place: Place, *, late: bool, texts: list[str], together: list[list[str]]
) -> None:
    before = [Chunks.of("a", "one", "two", "three"), Chunks.of("b", "four", "five")]
    after = [Chunks.of("a", "one", "2", "three"), before[1]]
    place.run(ChunkBackend(), before, chunker=Bars(), late_chunking=late)
    backend = ChunkBackend()
    report = place.run(backend, after, chunker=Bars(), late_chunking=late)
    assert (backend.documents, backend.together) == (texts, together)
    assert report.embedded == len(texts) + sum(map(len, together))


def test_a_document_is_embedded_together_again_once_it_has_fewer_chunks(one: Place) -> None:
    asked: dict[str, Any] = {"chunker": Bars(), "late_chunking": True}
    one.run(ChunkBackend(), [Chunks.of("a", "one", "two", "three")], **asked)
    backend = ChunkBackend()
    one.run(backend, [Chunks.of("a", "one", "two")], **asked)
    assert backend.together == [["one|", "two|"]]


def test_late_chunking_is_recorded_and_mixed_with_nothing_else(place: Place) -> None:
    late: dict[str, Any] = {"chunker": Bars(), "late_chunking": True}
    place.run(ChunkBackend(), [Chunks.of("a", "one")], **late)
    with place.open() as store:
        assert store.info().provenance["late_chunking"] == "by document"
    backend = ChunkBackend()
    with pytest.raises(InvalidInput, match="late_chunking=True, or another collection"):
        place.run(backend, [Chunks.of("b", "two")], chunker=Bars())
    with place.open() as store:
        store.drop()
    place.run(backend, [Chunks.of("b", "two")], chunker=Bars())
    for begin in (IngestJob.run, IngestJob.estimate):
        with (
            place.job(backend, [Chunks.of("a", "one")], **late) as job,
            pytest.raises(InvalidInput, match="let the job create it"),
        ):
            begin(job)
    assert (backend.documents, backend.together) == (["two|"], [])


def test_a_document_whose_chunks_are_refused_together_keeps_the_old_ones(one: Place) -> None:
    class Refusing(ChunkBackend):
        def embed_chunks(self, documents: Sequence[Sequence[str]]) -> list[Matrix]:
            bad = [n for n, chunks in enumerate(documents) if any("poison" in c for c in chunks)]
            if bad:
                raise EmbeddingError("too long", indices=bad)
            return super().embed_chunks(documents)

    asked: dict[str, Any] = {"chunker": Bars(), "late_chunking": True}
    one.run(ChunkBackend(), [Chunks.of("a", "one", "two")], **asked)
    report = one.run(Refusing(), [Chunks.of("a", "poison"), Chunks.of("b", "three")], **asked)
    assert [item.id for item in report.write.rejected] == ["a"]
    assert sorted(one.stored()) == ["a#0", "a#1", "b#0"]


@pytest.mark.parametrize(
    ("metadata", "said"),
    [({"v": float("nan")}, "chunk 'a#0': metadata"), ({"v": 1}, "chunk 'a#1': text refused")],
    ids=["metadata", "backend"],
)
@pytest.mark.parametrize("prune", [None, everything], ids=["", "prune"])
def test_a_document_with_a_chunk_that_is_refused_stays_as_it_was(
    place: Place, metadata: dict[str, Any], said: str, prune: Filter | None
) -> None:
    """Its first chunk would be new, its third one have other metadata, and its last one be gone."""
    place.run(TaskBackend(), [Document("a", "one|old|three|four", {"v": 0})], chunker=Bars())
    before = place.stored()
    documents = [Document("a", "1|two|three|", metadata), Document("b", "x|y", {})]
    report = place.run(RefusingBackend("two"), documents, chunker=Bars(), prune=prune)
    assert [item.id for item in report.write.rejected] == ["a"]
    assert said in str(report.write.rejected[0].error)
    stored = place.stored()
    assert (report.removed, report.pruned, report.write.written) == (0, 0, 2)
    assert stored.keys() - before.keys() == {"b#0", "b#1"}
    assert {id: stored[id] for id in before} == before


def test_a_text_file_with_a_passage_that_is_refused_stays_as_it_was(
    one: Place, tmp_path: Path
) -> None:
    passages = [f"{letter} " * 400 for letter in "abcd"]
    folder = folder_of(tmp_path / "files", {"a.md": "\n\n".join(passages)})
    one.run(TaskBackend(), folder)
    before = one.stored()
    (folder / "a.md").write_text("\n\n".join(["new " * 200, passages[1] + "poison"]))
    for backend in (RefusingBackend("poison"), TaskBackend()):
        report = one.run(backend, folder, prune=True)
        assert [item.id.rsplit("/")[-1] for item in report.write.rejected] == ["a.md"]
        assert one.stored() == before
        (folder / "a.md").write_text("\n\n".join(["new " * 200, passages[1] + "\x00"]))


def test_no_chunk_is_deleted_of_a_document_of_which_the_store_refuses_one(
    request: pytest.FixtureRequest,
) -> None:
    place = PLACES["PostgreSQL"](request)
    asked: dict[str, Any] = {"chunker": Bars(), "prune": everything}
    place.run(TaskBackend(), [Chunks.of("a", "one", "two", "three")], **asked)
    table = sql.Identifier(place.options["schema"], place.collection)
    with psycopg.connect(place.source) as connection:
        refusal = sql.SQL("ALTER TABLE {} ADD CHECK (text NOT LIKE '%poison%')")
        connection.execute(refusal.format(table))
    report = place.run(TaskBackend(), [Chunks.of("a", "1", "poison")], **asked)
    assert [item.id for item in report.write.rejected] == ["a#1"]
    assert (report.removed, report.pruned) == (0, 0)
    texts = {id: row.text for id, (row, _) in place.stored().items()}
    assert texts == {"a#0": "1|", "a#1": "two|", "a#2": "three|"}


@pytest.mark.parametrize("value", [1, 1.0, True, [1], [1.0], {"n": [True]}, {"n": [1.0]}, 1e17])
def test_metadata_that_is_equal_in_python_alone_is_written(place: Place, value: object) -> None:
    place.run(TaskBackend(), [Document("x", "text", {"v": 1})])
    documents = [Document("x", "text", {"v": value})]
    written = [place.run(TaskBackend(), documents).write.written for _ in range(2)]
    assert written == [int(type(value) is not int), 0]
    found = place.stored()["x"][0].metadata["v"]
    assert repr(found) == repr(value)


def frames_behind(start: object) -> list[object]:
    """Frames and tracebacks that an object holds on to, but for those behind code."""
    found, known, ahead = list[object](), set[int](), [start]
    while ahead:
        each = ahead.pop()
        if id(each) not in known and not isinstance(each, type | ModuleType | FunctionType):
            known.add(id(each))
            found += [each] if isinstance(each, FrameType | TracebackType) else []
            ahead += gc.get_referents(each)
    return found


def test_what_is_rejected_holds_on_to_no_other_texts(one: Place) -> None:
    """A report is kept to the end of a job, and of a job with many errors all batches would be."""
    documents = [*made(5), Document("blank", " "), Document("refused", "poison")]
    report = one.run(RefusingBackend("poison"), documents)
    assert [item.id for item in report.write.rejected] == ["blank", "refused"]
    with one.open(RefusingBackend("poison")) as store:
        upserted = store.upsert(documents, on_error="report")
    assert len(upserted.rejected) == 2
    assert frames_behind((report, upserted)) == []


def test_a_budget_needs_a_backend_that_says_what_it_spends(one: Place) -> None:
    with (
        one.open(HashingBackend(64)) as store,
        pytest.raises(InvalidInput, match="HashingBackend does not say what its calls cost"),
    ):
        IngestJob(store, made(3), budget_tokens=5)


def test_marks_are_looked_up_beside_the_loop(
    one: Place, backend: TaskBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On disk, for each row of a collection: nobody else in the loop would be served."""
    unseen, calls = SeenIds.unseen, 0

    def noted(seen: SeenIds, rows: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
        nonlocal calls
        calls += 1
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        return unseen(seen, rows)

    monkeypatch.setattr(SeenIds, "unseen", noted)
    one.run(backend, made(10))
    with one.job(backend, made(5), prune=everything) as job:
        assert (job.estimate().pruned, job.run().pruned, calls) == (5, 5, 2)


async def test_a_job_ends_soon_though_the_store_does_not_answer(
    request: pytest.FixtureRequest,
) -> None:
    place = PLACES["PostgreSQL"](request)
    place.run(TaskBackend(), made(5))
    table = sql.Identifier(place.options["schema"], place.collection)
    with psycopg.connect(place.source) as other, place.open(TaskBackend()) as store:
        other.execute(sql.SQL("LOCK TABLE {}").format(table))
        job = IngestJob(store, made(20))
        running = asyncio.create_task(job.run_async())
        waiting = "SELECT 1 FROM pg_locks WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))"
        while not other.execute(waiting).fetchone():
            await asyncio.sleep(0)
            assert not running.done()
        running.cancel()
        done, _ = await asyncio.wait([running], timeout=60)
        other.rollback()
        for thread in threading.enumerate():
            if thread.name == "samespace-compare":  # which is left behind
                thread.join(60)
    assert (running in done, running.cancelled(), job.report.stopped) == (True, True, "cancelled")


def test_equal_ids_make_no_batches_of_their_own(one: Place) -> None:
    documents = [document for pair in zip(made(30), made(30), strict=True) for document in pair]
    told: list[int] = []
    report = one.run(
        TaskBackend(), documents, batch_size=20, on_progress=lambda r: told.append(r.documents)
    )
    assert told == [20, 40, 60]
    assert (report.documents, report.write.written) == (60, 30)


def test_what_left_the_source_is_pruned_and_nothing_else(
    place: Place, backend: TaskBackend, tmp_path: Path
) -> None:
    place.run(backend, [*made(30, kind="mine"), *made(10, start=30, kind="other")])
    report = place.run(
        backend,
        [*made(10, kind="mine"), *made(10, start=20, kind="mine")],
        prune=field("kind") == "mine",
    )
    assert report.pruned == 10
    numbers = sorted(row.metadata["n"] for row, _ in place.stored().values())
    assert numbers == [*range(10), *range(20, 40)]


def test_marks_of_ids_survive_the_end_of_a_job(
    place: Place, backend: TaskBackend, tmp_path: Path
) -> None:
    place.run(backend, made(60))
    asked: dict[str, Any] = {
        "identity": "numbers",
        "checkpoint": tmp_path / "point",
        "batch_size": BATCH,
        "prune": everything,
    }
    with pytest.raises(Interrupted):
        place.run(backend, Ending(made(50), 37), **asked)
    assert len(place.stored()) == 60
    report = place.run(backend, made(50), **asked)
    assert (report.resumed_at, report.pruned) == (30, 10)
    assert place.stored().keys() == {f"d{n}" for n in range(50)}
    assert not list(tmp_path.glob("point*"))


def test_without_the_marks_of_an_ended_job_all_is_read_again(
    one: Place, backend: TaskBackend, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {
        "identity": "numbers",
        "checkpoint": tmp_path / "point",
        "batch_size": BATCH,
    }
    with pytest.raises(Interrupted):
        one.run(backend, Ending(made(50), 37), **asked)
    report = one.run(backend, made(50), prune=everything, **asked)
    assert (report.resumed_at, report.pruned, len(one.stored())) == (0, 0, 50)


def test_what_cannot_be_read_is_not_taken_for_gone(one: Place, tmp_path: Path) -> None:
    texts = {"a.md": "apples", "gone.md": "pears", "t.csv": "id,text\nr,plums\n"}
    folder = folder_of(tmp_path / "files", texts)
    assert one.run(TaskBackend(), folder).write.written == 3
    (folder / "a.md").write_bytes(b"caf\xe9")
    (folder / "gone.md").unlink()
    (folder / "t.csv").write_text("id,text\nr\n")
    report = one.run(TaskBackend(), folder, prune=field("source").exists())
    assert (len(report.write.rejected), report.pruned, report.prune_withheld) == (2, 1, False)
    assert {row.text for row, _ in one.stored().values()} == {"apples", "plums"}


RECORD = '{"id": "r", "text": "plums", "source": "mine"}'
LOST: dict[str, tuple[str, bool]] = {
    "a folder": ("sub", True),
    "a file of records": ("rows.jsonl", True),
    "a text": ("a.md", False),
}


@pytest.mark.parametrize("kind", LOST)
def test_where_rows_of_the_lost_cannot_be_named_none_are_pruned(
    one: Place, tmp_path: Path, kind: str
) -> None:
    texts = {"a.md": "apples", "sub/b.md": "figs", "gone.md": "pears", "rows.jsonl": RECORD}
    folder = folder_of(tmp_path / "files", texts)
    one.run(TaskBackend(), folder)
    (folder / "gone.md").unlink()
    name, is_withheld = LOST[kind]
    (folder / name).chmod(0)
    with ordinary():
        with one.job(TaskBackend(), folder, prune=everything) as job:
            found = job.estimate()
        report = one.run(TaskBackend(), folder, prune=everything)
    assert [item.id for item in report.write.rejected] == [str(folder / name)]
    assert (report.pruned, report.prune_withheld) == ((0, True) if is_withheld else (1, False))
    assert (found.pruned, found.prune_withheld) == (report.pruned, report.prune_withheld)
    (folder / name).chmod(0o700)
    assert one.run(TaskBackend(), folder, prune=everything).pruned == is_withheld


@pytest.mark.parametrize(
    ("name", "lines", "is_withheld"),
    [
        ("r.jsonl", (RECORD, "{torn"), True),
        ("r.jsonl", (RECORD, '{"id": "r"}'), False),
        ("r.jsonl", (RECORD, '{"text": 1}'), True),
        ("r.csv", ("id,text,source\nr,plums,mine", "id,text,source\nr,plums"), True),
        ("r.csv", ("id,text\nr,plums", "id,text\nr"), False),
    ],
)
def test_a_broken_record_may_have_been_any_row(
    one: Place, tmp_path: Path, name: str, lines: tuple[str, str], is_withheld: bool
) -> None:
    before, after = lines
    folder = folder_of(tmp_path / "files", {name: before, "gone.md": "pears"})
    one.run(TaskBackend(), folder)
    folder_of(folder, {name: after})
    (folder / "gone.md").unlink()
    report = one.run(TaskBackend(), folder, prune=everything)
    assert (report.pruned, report.prune_withheld) == ((0, True) if is_withheld else (1, False))
    assert "plums" in {row.text for row, _ in one.stored().values()}


@pytest.mark.parametrize(
    ("odd", "is_withheld"),
    [
        ({"id": "d3"}, True),
        (Document(None, "no id"), True),  # type: ignore[arg-type]
        (Rejected("", InvalidInput("torn")), True),
        (Rejected("d3", InvalidInput("torn")), False),
        (Document("d3", " "), False),
    ],
)
def test_an_item_that_is_no_document_may_have_been_any_row(
    one: Place, backend: TaskBackend, tmp_path: Path, odd: object, is_withheld: bool
) -> None:
    """Also where an earlier run has seen it."""
    asked: dict[str, Any] = {
        "identity": "numbers",
        "checkpoint": tmp_path / "point",
        "batch_size": 2,
        "prune": everything,
    }
    one.run(backend, made(6))
    source: list[Any] = [made(1)[0], odd, *made(2, start=1)]
    with pytest.raises(Interrupted):
        one.run(backend, Ending(source, 3), **asked)
    report = one.run(backend, source, **asked)
    assert (report.resumed_at, report.pruned) == (2, 0 if is_withheld else 2)
    assert report.prune_withheld == is_withheld


def test_an_iterator_is_not_read_twice(one: Place, backend: TaskBackend, tmp_path: Path) -> None:
    one.run(backend, made(30))
    with one.job(backend, iter(made(20)), prune=everything) as job:
        found = job.estimate()
        assert (found.documents, found.pruned) == (20, 10)
        with pytest.raises(InvalidInput, match="new IngestJob"):
            job.run()
    assert len(one.stored()) == 30
    failing = RefusingBackend("number 35", error=BackendUnavailable("gone"))
    asked: dict[str, Any] = {"identity": "numbers", "checkpoint": tmp_path / "point"}
    source = iter(made(60))
    with one.job(failing, source, batch_size=BATCH, **asked) as job:
        with pytest.raises(BackendUnavailable):
            job.run()
        with pytest.raises(InvalidInput, match="new IngestJob"):
            job.run()
    one.run(TaskBackend(), iter(made(60)), **asked)
    assert len(one.stored()) == 60


def test_an_estimate_of_a_job_that_goes_on_counts_what_would_be_pruned(
    one: Place, backend: TaskBackend, tmp_path: Path
) -> None:
    one.run(backend, made(60))
    asked: dict[str, Any] = {
        "identity": "numbers",
        "checkpoint": tmp_path / "point",
        "batch_size": BATCH,
        "prune": everything,
    }
    with pytest.raises(Interrupted):
        one.run(backend, Ending(made(50), 37), **asked)
    with one.job(backend, iter(made(50)), **asked) as job:
        found = job.estimate()
    assert (found.resumed_at, found.documents, found.pruned) == (30, 20, 10)


@pytest.mark.parametrize("name", ["PostgreSQL", "PostgreSQL, async"])
def test_an_index_that_a_job_was_ended_before_is_built_by_the_next(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("samespace.stores.pgvector.sql.AUTO_INDEX_ROWS", 2)
    place = PLACES[name](request)
    asked: dict[str, Any] = {
        "identity": "numbers",
        "checkpoint": tmp_path / "point",
        "batch_size": BATCH,
    }
    with pytest.raises(Interrupted):
        place.run(TaskBackend(), Ending(made(2 * BATCH), 2 * BATCH), **asked)
    with place.open() as store:
        assert not store.info().index_built
    report = place.run(TaskBackend(), made(2 * BATCH), **asked)
    assert (report.resumed_at, report.write.written) == (2 * BATCH, 0)
    with place.open() as store:
        assert store.info().index_built


@pytest.mark.parametrize("name", ["\udcff.md", "\udcff/x.jsonl"])
def test_a_file_whose_name_is_no_text_holds_up_no_others(
    one: Place, tmp_path: Path, name: str
) -> None:
    folder = folder_of(tmp_path / "files", {"a.md": "apples", name: "nonsense"})
    asked: dict[str, Any] = {"prune": True, "checkpoint": tmp_path / "point"}
    report = one.run(TaskBackend(), [folder / "a.md", folder / name], **asked)
    assert (report.write.written, len(report.write.rejected), report.complete) == (1, 1, True)


def test_what_left_its_files_is_pruned_without_their_names(
    one: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {f"a/{name}.md": name for name in ("stays", "goes")} | {"ab/other.md": "another folder"}
    folder = folder_of(tmp_path / "files", texts)
    monkeypatch.chdir(folder / "a")
    foreign = [
        Document("url", "an address", {"source": "https://host/page.html"}),
        Document("book", "no file", {"source": "book"}),
        Document("none", "of nowhere"),
    ]
    one.run(TaskBackend(), folder)
    one.run(TaskBackend(), foreign)
    Path("goes.md").unlink()
    with one.job(TaskBackend(), ".", prune=True) as job:
        assert job.run().pruned == 1
    assert {row.text for row, _ in one.stored().values()} == {
        "stays", "another folder", "an address", "no file", "of nowhere"
    }  # fmt: skip


def test_a_budget_ends_a_job_that_another_one_completes(
    place: Place, backend: TaskBackend, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {
        "identity": "numbers",
        "checkpoint": tmp_path / "point",
        "batch_size": BATCH,
    }
    report = place.run(backend, made(60), budget_tokens=2 * BATCH * 5, **asked)
    assert (report.stopped, report.complete, report.write.tokens) == ("budget", False, 100)
    assert (report.documents, len(place.stored())) == (20, 20)
    report = place.run(backend, made(60), **asked)
    assert (report.resumed_at, report.complete, len(place.stored())) == (20, True, 60)
    assert len(backend.documents) == 60


def test_a_budget_that_is_just_enough_ends_nothing(one: Place, backend: TaskBackend) -> None:
    report = one.run(backend, made(20), budget_tokens=100, batch_size=BATCH)
    assert (report.stopped, report.complete, report.write.tokens) == ("", True, 100)


@pytest.mark.parametrize(
    "error",
    [
        AuthenticationFailed("the key was refused", indices=[0]),
        QuotaExhausted("nothing left", indices=[0]),
        BackendUnavailable("no answer"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_that_concerns_all_ends_the_job_with_a_valid_checkpoint(
    place: Place, error: EmbeddingError, tmp_path: Path
) -> None:
    documents = made(60)
    documents[25] = Document("d25", "poison", {"n": 25})
    asked: dict[str, Any] = {
        "identity": "numbers",
        "checkpoint": tmp_path / "point",
        "batch_size": BATCH,
    }
    backend = RefusingBackend("poison", error=error)
    with place.job(backend, documents, **asked) as job, pytest.raises(type(error)) as caught:
        job.run()
    assert caught.value.report is not None
    assert caught.value.report.written == 20
    assert (job.report.documents, job.report.stopped) == (20, "error")
    report = place.run(TaskBackend(), documents, **asked)
    assert (report.resumed_at, report.documents) == (20, 40)
    assert len(place.stored()) == 60


def test_the_source_is_never_far_ahead_of_what_is_stored(place: Place) -> None:
    pulled, furthest = 0, 0
    done: list[int] = [0]

    def source() -> Iterator[Document]:
        nonlocal pulled, furthest
        for document in made(200):
            pulled += 1
            furthest = max(furthest, pulled - done[-1])
            yield document

    place.run(
        TaskBackend(), source(), batch_size=BATCH, on_progress=lambda r: done.append(r.documents)
    )
    assert 0 < furthest <= BATCH * (IN_FLIGHT + 1)
    assert done == [*range(0, 201, BATCH)]


FOREIGN: dict[str, tuple[Any, str]] = {
    "another source": (lambda values: {**values, "source": "letters"}, "letters"),
    "another space": (lambda values: {**values, "space": "v2"}, "space"),
    "another collection": (lambda values: {**values, "collection": "others"}, "others"),
    "another chunker": (lambda values: {**values, "chunking": "Bars()"}, "chunking"),
    "a newer format": (lambda values: {**values, "format": 2}, "newer"),
    "no position": (lambda values: {**values, "position": "7"}, "is no checkpoint"),
    "a list": (lambda values: [values], "is no checkpoint"),
    "cut short": (lambda values: orjson.dumps(values)[:-9], "is no checkpoint"),
    "nothing": (lambda values: b"", "is no checkpoint"),
    "more than there is": (lambda values: {**values, "position": 99}, "ends after 60"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_the_checkpoint_of_another_job_is_refused(
    one: Place, backend: TaskBackend, tmp_path: Path, kind: str
) -> None:
    point = tmp_path / "point"
    asked: dict[str, Any] = {"identity": "numbers", "checkpoint": point, "batch_size": BATCH}
    with pytest.raises(Interrupted):
        one.run(backend, Ending(made(60), 35), **asked)
    change, said = FOREIGN[kind]
    changed = change(orjson.loads(point.read_bytes()))
    point.write_bytes(changed if isinstance(changed, bytes) else orjson.dumps(changed))
    content, before = point.read_bytes(), len(backend.documents)
    with pytest.raises(InvalidInput, match=said) as caught:
        one.run(backend, made(60), **asked)
    assert "remove the" in str(caught.value)
    assert len(backend.documents) == before
    assert kind == "more than there is" or point.read_bytes() == content


def test_files_that_changed_are_all_compared_again(one: Place, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "files", {f"{n:02}.md": f"text {n}" for n in range(30)})
    asked: dict[str, Any] = {"checkpoint": tmp_path / "point", "batch_size": BATCH}
    error = BackendUnavailable("gone")
    with pytest.raises(BackendUnavailable):
        one.run(RefusingBackend("text 25", error=error), folder, **asked)
    unchanged = one.run(RefusingBackend("text 25"), folder, **asked)
    assert unchanged.resumed_at == 20
    (folder / "25.md").write_text("text 25 again")
    with pytest.raises(BackendUnavailable):
        one.run(RefusingBackend("text 25", error=error), folder, **asked)
    (folder / "03.md").write_text("changed")
    backend = TaskBackend()
    changed = one.run(backend, folder, **asked)
    assert (changed.resumed_at, changed.write.skipped) == (0, 28)
    assert backend.documents == ["changed", "text 25 again"]


def test_a_dropped_collection_is_filled_from_the_beginning(
    one: Place, backend: TaskBackend, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {
        "identity": "numbers",
        "checkpoint": tmp_path / "point",
        "batch_size": BATCH,
    }
    with pytest.raises(Interrupted):
        one.run(backend, Ending(made(60), 35), **asked)
    with one.open() as store:
        store.drop()
    assert one.run(backend, made(60), **asked).resumed_at == 0
    assert len(one.stored()) == 60


@pytest.mark.parametrize("kind", ["made again", "another store"])
def test_a_store_without_the_rows_that_were_written_last_is_filled_from_the_beginning(
    one: Place, backend: TaskBackend, tmp_path: Path, kind: str
) -> None:
    asked: dict[str, Any] = {
        "identity": "numbers",
        "checkpoint": tmp_path / "point",
        "batch_size": BATCH,
    }
    with pytest.raises(Interrupted):
        one.run(backend, Ending(made(60), 35), **asked)
    place = one if kind == "made again" else replace(one, source=str(tmp_path / "other"))
    with one.open() as store:
        store.drop()
    place.run(backend, made(BATCH))
    with place.job(backend, made(60), **asked) as job:
        assert job.estimate().resumed_at == 0
        assert job.run().resumed_at == 0
    assert len(place.stored()) == 60


def test_rows_that_were_written_last_are_those_that_were_stored(one: Place, tmp_path: Path) -> None:
    documents = made(60)
    documents[28] = Document("d28", "poison")
    documents[29] = Document("d29", "a\x00b")
    point = tmp_path / "point"
    asked: dict[str, Any] = {"identity": "numbers", "checkpoint": point, "batch_size": BATCH}
    with pytest.raises(Interrupted):
        one.run(RefusingBackend("poison"), Ending(documents, 35), **asked)
    said = orjson.loads(point.read_bytes())
    assert said["rows"] == [f"d{n}" for n in range(20, 28)]
    point.write_bytes(orjson.dumps({**said, "rows": 7}))
    with pytest.raises(InvalidInput, match="is no checkpoint"):
        one.run(RefusingBackend("poison"), documents, **asked)
    older = {name: value for name, value in said.items() if name not in {"rows", "rejected"}}
    point.write_bytes(orjson.dumps(older))
    assert one.run(RefusingBackend("poison"), documents, **asked).resumed_at == 30


def test_what_earlier_runs_left_out_is_counted_by_those_that_go_on(
    one: Place, tmp_path: Path
) -> None:
    documents = made(60)
    for n in (3, 28, 45):
        documents[n] = Document(f"d{n}", "poison")
    asked: dict[str, Any] = {
        "identity": "numbers",
        "checkpoint": tmp_path / "point",
        "batch_size": BATCH,
    }
    for after, before in ((35, 0), (55, 2)):
        with one.job(RefusingBackend("poison"), Ending(documents, after), **asked) as job:
            with pytest.raises(Interrupted):
                job.run()
            assert job.report.rejected_before == before
    report = one.run(RefusingBackend("poison"), documents, **asked)
    assert (report.resumed_at, report.rejected_before, report.write.rejected) == (50, 3, ())
    assert one.run(RefusingBackend("poison"), documents, **asked).rejected_before == 0


def test_files_are_cut_by_a_chunker_or_into_passages(one: Place, tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path / "files", {"a.md": "one|two|", "r.jsonl": '{"id": "r", "text": "x|y"}'}
    )
    one.run(TaskBackend(), folder, chunker=Bars(), prune=everything)
    texts = sorted(row.text for row, _ in one.stored().values())
    assert texts == ["one|", "two|", "x|", "y"]
    one.run(TaskBackend(), [folder / "a.md", folder / "r.jsonl"], prune=everything)
    assert sorted(row.text for row, _ in one.stored().values()) == ["one|two|", "x|y"]
    (folder / "a.md").write_text("")
    assert one.run(TaskBackend(), folder, chunker=TextChunker()).removed == 1


def test_an_estimate_writes_and_embeds_nothing(one: Place, backend: TaskBackend) -> None:
    class Counting(TaskBackend):
        def count_tokens(self, texts: Sequence[str]) -> list[int]:
            return [len(text.split()) for text in texts]

    counting = Counting()
    with one.job(counting, made(20)) as job:
        found = job.estimate()
    assert (found.documents, found.to_embed, found.tokens, found.unchanged) == (20, 20, 100, 0)
    assert counting.documents == []
    one.run(backend, made(15))
    with one.job(counting, made(20)) as job:
        found = job.estimate()
    assert (found.to_embed, found.tokens, found.unchanged) == (5, 25, 15)
    assert len(one.stored()) == 15


def test_an_estimate_begins_where_the_checkpoint_says(one: Place, tmp_path: Path) -> None:
    asked: dict[str, Any] = {
        "identity": "numbers",
        "checkpoint": tmp_path / "point",
        "batch_size": BATCH,
    }
    with pytest.raises(Interrupted):
        one.run(TaskBackend(), Ending(made(50), 37), **asked)
    point = (tmp_path / "point").read_bytes()
    with one.open() as store:
        store.delete(ids=["d0"])  # which no run that goes on from there looks at
    with one.job(TaskBackend(), made(50), **asked) as job:
        found = job.estimate()
        assert (found.resumed_at, found.documents, found.to_embed) == (30, 20, 20)
        assert (tmp_path / "point").read_bytes() == point
        assert job.run().embedded == 20


def test_an_estimate_counts_what_would_be_pruned(one: Place, backend: TaskBackend) -> None:
    one.run(backend, made(30))
    with one.job(backend, made(20), prune=everything) as job:
        assert job.estimate().pruned == 10
    assert len(one.stored()) == 30
    assert one.run(backend, made(20), prune=everything).pruned == 10


def test_an_estimate_counts_a_text_once_as_a_run_embeds_it(
    one: Place, backend: TaskBackend
) -> None:
    documents = [Document(f"d{n}", "the same text") for n in range(20)]
    with one.job(backend, documents) as job:
        assert (job.estimate().to_embed, job.run().embedded) == (1, 1)


def test_a_checkpoint_is_of_one_job_at_a_time(one: Place, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"identity": "numbers", "checkpoint": tmp_path / "point"}

    def meanwhile() -> Iterator[Document]:
        yield from made(20)
        with pytest.raises(InvalidInput, match="another job uses the checkpoint"):
            IngestJob(store, made(20), **asked).run()

    with one.open(TaskBackend()) as store:
        assert IngestJob(store, meanwhile(), **asked).run().complete
        assert IngestJob(store, made(20), **asked).run().complete
    assert not list(tmp_path.glob("point*"))


class Silent:
    """Does not say how it cuts."""

    def spans(self, text: str) -> list[tuple[int, int]]:
        return [(0, len(text))]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"budget_tokens": "many"}, "budget_tokens"),
        ({"prune": "lang=en"}, "filter"),
        ({"prune": True}, "prune=True is for files"),
        ({"checkpoint": "here"}, "identity="),
        ({"identity": ""}, "identity"),
        ({"late_chunking": True}, "chunker="),
        ({"late_chunking": True, "chunker": Bars()}, "embed_chunks"),
        ({"checkpoint": "/dev/null/x", "identity": "y"}, "checkpoint"),
        ({"checkpoint": "/dev/full", "identity": "y"}, "'/dev/full' is no regular file"),
        ({"checkpoint": "", "identity": "y"}, "'.' is no regular file"),
        ({"checkpoint": 5, "identity": "y"}, "checkpoint is 5"),
        ({"checkpoint": "here", "identity": "y", "chunker": Silent()}, "give Silent a __repr__"),
        ({"chunker": 5}, "chunker 5 has no spans"),
        ({"on_progress": 5}, "on_progress is 5"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_embedded(
    one: Place, backend: TaskBackend, asked: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        one.run(backend, made(3), **asked)
    assert backend.documents == []


@pytest.mark.parametrize(
    "asked",
    [
        {"checkpoint": "/dev/full", "identity": "y"},
        {"checkpoint": 5, "identity": "y"},
        {"chunker": 5},
        {"on_progress": 5},
        {"source": ""},
        {"source": [".", ""]},
    ],
)
def test_what_no_run_could_do_is_said_when_the_job_is_made(
    one: Place, backend: TaskBackend, asked: dict[str, Any]
) -> None:
    with one.open(backend) as store, pytest.raises(InvalidInput):
        IngestJob(store, **{"source": made(3), **asked})


def test_a_document_on_which_the_chunker_fails_holds_up_no_others(
    one: Place, backend: TaskBackend
) -> None:
    class Failing(Bars):
        def spans(self, text: str) -> list[tuple[int, int]]:
            if "torn" in text:
                raise ValueError("no seam")
            return super().spans(text)

    report = one.run(backend, [Document("a", "x|y"), Document("b", "torn")], chunker=Failing())
    (left_out,) = report.write.rejected
    assert (left_out.id, report.write.written) == ("b", 2)
    assert "no seam" in str(left_out.error)


def test_a_source_may_say_what_it_cannot_read(one: Place, backend: TaskBackend) -> None:
    odd: list[Any] = [*made(2), Rejected("lost", InvalidInput("torn")), {"id": "x"}, "text"]
    report = one.run(backend, odd)
    assert [item.id for item in report.write.rejected] == ["lost", "{'id': 'x'}", "'text'"]
    assert report.write.written == 2


async def test_a_job_runs_where_a_loop_runs_already(one: Place, backend: TaskBackend) -> None:
    with one.open(backend) as store:
        assert IngestJob(store, made(5)).run().complete
        assert (await IngestJob(store, made(9)).run_async()).write.written == 4


async def test_a_cancelled_job_leaves_nothing_running(one: Place, tmp_path: Path) -> None:
    embedding = asyncio.Event()
    loop = asyncio.get_running_loop()
    going_on = threading.Event()

    class Waiting(TaskBackend):
        def embed_documents(self, texts: Sequence[str]) -> Matrix:
            if any("25" in text for text in texts):
                loop.call_soon_threadsafe(embedding.set)
                going_on.wait()
            return super().embed_documents(texts)

    before = threading.active_count()
    asked: dict[str, Any] = {
        "identity": "numbers",
        "checkpoint": tmp_path / "point",
        "batch_size": BATCH,
    }
    with one.open(Waiting()) as store:
        job = IngestJob(store, made(60), **asked)
        running = asyncio.create_task(job.run_async())
        await embedding.wait()
        running.cancel()
        going_on.set()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert job.report.stopped == "cancelled"
    assert threading.active_count() == before
    report = one.run(TaskBackend(), made(60), **asked)
    assert report.resumed_at == job.report.documents
    assert len(one.stored()) == 60


def test_what_interrupts_the_caller_ends_the_job(one: Place, tmp_path: Path) -> None:
    def source() -> Iterator[Document]:
        yield from made(25)
        raise KeyboardInterrupt

    asked: dict[str, Any] = {
        "identity": "numbers",
        "checkpoint": tmp_path / "point",
        "batch_size": BATCH,
    }
    before = threading.active_count()
    with one.job(TaskBackend(), source(), **asked) as job, pytest.raises(KeyboardInterrupt):
        job.run()
    assert job.report.stopped == "cancelled"
    assert threading.active_count() == before
    done = job.report.documents
    assert one.run(TaskBackend(), made(25), **asked).resumed_at == done


class InterruptAt:
    """Interrupts this thread at the n-th line that it runs of a job or of what a job waits in."""

    def __init__(self, line: int) -> None:
        self.left = line

    def __call__(self, frame: FrameType, event: str, _: object) -> InterruptAt | None:
        name = frame.f_code.co_filename
        if "samespace/ingest/" not in name and not name.endswith("threading.py"):
            return None
        self.left -= event == "line"
        if self.left == 0 and event == "line":
            raise KeyboardInterrupt
        return self


def interrupted(job: IngestJob, line: int) -> None:
    """Run a job that is interrupted at a line; only in a thread that ends with it.

    What a trace function raises on the last line of an ``except`` block leaves the handled exception
    behind (CPython 3.11), as the context of all that the thread raises afterwards.
    """
    sys.settrace(InterruptAt(line))
    try:
        job.run()
    finally:
        sys.settrace(None)


@pytest.mark.parametrize("lines", [range(1, 90), range(90, 2_000, 67)], ids=["begin", "later"])
def test_a_job_ends_wherever_it_is_interrupted(
    one: Place, tmp_path: Path, lines: Sequence[int]
) -> None:
    before, ended = threading.active_count(), 0
    with one.open(TaskBackend()) as store:
        store.create()
        for line in lines:
            job = IngestJob(
                store, made(30), identity="n", checkpoint=tmp_path / "point", batch_size=BATCH
            )
            try:
                assert elsewhere(partial(interrupted, job, line)) is None
            except KeyboardInterrupt:
                ended += 1
            assert threading.active_count() == before
        assert ended > len(lines) // 3
        assert IngestJob(store, made(30)).run().complete


class AtOnce(TaskBackend):
    """May be called by three threads at once; ``meet`` are the calls that wait for one another."""

    calls_at_once = 3

    def __init__(self, meet: int) -> None:
        super().__init__()
        self._meet = threading.Barrier(meet)
        self._left = meet
        self._lock = threading.Lock()
        self.running = self.most = 0

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        if texts[0] in CANARY_TEXTS:
            return super().embed_documents(texts)
        with self._lock:
            waits, self._left = self._left > 0, self._left - 1
            self.running += 1
            self.most = max(self.most, self.running)
        if waits:
            self._meet.wait()
        with self._lock:
            self.running -= 1
        return super().embed_documents(texts)


def test_batches_are_embedded_beside_one_another_and_stored_in_their_order(one: Place) -> None:
    positions: list[int] = []
    backend = AtOnce(3)
    with one.job(
        backend,
        made(95),
        batch_size=BATCH,
        on_progress=lambda report: positions.append(report.documents),
    ) as job:
        assert job.run().write.written == 95
    assert positions == [*range(10, 100, 10), 95]
    assert backend.most == 3
    stored = one.stored()
    one.without(embedding=made(95))
    assert one.stored() == stored


def test_with_a_budget_each_batch_is_waited_for(one: Place) -> None:
    backend = AtOnce(1)
    one.run(backend, made(95), batch_size=BATCH, budget_tokens=10_000)
    assert backend.most == 1


def test_what_came_before_a_failure_is_stored_and_nothing_more_is_asked_for(
    one: Place, tmp_path: Path
) -> None:
    failed = threading.Event()

    class Second(TaskBackend):
        """Its second batch fails while the first one is under way."""

        calls_at_once = 2

        def embed_documents(self, texts: Sequence[str]) -> Matrix:
            if "text number 0 of many" in texts:
                assert failed.wait(60)
            if "text number 10 of many" in texts:
                failed.set()
                raise QuotaExhausted("spent")
            return super().embed_documents(texts)

    backend, point = Second(), tmp_path / "point"
    with (
        one.job(backend, made(95), batch_size=BATCH, checkpoint=point, identity="numbers") as job,
        pytest.raises(QuotaExhausted) as caught,
    ):
        job.run()
    assert sorted(one.stored()) == sorted(document.id for document in made(10))
    assert orjson.loads(point.read_bytes())["position"] == 10
    assert caught.value.report is not None
    assert caught.value.report.written == 10
    assert backend.documents == [document.text for document in made(10)]
