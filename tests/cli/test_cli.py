"""The command line, as a person and as a program meet it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import psycopg
import pytest
from tests.cli.running import KEY, run, with_key

import samespace
from samespace import HashingBackend, Layout, PgVectorStore
from samespace.stores.pgvector import embedded
from samespace.testing.jina_server import JinaServer
from samespace.testing.openai_server import OpenAIServer

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_the_demo_finds_and_refuses(home: Path) -> None:
    for _ in range(2):
        done = run(home, "demo")
        assert done.returncode == 0, done.stderr
        assert "exception" in done.stdout
        assert "jina-embeddings-v2-base-en" in done.stdout.partition("refused:")[2]
        assert "incompatible" in done.stdout


def test_the_demo_uses_the_api_where_there_is_a_key(home: Path) -> None:
    with JinaServer(keys=(KEY,)) as server:
        done = run(home, "demo", environment=with_key(server))
        again = run(home, "demo", environment=with_key(server))
        asked = {(body["model"], body.get("task")) for body in server.requests}
    for ran in (done, again):
        assert ran.returncode == 0, ran.stderr
        assert "jina-embeddings-v3 through its API" in ran.stdout
        assert "exception" in ran.stdout
        assert KEY not in ran.stdout + ran.stderr
        refusal = ran.stdout.partition("refused:")[2].split()
        for cell in ("jina-embeddings-v3", "jina-embeddings-v2-base-en", "retrieval.passage"):
            assert cell in refusal
    assert asked == {("jina-embeddings-v3", f"retrieval.{side}") for side in ("passage", "query")}
    assert tokens_of(done.stdout) > 10_000 > tokens_of(again.stdout) > 0


def tokens_of(output: str) -> int:
    line = next(line for line in output.splitlines() if line.endswith("tokens spent"))
    return int(line.split()[0])


def test_documents_are_ingested_and_searched_through_the_api(home: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("Red apples are ripe.\n")
    with JinaServer(keys=(KEY,)) as server:
        by_option = ("-c", "by_api", "--backend", "jina", "--dimensions", "64")
        done = run(home, "ingest", ".", *by_option, cwd=tmp_path, environment=with_key(server))
        assert done.returncode == 0, done.stderr
        assert "tokens" in done.stdout
        by_spec = ("-c", "by_api", "--backend", "jina@64")
        found = run(home, "search", "ripe apples", *by_spec, "--json", environment=with_key(server))
        assert [hit["id"] for hit in json.loads(found.stdout)] == ["notes.md#0"]
    held = json.loads(run(home, "info", "-c", "by_api", "--json").stdout)["space"]
    assert (held["model"], held["dimensions"]) == ("jina-embeddings-v3", 64)
    assert run(home, "drop", "-c", "by_api", "--yes").returncode == 0
    assert run(home, "info", "-c", "by_api").returncode == 1


def test_a_server_of_openai_s_protocol_embeds_what_is_ingested(home: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("Red apples are ripe.\n")
    with OpenAIServer(model="jina-embeddings-v3", keys=(KEY,)) as server:
        spec = f"openai:{server.url}#jina-embeddings-v3@64:retrieval.passage"
        served = ("-c", "served", "--backend", spec)
        key = {"OPENAI_COMPATIBLE_API_KEY": KEY}
        done = run(home, "ingest", ".", *served, cwd=tmp_path, environment=key)
        assert done.returncode == 0, done.stderr
        found = run(home, "search", "ripe apples", *served, "--json", environment=key)
        assert [hit["id"] for hit in json.loads(found.stdout)] == ["notes.md#0"]
        asked = {(body["task"], body["dimensions"]) for body in server.requests}
    assert asked == {("retrieval.passage", 64), ("retrieval.query", 64)}
    assert KEY not in done.stdout + done.stderr + found.stdout + found.stderr
    assert run(home, "drop", "-c", "served", "--yes").returncode == 0


def test_documents_are_ingested_searched_and_dropped(home: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("# Apples\n\nRed apples are ripe.\n\nPears are green.\n")
    (tmp_path / "rows.jsonl").write_text('{"id": "x", "text": "blue plums", "lang": "en"}\n')
    (tmp_path / "page.html").write_text("<p>yellow lemons</p><script>no</script>")
    (tmp_path / "table.csv").write_text("id,text,lang\nc1,schwarze Kirschen,de\n")
    (tmp_path / "image.png").write_bytes(b"\x89PNG")
    done = run(home, "ingest", str(tmp_path), "-c", "fruit", "--json")
    said: dict[str, object] = {
        "documents": 4, "resumed_at": 0, "written": 4, "unchanged": 0, "removed": 0, "pruned": 0,
        "prune_withheld": False, "embedded": 4, "tokens": 0, "cost": None, "truncated": [],
        "complete": True, "stopped": "", "rejected_before": 0, "rejected": [],
    }  # fmt: skip
    assert (done.returncode, json.loads(done.stdout)) == (0, said)
    found = run(home, "search", "blue plums", "-c", "fruit", "--where", "lang=en", "--json")
    assert [hit["id"] for hit in json.loads(found.stdout)] == ["x"]
    assert "schwarze Kirschen" in run(home, "search", "Kirschen", "-c", "fruit").stdout
    (slot,) = (said := json.loads(run(home, "info", "-c", "fruit", "--json").stdout))["slots"]
    assert (said["rows"], slot["documents_cosine"], slot["queries_cosine"]) == (4, None, None)
    alike = run(home, "info", "-c", "fruit", "--backend", "hashing")
    assert "canary: cosine 1.0000 of documents, 1.0000 of queries" in alike.stdout
    assert run(home, "info", "-c", "fruit", "--backend", "hashing@64").returncode == 3
    assert run(home, "drop", "-c", "fruit", "--yes").returncode == 0
    assert run(home, "search", "plums", "-c", "fruit").returncode == 1


def test_what_is_ingested_again_follows_its_files(home: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "README.md").write_text(f"{folder} {'x' * 900}\n\n{folder} end\n" * 2)
    ingest = ("ingest", "a", "b/README.md", "-c", "again", "--json")
    first = json.loads(run(home, *ingest, cwd=tmp_path).stdout)
    again = json.loads(run(home, *ingest, cwd=tmp_path).stdout)
    (tmp_path / "a" / "README.md").write_text("short now")
    (tmp_path / "b" / "README.md").write_text("")
    shrunk = json.loads(run(home, *ingest, cwd=tmp_path).stdout)
    figures = [(d["written"], d["unchanged"], d["removed"]) for d in (first, again, shrunk)]
    assert figures == [(4, 0, 0), (0, 4, 0), (1, 0, 3)]
    found = json.loads(run(home, "search", "end", "-c", "again", "--json").stdout)
    assert [hit["id"] for hit in found] == ["a/README.md#0"]


def test_what_cannot_be_read_is_left_out_and_named(home: Path, tmp_path: Path) -> None:
    (tmp_path / "good.md").write_text("some text")
    (tmp_path / "latin.html").write_bytes(b"<p>caf\xe9</p>")
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\nnonsense\n{"text": "b"}\n')
    done = run(home, "ingest", ".", "-c", "partly", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == "collection partly: 5 documents read\n3 rows written, 2 left out\n"
    said = [line.partition(": ")[::2] for line in done.stderr.splitlines()]
    assert [where for where, _ in said] == ["left out latin.html", "left out rows.jsonl#2"]
    assert "not UTF-8 at byte 6" in said[0][1]
    assert "not JSON" in said[1][1]


def test_another_space_is_refused_though_nothing_changed(home: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text")
    ingest = ("ingest", ".", "-c", "unchanged")
    assert run(home, *ingest, cwd=tmp_path).returncode == 0
    refused = run(home, *ingest, "--backend", "hashing@256", cwd=tmp_path)
    assert refused.returncode == 3, refused.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["search", "x", "-c", "Bad Name"], 2, "collection name"),
        (["search", "x", "--where", "nonsense"], 2, "--where"),
        (["search", "x", "--backend", "magic"], 2, "jina:jina-embeddings-v2-base-en"),
        (["search", "x", "--backend", "openai:h#m@7"], 2, "openai:http://localhost:8080/v1#MODEL@"),
        (["search", "x", "--backend", "jina"], 1, "JINA_API_KEY"),
        (["search", "x", "--backend", "hashing@256", "--dimensions", "64"], 2, "leave one out"),
        (["search", "x", "--dimensions", "0"], 2, "dimensions"),
        (["search", "x", "--store", "redis://h"], 2, "postgresql://"),
        (["search", "x", "--store", "postgresql://u:geheim@h/d"], 2, "PGPASSWORD"),
        (["search", "x", "--store", "postgresql://u@127.0.0.1:1/d"], 1, "cannot be reached"),
        (["ingest", "/no/such/file.md"], 2, "cannot read"),
        (["ingest", ".", "/no/such/folder"], 2, "no such file or folder"),
        (["ingest", "/bin/sh"], 2, ".md"),
        (["nonsense"], 2, "nonsense"),
        (["search", "x", "--limit", "many"], 2, "--limit"),
        (["search"], 2, "query"),
    ],
)
def test_an_error_is_one_line_that_says_what_to_do(
    home: Path, arguments: list[str], code: int, said: str
) -> None:
    done = run(home, *arguments)
    assert done.returncode == code
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "geheim" not in done.stderr + done.stdout


def test_another_size_is_another_space(home: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text")
    assert run(home, "ingest", str(tmp_path), "-c", "sized").returncode == 0
    for said in (("--backend", "hashing@256"), ("--dimensions", "256")):
        refused = run(home, "search", "text", "-c", "sized", *said)
        assert refused.returncode == 3
        assert "dimensions" in refused.stderr


def test_without_a_command_there_is_help_and_nothing_else(home: Path) -> None:
    done = run(home, alone=True)
    assert done.returncode == 2
    assert "Usage" in done.stdout + done.stderr
    assert "samespace:" not in done.stderr


def test_the_version_is_that_of_the_package(home: Path) -> None:
    said = run(home, "--version", alone=True)
    assert (said.returncode, said.stdout) == (0, f"samespace {samespace.__version__}\n")


def test_what_is_not_confirmed_is_not_removed(home: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text")
    assert run(home, "ingest", ".", "-c", "dear", cwd=tmp_path).returncode == 0
    unanswered = run(home, "drop", "-c", "dear")
    assert unanswered.returncode == 2
    assert "--yes" in unanswered.stderr
    refused = run(home, "drop", "-c", "dear", said="n\n")
    assert refused.returncode == 1
    assert "nothing removed" in refused.stderr
    done = run(home, "drop", "-c", "dear", "--json", said="y\n")
    assert json.loads(done.stdout) == {"name": "dear", "rows": 1}


def test_info_says_how_a_collection_was_made(home: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text")
    assert run(home, "ingest", ".", "-c", "made", cwd=tmp_path).returncode == 0
    found = json.loads(run(home, "info", "-c", "made", "--json").stdout)
    assert found["provenance"]["backend"]
    assert found["layout"] is None
    assert f"backend {found['provenance']['backend']}" in run(home, "info", "-c", "made").stdout


def test_info_says_where_things_are_in_an_adopted_table(home: Path) -> None:
    layout = Layout(id="key", text="body", slot="embedding", metadata=("lang",))
    server = embedded.start(home / "postgres")
    with server, psycopg.connect(server.conninfo, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute(
            "CREATE TABLE theirs (key text PRIMARY KEY, body text, lang text, embedding vector(64))"
        )
        backend = HashingBackend(64)
        with PgVectorStore(
            server.conninfo, collection="theirs", backend=backend, layout=layout
        ) as store:
            store.adopt()
        told = run(home, "info", "-c", "theirs", "--json")
        connection.execute("DROP TABLE theirs")
    assert json.loads(told.stdout)["layout"] == {
        "id": "key", "text": "body", "slot": "embedding", "metadata": ["lang"]
    }  # fmt: skip


SIGNALLED = """
import os, signal
from samespace.stores.pgvector.store import PgVectorStore
PgVectorStore.info = lambda store: os.kill(os.getpid(), signal.SIGNAL)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_the_command_and_the_server(name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="samespace-home-") as folder:
        Path(folder).chmod(0o755)  # the server's account must get through
        started = "from samespace.stores.pgvector import embedded; embedded.start()\n"
        done = run(Path(folder), "info", before=started + SIGNALLED.replace("SIGNAL)", f"{name})"))
        assert done.returncode == 128 + signal.Signals[name]
        assert ("interrupted" in done.stderr) == (name == "SIGINT")
        assert "Traceback" not in done.stderr
        assert not embedded.status(Path(folder) / "postgres").running


def test_output_that_cannot_be_written_is_one_line(home: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", "from samespace.cli import main; main()", "embedded", "status"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env={**os.environ, "SAMESPACE_HOME": str(home)},
        )
    assert done.returncode == 1
    assert done.stderr == "samespace: cannot write: No space left on device\n"


def test_the_embedded_server_says_how_it_is(home: Path) -> None:
    status = json.loads(run(home, "embedded", "status", "--json").stdout)
    assert status["running"]
    assert status["in_use"]
    refused = run(home, "embedded", "stop", "--json")
    assert refused.returncode == 1
    assert "--force" in refused.stderr


@pytest.mark.parametrize(("script", "said"), [("quickstart", "battery-1"), ("guard", "verdict")])
def test_the_examples_run(home: Path, script: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{script}.py")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "SAMESPACE_HOME": str(home)},
    )
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


CTRL_C_AT = """
import runpy, signal, sys

class Presser:
    def find_spec(self, name, *_):
        if name == sys.argv[1]:
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Presser())
runpy.run_module("samespace", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("module", ["numpy", "typer", "samespace.cli.server"])
def test_ctrl_c_while_the_command_starts_is_no_traceback(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CTRL_C_AT, module], capture_output=True, text=True, check=False
    )
    said = "samespace: interrupted; what was stored stays, run it again to go on\n"
    assert (done.returncode, done.stdout, done.stderr) == (130, "", said)


def test_the_installed_command_is_the_one_that_starts_so() -> None:
    project = tomllib.loads((EXAMPLES.parent / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"samespace": "samespace.__main__:main"}
