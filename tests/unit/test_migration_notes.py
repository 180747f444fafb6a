"""What a run notes of itself beside the plan, and what is said of it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from samespace.errors import InvalidInput
from samespace.migrate import MigrationStatus, RunNotes, read_notes
from samespace.migrate.notes import EVERY, RunNote, folder_of, is_followed
from samespace.migrate.progress import CollectionProgress, MigrationReport, SlotProgress
from samespace.migrate.status import CollectionStatus, SlotStatus
from samespace.space import EmbeddingSpace

V2 = EmbeddingSpace(model="jina-embeddings-v2-base-en", dimensions=768)
V3 = EmbeddingSpace(model="jina-embeddings-v3", dimensions=1024, task="retrieval.passage")
PLAN = "a" * 64


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def report(filled: int = 0, **changes: object) -> MigrationReport:
    slot = SlotProgress(space=V3, filled=filled)
    collection = CollectionProgress(name="notes", target=V3, slots=(slot,))
    return replace(MigrationReport(collections=(collection,)), **changes)  # type: ignore[arg-type]


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    return tmp_path / "plan.json"


def test_a_run_notes_how_far_it_is_at_most_every_few_seconds(plan: Path) -> None:
    clock = Clock()
    notes = RunNotes(plan, PLAN, worker=(1, 4), clock=clock)
    [begun] = read_notes(plan, PLAN)
    assert (begun.worker, begun.pid, begun.filled, begun.is_alive) == ((1, 4), os.getpid(), 0, True)
    notes.tell(report(10, tokens=100))
    assert read_notes(plan, PLAN) == (begun,)
    clock.now += EVERY
    notes.tell(report(20, tokens=200))
    [later] = read_notes(plan, PLAN)
    assert (later.filled, later.tokens, later.noted_at) == (20, 200, clock.now)
    assert read_notes(plan, "another plan") == ()


def test_the_lag_counts_from_the_start_of_the_last_sweep_that_found_nothing(plan: Path) -> None:
    clock = Clock()
    notes = RunNotes(plan, PLAN, clock=clock)
    notes.tell(report(sweeps=1, sweep_seconds=3.0, following=True))
    assert notes.note.lag(clock.now) is None
    clock.now = 1100.0
    notes.tell(report(sweeps=2, sweep_seconds=4.0, following=True, idle=True))
    clock.now = 1110.0
    notes.tell(report(5, sweeps=3, sweep_seconds=5.0, following=True))
    [found] = read_notes(plan, PLAN)
    assert found.fresh_at == 1096.0
    assert found.lag(1110.0) == 14.0
    assert "following; 5 filled" in found.line(1110.0)
    assert "at most 14.0 s behind" in found.line(1110.0)


def test_a_run_that_has_ended_says_how(plan: Path) -> None:
    with RunNotes(plan, PLAN, clock=Clock()) as notes:
        notes.tell(report(7, stopped="budget"))
    [found] = read_notes(plan, PLAN)
    assert (found.is_alive, found.ended) == (False, True)
    assert "ended (budget)" in found.line(2000.0)
    with notes:
        notes.tell(report(9, complete=True))
    assert "complete; 9 filled" in read_notes(plan, PLAN)[0].line(2000.0)


def test_a_run_that_an_error_ended_was_not_complete(plan: Path) -> None:
    notes = RunNotes(plan, PLAN, clock=Clock())
    notes.tell(report(7))
    with pytest.raises(ValueError, match="over"), notes:
        raise ValueError("over")
    [found] = read_notes(plan, PLAN)
    assert "ended (error); 7 filled" in found.line(2000.0)


def test_a_run_that_was_killed_is_gone(plan: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from samespace.migrate import RunNotes;"
        "RunNotes(Path(sys.argv[1]), sys.argv[2]); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(plan), PLAN], check=False, timeout=60)
    assert done.returncode == -9
    [found] = read_notes(plan, PLAN)
    assert (found.ended, found.is_alive) == (False, False)
    assert "gone while filling; run it again" in found.line(2000.0)


def test_a_run_on_another_machine_may_be_alive(plan: Path) -> None:
    notes = RunNotes(plan, PLAN, clock=Clock())
    elsewhere = replace(notes.note, host="else\x1bwhere")
    assert elsewhere.is_alive is None
    line = elsewhere.line(1000.0)
    assert "on another machine" in line
    assert line.isprintable()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"format": 2}'])
def test_what_is_no_note_is_named(plan: Path, content: bytes) -> None:
    folder_of(plan).mkdir()
    (folder_of(plan) / "other.json").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"other\.json.*remove it"):
        read_notes(plan, PLAN)


def test_a_note_with_a_field_of_another_kind_is_none(plan: Path) -> None:
    notes = RunNotes(plan, PLAN, clock=Clock())
    for name, value in (("filled", "1"), ("plan", 7), ("worker", [1]), ("ended", 0)):
        notes.path.write_bytes(orjson.dumps({**notes.note.to_dict(), name: value}))
        with pytest.raises(InvalidInput, match="no note"):
            read_notes(plan, PLAN)


def test_where_nothing_can_be_noted_no_run_begins(tmp_path: Path) -> None:
    folder_of(tmp_path / "plan.json").write_text("in the way")
    with pytest.raises(InvalidInput, match="can be written to"):
        RunNotes(tmp_path / "plan.json", PLAN)


def test_a_note_that_cannot_be_written_later_ends_no_run(
    plan: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    notes = RunNotes(plan, PLAN, clock=clock)
    notes.path.unlink()
    folder_of(plan).rmdir()
    for _ in range(2):
        clock.now += EVERY
        notes.tell(report(1))
    assert len(caplog.records) == 1
    assert "it goes on" in caplog.text


def slot(part: str, space: EmbeddingSpace, **changes: object) -> SlotStatus:
    made = SlotStatus(
        name=space.id,
        space=space,
        part=part,  # type: ignore[arg-type]
        state="ready",
        pending=0,
        stale=None,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def note(**changes: object) -> RunNote:
    made = RunNote(
        plan=PLAN,
        worker=(0, 1),
        host="elsewhere",
        pid=7,
        began_at=900.0,
        noted_at=999.0,
        tokens=1200,
        sweeps=3,
        fresh_at=990.0,
        following=True,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_a_status_says_what_is_left_what_is_unseen_and_who_is_at_work() -> None:
    target = slot("target", V3, state="filling", pending=1234, stale=5, can_fill=True)
    collection = CollectionStatus(
        name="manuals",
        stage="filling",
        rows=5000,
        slots=(slot("source", V2), target),
        unseen="what nobody sees",
    )
    found = MigrationStatus(
        plan=PLAN,
        collections=(collection,),
        runs=(note(ended=True, complete=True), note(pid=8)),
        asked_at=1000.0,
    )
    lines = found.lines()
    assert lines[0].startswith("manuals: filling, 5,000 rows; next: samespace migrate run")
    assert "stale not known" in lines[1]
    assert lines[2].endswith("filling, 1,234 pending, 5 stale")
    assert lines[3] == "  unseen by who follows: what nobody sees"
    assert lines[4].startswith("run 8 on elsewhere")
    assert lines[5] == "2 runs together: 2,400 tokens paid"
    assert found.lag == 10.0
    values = orjson.loads(orjson.dumps(found.to_dict()))
    assert values["collections"][0]["slots"][1]["pending"] == 1234
    assert [run["alive"] for run in values["runs"]] == [False, None]


def test_nobody_knows_a_lag_that_one_follower_does_not() -> None:
    runs = (note(), note(fresh_at=None))
    found = MigrationStatus(plan=PLAN, collections=(), runs=runs, asked_at=1000.0)
    assert found.lag is None
    assert replace(found, runs=()).lag is None
    assert replace(found, runs=()).lines() == ["no run has begun"]


def test_a_run_that_follows_on_another_machine_fills_what_others_write() -> None:
    assert is_followed([note()])
    assert not is_followed([note(ended=True), note(following=False)])
