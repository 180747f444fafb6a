"""The command line, as a person and as a program meet it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    code = "from samespace.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "SAMESPACE_HOME": str(home), "COLUMNS": "120", **environment},
    )


def test_the_demo_finds_and_refuses(home: Path) -> None:
    for _ in range(2):
        done = run(home, "demo")
        assert done.returncode == 0, done.stderr
        assert "exception" in done.stdout
        assert "jina-embeddings-v2-base-en" in done.stdout.partition("refused:")[2]
        assert "incompatible" in done.stdout


def test_documents_are_ingested_searched_and_dropped(home: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("# Apples\n\nRed apples are ripe.\n\nPears are green.\n")
    (tmp_path / "rows.jsonl").write_text('{"id": "x", "text": "blue plums", "lang": "en"}\n')
    (tmp_path / "page.html").write_text("<p>yellow lemons</p><script>no</script>")
    (tmp_path / "table.csv").write_text("id,text,lang\nc1,schwarze Kirschen,de\n")
    (tmp_path / "image.png").write_bytes(b"\x89PNG")
    done = run(home, "ingest", str(tmp_path), "-c", "fruit", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"written": 4, "rejected": []})
    found = run(home, "search", "blue plums", "-c", "fruit", "--where", "lang=en", "--json")
    assert [hit["id"] for hit in json.loads(found.stdout)] == ["x"]
    assert "schwarze Kirschen" in run(home, "search", "Kirschen", "-c", "fruit").stdout
    assert json.loads(run(home, "info", "-c", "fruit", "--json").stdout)["rows"] == 4
    assert run(home, "drop", "-c", "fruit", "--yes").returncode == 0
    assert run(home, "search", "plums", "-c", "fruit").returncode == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["search", "x", "-c", "Bad Name"], 2, "collection name"),
        (["search", "x", "--where", "nonsense"], 2, "--where"),
        (["search", "x", "--backend", "magic"], 2, "backend"),
        (["search", "x", "--store", "redis://h"], 2, "postgresql://"),
        (["search", "x", "--store", "postgresql://u:geheim@h/d"], 2, "PGPASSWORD"),
        (["search", "x", "--store", "postgresql://u@127.0.0.1:1/d"], 1, "cannot be reached"),
        (["ingest", "/no/such/file.md"], 2, "cannot read"),
        (["nonsense"], 2, "nonsense"),
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
    refused = run(home, "search", "text", "-c", "sized", "--backend", "hashing@256")
    assert refused.returncode == 3
    assert "dimensions" in refused.stderr


def test_the_embedded_server_says_how_it_is(home: Path) -> None:
    status = json.loads(run(home, "embedded", "status", "--json").stdout)
    assert status["running"]
    assert status["in_use"]
    refused = run(home, "embedded", "stop")
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
