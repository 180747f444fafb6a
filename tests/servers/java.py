"""A JDK that is new enough, wherever this machine has one."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.servers.untested import NotHere

OLDEST: Final = 21
GIVEN: Final = "SAMESPACE_TEST_JAVA_HOME"


def home() -> Path:
    """The home of the newest JDK, or of the one that the environment names for the tests."""
    given = os.environ.get(GIVEN)
    homes = [Path(given)] if given else list(_homes())
    newest = max(homes, key=version_of, default=None)
    if newest is None or version_of(newest) < OLDEST:
        seen = ", ".join(str(path) for path in homes) or "none"
        raise NotHere(f"it needs a JDK >= {OLDEST} (seen: {seen}); name one with {GIVEN}")
    return newest


def version_of(home: Path) -> int:
    """The major version of a JDK; 0 of what is none, such as a mere runtime."""
    try:
        release = (home / "release").read_text(encoding="utf-8")
    except OSError:
        return 0
    found = re.search(r'^JAVA_VERSION="(?:1\.)?(\d+)', release, re.MULTILINE)
    return int(found[1]) if found and (home / "bin" / "javac").exists() else 0


def _homes() -> Iterator[Path]:
    if named := os.environ.get("JAVA_HOME"):
        yield Path(named)
    yield from sorted(Path("/usr/lib/jvm").glob("*"))
    yield from sorted(Path("/Library/Java/JavaVirtualMachines").glob("*/Contents/Home"))
    if program := shutil.which("javac"):
        yield Path(program).resolve().parent.parent
