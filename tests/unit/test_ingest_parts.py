"""The parts of an ingestion job that need no store."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.rights import ordinary

from samespace import Document, Parent
from samespace.errors import BackendUnavailable, InvalidInput
from samespace.ingest.checkpoint import Checkpoint, CheckpointFile, Job, Watermark
from samespace.ingest.clock import StageClock
from samespace.ingest.embedder import Embedder, Made
from samespace.ingest.pieces import Plan, Unit, compared, unit_of
from samespace.ingest.seen import SeenIds
from samespace.ingest.source import Documents, Files, Reader
from samespace.ingest.worker import Left, Worker, in_a_thread
from samespace.protocols import Matrix
from samespace.testing.backends import RefusingBackend, TaskBackend

JOB = Job(source="numbers", version="1", collection="c", space="s", chunking="none")


@given(st.lists(st.integers(1, 5), max_size=20), st.randoms())
def test_a_watermark_is_before_the_first_part_that_is_not_done(
    sizes: list[int], random: Random
) -> None:
    ends = [7]
    for size in sizes:
        ends.append(ends[-1] + size)
    parts = list(pairwise(ends))
    random.shuffle(parts)
    mark, done = Watermark(7), set[int]()
    for first, stop in parts:
        done.update(range(first, stop))
        wanted = next(n for n in range(7, 200) if n not in done)
        assert mark.done(first, stop) == wanted


def test_a_checkpoint_is_whole_whenever_the_process_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = CheckpointFile(tmp_path / "deep" / "point")
    file.save(Checkpoint(job=JOB, position=5))
    calls: list[str] = []

    def fail(handle: int) -> None:
        calls.append("sync")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(InvalidInput, match="No space left"):
        file.save(Checkpoint(job=JOB, position=6))
    assert (calls, file.load(JOB, seen=False).position) == (["sync"], 5)
    monkeypatch.undo()
    whole = Checkpoint(job=JOB, position=6, seen=True, rows=("a", "b"), rejected=2)
    file.save(whole)
    assert file.load(JOB, seen=True) == whole
    file.remove()
    assert file.load(JOB, seen=False).position == 0
    assert not os.listdir(tmp_path / "deep")  # noqa: PTH208


def test_what_is_written_is_on_disk_before_it_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, replace = os.fsync, Path.replace

    def noted(handle: int) -> None:
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")  # noqa: PTH112
        sync(handle)

    def renamed(path: Path, to: Path) -> Path:
        done.append("rename")
        return replace(path, to)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "replace", renamed)
    CheckpointFile(tmp_path / "point").save(Checkpoint(job=JOB, position=1))
    assert done == ["file", "rename", "folder"]


def test_marks_are_kept_in_their_file(tmp_path: Path) -> None:
    with SeenIds(tmp_path / "seen") as seen:
        seen.mark(["a", "b", "a"], kept=["lost.md"])
    with SeenIds(tmp_path / "seen") as seen:
        rows = [("a", ["a"]), ("c", ["c", "lost.md"]), ("d", ["d"])]
        assert seen.unseen(rows) == ["d"]
        seen.clear()
        assert seen.unseen(rows) == ["a", "c", "d"]
        seen.remove()
    assert not list(tmp_path.iterdir())
    (tmp_path / "seen").write_bytes(b"no database at all, but long enough to look like one" * 50)
    with pytest.raises(InvalidInput, match="remove the file"):
        SeenIds(tmp_path / "seen")


def rows(*documents: Document) -> dict[str, Document]:
    vectors = TaskBackend().embed_documents([document.embedded_text for document in documents])
    return {
        document.id: Document(
            document.id,
            document.text,
            document.metadata,
            document.parent,
            document.embed_text,
            vector,
        )
        for document, vector in zip(documents, vectors, strict=True)
    }


def chunk(name: str, ordinal: int, text: str, span: tuple[int, int] = (0, 1)) -> Document:
    return Document(f"{name}#{ordinal}", text, {}, Parent(name, ordinal, span))


def test_what_is_done_for_a_document_depends_on_what_is_stored() -> None:
    same, text, metadata = Document("a", "x"), Document("b", "y"), Document("c", "z", {"n": 1})
    moved = chunk("p", 0, "chunk", (1, 6))
    stored = rows(same, Document("b", "old"), Document("c", "z", {"n": 0}), chunk("p", 0, "chunk"))
    units = [Unit((same, text, metadata)), Unit((moved,), "p"), Unit((Document("new", "x"),))]
    plan = compared(units, stored, moving=(), together=False)
    assert [document.id for document in plan.embed] == ["b", "new"]
    assert plan.metadata == {"c": {"n": 1}}
    assert [(document.id, vector is stored["p#0"].vector) for document, vector in plan.ready] == [
        ("p#0", True)
    ]
    assert plan.unchanged == 1


def test_metadata_is_compared_as_json_and_a_span_as_numbers() -> None:
    values = [1, 1.0, True, [1], [1.0], [{"n": 1}], [{"n": True}], {"n": 0}, {"n": False}, "1"]
    for stored in values:
        units = [Unit((Document(str(n), "x", {"v": value}),)) for n, value in enumerate(values)]
        found = rows(*(Document(str(n), "x", {"v": stored}) for n in range(len(values))))
        plan = compared(units, found, moving=(), together=False)
        assert (plan.unchanged, len(plan.metadata)) == (1, len(values) - 1)
    listed = Document("p#0", "x", {}, Parent("p", 0, [0, 1]))  # type: ignore[arg-type]
    plan = compared([Unit((listed,))], rows(chunk("p", 0, "x")), moving=(), together=False)
    assert (plan.unchanged, plan.ready) == (1, [])


def test_nothing_is_known_of_what_is_in_flight() -> None:
    stored = rows(Document("a", "x"), chunk("p", 0, "y"))
    units = [Unit((Document("a", "x"),)), Unit((chunk("p", 0, "y"),), "p")]
    plan = compared(units, stored, moving={("id", "a"), ("parent", "p")}, together=False)
    assert (plan.to_embed, plan.unchanged) == (2, 0)


def test_chunks_are_embedded_together_where_one_of_them_is_new_or_missing() -> None:
    old = [chunk("p", 0, "one"), chunk("p", 1, "two")]
    units = [Unit((old[0], chunk("p", 1, "2")), "p"), Unit((chunk("q", 0, "x"),), "q")]
    plan = compared(units, rows(*old, chunk("q", 0, "x")), moving=(), together=True)
    assert (plan.together, plan.old, plan.unchanged) == ([units[0].pieces], {"p#0"}, 1)
    plan = compared([Unit((old[0],), "p")], rows(*old), moving=(), together=True)
    assert plan.together == [(old[0],)]  # its vector has seen what is no longer there


def test_of_equal_ids_in_a_batch_the_last_one_is_left() -> None:
    units = [Unit((Document(id, text),)) for id, text in zip("abcad", "12345", strict=True)]
    units += [Unit((chunk("p", 0, "6"), chunk("p", 1, "7")), "p"), Unit((chunk("p", 0, "8"),), "p")]
    batch = Reader(iter(units), batch_size=100).batch()
    assert batch is not None
    assert [piece.text for piece in batch.documents()] == ["2", "3", "4", "5", "8"]
    assert (batch.stop, batch.pieces, batch.characters, batch.parents) == (7, 5, 5, ["p"])
    reader = Reader((Unit((Document("a", "x"),)) for _ in range(7)), batch_size=3)
    assert [batch.stop for batch in iter(reader.batch, None)] == [3, 6, 7]


def test_a_batch_ends_before_what_replaces_a_part_of_a_document() -> None:
    units = [Unit((chunk("p", 0, "x"), chunk("p", 1, "y")), "p"), Unit((Document("p#1", "z"),))]
    reader = Reader(iter(units), batch_size=100)
    assert [batch.stop for batch in iter(reader.batch, None)] == [1, 2]


def test_a_batch_holds_so_many_pieces_or_so_much_text() -> None:
    units = [Unit((Document(str(n), "x" * 9 * 2**20),)) for n in range(3)]
    first = Reader(iter(units), batch_size=100).batch()
    assert first is not None
    assert first.stop == 2
    chunks = [Unit(tuple(chunk(str(n), o, "x") for o in range(7)), str(n)) for n in range(3)]
    first = Reader(iter(chunks), batch_size=10).batch()
    assert first is not None
    assert (first.stop, first.pieces) == (2, 14)


def test_a_bad_piece_is_left_out_of_its_unit() -> None:
    class Odd:
        def spans(self, text: str) -> list[tuple[int, int]]:
            return [(0, 1)]

    unit = unit_of(Document("a", "some text"), Odd())
    assert (unit.pieces, unit.kept) == ((), ("a",))
    assert "chunker Odd" in str(unit.rejected[0].error)


def test_files_say_what_they_are_and_whether_they_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.md").write_text("x")
    files = Files(["a.md", tmp_path])
    assert files.identity == f"files a.md, . in {tmp_path}"
    before = files.version()
    assert files.version() == before
    (tmp_path / "b.md").write_text("y")
    assert files.version() != before
    assert [unit.parent for unit in files.units(None)] == ["a.md", "b.md"]
    with pytest.raises(InvalidInput, match="no such file"):
        Files(["absent.md"])
    with pytest.raises(InvalidInput, match="iterable of Documents"):
        Documents(7)  # type: ignore[arg-type]


def test_files_change_where_they_become_readable(tmp_path: Path) -> None:
    for name in ("a/x.md", "b.md", "c/x.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    files, modes = Files([tmp_path]), {"a": 0o700, "b.md": 0o600, "c": 0o700}
    for name in modes:
        (tmp_path / name).chmod(0o400 if name == "a" else 0)
    with ordinary():
        versions = [files.version(), files.version()]
        for name, mode in modes.items():
            (tmp_path / name).chmod(mode)
            versions.append(files.version())
    assert versions[0] == versions[1]
    assert len(set(versions)) == 4


def test_an_iterator_is_read_once() -> None:
    once = Documents(document for document in [Document("a", "x"), Document("b", "x")])
    assert once.units(None) is not None  # of which nothing was read
    assert len(list(once.units(None))) == 2
    with pytest.raises(InvalidInput, match="new IngestJob"):
        once.units(None)
    again = Documents([Document("a", "x")])
    assert [len(list(again.units(None))) for _ in range(2)] == [1, 1]


async def test_a_worker_returns_and_raises_and_is_gone_afterwards() -> None:
    with in_a_thread("test") as worker:
        assert await worker.do(lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            await worker.do(lambda: 1 / 0)
    with pytest.raises(Left):
        await worker.do(lambda: 7)


async def test_whoever_asks_a_worker_that_is_interrupted_hears_of_it() -> None:
    worker = Worker()

    def interrupt() -> None:
        raise KeyboardInterrupt

    asked = [asyncio.create_task(worker.do(work)) for work in (interrupt, lambda: None)]
    await asyncio.sleep(0)
    with pytest.raises(KeyboardInterrupt):
        worker.serve()
    for each in asked:
        with pytest.raises(Left):
            await each


async def test_a_worker_says_what_else_ended_the_work() -> None:
    def exhausted() -> object:
        return next(iter(()))

    def leaving() -> object:
        raise SystemExit(3)

    with in_a_thread("test") as worker:
        with pytest.raises(RuntimeError, match="StopIteration") as stopped:
            await asyncio.wait_for(worker.do(exhausted), 60)
        assert isinstance(stopped.value.__cause__, StopIteration)
        for work in (leaving, exhausted):
            with pytest.raises(Left, match="SystemExit") as left:
                await worker.do(work)
            assert isinstance(left.value.__cause__, SystemExit)


def test_a_source_that_is_shorter_than_its_checkpoint_is_another() -> None:
    def units() -> Iterator[Unit]:
        yield Unit((Document("a", "x"),))

    with pytest.raises(InvalidInput, match="ends after 1"):
        Reader(units(), batch_size=1).skip(2)


def test_files_say_which_part_of_them_is_done(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("x" * 40)
    (tmp_path / "b.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n{"text": "3"}')
    (tmp_path / "c.md").write_bytes(b"\xff" * 15)
    files = Files([tmp_path])
    assert files.part(0) is None
    files.version()
    assert len(list(files.units(None))) == 5
    parts = [files.part(position) for position in range(6)]
    assert parts == [0, 0.4, *(pytest.approx(0.4 + n * 0.15) for n in (1, 2, 3)), 1]


def test_files_with_blank_lines_are_done_at_their_end(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n\n\n{"text": "two"}\n')
    files = Files([tmp_path])
    files.version()
    assert len(list(files.units(None))) == 2
    assert [files.part(position) for position in (1, 2)] == [0.2, 1]


def test_files_that_nobody_asks_about_are_not_all_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("samespace.ingest.source.MOST_AHEAD", 2)
    for n in range(5):
        (tmp_path / f"{n}.md").write_text("x" * 10)
    files = Files([tmp_path])
    files.version()
    assert len(list(files.units(None))) == 5
    assert [files.part(position) for position in (0, 4, 5)] == [0.6, 0.8, 1]


def test_a_lock_that_was_removed_is_none(tmp_path: Path) -> None:
    point = CheckpointFile(tmp_path / "point")
    with point.held():
        (tmp_path / "point.lock").unlink()
        with point.held():
            assert (tmp_path / "point.lock").exists()
    assert not list(tmp_path.iterdir())


PLANS = [
    Plan(embed=[Document("a", "same")]),
    Plan(embed=[Document("b", "same"), Document("c", "new")]),
]
"""Two batches with a text in common."""


def embedded(backend: TaskBackend, work: Callable[[Embedder], Awaitable[list[Made]]]) -> list[Made]:
    """What came of both plans, by two threads."""

    async def run() -> list[Made]:
        with in_a_thread("embed") as one, in_a_thread("embed") as other:
            return await work(Embedder(backend, [one, other]))

    return asyncio.run(run())


async def in_turn(embedder: Embedder) -> list[Made]:
    return [await embedder.embed(plan) for plan in PLANS]


async def at_once(embedder: Embedder) -> list[Made]:
    return list(await asyncio.gather(*map(embedder.embed, PLANS)))


def test_a_text_in_flight_may_be_stored_while_others_are_embedded() -> None:
    class Storing(TaskBackend):
        embedder: Embedder

        def embed_documents(self, texts: Sequence[str]) -> Matrix:
            if texts == ["new"]:
                self.embedder.forget(["same"])
            return super().embed_documents(texts)

    async def storing(embedder: Embedder) -> list[Made]:
        backend.embedder = embedder
        return await in_turn(embedder)

    backend = Storing()
    first, second = embedded(backend, storing)
    assert (second.embedded, second.rows[0][1].tolist()) == (1, first.rows[0][1].tolist())


def test_a_text_is_embedded_once_though_two_calls_are_under_way() -> None:
    class Meeting(TaskBackend):
        both = threading.Barrier(2)

        def embed_documents(self, texts: Sequence[str]) -> Matrix:
            self.both.wait()
            return super().embed_documents(texts)

    backend = Meeting()
    first, second = embedded(backend, at_once)
    assert sorted(backend.documents) == ["new", "same"]
    assert second.rows[0][1].tolist() == first.rows[0][1].tolist()


@pytest.mark.parametrize("work", [in_turn, at_once])
def test_a_text_that_is_refused_is_refused_wherever_it_is(
    work: Callable[[Embedder], Awaitable[list[Made]]],
) -> None:
    made = embedded(RefusingBackend("same"), work)
    assert [each.rejected[0].id for each in made] == ["a", "b"]
    assert [[document.id for document, _ in each.rows] for each in made] == [[], ["c"]]


def test_a_text_that_is_cut_is_cut_wherever_it_is() -> None:
    made = embedded(TaskBackend(truncated=["same"]), in_turn)
    assert [each.truncated for each in made] == [["a"], ["b"]]


def test_a_call_that_fails_is_told_to_those_that_wait_for_its_texts_and_made_again() -> None:
    class Away(TaskBackend):
        both = threading.Barrier(2)
        is_back = False

        def embed_documents(self, texts: Sequence[str]) -> Matrix:
            if not self.is_back:
                self.both.wait()
            if not self.is_back and texts == ["same"]:
                raise BackendUnavailable("away for a moment")
            return super().embed_documents(texts)

    async def twice(embedder: Embedder) -> list[Made]:
        both = await asyncio.gather(*map(embedder.embed, PLANS), return_exceptions=True)
        assert [type(each) for each in both] == [BackendUnavailable] * 2
        backend.is_back = True
        return await in_turn(embedder)

    backend = Away()
    made = embedded(backend, twice)
    assert [[document.id for document, _ in each.rows] for each in made] == [["a"], ["b", "c"]]


def test_a_batch_that_is_cancelled_takes_nothing_from_the_one_it_waits_for() -> None:
    class Slow(TaskBackend):
        other, go_on = threading.Event(), threading.Event()

        def embed_documents(self, texts: Sequence[str]) -> Matrix:
            if texts == ["same"]:
                self.go_on.wait(10)
            else:
                self.other.set()
            return super().embed_documents(texts)

    async def cancelled(embedder: Embedder) -> list[Made]:
        first, second = (asyncio.create_task(embedder.embed(plan)) for plan in PLANS)
        await asyncio.to_thread(backend.other.wait, 10)
        await asyncio.sleep(0.1)  # until it has its answer, and waits for that of the first
        second.cancel()
        backend.go_on.set()
        return [await first]

    backend = Slow()
    (made,) = embedded(backend, cancelled)
    assert [document.id for document, _ in made.rows] == ["a"]


def test_what_is_done_at_the_same_time_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    clock = StageClock()
    with clock.running():
        now += 1
        with clock.running():
            now += 2
            assert clock.seconds == 3
        now += 4
    now += 8
    assert clock.seconds == 7
