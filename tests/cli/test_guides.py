"""The guides to migrations: every command in them is one that there is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from tests.cli.running import Caller

DOCS = Path(__file__).resolve().parents[2] / "docs"
GUIDES = ("from-v2-to-v3.md", "migration.md")
COMMAND = re.compile(r"^    (samespace (?:.*\\\n)*.*)$", re.MULTILINE)


def commands(guide: str) -> list[list[str]]:
    """What is typed, as its words, without ``samespace`` and what a reader fills in."""
    found = COMMAND.findall((DOCS / guide).read_text())
    return [shlex.split(each.replace("\\\n", " ").rstrip(" …"))[1:] for each in found]


@pytest.mark.parametrize("guide", GUIDES)
def test_every_command_of_a_guide_is_known_with_its_options(
    guide: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call = Caller(monkeypatch, capsys)
    assert len(commands(guide)) >= 5
    for words in commands(guide):
        code, _, said = call(*words, "--help")  # unknown options are found before help is shown
        assert code == 0, (words, said)
