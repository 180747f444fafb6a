"""What tests of the command line share: the command as a program calls it, and a server of the API."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from samespace.cli import _run
from samespace.testing.jina_server import JinaServer

KEY = "jina_sentinel_4711"
WITHOUT_KEY = {name: value for name, value in os.environ.items() if name != "JINA_API_KEY"}


def run(
    home: Path,
    *arguments: str,
    cwd: Path | None = None,
    environment: dict[str, str] | None = None,
    said: str = "",
    before: str = "",
) -> subprocess.CompletedProcess[str]:
    """The command with these arguments; ``said`` is its input, ``before`` is run in front of it."""
    code = before + "from samespace.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=cwd,
        input=said,
        env={**WITHOUT_KEY, "SAMESPACE_HOME": str(home), "COLUMNS": "120", **(environment or {})},
    )


def with_key(server: JinaServer) -> dict[str, str]:
    return {"JINA_API_KEY": KEY, "JINA_BASE_URL": server.url}


class Caller:
    """The command in this process, which spares the tests its start."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._patches, self._captured = monkeypatch, capsys
        monkeypatch.delenv("JINA_API_KEY", raising=False)
        monkeypatch.setenv("COLUMNS", "200")

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr."""
        self._patches.setattr(sys, "argv", ["samespace", *arguments])
        code = _run()
        told = self._captured.readouterr()
        return code, told.out, told.err
