"""``samespace ingest``: in a terminal, in a pipe, interrupted, and with each of its options."""

from __future__ import annotations

import json
import re
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.running import KEY, WITHOUT_KEY, run, with_key
from tests.cli.terminal import CTRL_C, Terminal

from samespace.cli.checkpoints import checkpoint_of, place_of
from samespace.cli.ingesting import WITHHELD
from samespace.testing.jina_server import Answer, JinaServer

ENDING = "ending what is under way; Ctrl-C again ends it at once, which does no harm"
MAIN = "from samespace.cli import main; main()"
ORDINARY = (
    f"import sys; sys.path.append({str(Path(__file__).parents[2])!r})\n"
    "from tests.rights import ordinary; rights = ordinary(); rights.__enter__()\n"
)
SHARED = ("--backend", "jina@64", "--price", "20", "--budget-tokens", "1000000")


class HoldingServer(JinaServer):
    """One that never answers a request with a certain text."""

    held = b'"line 1000"'

    def respond(self, authorization: str | None, body: bytes) -> Answer:
        if self.held in body:
            self.hold()
        return super().respond(authorization, body)


class UnpaidServer(JinaServer):
    """One whose key has no balance left when a request with a certain text comes."""

    unpaid = b'"line 1000"'
    refused = 0

    def respond(self, authorization: str | None, body: bytes) -> Answer:
        if self.unpaid in body:
            self.refused += 1
            return Answer(402, b"{}")
        return super().respond(authorization, body)


def lines_in(folder: Path, count: int) -> None:
    """A file of so many documents, of which 500 are a batch."""
    lines = [json.dumps({"id": f"r{n}", "text": f"line {n}"}) for n in range(count)]
    (folder / "rows.jsonl").write_text("\n".join(lines))


def in_terminal(
    home: Path, server: JinaServer, cwd: Path, *arguments: str, columns: int = 80
) -> Terminal:
    environment = {
        name: value for name, value in WITHOUT_KEY.items() if name not in ("COLUMNS", "NO_COLOR")
    }
    environment |= {"SAMESPACE_HOME": str(home), **with_key(server)}
    return Terminal(
        MAIN, ("ingest", ".", *arguments), columns=columns, cwd=cwd, environment=environment
    )


def ctrl_c(terminal: Terminal) -> None:
    terminal.press(CTRL_C)


def sigterm(terminal: Terminal) -> None:
    terminal.send(signal.SIGTERM)


@pytest.mark.parametrize(
    ("columns", "end", "code"), [(80, ctrl_c, 130), (80, sigterm, 143), (40, ctrl_c, 130)]
)
def test_a_terminal_shows_how_far_it_is_and_is_clean_after_an_interruption(
    home: Path, tmp_path: Path, columns: int, end: Callable[[Terminal], None], code: int
) -> None:
    lines_in(tmp_path, 2000)
    named = ("-c", f"shown_{columns}_{code}", *SHARED)
    with (
        HoldingServer(keys=(KEY,)) as server,
        in_terminal(home, server, tmp_path, *named, columns=columns) as terminal,
    ):
        check_progress(until_held(terminal), columns)
        assert not terminal.screen.is_wrapped
        end(terminal)
        assert terminal.end() == code
    said = "samespace: interrupted; 1,000 documents done, run it again to go on"
    before = f"samespace: {ENDING}" if end is ctrl_c else ""
    assert "".join(terminal.screen.text.split()) == "".join((before + said).split())


def until_held(terminal: Terminal) -> str:
    """What it shows once two batches are stored."""
    last = r" left, cost 0\.\d{4}$" if terminal.screen.columns == 80 else " left$"
    return terminal.until(lambda text: re.search(f"1,000 documents.*\n.*{last}", text))


LOCKING = """
import os, signal, threading
from samespace.ingest.target import Target
write, batches = Target.write, []
async def holding(self, rows):
    batches.extend(rows)
    if len(batches) > 1000:
        os.kill(os.getpid(), signal.SIGINT)
        await self._worker.do(threading.Event().wait)
    return await write(self, rows)
Target.write = holding
"""


def test_a_second_ctrl_c_ends_what_waits_for_ever(home: Path, tmp_path: Path) -> None:
    lines_in(tmp_path, 2000)
    named = ("-c", "waiting", "--backend", "hashing@64")
    environment = {**WITHOUT_KEY, "SAMESPACE_HOME": str(home)}
    arguments = ("ingest", ".", *named)
    with Terminal(
        LOCKING + MAIN, arguments, columns=80, cwd=tmp_path, environment=environment
    ) as terminal:
        terminal.until(lambda text: "Ctrl-C again" in text)
        terminal.press(CTRL_C)
        assert terminal.end() == -signal.SIGINT
    done = run(home, *arguments, "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["resumed_at"] == 1000


def test_what_an_earlier_run_stored_is_not_denied(home: Path, tmp_path: Path) -> None:
    lines_in(tmp_path, 10)
    assert run(home, "ingest", ".", "-c", "twice", cwd=tmp_path).returncode == 0
    at_once = STOPPING.replace("await store(self, *batch)", "").replace("== 2", "== 1")
    stopped = run(home, "ingest", ".", "-c", "twice", cwd=tmp_path, before=at_once)
    assert stopped.returncode == 130
    assert "no document done in this run" in stopped.stderr


def test_what_a_terminal_interrupted_goes_on_when_it_is_run_again(
    home: Path, tmp_path: Path
) -> None:
    lines_in(tmp_path, 2000)
    named = ("-c", "resumed", *SHARED)
    with (
        HoldingServer(keys=(KEY,)) as server,
        in_terminal(home, server, tmp_path, *named) as terminal,
    ):
        until_held(terminal)
        second = run(home, "ingest", ".", *named, cwd=tmp_path, environment=with_key(server))
        assert (second.returncode, len(second.stderr.splitlines())) == (2, 1)
        assert "another job uses the checkpoint" in second.stderr
        ctrl_c(terminal)
        assert terminal.end() == 130
    with (
        JinaServer(keys=(KEY,)) as answering,
        in_terminal(home, answering, tmp_path, *named) as terminal,
    ):
        assert terminal.end() == 0
    assert not terminal.screen.is_wrapped
    first, counts = terminal.screen.text.splitlines()
    assert first == "collection resumed: 1,000 documents read, 1,000 done before"
    assert counts.startswith("1,000 rows written, ")


def check_progress(shown: str, columns: int) -> None:
    """Two lines: how far it is, and what it cost."""
    progress, balance = shown.splitlines()
    assert "50%, 1,000 documents, 0:" in progress
    assert " to go" in progress
    assert ("━" in progress) == ("/s" in progress) == (columns == 80)
    assert re.match(r"\d+ tokens, 99\d(\.\d)?k left", balance)


def test_a_pipe_gets_plain_lines(home: Path, tmp_path: Path) -> None:
    (tmp_path / "[red]x.md").write_text("some text")
    (tmp_path / "[bold]bad.md").write_bytes(b"\xff")
    forced = {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "TERM": "xterm-256color"}
    done = run(home, "ingest", ".", "-c", "piped", cwd=tmp_path, environment=forced)
    assert done.returncode == 1
    assert done.stdout == "collection piped: 2 documents read\n1 row written, 1 left out\n"
    assert done.stderr.startswith("left out [bold]bad.md: '[bold]bad.md' is not UTF-8")
    counted = run(home, "ingest", ".", "-c", "piped", "--json", cwd=tmp_path, environment=forced)
    assert [item["id"] for item in json.loads(counted.stdout)["rejected"]] == ["[bold]bad.md"]
    assert not {"\x1b", "\r"} & set(done.stdout + done.stderr + counted.stdout + counted.stderr)


def test_of_many_that_are_left_out_a_person_is_told_some(home: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("nonsense\n" * 30)
    done = run(home, "ingest", ".", "-c", "many", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("left out") == 20
    assert done.stderr.endswith("and 10 more, all named with --json\n")


STOPPING = """
import os, signal
from samespace.ingest.pipeline import Pipeline
store, batches = Pipeline._store, []
async def stopping(self, *batch):
    await store(self, *batch)
    batches.append(batch)
    if len(batches) == 2:
        os.kill(os.getpid(), signal.SIGINT)
Pipeline._store = stopping
"""


def test_an_interrupted_ingest_goes_on_when_it_is_run_again(home: Path, tmp_path: Path) -> None:
    lines_in(tmp_path, 4000)
    ingest = ("ingest", ".", "-c", "stopped")
    stopped = run(home, *ingest, cwd=tmp_path, before=STOPPING)
    assert stopped.returncode == 130
    first, second = stopped.stderr.splitlines()
    assert first == f"samespace: {ENDING}"
    assert "run it again to go on" in second
    dry = json.loads(run(home, *ingest, "--dry-run", "--json", cwd=tmp_path).stdout)
    done = json.loads(run(home, *ingest, "--json", cwd=tmp_path).stdout)
    assert done["resumed_at"] >= 1000
    assert done["resumed_at"] + done["written"] + done["unchanged"] == 4000
    assert (dry["resumed_at"], dry["to_embed"]) == (done["resumed_at"], done["embedded"])
    again = json.loads(run(home, *ingest, "--json", cwd=tmp_path).stdout)
    assert (again["unchanged"], again["resumed_at"]) == (4000, 0)


def test_what_was_left_out_before_an_error_is_not_forgotten(home: Path, tmp_path: Path) -> None:
    lines_in(tmp_path, 2000)
    (tmp_path / "a.md").write_bytes(b"\xff")
    ingest = ("ingest", ".", "-c", "left_out", "--backend", "jina@64")
    with UnpaidServer(keys=(KEY,)) as server:
        failed = run(home, *ingest, cwd=tmp_path, environment=with_key(server))
    assert "run it again to go on" in failed.stderr
    with JinaServer(keys=(KEY,)) as server:
        done = run(home, *ingest, cwd=tmp_path, environment=with_key(server))
    assert (done.returncode, done.stderr) == (1, "")
    assert ", and 1 left out before, " in done.stdout


def test_a_collection_that_is_dropped_takes_its_checkpoints_along(
    home: Path, tmp_path: Path
) -> None:
    lines_in(tmp_path, 2000)
    ingest = ("ingest", "-c", "remade", "--json")
    assert run(home, *ingest, ".", cwd=tmp_path, before=STOPPING).returncode == 130
    assert run(home, "drop", "-c", "remade", "--yes").returncode == 0
    (tmp_path / "a.md").write_text("some text")
    assert run(home, *ingest, "a.md", cwd=tmp_path).returncode == 0
    (tmp_path / "a.md").unlink()
    done = json.loads(run(home, *ingest, ".", cwd=tmp_path).stdout)
    assert (done["resumed_at"], done["written"]) == (0, 2000)


def test_an_error_says_how_far_it_came(home: Path, tmp_path: Path) -> None:
    lines_in(tmp_path, 2000)
    with UnpaidServer(keys=(KEY,)) as server:
        ingest = ("ingest", ".", "-c", "unpaid", "--backend", "jina@64")
        done = run(home, *ingest, cwd=tmp_path, environment=with_key(server))
    assert done.returncode == 1, done.stderr
    error, note = done.stderr.splitlines()
    assert error.startswith("samespace: ")
    assert note == "1,000 documents done, run it again to go on"
    assert server.refused == 1


def test_texts_are_cut_into_chunks_that_follow_their_file(home: Path, tmp_path: Path) -> None:
    (tmp_path / "long.md").write_text("A sentence of some words. " * 20)
    ingest = ("ingest", ".", "-c", "cut", "--chunk-size", "100", "--json")
    first = json.loads(run(home, *ingest, cwd=tmp_path).stdout)
    assert first["written"] > 4
    (tmp_path / "long.md").write_text("A sentence of some words.")
    again = json.loads(run(home, *ingest, cwd=tmp_path).stdout)
    assert (again["written"], again["removed"]) == (1, first["written"] - 1)


def test_chunks_of_a_document_are_embedded_in_sight_of_each_other(
    home: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.md").write_text(f"A sentence of {name}. " * 20)
    late = ("--late-chunking", "--chunk-size", "100", "--backend", "jina@64")
    with JinaServer(keys=(KEY,)) as server:
        done = run(home, "ingest", ".", "-c", "late", *late, cwd=tmp_path,
                   environment=with_key(server))  # fmt: skip
        assert done.returncode == 0, done.stderr
        together = [body["input"] for body in server.requests if body.get("late_chunking")]
    assert sorted("".join({text[14] for text in texts}) for texts in together) == ["a", "b"]
    made = json.loads(run(home, "info", "-c", "late", "--json").stdout)["provenance"]
    assert made["late_chunking"].startswith("by document")


def test_what_left_its_folder_is_pruned_and_nothing_else(home: Path, tmp_path: Path) -> None:
    for name in ("a/one.md", "a/two.md", "ab/three.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"text of {name}")
    ingest = ("-c", "pruned", "--json")
    assert json.loads(run(home, "ingest", ".", *ingest, cwd=tmp_path).stdout)["written"] == 3
    for name in ("a/one.md", "ab/three.md"):
        (tmp_path / name).unlink()
    kept = json.loads(run(home, "ingest", "a", *ingest, cwd=tmp_path).stdout)
    assert kept["pruned"] == 0
    dry = run(home, "ingest", "a", "--prune", "--dry-run", "-c", "pruned", cwd=tmp_path)
    assert dry.stdout.endswith("1 row to prune\n")
    pruned = json.loads(run(home, "ingest", "a", "--prune", *ingest, cwd=tmp_path).stdout)
    assert (pruned["pruned"], pruned["unchanged"]) == (1, 1)
    assert json.loads(run(home, "info", *ingest).stdout)["rows"] == 2


def test_nothing_is_pruned_where_a_folder_cannot_be_read(home: Path, tmp_path: Path) -> None:
    for name in ("a/one.md", "b/two.md", "c/three.md", "gone.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"text of {name}")
    store = ("-c", "shut", "--store", f"qdrant:{tmp_path / '.store'}")
    ingest = ("ingest", ".", "--prune", *store)
    assert run(home, *ingest, cwd=tmp_path).returncode == 0
    (tmp_path / "gone.md").unlink()
    (tmp_path / "a").chmod(0)
    (tmp_path / "b").chmod(0o600)
    dry = run(home, *ingest, "--dry-run", cwd=tmp_path, before=ORDINARY)
    assert (dry.returncode, dry.stderr.splitlines()) == (
        0,
        ["2 cannot be read or stored", WITHHELD],
    )
    done = run(home, *ingest, cwd=tmp_path, before=ORDINARY)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "left out a: cannot read 'a': Permission denied",
        "left out b/two.md: cannot read 'b/two.md': Permission denied",
        WITHHELD,
    ]
    assert json.loads(run(home, "info", *store, "--json").stdout)["rows"] == 4
    told = json.loads(run(home, *ingest, "--json", cwd=tmp_path, before=ORDINARY).stdout)
    assert (told["pruned"], told["prune_withheld"]) == (0, True)


def test_a_dry_run_says_what_a_run_costs_and_changes_nothing(home: Path, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("some text")
    point = tmp_path / "points" / "point"
    with JinaServer(keys=(KEY,)) as server:
        ingest = ("ingest", ".", "-c", "dry", "--backend", "jina@64", "--price", "20")
        dry = (*ingest, "--dry-run", "--checkpoint", str(point))
        said = run(home, *dry, cwd=tmp_path, environment=with_key(server))
        told = run(home, *dry, "--json", cwd=tmp_path, environment=with_key(server))
        assert not server.requests
        assert not point.parent.exists()
        assert run(home, "info", "-c", "dry").returncode == 1
        done = run(home, *ingest, "--json", cwd=tmp_path, environment=with_key(server))
    assert said.returncode == 0, said.stderr
    documents, rows, texts = said.stdout.splitlines()
    assert (documents, rows) == ("1 document", "1 row")
    assert texts.startswith("1 text to embed: 9 characters, about ")
    counted, spent = json.loads(told.stdout), json.loads(done.stdout)
    assert (counted["to_embed"], counted["unchanged"], counted["resumed_at"]) == (1, 0, 0)
    assert counted["tokens"] >= spent["tokens"] > 0
    assert spent["cost"] == pytest.approx(spent["tokens"] * 20 / 1e6)


def test_a_dry_run_without_a_count_of_tokens_names_none(home: Path, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("some text")
    done = run(home, "ingest", ".", "-c", "lexical", "--dry-run", cwd=tmp_path)
    assert done.stdout == "1 document\n1 row\n1 text to embed: 9 characters\n"


def test_a_budget_ends_the_job_and_the_next_one_goes_on(home: Path, tmp_path: Path) -> None:
    lines_in(tmp_path, 1200)
    with JinaServer(keys=(KEY,)) as server:
        ingest = ("ingest", ".", "-c", "budgeted", "--backend", "jina@64", "--price", "20")
        first = run(
            home, *ingest, "--budget-tokens", "10", cwd=tmp_path, environment=with_key(server)
        )
        assert first.returncode == 4
        assert "500 documents read\n500 rows written" in first.stdout
        assert "cost 0." in first.stdout
        assert first.stderr == "the budget is spent; run it again to go on\n"
        again = run(home, *ingest, "--json", cwd=tmp_path, environment=with_key(server))
    counted = json.loads(again.stdout)
    assert (counted["resumed_at"], counted["written"], counted["complete"]) == (500, 700, True)
    assert run(home, "drop", "-c", "budgeted", "--yes").returncode == 0


def test_a_checkpoint_may_lie_where_it_is_wanted(home: Path, tmp_path: Path) -> None:
    lines_in(tmp_path, 2000)
    point = tmp_path / "points" / "point"
    ingest = ("ingest", ".", "-c", "noted", "--checkpoint", str(point), "--json")
    assert run(home, *ingest, cwd=tmp_path, before=STOPPING).returncode == 130
    assert json.loads(point.read_text())["position"] >= 1000
    assert json.loads(run(home, *ingest, cwd=tmp_path).stdout)["resumed_at"] >= 1000
    assert not list(point.parent.iterdir())


def test_a_share_of_the_limits_is_kept_to(home: Path, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("some text")
    ingest = ("ingest", ".", "-c", "shared", "--backend", "jina@64", "--share", "0.5")
    with JinaServer(keys=(KEY,)) as server:
        done = run(home, *ingest, cwd=tmp_path, environment=with_key(server))
    assert done.returncode == 0, done.stderr


BAD = {
    "late chunking": (["--late-chunking"], "leave --late-chunking out"),
    "budget": (["--budget-tokens", "5"], "leave --budget-tokens out"),
    "no budget": (["--budget-tokens", "0"], "--budget-tokens"),
    "price": (["--price", "1"], "leave --price out"),
    "negative price": (["--price", "-1"], "--price is -1.0"),
    "no price": (["--price", "nan"], "--price is nan"),
    "share": (["--share", "0.5"], "leave share (--share) out"),
    "too great a share": (["--share", "2", "--backend", "jina"], "share is 2.0"),
    "no chunks": (["--chunk-size", "0"], "--chunk-size"),
    "a folder": (["--checkpoint", "."], "the checkpoint '.' is no regular file"),
    "no path": ([""], 'a path is ""'),
    "no checkpoint": (["--checkpoint", "point"], "'point' is no checkpoint; remove the file"),
}


@pytest.mark.parametrize(("arguments", "said"), BAD.values(), ids=BAD)
def test_what_cannot_be_done_is_said_in_one_line(
    home: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "a.md").write_text("some text")
    (tmp_path / "point").write_text("{}")
    done = run(home, "ingest", "a.md", *arguments, cwd=tmp_path, environment={"JINA_API_KEY": KEY})
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


# Checkpoints of the command line


def test_a_data_folder_that_cannot_be_written_to_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("some text")
    (tmp_path / "no_folder").touch()
    store = ("--store", f"qdrant:{tmp_path / 'store'}")
    done = run(tmp_path / "no_folder", "ingest", "a.md", *store, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "pass --checkpoint" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert run(tmp_path / "no_folder", "drop", "-c", "documents", "--yes", *store).returncode == 0


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:geheim@host/d",
        "postgresql://u:ge@heim@host/d",
        "postgresql://u@host/d?password=geheim",
    ],
)
def test_a_checkpoint_is_of_a_place_whatever_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("SAMESPACE_HOME", str(tmp_path))
    path = checkpoint_of("postgresql://u@host/d", "c", "files a")
    assert path is not None
    assert checkpoint_of(url, "c", "files a") == path
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not list(path.parent.iterdir())
    others = [
        checkpoint_of("postgresql://u@other/d", "c", "files a"),
        checkpoint_of("postgresql://u@host/d", "d", "files a"),
        checkpoint_of("postgresql://u@host/d", "c", "files b"),
        checkpoint_of("postgresql://u@host/d", "c", "files a", scope=["lang=de"]),
        checkpoint_of("postgresql://u@host/d", "c", "files a", scope=["lang=en"]),
        checkpoint_of("postgresql://u@host/d", "c", "files a", scope=["lang=en", "tenant=1"]),
    ]
    assert others[-1] == checkpoint_of(
        "postgresql://u@host/d", "c", "files a", scope=["tenant=1", "lang=en"]
    )
    places = [place_of("postgresql://u@host/d", scope=each) for each in ([], ["lang=de"], ["k=1"])]
    assert len({*places}) == 3
    monkeypatch.setenv("PGDATABASE", "other")
    others.append(checkpoint_of("postgresql://u@host/d", "c", "files a"))
    assert len({path, *others}) == 8


def test_a_local_store_is_one_place_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAMESPACE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    here = checkpoint_of("qdrant:store", "c", "files a")
    assert here == checkpoint_of(f"qdrant:{tmp_path}/store", "c", "files a")
    assert here != checkpoint_of("qdrant::memory:", "c", "files a")
    assert checkpoint_of("elasticsearch://h:9200", "c", "x") is not None
