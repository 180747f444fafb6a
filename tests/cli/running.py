"""What tests of the command line share: the command as a program calls it, and a server of the API."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
