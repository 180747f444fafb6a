"""``samespace migrate verify`` as a shell runs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from tests.audit.poisoning import documents, insert, poison
from tests.cli.running import Caller
from tests.contract.ingesting import Place
from tests.places import STORES as FOREIGN
from tests.places import Place as ForeignPlace
from tests.places import opened_place

from samespace import Document, HashingBackend
from samespace.migrate import Verification

ROWS = documents(30)
OLD, NEW = HashingBackend(64), HashingBackend(96)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(monkeypatch, capsys)


@pytest.fixture
def place(tmp_path: Path, qdrant_local: None) -> Place:
    place = Place("QdrantStore", str(tmp_path / "qdrant"), {})
    with place.open(OLD) as store:
        store.upsert(ROWS)
    return place


@pytest.fixture
def planned(place: Place, call: Caller, tmp_path: Path) -> list[str]:
    """A collection that was moved, and what every command about it begins with."""
    path = str(tmp_path / "plan.json")
    at = ["--store", f"qdrant:{place.source}"]
    arguments = [*at, "--collection", place.collection, "--backend", "hashing@96", "--out", path]
    assert call("migrate", "plan", *arguments)[0] == 0
    run = ["migrate", "run", *at, "--plan", path, "--backend", "hashing@96"]
    assert call(*run)[0] == 0
    return ["migrate", "verify", *at, "--plan", path]


def test_the_evidence_is_shown_written_and_drawn(
    planned: list[str], call: Caller, tmp_path: Path
) -> None:
    queries, judged = tmp_path / "asked.txt", tmp_path / "judged.jsonl"
    queries.write_text("\n".join(row.text for row in ROWS[:12]), encoding="utf-8-sig")
    lines = [{"query": row.text, "id": row.id, "grade": 1} for row in ROWS[:12]]
    judged.write_bytes(
        b"\xef\xbb\xbf" + b"\n".join(map(orjson.dumps, lines))
    )  # as Windows marks it
    out, page = tmp_path / "verification.json", tmp_path / "verification.html"
    arguments = ["--backend", "hashing@96", "--old-backend", "hashing@64", "--threshold", "0.4"]
    files = ["--queries", queries, "--judgements", judged, "--out", out, "--html", page]
    code, told, progress = call(*planned, *arguments, *map(str, files), "--repetitions", "1")
    assert code == 0, told
    assert "ok      sample" in told
    assert "0.4 becomes" in told
    assert "self-retrieval" in progress
    found = Verification.from_dict(orjson.loads(out.read_bytes()))
    assert found.passed
    assert found.made_at is not None
    text = page.read_text()
    assert text.count("<svg") == 4
    assert "http" not in text
    assert "<script" not in text


@pytest.fixture(params=FOREIGN)
def foreign(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ForeignPlace]:
    with opened_place(request.param, request, tmp_path) as place:
        yield place


def test_a_collection_that_others_made_is_verified_and_not_touched(
    foreign: ForeignPlace, call: Caller, tmp_path: Path
) -> None:
    rows = [Document(str(n), row.text, {"lang": "en"}) for n, row in enumerate(ROWS)]
    foreign.make(rows, OLD.embed_documents([row.text for row in rows]))
    at, path = ("--store", foreign.address), str(tmp_path / "plan.json")
    named = (*at, "--collection", foreign.name)
    assert call("adopt", *named, "--backend", "hashing@64", "--yes")[0] == 0
    assert call("migrate", "plan", *named, "--backend", "hashing@96", "--out", path)[0] == 0
    there = (*at, "--plan", path, "--backend", "hashing@96")
    assert call("migrate", "run", *there)[0] == 0
    before = foreign.dump()
    arguments = ("--old-backend", "hashing@64", "--repetitions", "1", "--json")
    code, told, said = call("migrate", "verify", *there, *arguments)
    assert code == 0, said
    assert foreign.dump() == before
    (found,) = Verification.from_dict(orjson.loads(told)).collections
    assert {each.name for each in found.checks if each.passed} == {
        "pending", "stale", "canary", "sample", "truncated", "self-retrieval"
    }  # fmt: skip
    assert found.check("sample").figures["judged"] == len(ROWS)


def test_what_is_wrong_is_named_and_the_exit_code_says_so(
    planned: list[str], place: Place, call: Caller
) -> None:
    poison(place, ROWS[:2], HashingBackend(96), slot=NEW.space.id)  # which is right
    id = insert(place, "of an application", OLD, slot=OLD.space.id)
    code, told, _ = call(*planned, "--backend", "hashing@96", "--json")
    assert code == 1
    found = Verification.from_dict(orjson.loads(told))
    assert [each.name for each in found.failures] == ["pending"]
    assert found.failures[0].figures["ids"] == [id]
    code, told, _ = call(*planned, "--backend", "hashing@96")
    assert code == 1
    assert "FAILED, for plan" in told
    assert "--old-backend" in told


def test_another_backend_is_refused_as_one_of_another_space(
    planned: list[str], call: Caller, tmp_path: Path
) -> None:
    code, _, said = call(*planned, "--backend", "hashing@128")
    assert code == 3
    assert "the backend that was planned with" in said
    code, _, said = call(*planned, "--backend", "hashing@96", "--old-backend", "hashing@32")
    assert code == 3
    code, _, said = call(*planned, "--backend", "hashing@96", "--agreement", "1")
    assert code == 2
    assert "--agreement" in said
    judged = tmp_path / "judged.jsonl"
    judged.write_text('{"query": "a"}')
    arguments = ["--backend", "hashing@96", "--judgements", str(judged)]
    code, _, said = call(*planned, *arguments)
    assert code == 2
    assert "judgements, line 1" in said


@pytest.mark.parametrize("option", ["--out", "--html"])
@pytest.mark.parametrize("wrong", ["no folder/file", "."])
def test_a_path_that_cannot_be_written_is_refused_before_anything_is_paid(
    planned: list[str], call: Caller, tmp_path: Path, option: str, wrong: str
) -> None:
    at = str(tmp_path / wrong)
    code, told, said = call(*planned, "--backend", "hashing@96", option, at)
    assert (code, told, "pending" in said) == (2, "", False)
    assert "cannot write" in said
    _, store, _, path = planned[2:]
    planning = ["migrate", "plan", "--store", store, "--backend", "hashing@96", "--dry-run", "12"]
    code, told, said = call(*planning, option, at)
    assert (code, told) == (2, "")
    assert "cannot write" in said
    assert Path(path).is_file()


def test_a_file_that_is_there_is_replaced_and_nothing_is_left_beside_it(
    planned: list[str], call: Caller, tmp_path: Path
) -> None:
    out = tmp_path / "out" / "verification.json"
    out.parent.mkdir()
    out.write_text("an older one")
    assert call(*planned, "--backend", "hashing@64", "--out", str(out))[0] != 0
    assert [each.read_text() for each in out.parent.iterdir()] == ["an older one"]
    assert call(*planned, "--backend", "hashing@96", "--out", str(out))[0] == 0
    assert [each.name for each in out.parent.iterdir()] == [out.name]


def test_all_vectors_are_looked_at_where_that_is_asked_for(
    planned: list[str], call: Caller
) -> None:
    arguments = [*planned, "--backend", "hashing@96", "--repetitions", "1", "--sample"]
    code, told, _ = call(*arguments, "all")
    assert (code, "all were looked at" in told) == (0, True)
    code, _, said = call(*arguments, "some")
    assert (code, "or 'all'" in said) == (2, True)
