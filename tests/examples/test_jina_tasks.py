"""The examples of Jina's tasks, run as they are on a local server in place of the API."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from samespace.testing.jina_server import JinaServer

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
KEY = "jina_test"


@pytest.fixture
def server() -> Iterator[JinaServer]:
    with JinaServer(keys=(KEY,)) as server:
        yield server


def run(name: str, server: JinaServer) -> list[str]:
    """The lines that an example prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name],
        env={**os.environ, "JINA_API_KEY": KEY, "JINA_BASE_URL": server.url},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def tasks(server: JinaServer) -> set[str]:
    return {request["task"] for request in server.requests}


def test_messages_get_the_label_that_they_are_about(server: JinaServer) -> None:
    lines = run("zero_shot_classification.py", server)
    assert [line.split()[0] for line in lines] == ["delivery", "billing", "repair", "delivery"]
    assert all(line.split()[0] in line[10:] for line in lines)
    assert tasks(server) == {"classification"}
    assert server.requests[0]["input"] == ["billing", "delivery", "repair"]  # not rephrased


def test_notes_come_in_the_groups_that_they_make(server: JinaServer) -> None:
    lines = run("clustering.py", server)
    groups = {group: {line for line in lines if line.startswith(group)} for group in "01"}
    about_trains = [all("Vienna" in line for line in group) for group in groups.values()]
    assert sorted(about_trains) == [False, True]
    assert [len(group) for group in groups.values()] == [3, 3]
    assert tasks(server) == {"separation"}


def test_questions_in_other_words_are_found(server: JinaServer) -> None:
    lines = run("near_duplicates.py", server)
    assert [line.replace("  =", "").split("  ")[1:] for line in lines] == [
        ["How do I reset the password of my account?", "How can I reset my account password?"],
        [
            "Which countries do you ship furniture to?",
            "To which countries do you ship your furniture?",
        ],
    ]
    assert tasks(server) == {"text-matching"}


def test_a_note_is_found_by_what_its_neighbour_says(server: JinaServer) -> None:
    lines = run("late_chunking.py", server)
    assert [line for line in lines if not line.startswith(" ")] == [
        "each note alone",
        "in sight of one another",
    ]
    assert "Nothing moves there" in lines[1]
    assert "Trains pass" in lines[6]
    sent = [(request["task"], request.get("late_chunking", False)) for request in server.requests]
    assert sent == [
        ("retrieval.query", False),
        ("retrieval.passage", False),
        ("retrieval.passage", True),
    ]
    assert len(server.requests[-1]["input"]) == 4
