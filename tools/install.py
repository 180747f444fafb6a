"""Make an environment and fill it: ``python tools/install.py demo|all|peers``.

``demo`` and ``all`` install this project into .venv; ``peers`` installs into .bench what the
benchmarks compare it with, whose pins conflict with ours.

Any number of these may run at a time: one works, the others wait for it and find it done. Uses
nothing but the standard library, and Python 3.11 or newer.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT = ROOT / "pyproject.toml"
PROFILES = {
    "demo": (".venv", "--editable", ".[pgvector,embedded,cli,jina]"),
    "all": (".venv", "--editable", ".[all,local,testing]", "--group", "dev"),
    "peers": (".bench", "--group", "peers"),
}


def main(profile: str) -> None:
    """Install ``profile`` unless that was done since the project file changed."""
    name, *requirements = PROFILES[profile]
    environment = ROOT / name
    environment.mkdir(exist_ok=True)
    stamp = environment / f"installed-{profile}"
    with _locked(environment):
        if not _is_current(stamp):
            print(f"Making {name} ({profile}); the first time takes a minute or two", flush=True)
            _install(environment, *requirements)
            stamp.touch()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a lock that the system gives back if this process dies."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _is_current(stamp: Path) -> bool:
    return stamp.exists() and stamp.stat().st_mtime >= PROJECT.stat().st_mtime


def _install(environment: Path, *requirements: str) -> None:
    pip = (str(environment / "bin" / "python"), "-m", "pip")
    if not _works(*pip, "--version"):
        _run(sys.executable, "-m", "venv", "--clear", str(environment))
    install = (*pip, "install", "--quiet", "--disable-pip-version-check")
    _run(*install, "pip>=25.1")  # the first that knows dependency groups
    _run(*install, *requirements)


def _works(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _run(*command: str) -> None:
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    if status:
        sys.exit(f"this failed with status {status}: {' '.join(command)}")


if __name__ == "__main__":
    if sys.argv[1:] not in [[name] for name in PROFILES]:
        sys.exit(f"usage: install.py {'|'.join(PROFILES)}")
    main(sys.argv[1])
