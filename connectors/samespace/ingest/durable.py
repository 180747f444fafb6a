"""A file that is whole at every moment, and of one job at a time."""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

from samespace.errors import InvalidInput, excerpt


class CheckpointPath:
    """Where a job notes how far it is; :class:`InvalidInput` where something is that is no file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if _is_no_file(path):
            raise InvalidInput(
                f"the checkpoint {self._named} is no regular file; pass the path of one, or of none yet"
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """No other job uses the checkpoint meanwhile; :class:`InvalidInput` if one does.

        The lock is a file beside it, and ends with the process whatever happens.
        """
        beside = self.path.parent / f"{self.path.name}.lock"  # "." has no name
        with self._writing():
            handle = _locked(beside)
        if handle is None:
            raise InvalidInput(
                f"another job uses the checkpoint {self._named}; let it end, or pass another path"
            )
        try:
            yield
        finally:
            beside.unlink(missing_ok=True)
            os.close(handle)

    def replace(self, content: bytes) -> None:
        """Have the file hold this; it is on disk once this returns.

        :class:`InvalidInput` where it cannot be written.
        """
        with self._writing():
            _replace(self.path, content, _beside(self.path, "new"))  # the lock's holder is alone

    def values(self) -> Any:
        """What its JSON says; None without a file, :class:`InvalidInput` for what cannot be read."""
        try:
            return orjson.loads(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InvalidInput(
                f"cannot read the checkpoint {self._named}: {error.strerror}; pass another path"
            ) from error
        except ValueError as error:
            raise InvalidInput(f"{self._named} is no checkpoint; {self._mend}") from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            raise InvalidInput(
                f"cannot write the checkpoint {self._named}: {error.strerror}; pass a path that can be "
                "written to"
            ) from error

    def remove(self) -> None:
        """The job is done."""
        for path in (self.path, _beside(self.path, "new")):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            _sync(self.path.parent)

    @property
    def _named(self) -> str:
        return excerpt(str(self.path))

    @property
    def _mend(self) -> str:
        return "remove the file to begin anew, or pass another path"


def _is_no_file(path: Path) -> bool:
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:  # it is not there yet, or whoever reads it hears why
        return False


def _locked(path: Path) -> int | None:
    """The open file, which nobody else has; None if somebody does."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_there(handle, path):
                return handle
        except BlockingIOError:
            os.close(handle)
            return None
        os.close(handle)  # whoever had it has removed it meanwhile


def _is_there(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def replace_file(path: Path, content: bytes) -> None:
    """Have a file hold this, at no moment a part of it; it is on disk once this returns.

    Of several that do so at once, one is the last.
    """
    beside = _beside(path, f"{secrets.token_hex(4)}.new")
    try:
        _replace(path, content, beside)
    finally:
        beside.unlink(missing_ok=True)


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.name}.{ending}")


def _replace(path: Path, content: bytes, beside: Path) -> None:
    _write_through(beside, content)
    beside.replace(path)
    _sync(path.parent)


def _write_through(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """A rename is on disk once its folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
