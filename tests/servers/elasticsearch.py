"""An Elasticsearch: in a container, or a node without Docker that may be killed and restarted."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx
from tests.servers import containers, elasticsearch_jars, java
from tests.servers.untested import NotHere, environment

READY: Final = "/_cluster/health?wait_for_status=yellow&timeout=10s"
START_SECONDS: Final = 180
STOP_SECONDS: Final = 30
ROOM: Final = 4 * 2**30
"""Bytes that a memory file system must have free to hold the data."""
LOWEST_PORT, HIGHEST_PORT = 12_000, 31_000
"""Below what systems give to outgoing connections: one of those could take a dead node's port."""
_OPTIONS: Final = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "--enable-native-access=ALL-UNNAMED,org.elasticsearch.nativeaccess,org.apache.lucene.core",
    "--add-modules=ALL-MODULE-PATH",
)


@contextmanager
def given() -> Iterator[str]:
    """The URL of the server that the environment names."""
    yield environment("SAMESPACE_TEST_ELASTICSEARCH")


@contextmanager
def container() -> Iterator[str]:
    """The URL of a server in a container."""
    with containers.running("elasticsearch", 9200, ready=READY) as (address,):
        yield f"http://{address}"


@contextmanager
def node() -> Iterator[str]:
    """The URL of a node of this machine."""
    with Node() as started:
        yield started.url


class Node:
    """One node on the loopback address, with data and a port of its own.

    ``settings`` are Elasticsearch's, such as ``{"thread_pool.write.queue_size": "1"}``; ``heap`` is
    Java's size, ``options`` are what else it is told. :class:`NotHere` says why it cannot be started.
    Its data lasts until ``stop``.
    """

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        *,
        heap: str = "512m",
        options: Sequence[str] | None = None,
    ) -> None:
        first = LOWEST_PORT + secrets.randbelow(HIGHEST_PORT - LOWEST_PORT)
        self._port = f"{first}-{first + 100}"  # it takes the first that is free
        self._settings = dict(settings or {})
        self._heap = heap
        self._options = _with_classes() if options is None else options
        self.folder = Path(tempfile.mkdtemp(prefix="samespace-elasticsearch-", dir=_memory()))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers once it was started; the same after another start."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Start it, on the data and port that it had, and wait until it answers."""
        self._ports_file.unlink(missing_ok=True)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.PIPE,  # its end, when this process ends, ends the node
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=elasticsearch_jars.home(),
                start_new_session=True,  # Ctrl-C is not for the node
            )
        try:
            self._wait()
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End it as a power cut would; ``start`` finds the data as they were left."""
        if self._process and self._process.stdin:
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()

    def stop(self) -> None:
        """End it and remove its data. Safe to call again."""
        if self._process and self._process.stdin:
            self._process.stdin.close()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def _log(self) -> Path:
        return self.folder / "node.log"

    @property
    def _ports_file(self) -> Path:
        return self.folder / "logs" / "http.ports"

    def _command(self) -> list[str]:
        home, settings = elasticsearch_jars.home(), {"http.port": self._port, **self._settings}
        for folder in ("config", "logs"):
            (self.folder / folder).mkdir(exist_ok=True)
        return [
            str(java.home() / "bin" / "java"),
            *(f"-Xms{self._heap}", f"-Xmx{self._heap}"),
            *_OPTIONS,
            *self._options,
            *("--module-path", str(home / "lib")),
            str(Path(__file__).with_name("SearchNode.java")),
            *(str(home), str(self.folder)),
            *(f"{name}={value}" for name, value in settings.items()),
        ]

    def _wait(self) -> None:
        limit = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.pid is None:
                raise NotHere(f"the node ended while it started: {self._last_words()}")
            if time.monotonic() > limit:
                raise NotHere(f"no answer after {START_SECONDS} s: {self._last_words()}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        if not self._ports_file.exists():
            return False
        self._port = self._ports_file.read_text().strip().rpartition(":")[2]
        try:
            return httpx.get(f"{self.url}{READY}", timeout=20, trust_env=False).is_success
        except httpx.TransportError:
            return False

    def _last_words(self) -> str:
        lines = map(str.strip, self._log.read_text(errors="replace").splitlines())
        return " | ".join(line for line in lines if line and not line.startswith("at "))[-1000:]


@cache
def _with_classes() -> Sequence[str]:
    """The option for a third less to do at each start: classes that were read and checked before."""
    jars = elasticsearch_jars.home()
    made = jars / f"classes-{java.version_of(java.home())}.jsa"
    with elasticsearch_jars.locked(jars):
        if not made.exists():
            _keep_classes(made)
    return (f"-XX:SharedArchiveFile={made}",) if made.exists() else ()


def _keep_classes(archive: Path) -> None:
    """Write what a node has loaded, unless that takes longer than its end may."""
    with tempfile.TemporaryDirectory(dir=archive.parent.parent, prefix="new-") as folder:
        new = Path(folder) / archive.name
        with Node(options=(f"-XX:ArchiveClassesAtExit={new}",)):
            pass
        if new.exists():
            new.rename(archive)  # only a whole one has this name


def _memory() -> Path | None:
    """A memory file system with room, where a test takes a tenth of its time on a disk."""
    memory = Path("/dev") / "shm"
    return memory if memory.is_dir() and shutil.disk_usage(memory).free > ROOM else None
