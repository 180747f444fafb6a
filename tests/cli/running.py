"""What tests of the command line share: the command, called or started, and a server of the API."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest

from samespace.cli import _run
from samespace.testing.jina_server import JinaServer

MAIN = "from samespace.cli import main; main()"
KEY = "jina_sentinel_4711"
WITHOUT_KEY = {name: value for name, value in os.environ.items() if name != "JINA_API_KEY"}


def run(
    home: Path,
    *arguments: str,
    cwd: Path | None = None,
    environment: dict[str, str] | None = None,
    said: str = "",
    before: str = "",
    alone: bool = False,
) -> subprocess.CompletedProcess[str]:
    """The command with these arguments; ``said`` is its input.

    It is called in this process, which spares the tests its start. ``alone`` it has one of its own,
    as it has where ``before`` is run in front of it.
    """
    own = {"SAMESPACE_HOME": str(home), "COLUMNS": "120", **(environment or {})}
    if before or alone:
        return _started(before, arguments, cwd, own, said)
    return _called(arguments, cwd or Path(), own, said)


def _started(
    before: str, arguments: tuple[str, ...], cwd: Path | None, own: dict[str, str], said: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"{before}{MAIN}", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=cwd,
        input=said,
        env={**WITHOUT_KEY, **own},
    )


def _called(
    arguments: tuple[str, ...], cwd: Path, own: dict[str, str], said: str
) -> subprocess.CompletedProcess[str]:
    with pytest.MonkeyPatch.context() as patches, chdir(cwd):
        patches.delenv("JINA_API_KEY", raising=False)
        for name, value in own.items():
            patches.setenv(name, value)
        patches.setattr(sys, "argv", ["samespace", *arguments])
        patches.setattr(sys, "stdin", _piped(said))
        with redirect_stdout(_piped()) as shown, redirect_stderr(_piped()) as told:
            code = _run()
    return subprocess.CompletedProcess(arguments, code, _read(shown), _read(told))


def _piped(text: str = "") -> TextIOWrapper:
    """What looks like a pipe: with bytes behind it, and no terminal."""
    return TextIOWrapper(BytesIO(text.encode()), encoding="utf-8")


def _read(stream: TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()


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
