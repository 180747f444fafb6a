"""The examples that move a collection from v2 to v3, run as they are on a local server of the API."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from elasticsearch import Elasticsearch

from samespace.testing.jina_server import JinaServer

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
KEY = "jina_test"
BEST = "An empty battery is full again after"


@pytest.fixture
def server() -> Iterator[JinaServer]:
    with JinaServer(keys=(KEY,)) as server:
        yield server


def run(name: str, server: JinaServer, *arguments: str, home: Path) -> list[str]:
    """The lines that an example prints."""
    environment = {"JINA_API_KEY": KEY, "JINA_BASE_URL": server.url, "SAMESPACE_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def check_moved(lines: list[str], name: str) -> None:
    """Every row was filled, verified and found by both models, and the old slot is gone."""
    assert "complete: every row that can be embedded has a vector of its text" in lines
    [verdict] = [line for line in lines if line.startswith(("passed", "failed"))]
    assert verdict.startswith("passed")
    assert [line[:2] for line in lines if BEST in line] == ["v2", "v3"]
    assert f"{name}: the slot of jina-embeddings-v2-base-en@768 is dropped" in lines


def asked(server: JinaServer) -> set[tuple[str, str | None]]:
    """Which models were asked, each with its tasks."""
    return {(each["model"], each.get("task")) for each in server.requests}


def test_a_collection_in_postgres_moves_while_it_is_written(home: Path, server: JinaServer) -> None:
    name = f"t{uuid.uuid4().hex[:12]}"
    lines = run("migrate_postgres.py", server, "--collection", name, home=home)
    check_moved(lines, name)
    filled = [line.rpartition(" ")[0] for line in lines if line.endswith(" filled")]
    assert [line.rpartition(" ")[2] for line in filled] == ["12", "1"]
    assert next(line for line in lines if line.startswith("v3")).endswith("after one hour.")
    assert asked(server) == {
        ("jina-embeddings-v2-base-en", None),
        ("jina-embeddings-v3", "retrieval.passage"),
        ("jina-embeddings-v3", "retrieval.query"),
    }


def test_points_that_another_program_made_move(
    home: Path, server: JinaServer, qdrant_local: None
) -> None:
    check_moved(run("migrate_qdrant.py", server, home=home), "Bike-Notes")


def test_an_index_that_another_program_made_moves(
    home: Path, server: JinaServer, elasticsearch: str
) -> None:
    name = f"t{uuid.uuid4().hex[:12]}"
    place = ("--url", elasticsearch, "--collection", name)
    try:
        check_moved(run("migrate_elasticsearch.py", server, *place, home=home), name)
    finally:
        with Elasticsearch(elasticsearch) as client:
            client.indices.delete(index=name, ignore_unavailable=True)
