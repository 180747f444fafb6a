"""What each run of a plan notes of itself, in a folder beside the plan, for who asks how it goes."""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Self

import orjson

from samespace.errors import InvalidInput, excerpt
from samespace.ingest.durable import replace_file
from samespace.migrate.progress import MigrationReport
from samespace.protocols import Shard

logger = logging.getLogger(__name__)
FORMAT: Final = 1
EVERY: Final = 2.0
"""Seconds from one note to the next, unless a run has something new to say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunNote:
    """How far one run of a plan is, as it said last.

    ``plan`` is the plan's hash, ``worker`` the part of the rows. ``began_at`` and ``noted_at`` are seconds
    since 1970 by the clock of ``host``; so is ``fresh_at``: every change made before it is in all slots that
    the run keeps, None until a sweep has found nothing to do. ``sweep_seconds`` is what the last sweep of
    all rows took. ``ended`` is false of a run that is under way, and of one that was killed.
    """

    plan: str
    worker: Shard
    host: str
    pid: int
    began_at: float
    noted_at: float
    filled: int = 0
    tokens: int = 0
    sweeps: int = 0
    sweep_seconds: float = 0.0
    fresh_at: float | None = None
    following: bool = False
    trouble: str = ""
    stopped: str = ""
    complete: bool = False
    ended: bool = False

    def lag(self, now: float) -> float | None:
        """Seconds that the slots are behind the texts at most; None while that is not known."""
        return None if self.fresh_at is None else max(0.0, now - self.fresh_at)

    @property
    def is_alive(self) -> bool | None:
        """Whether the run is under way; None of one on another machine, where nobody here can look."""
        if self.ended:
            return False
        return _is_running(self.pid) if self.host == socket.gethostname() else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"format": FORMAT, **asdict(self), "worker": list(self.worker)}

    def line(self, now: float) -> str:
        """The note for a terminal."""
        part, parts = self.worker
        share = f", part {part} of {parts}" if parts > 1 else ""
        said = [
            f"run {self.pid} on {_printed(self.host)}{share}: {self._way()}",
            f"{self.filled:,} filled",
            f"{self.tokens:,} tokens paid",
            *self._timing(now),
            *([f"waiting: {_printed(self.trouble)}"] if self.trouble else []),
        ]
        return "; ".join(said)

    def _way(self) -> str:
        if self.ended:
            return "complete" if self.complete else f"ended ({_printed(self.stopped) or 'stopped'})"
        under_way = "following" if self.following else "filling"
        alive = self.is_alive
        if alive is None:
            return f"{under_way} when it was last heard of, on another machine"
        return under_way if alive else f"gone while {under_way}; run it again to go on"

    def _timing(self, now: float) -> list[str]:
        if not self.sweeps:
            return []
        lag = self.lag(now)
        behind = "not idle yet" if lag is None else f"at most {lag:,.1f} s behind"
        return [f"last sweep {self.sweep_seconds:,.1f} s", *([] if self.ended else [behind])]


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is somebody else's
        return True
    return True


def _printed(text: str) -> str:
    return text if text.isprintable() else excerpt(text)


def folder_of(plan: Path) -> Path:
    """Where the runs of the plan in a file note how far they are."""
    return plan.with_name(f"{plan.name}.runs")


class RunNotes:
    """One run's notes, for a ``with`` block around it: told of each report, ended with the last.

    ``clock`` is in seconds since 1970. :class:`InvalidInput` if the folder beside ``plan`` cannot be written;
    that a later note cannot be written is logged once, and no reason to end a run.
    """

    def __init__(
        self,
        plan: Path,
        plan_hash: str,
        *,
        worker: Shard = (0, 1),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        host, pid, now = socket.gethostname(), os.getpid(), clock()
        self.note = RunNote(
            plan=plan_hash, worker=worker, host=host, pid=pid, began_at=now, noted_at=now
        )
        name = f"{re.sub(r'[^A-Za-z0-9.-]', '_', host)}-{pid}-{worker[0]}.json"
        self.path = folder_of(plan) / name
        self._warned = False
        self._report = MigrationReport()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._write()
        except OSError as error:
            raise InvalidInput(
                f"cannot write {excerpt(str(self.path))}, where this run notes how far it is: "
                f"{error.strerror}; put the plan into a folder that can be written to"
            ) from error

    def tell(self, report: MigrationReport) -> None:
        """Note how far the run is, unless that was done a moment ago and nothing has changed since."""
        self._report = report
        before, now = self.note, self._clock()
        after = _noted(before, report, now)
        news = (after.sweeps, after.following, after.trouble) != (
            before.sweeps,
            before.following,
            before.trouble,
        )
        if news or now - before.noted_at >= EVERY:
            self._keep(after)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Note that the run has ended, and how far it was; one that is killed does not come here."""
        ended = replace(_noted(self.note, self._report, self._clock()), ended=True)
        self._keep(ended if kind is None else replace(ended, stopped="error", complete=False))

    def _keep(self, note: RunNote) -> None:
        self.note = note
        try:
            self._write()
        except OSError as error:
            if not self._warned:
                logger.warning(
                    "cannot note how far the run is in %s: %s; it goes on",
                    excerpt(str(self.path)),
                    error.strerror,
                )
            self._warned = True

    def _write(self) -> None:
        replace_file(self.path, orjson.dumps(self.note.to_dict()))


def _noted(before: RunNote, report: MigrationReport, now: float) -> RunNote:
    swept = report.sweeps > before.sweeps
    fresh = now - report.sweep_seconds if swept and report.idle else before.fresh_at
    return replace(
        before,
        noted_at=now,
        filled=report.filled,
        tokens=report.tokens,
        sweeps=report.sweeps,
        sweep_seconds=report.sweep_seconds,
        fresh_at=fresh,
        following=report.following,
        trouble=report.trouble,
        stopped=report.stopped,
        complete=report.complete,
    )


def read_notes(plan: Path, plan_hash: str) -> tuple[RunNote, ...]:
    """The notes of all runs of a plan, the oldest first; none where none has begun.

    Those of another plan that was in this file before are left out. :class:`InvalidInput` names a file that
    is no note.
    """
    found = [_read(path) for path in sorted(folder_of(plan).glob("*.json"))]
    return tuple(
        sorted((each for each in found if each.plan == plan_hash), key=lambda note: note.began_at)
    )


def is_followed(runs: Sequence[RunNote]) -> bool:
    """Whether a run fills what others write meanwhile; one on another machine is taken to."""
    return any(run.following and run.is_alive is not False for run in runs)


def _read(path: Path) -> RunNote:
    try:
        return _note(orjson.loads(path.read_bytes()))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InvalidInput(
            f"{excerpt(path.name)} in {excerpt(path.parent.name)}, beside the plan, is no note of a run that "
            f"this version can read ({type(error).__name__}); remove it"
        ) from error


def _note(values: Any) -> RunNote:
    known = {each.name: values[each.name] for each in fields(RunNote)}
    return _checked(RunNote(**{**known, "worker": tuple(values["worker"])}), values["format"])


_KINDS: Final[Sequence[tuple[type | tuple[type, ...], Sequence[str]]]] = (
    (str, ("plan", "host", "trouble", "stopped")),
    (int, ("pid", "filled", "tokens", "sweeps")),
    ((int, float), ("began_at", "noted_at", "sweep_seconds")),
    ((int, float, type(None)), ("fresh_at",)),
    (bool, ("following", "complete", "ended")),
)


def _checked(note: RunNote, format: int) -> RunNote:
    if format != FORMAT:
        raise ValueError
    for kind, names in _KINDS:
        if not all(isinstance(getattr(note, name), kind) for name in names):
            raise TypeError
    if len(note.worker) != 2 or not all(isinstance(each, int) for each in note.worker):
        raise TypeError
    return note
