"""The README's Python, as it stands, on an embedded server and a local server of Jina's API."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from samespace.stores.pgvector import embedded
from samespace.testing.jina_server import JinaServer

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
SNIPPETS: list[str] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
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
    with JinaServer(keys=(KEY,)) as server:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", snippet],
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
