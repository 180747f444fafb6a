"""The Python of README and docs, as it stands, with a local server of Jina's API."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from elasticsearch import Elasticsearch

from samespace.stores.pgvector import embedded
from samespace.testing.jina_server import JinaServer

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
INGEST = (ROOT / "docs" / "elasticsearch-ingest.md").read_text()
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
AUDIT = (ROOT / "docs" / "audit.md").read_text()
MIGRATION = (ROOT / "docs" / "migration.md").read_text()
SNIPPETS: list[str] = [
    snippet for page in (README, AUDIT, MIGRATION) for snippet in PYTHON.findall(page)
]
TABLE: list[str] = re.findall(r"```sql\n(CREATE TABLE .*?)```", README, re.DOTALL)
KEY = "jina_sentinel_4711"


@pytest.fixture
def table(home: Path) -> Iterator[None]:
    """The existing table that is opened."""
    lease = embedded.start(home / "postgres")
    with lease, psycopg.connect(lease.conninfo, autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.execute(TABLE[0].encode())
        yield
        connection.execute("DROP TABLE chunks")


def test_there_are_snippets_to_run() -> None:
    assert len(SNIPPETS) >= 4
    assert len(TABLE) == 1


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
@pytest.mark.usefixtures("table")
def test_a_snippet_runs_as_it_stands(home: Path, snippet: str) -> None:
    run(home, snippet)


def test_the_guide_to_ingestion_runs_from_top_to_bottom(home: Path, elasticsearch: str) -> None:
    """But for Elasticsearch's own inference, which needs a licence."""
    tried, _, _ = INGEST.partition("## Elasticsearch's own inference")
    name = f"c{uuid.uuid4().hex[:12]}"
    guide = "\n".join(PYTHON.findall(tried)).replace('"manuals"', f'"{name}"')
    said = run(home, guide.replace("http://localhost:9200", elasticsearch))
    assert f"+index.final_pipeline: samespace--{name}" in said
    with Elasticsearch(elasticsearch) as client:
        found = client.get(index=name, id="a1")["_source"]
        client.indices.delete(index=name)
    assert found["text"] == "Turn the wheel."


def run(home: Path, code: str) -> str:
    """What a program prints."""
    with JinaServer(keys=(KEY,)) as server:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={
                **os.environ,
                "SAMESPACE_HOME": str(home),
                "JINA_API_KEY": KEY,
                "JINA_BASE_URL": server.url,
            },
        )
    assert done.returncode == 0, done.stderr
    return done.stdout
