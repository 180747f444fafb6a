"""The embedded server among processes that come, go and are killed."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from samespace.errors import StoreRejected
from samespace.stores.pgvector import embedded

USER = """
import sys
from pathlib import Path
from samespace.stores.pgvector import embedded
lease = embedded.start(Path(sys.argv[1]))
print(lease.conninfo, flush=True)
sys.stdin.read()
"""

INTERRUPTED = """
import os, signal, subprocess

class Interrupted(subprocess.Popen):
    def wait(self, timeout=None):
        if "start" in self.args and self.returncode is None and not os.environ.get("INTERRUPTED"):
            os.environ["INTERRUPTED"] = "yes"
            os.kill(os.getpid(), signal.SIGINT)
        return super().wait(timeout)

subprocess.Popen = Interrupted
"""
KILLED = """
import os, signal
from samespace.stores.pgvector import embedded
embedded._Server._make_database = lambda server: os.kill(os.getpid(), signal.SIGKILL)
"""


def user(folder: Path) -> subprocess.Popen[str]:
    """A process that uses the server until its input ends."""
    return subprocess.Popen(
        [sys.executable, "-c", USER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def answers(conninfo: str) -> bool:
    with psycopg.connect(conninfo) as connection:
        return connection.execute("SELECT 1").fetchone() == (1,)


def until_stopped(folder: Path) -> bool:
    deadline = time.monotonic() + 60
    while embedded.status(folder).running and time.monotonic() < deadline:
        time.sleep(0.05)
    return not embedded.status(folder).running


def test_first_starts_at_once_share_one_server(folder: Path) -> None:
    users = [user(folder) for _ in range(4)]
    conninfos = {process.stdout.readline().strip() for process in users if process.stdout}
    assert len(conninfos) == 1
    assert answers(conninfos.pop())
    for process in users:
        process.communicate()
        assert process.returncode == 0
    assert until_stopped(folder)


def test_a_killed_user_neither_stops_nor_keeps_the_server(folder: Path) -> None:
    lease = embedded.start(folder)
    killed = user(folder)
    assert killed.stdout is not None
    killed.stdout.readline()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert answers(lease.conninfo)
    lease.release()
    lease.release()
    assert not embedded.status(folder).running


def test_an_interrupted_start_leaves_no_server(folder: Path) -> None:
    arguments = [sys.executable, "-c", INTERRUPTED + USER, str(folder)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout == ""
    assert "KeyboardInterrupt" in done.stderr
    assert (folder / "data" / "PG_VERSION").exists()
    assert not embedded.status(folder).running


def test_an_interrupted_start_leaves_the_server_to_who_uses_it(folder: Path) -> None:
    arguments = [sys.executable, "-c", INTERRUPTED + USER, str(folder)]
    other = folder / "users.lock"
    folder.mkdir(mode=0o700)
    with other.open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        subprocess.run(arguments, capture_output=True, check=False, timeout=120)
        assert embedded.status(folder).running


def test_a_server_whose_starter_was_killed_has_a_database_all_the_same(folder: Path) -> None:
    arguments = [sys.executable, "-c", KILLED + USER, str(folder)]
    done = subprocess.run(arguments, capture_output=True, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert embedded.status(folder).running
    with embedded.start(folder) as lease:
        assert answers(lease.conninfo)


def test_after_a_crash_the_data_is_there(folder: Path) -> None:
    with embedded.start(folder) as lease, psycopg.connect(lease.conninfo) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS value")
        connection.commit()
        pid = embedded.status(folder).pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    assert until_stopped(folder)
    with embedded.start(folder) as lease, psycopg.connect(lease.conninfo) as connection:
        assert connection.execute("SELECT value FROM kept").fetchone() == (42,)


def test_a_server_in_use_is_stopped_by_force_only(folder: Path) -> None:
    with embedded.start(folder):
        with pytest.raises(StoreRejected, match="--force"):
            embedded.stop(folder)
        assert embedded.stop(folder, force=True)
        assert not embedded.stop(folder)


def test_no_other_user_can_reach_the_socket(folder: Path) -> None:
    with embedded.start(folder) as lease:
        sockets = Path(lease.conninfo.split()[0].removeprefix("host="))
        for private in (folder, sockets):
            assert stat.S_IMODE(private.stat().st_mode) == 0o700


def test_a_long_path_gets_a_short_socket(folder: Path) -> None:
    with embedded.start(folder / ("x" * 120)) as lease:
        assert answers(lease.conninfo)


def test_data_of_an_older_version_goes_on_with_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oldest, *_, newest = embedded._programs().items()
    with monkeypatch.context() as patched:
        patched.setattr(embedded, "_programs", lambda: dict([oldest]))
        embedded.start(folder).release()
    with embedded.start(folder) as lease, psycopg.connect(lease.conninfo) as connection:
        assert str(connection.info.server_version // 10_000) == oldest[0]
    with monkeypatch.context() as patched:
        patched.setattr(embedded, "_programs", lambda: dict([newest]))
        with pytest.raises(StoreRejected, match=f"made by PostgreSQL {oldest[0]}.*has {newest[0]}"):
            embedded.start(folder)


def test_new_data_is_of_the_newest_version(folder: Path) -> None:
    with embedded.start(folder):
        assert embedded.status(folder).version == list(embedded._programs())[-1] == "18"
