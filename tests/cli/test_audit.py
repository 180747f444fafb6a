"""``samespace audit``, ``repair`` and ``check`` as a shell runs them."""

from __future__ import annotations

import io
import json
import re
import shlex
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from qdrant_client import QdrantClient, models
from tests.audit.poisoning import change_text, documents, every, poison, turned
from tests.cli.running import KEY, WITHOUT_KEY, with_key
from tests.cli.terminal import CTRL_C, Terminal
from tests.contract.ingesting import Place

import samespace.cli
from samespace import Document, HashingBackend, JinaAPIBackend, Layout, everything
from samespace.audit.notes import AuditFile
from samespace.testing.backends import DistortingBackend
from samespace.testing.jina_server import JinaServer

SIZE = 40
SPACE = HashingBackend(64).space


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A collection of which every tenth row is of another model."""
    place = Place("QdrantStore", str(tmp_path / "qdrant"), {})
    with place.open(HashingBackend(64)) as store:
        store.upsert(documents(SIZE))
    backwards = DistortingBackend(HashingBackend(64), documents=lambda own: own[:, ::-1].copy())
    poison(place, every(10, documents(SIZE)), backwards, slot=SPACE.id)
    return place


@dataclass(frozen=True, slots=True)
class Done:
    """As a process would have ended."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """The command in this process, which is quicker than one of its own."""
    monkeypatch.setenv("SAMESPACE_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["samespace", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        return Done(samespace.cli._run(), *capsys.readouterr())

    return run


def at(place: Place, command: str, *more: str, backend: str | None = "hashing@64") -> list[str]:
    where = ["--store", f"qdrant:{place.source}", "--collection", place.collection]
    return [command, *where, *(["--backend", backend] if backend else []), *more]


def test_an_audit_names_foreign_rows_and_the_command_that_repairs_them(
    place: Place, tmp_path: Path, run: Run
) -> None:
    point, page = str(tmp_path / "a point"), tmp_path / "report.html"
    asked = at(place, "audit", "--all", "--checkpoint", point, "--report", str(page))
    done = run(*asked, "--max-share", "0.05")
    assert done.returncode == 1, done.stderr
    assert "foreign: 4 (10.00%)" in done.stdout
    assert "foreign 'd10', cosine" in done.stdout
    assert page.read_text().count("<td>foreign</td>") == 4 + 1
    command = shlex.split(done.stdout.rpartition("to repair them: ")[2])
    assert command[0] == "samespace"
    refused = run(*command[1:])
    assert (refused.returncode, "pass --yes" in refused.stderr) == (2, True)
    dry = run(*command[1:], "--dry-run")
    assert "4 rows to repair, 0 right already" in dry.stdout
    mended = run(*command[1:], "--yes")
    assert (mended.returncode, mended.stdout) == (0, "4 rows repaired, 0 right already\n")
    assert "0 rows repaired, 4 right" in run(*command[1:], "--yes").stdout
    clean = run(*asked, "--max-share", "0")
    assert (clean.returncode, "foreign: 0 (0.00%)" in clean.stdout) == (0, True)


def test_findings_that_are_not_what_the_checkpoint_says_repair_nothing(
    place: Place, tmp_path: Path, run: Run
) -> None:
    point, found = tmp_path / "point", tmp_path / "point.found"
    run(*at(place, "audit", "--all", "--checkpoint", str(point)))
    mend = at(place, "repair", "--checkpoint", str(point), "--yes")
    kept = found.read_bytes()
    for damaged, said in {
        kept[:-1]: "knows of",
        kept.replace(b'"id"', b'"no"'): "are damaged",
    }.items():
        found.write_bytes(damaged)
        done = run(*mend)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    found.unlink()
    assert "are 0 bytes" in run(*mend).stderr
    found.write_bytes(kept)
    with AuditFile(point).held():
        assert "another job uses the checkpoint" in run(*mend).stderr
    elsewhere = Place("QdrantStore", str(tmp_path / "elsewhere"), {})
    with elsewhere.open(HashingBackend(64)) as store:
        store.upsert(documents(SIZE))
    for command in ("audit", "repair"):
        more = ["--all"] if command == "audit" else ["--yes"]
        done = run(*at(elsewhere, command, "--checkpoint", str(point), *more))
        assert (done.returncode, "of another" in done.stderr) == (2, True), done.stderr
    assert run(*mend).stdout == "4 rows repaired, 0 right already\n"


def test_an_id_that_is_not_there_is_no_success(place: Place, run: Run) -> None:
    done = run(*at(place, "repair", "--id", "d10", "--id", "typo", "--yes"))
    assert (done.returncode, done.stderr) == (1, "there is no row typo\n")
    assert "1 row repaired" in done.stdout


def test_an_id_of_several_points_is_left_with_what_takes_one_away(tmp_path: Path, run: Run) -> None:
    place = Place("QdrantStore", str(tmp_path / "qdrant"), {})
    right = HashingBackend(64).embed_documents(["one", "two", "two"])
    made = [
        models.PointStruct(id=id, payload={"key": key, "text": text}, vector={"v": vector.tolist()})
        for id, key, text, vector in zip(
            (1, 2, 3), ("a", "b", "b"), ("one", "two", "two"), (right[0], right[0], right[2]),
            strict=True,
        )
    ]  # fmt: skip
    size = models.VectorParams(size=64, distance=models.Distance.COSINE)
    with closing(QdrantClient(path=place.source)) as client:
        client.create_collection(place.collection, vectors_config={"v": size})
        client.upsert(place.collection, made)
    layout = Layout(id="key", text="text", slot="v", metadata=())
    with place.open(HashingBackend(64), layout=layout) as store:
        store.adopt()
    point = str(tmp_path / "point")
    assert "b" in run(*at(place, "audit", "--all", "--checkpoint", point)).stdout
    done = run(*at(place, "repair", "--yes", "--checkpoint", point))
    assert done.returncode == 1
    assert "0 rows repaired, 0 right already" in done.stdout
    assert "left as they are, rows with one id b: 2, 3" in done.stderr
    assert f"client.delete({place.collection!r}, points_selector=[…])" in done.stderr
    assert "store.delete(" not in done.stderr


def test_a_sample_says_where_the_share_is_and_its_json_can_be_repaired_from(
    place: Place, tmp_path: Path, run: Run
) -> None:
    done = run(*at(place, "audit", "--sample", "39", "--json", "--max-share", "0.001"))
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["sampled"]
    assert found["interval"][0] <= 0.1 <= found["interval"][1]
    report = tmp_path / "AUDIT.json"
    report.write_text(done.stdout)
    mended = run(*at(place, "repair", "--from", str(report), "--yes", "--json"))
    assert json.loads(mended.stdout)["repaired"] == found["counts"]["foreign"]


def test_without_a_model_an_audit_says_when_it_can_tell_nothing(
    place: Place, tmp_path: Path, run: Run
) -> None:
    done = run(*at(place, "audit", "--free"))
    assert done.returncode == 0
    assert "these vectors have no common direction" in done.stdout
    with place.open(HashingBackend(64)) as store:
        store.delete(ids=[f"d{n}" for n in range(30)])
    assert "there are too few vectors" in run(*at(place, "audit", "--free")).stdout


def test_a_bound_holds_of_nothing_that_was_not_judged(place: Place, run: Run) -> None:
    with place.open(HashingBackend(64)) as store:
        store.delete(where=everything)
    done = run(*at(place, "audit", "--max-share", "0.5"))
    assert (done.returncode, "no row was judged" in done.stderr) == (1, True)


def test_rows_that_nobody_could_judge_count_against_a_bound(place: Place, run: Run) -> None:
    with place.open(HashingBackend(64)) as store:
        store.delete(ids=[row.id for row in every(10, documents(SIZE))])
    change_text(place, "d1", " ")
    asked = at(place, "audit", "--all", "--max-share")
    done = run(*asked, "0.01")
    assert (done.returncode, "2.78%: 1 were not judged" in done.stdout) == (1, True), done.stdout
    assert run(*asked, "0.03").returncode == 0


def test_a_candidate_that_made_foreign_vectors_is_named(
    place: Place, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = at(place, "audit", "--all", "--candidate", "jina@64")
    with JinaServer(keys=(KEY,)) as server:
        for name, value in with_key(server).items():
            monkeypatch.setenv(name, value)
        with JinaAPIBackend(dimensions=64) as other:
            poison(place, documents(SIZE)[1:4], other, slot=SPACE.id)
        done = run(*asked)
        assert "3 likely jina-embeddings-v3@64:retrieval.passage" in done.stdout
        assert "4 likely none of the candidates" in done.stdout
        server.fail_next(401, {"detail": "no"}, times=9)
        done = run(*asked)
        assert "not compared with jina-embeddings-v3@64:retrieval.passage: " in done.stdout
        assert "foreign: 7" in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        ["audit"],
        ["guard", "repair-record"],
        ["repair", "--id", "d1", "--yes"],
        ["check"],
        ["search", "a part"],
        ["info"],
        ["ingest", "notes.md"],
    ],
)
def test_every_command_that_embeds_takes_how_near_is_near_enough(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.md").write_text("a new text")
    place = Place("QdrantStore", str(tmp_path / "qdrant"), {})
    quantised = DistortingBackend(
        HashingBackend(64),
        documents=lambda own: turned(own, 0.99),
        queries=lambda own: turned(own, 0.99),
    )
    with place.open(quantised) as store:
        store.upsert(documents(2))
    asked = [*command, *at(place, "")[1:]]
    assert run(*asked).returncode == (1 if command == ["check"] else 3)
    done = run(*asked, "--canary-threshold", "0.98")
    assert done.returncode == 0, done.stderr
    assert "a cosine between 0 and 1" in run(*asked, "--canary-threshold", "7").stderr


@pytest.mark.parametrize("command", [["info"], ["check"], ["guard", "repair-record"]])
def test_how_near_is_near_enough_is_not_asked_of_what_compares_nothing(
    tmp_path: Path, run: Run, command: list[str]
) -> None:
    place = Place("QdrantStore", str(tmp_path / "qdrant"), {})
    with place.open(HashingBackend(64)) as store:
        store.upsert(documents(2))
    asked = [*command, *at(place, "", backend=None)[1:]]
    assert run(*asked).returncode == 0
    for threshold in ("0.9", "7"):
        done = run(*asked, "--canary-threshold", threshold)
        assert done.returncode == 2
        assert "--canary-threshold is of a comparison, and without --backend" in done.stderr


# Interrupted

HOLDING = """
import threading
from samespace import HashingBackend
embed, batches = HashingBackend.embed_documents, []
def holding(self, texts):
    batches.extend(texts[20:21])
    if len(batches) == 2:
        threading.Event().wait()
    return embed(self, texts)
HashingBackend.embed_documents = holding
"""


def test_ctrl_c_ends_an_audit_that_then_goes_on(home: Path, tmp_path: Path, run: Run) -> None:
    place, point = Place("QdrantStore", str(tmp_path / "qdrant"), {}), tmp_path / "point"
    with place.open(HashingBackend(64)) as store:
        store.upsert(documents(250))
    asked = at(place, "audit", "--all", "--checkpoint", str(point))
    environment = {**WITHOUT_KEY, "SAMESPACE_HOME": str(home)}
    with Terminal(
        HOLDING + "from samespace.cli import main; main()",
        asked, columns=80, cwd=tmp_path, environment=environment,
    ) as terminal:  # fmt: skip
        terminal.until(lambda text: "200 rows of 250 judged" in text)
        terminal.press(CTRL_C)
        assert terminal.end() == 130
    said = terminal.screen.text.replace("\n", "")
    assert "harmsamespace: interrupted; 200 rows judged, run it again to go on" in said
    done = json.loads(run(*asked, "--json").stdout)
    assert (done["resumed_at"], done["looked_at"]) == (200, 250)


@pytest.mark.parametrize(
    ("command", "more", "said"),
    [
        ("repair", (), "say which rows"),
        ("repair", ("--id", "d1", "--from", "x"), "say which rows"),
        ("repair", ("--from", "nothing.json", "--yes"), "check --from"),
        ("repair", ("--checkpoint", "nothing", "--yes"), "there is no checkpoint"),
        ("audit", ("--max-share", "7"), "pass a share"),
        ("audit", ("--max-share", "0.1", "--free"), "--free judges no row"),
        ("audit", ("--report", "/nowhere/at/all.html"), "cannot write the report"),
        ("audit", ("--report", "/"), "cannot write the report"),
        ("audit", ("--sample", "0"), "from 1 to 10,000, or --all for every row"),
        ("audit", ("--all", "--sample", "9"), "--all looks at every row"),
        ("audit", ("--free", "--candidate", "jina"), "--free asks no model"),
        ("audit", ("--candidate", "wonder"), "no backend is known"),
    ],
)
def test_wrong_usage_says_what_is_right(
    place: Place, command: str, more: tuple[str, ...], said: str, run: Run
) -> None:
    done = run(*at(place, command, *more))
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr


# Check


def test_a_check_passes_and_measures(place: Place, tmp_path: Path, run: Run) -> None:
    metrics = tmp_path / "samespace.prom"
    asked = at(place, "check", "--expect", str(SPACE), "--metrics", str(metrics))
    done = run(*asked)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"fine, 40 rows of {SPACE}, canary documents 1.0000" in done.stdout
    found = parsed(metrics.read_text())
    slot = f'collection="ingested",slot="{SPACE.id}"'
    assert found["samespace_rows", 'collection="ingested"'] == 40
    assert found["samespace_pending_rows", slot] == 0
    assert found["samespace_slot_ready", slot] == 1
    assert found["samespace_canary_cosine", 'collection="ingested",direction="queries"'] > 0.999
    assert found["samespace_check_success", 'collection="ingested"'] == 1
    assert found["samespace_check_timestamp_seconds", 'collection="ingested"'] > 1e9


def test_a_check_fails_with_1_where_something_is_not_as_expected(
    place: Place, tmp_path: Path, run: Run
) -> None:
    metrics = tmp_path / "samespace.prom"
    asked = at(place, "check", "--expect", "jina-embeddings-v3@64", backend=None)
    done = run(*asked, "--metrics", str(metrics))
    assert done.returncode == 1
    assert "model 'samespace-hashing" in done.stderr
    assert "is not 'jina-embeddings-v3'" in done.stderr
    assert parsed(metrics.read_text())["samespace_check_success", 'collection="ingested"'] == 0
    with place.open(HashingBackend(64)) as store:
        store.upsert_vectors([Document("p", "pending")], [None], space=SPACE)
    done = run(*at(place, "check"))
    assert (done.returncode, "1 rows are pending, at most 0" in done.stderr) == (1, True)
    assert run(*at(place, "check", "--max-pending", "1")).returncode == 0
    mended = run(*at(place, "repair", "--pending", "--yes"))
    assert (mended.returncode, mended.stdout) == (0, "1 row repaired, 0 right already\n")
    assert json.loads(run(*at(place, "check", "--json")).stdout)["fine"] is True


def test_a_check_says_where_nobody_can_tell_whether_rows_are_stale(
    tmp_path: Path, run: Run
) -> None:
    place = Place("QdrantStore", str(tmp_path / "adopted"), {})
    shape = models.VectorParams(size=64, distance=models.Distance.COSINE)
    with closing(QdrantClient(path=place.source)) as client:
        client.create_collection(place.collection, vectors_config={"embedding": shape})
    layout = Layout(id="id", text="text", slot="embedding")
    with place.open(HashingBackend(64), layout=layout) as store:
        store.adopt()
    metrics = tmp_path / "samespace.prom"
    done = run(*at(place, "check", "--metrics", str(metrics), backend=None))
    assert (done.returncode, "stale ones cannot be told" in done.stdout) == (0, True), done.stderr
    assert "samespace_stale_rows" not in metrics.read_text()
    assert json.loads(run(*at(place, "check", "--json", backend=None)).stdout)["stale"] is None


@pytest.mark.parametrize(
    "more",
    [
        ("--collection", "absent"),
        ("--collection", "a\udcff"),
        ("--store", "qdrant://127.0.0.1:1"),
        ("--expect", "nonsense"),
        ("--max-pending", "-1"),
        ("--backend", "hashing@128", "--expect", str(SPACE)),
    ],
)
def test_a_check_that_cannot_tell_ends_with_2_and_says_so_in_the_metrics(
    place: Place, tmp_path: Path, more: tuple[str, ...], run: Run
) -> None:
    metrics = tmp_path / "samespace.prom"
    done = run(*at(place, "check", backend=None), *more, "--metrics", str(metrics))
    assert done.returncode == 2, done.stdout
    assert done.stderr
    if more[0] != "--max-pending":  # which typer refuses
        [success] = [
            value for (name, _), value in parsed(metrics.read_text()).items() if "success" in name
        ]
        assert success == 0


def test_what_nobody_foresaw_leaves_no_success_in_the_metrics(
    place: Place, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = tmp_path / "samespace.prom"
    asked = at(place, "check", "--metrics", str(metrics))
    assert run(*asked).returncode == 0
    monkeypatch.setattr(HashingBackend, "embed_documents", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(*asked)
    assert parsed(metrics.read_text())["samespace_check_success", 'collection="ingested"'] == 0


LINE = re.compile(r'([a-z_]+)\{((?:[a-z_]+="(?:[^"\\\n]|\\[\\n"])*",?)*)\} (\S+)\Z')


def parsed(text: str) -> dict[tuple[str, str], float]:
    """By the grammar of Prometheus' text format, strictly."""
    found: dict[tuple[str, str], float] = {}
    described: set[str] = set()
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            described.add(line.split(" ")[2])
        elif line.startswith("# TYPE "):
            assert line.split(" ")[2:] == [line.split(" ")[2], "gauge"]
        else:
            match = LINE.match(line)
            assert match, line
            assert match[1] in described
            assert (match[1], match[2]) not in found
            found[match[1], match[2]] = float(match[3])
    return found
