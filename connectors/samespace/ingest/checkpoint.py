"""How far a job is, in a file that is whole at every moment."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from samespace.errors import InvalidInput, excerpt

FORMAT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a checkpoint is about: a part of it is only resumed by a job that is the same.

    ``version`` is what the source was made of, where that can be told.
    """

    source: str
    version: str
    collection: str
    space: str
    chunking: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """``position`` items of the source are stored; ``seen`` says that their ids were marked.

    ``rows`` are the ids of a few that were stored last: a store without them is another one.
    ``rejected`` counts what was left out so far.
    """

    job: Job
    position: int = 0
    seen: bool = False
    rows: tuple[str, ...] = ()
    rejected: int = 0


class CheckpointFile:
    """The checkpoint at ``path``; :class:`InvalidInput` where something is that is no file."""

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

    def load(self, job: Job, *, seen: bool) -> Checkpoint:
        """Where to go on: at 0 without a checkpoint, or where its source has changed since.

        ``seen`` asks for the marks of ids too. :class:`InvalidInput` for a checkpoint of another
        job, of a newer format, or that is none.
        """
        found = self._read()
        if found is None:
            return Checkpoint(job=job)
        for name, mine in _refused_by(job).items():
            theirs = getattr(found.job, name)
            if theirs != mine:
                raise InvalidInput(
                    f"the checkpoint {self._named} is of another job: {name} {excerpt(theirs)}, not "
                    f"{excerpt(mine)}; {self._mend}"
                )
        if found.job.version != job.version or (seen and not found.seen):
            return Checkpoint(job=job)
        return found

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the file; it is on disk once this returns.

        :class:`InvalidInput` where it cannot be written.
        """
        with self._writing():
            beside = self.path.with_name(f"{self.path.name}.new")
            _write_through(beside, orjson.dumps(_described(checkpoint)))
            beside.replace(self.path)
            _sync(self.path.parent)

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
        for path in (self.path, self.path.with_name(f"{self.path.name}.new")):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            _sync(self.path.parent)

    def _read(self) -> Checkpoint | None:
        try:
            values = orjson.loads(self.path.read_bytes())
            self._check_format(values["format"])
            return _checkpoint_of(values)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InvalidInput(
                f"cannot read the checkpoint {self._named}: {error.strerror}; pass another path"
            ) from error
        except InvalidInput:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidInput(f"{self._named} is no checkpoint; {self._mend}") from error

    def _check_format(self, format: object) -> None:
        if type(format) is int and format > FORMAT:
            raise InvalidInput(
                f"the checkpoint {self._named} has format {format}, which a newer samespace wrote; "
                f"upgrade, or {self._mend}"
            )

    @property
    def _named(self) -> str:
        return excerpt(str(self.path))

    @property
    def _mend(self) -> str:
        return "remove the file to begin anew, or pass another path"


def _refused_by(job: Job) -> dict[str, str]:
    """What must be equal; a source that has changed is no other source."""
    return {
        "source": job.source,
        "collection": job.collection,
        "space": job.space,
        "chunking": job.chunking,
    }


def _described(checkpoint: Checkpoint) -> dict[str, Any]:
    job = checkpoint.job
    return {
        "format": FORMAT,
        **_refused_by(job),
        "version": job.version,
        "position": checkpoint.position,
        "seen": checkpoint.seen,
        "rows": checkpoint.rows,
        "rejected": checkpoint.rejected,
    }


def _checkpoint_of(values: Mapping[str, Any]) -> Checkpoint:
    parts = {
        name: values[name] for name in ("source", "version", "collection", "space", "chunking")
    }
    rows, rejected = values.get("rows", []), values.get("rejected", 0)
    position, seen = values["position"], values["seen"]
    well_formed = (
        values["format"] == FORMAT
        and all(type(part) is str for part in (*parts.values(), *rows))
        and all(type(count) is int and count >= 0 for count in (position, rejected))
        and type(seen) is bool
    )
    if not well_formed:
        raise ValueError("not as a checkpoint is")
    return Checkpoint(
        job=Job(**parts), position=position, seen=seen, rows=tuple(rows), rejected=rejected
    )


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


class Watermark:
    """The position before which everything is done, whatever the order in which parts end."""

    def __init__(self, position: int) -> None:
        self.position = position
        self._ahead: dict[int, int] = {}

    def done(self, first: int, stop: int) -> int:
        """Items ``first`` to ``stop``, end exclusive, are stored; the position now."""
        self._ahead[first] = stop
        while self.position in self._ahead:
            self.position = self._ahead.pop(self.position)
        return self.position
