"""How far an audit is and what it has found, in files that are whole at every moment."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

import orjson

from samespace.audit.outliers import Centre
from samespace.audit.verdicts import Finding, Verdict, edges_of
from samespace.errors import InvalidInput, excerpt
from samespace.ingest.durable import CheckpointPath

FORMAT: Final = 1
KIND: Final = "audit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What an audit is of: its checkpoint is resumed by one that is of the same."""

    collection: str
    space: str
    rows: str
    judged_by: str
    threshold: float
    place: str = ""


@dataclass(slots=True, kw_only=True)
class Tally:
    """What was counted so far, of all runs."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(map(str, Verdict), 0))
    histogram: list[int] = field(default_factory=list)
    suspects: int = 0
    right: int = 0

    @property
    def looked_at(self) -> int:
        """How many rows."""
        return sum(self.counts.values())


@dataclass(slots=True, kw_only=True)
class Progress:
    """Where an audit goes on: after ``after``, a store's cursor or the number of sampled rows.

    A cursor is None at the beginning and at the end: ``read`` says that all rows were. ``witnesses`` are
    some of the rows that were judged last, by id, each with what it was. ``twins`` are those of the sampled
    rows that have another row's id, each with that.
    """

    after: str | None = None
    read: bool = False
    population: int = 0
    witnesses: dict[str, str] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    sampled: list[str] | None = None
    twins: dict[str, str] = field(default_factory=dict)
    centre: Centre | None = None
    found: int = 0
    """Bytes of the findings that are part of this."""
    complete: bool = False


class Findings:
    """Findings in a file, a line each, so that a million of them need no memory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def keep(self, size: int) -> None:
        """Forget what was added after the file had this size."""
        with self._written("ab") as file:
            if file.tell() < size:
                raise InvalidInput(
                    f"the findings {excerpt(str(self.path))} are shorter than the checkpoint beside them "
                    "says; remove both files to begin anew"
                )
            file.truncate(size)

    def add(self, findings: Iterable[Finding]) -> int:
        """Add these; the size then, which is on disk."""
        with self._written("ab") as file:
            file.writelines(orjson.dumps(each.to_dict()) + b"\n" for each in findings)
            return int(file.tell())

    def restate(self, change: Callable[[Finding], Finding]) -> None:
        """Put another finding in the place of each, none of them longer.

        The file keeps its size, so that a checkpoint is right about it before and after.
        """
        beside = self.path.with_name(f"{self.path.name}.new")
        with self.path.open("rb") as old, self._written("wb", beside) as new:
            new.writelines(_restated(line, change) for line in old)
        beside.replace(self.path)

    @contextmanager
    def _written(self, mode: str, path: Path | None = None) -> Iterator[Any]:
        try:
            with (path or self.path).open(mode) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InvalidInput(
                f"cannot write the findings {excerpt(str(self.path))}: {error.strerror}; pass a "
                "checkpoint in a folder that can be written to"
            ) from error

    def first(self, count: int) -> list[Finding]:
        """At most so many."""
        return list(islice(self, count))

    def until(self, size: int) -> Iterator[Finding]:
        """Those in the first so many bytes: what is behind them may be half a line."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for line in file:
                size -= len(line)
                if size < 0:
                    return
                yield self._read(line)

    def _read(self, line: bytes) -> Finding:
        try:
            return Finding.from_dict(orjson.loads(line))
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(
                f"the findings {excerpt(str(self.path))} are damaged; audit again with another checkpoint"
            ) from error

    def check(self, size: int) -> None:
        """:class:`InvalidInput` unless so many bytes are there, all of them findings."""
        there = self.path.stat().st_size if self.path.exists() else 0
        if there < size:
            raise InvalidInput(
                f"the findings {excerpt(str(self.path))} are {there:,} bytes, and the checkpoint beside them "
                f"knows of {size:,}; audit again with another checkpoint"
            )
        for _ in self.until(size):
            pass

    def __iter__(self) -> Iterator[Finding]:
        return self.until(self.path.stat().st_size if self.path.exists() else 0)


def _restated(line: bytes, change: Callable[[Finding], Finding]) -> bytes:
    changed = orjson.dumps(change(Finding.from_dict(orjson.loads(line))).to_dict())
    return changed.ljust(len(line) - 1) + b"\n"


class AuditFile(CheckpointPath):
    """An audit's checkpoint; what it has found is in a file beside it."""

    @property
    def findings(self) -> Findings:
        """All rows that do not agree."""
        return Findings(self.path.with_name(f"{self.path.name}.found"))

    def load(self, subject: Subject) -> Progress | None:
        """Where to go on: None for the beginning, without a checkpoint or after one that is complete."""
        values = self._checked()
        if values is None:
            return None
        for name, mine in asdict(subject).items():
            theirs = values["subject"].get(name)
            if theirs != mine:
                raise InvalidInput(
                    f"the checkpoint {self._named} is of another audit: {name} {excerpt(theirs)}, not "
                    f"{excerpt(mine)}; {self._mend}"
                )
        found = self._progress(values)
        if len(found.tally.histogram) != len(edges_of(subject.threshold)):
            raise self._foreign()
        return None if found.complete else found

    @contextmanager
    def found(self, *, collection: str, space: str, place: str = "") -> Iterator[Iterator[Finding]]:
        """What an audit of this slot has found so far, complete or not; no other job writes it meanwhile.

        :class:`InvalidInput` if there is none, one of another slot or place, or a part of it is gone.
        """
        self._size_of(collection, space, place)  # before a lock is put beside nothing
        with self.held():
            size = self._size_of(collection, space, place)
            self.findings.check(size)
            yield self.findings.until(size)

    def _size_of(self, collection: str, space: str, place: str) -> int:
        """How many bytes of findings of this slot there are."""
        values = self._checked()
        if values is None:
            raise InvalidInput(f"there is no checkpoint {self._named}; check the path")
        if place and values["subject"].get("place") not in {"", place}:
            raise InvalidInput(
                f"the checkpoint {self._named} is of another store; pass the one that was audited"
            )
        theirs = (values["subject"].get("collection"), values["subject"].get("space"))
        if theirs != (collection, space):
            raise InvalidInput(
                f"the checkpoint {self._named} is of collection {excerpt(theirs[0])} and slot "
                f"{excerpt(theirs[1])}, not {excerpt(collection)} and {excerpt(space)}; pass that "
                "collection and backend"
            )
        return self._progress(values).found

    def save(self, subject: Subject, progress: Progress) -> None:
        """Replace the file; it is on disk once this returns."""
        values = {
            "format": FORMAT,
            "kind": KIND,
            "subject": asdict(subject),
            "after": progress.after,
            "read": progress.read,
            "population": progress.population,
            "witnesses": progress.witnesses,
            "tally": asdict(progress.tally),
            "sampled": progress.sampled,
            "twins": progress.twins,
            "centre": progress.centre.to_dict() if progress.centre else None,
            "found": progress.found,
            "complete": progress.complete,
        }
        self.replace(orjson.dumps(values))

    def _checked(self) -> dict[str, Any] | None:
        values = self.values()
        if values is None:
            return None
        if not isinstance(values, dict) or values.get("kind") != KIND:
            raise self._foreign()
        if not isinstance(values.get("format"), int) or values["format"] > FORMAT:
            raise InvalidInput(
                f"the checkpoint {self._named} is of a newer samespace; upgrade, or {self._mend}"
            )
        if not isinstance(values.get("subject"), dict):
            raise self._foreign()
        return values

    def _progress(self, values: dict[str, Any]) -> Progress:
        try:
            return Progress(
                after=values["after"],
                read=bool(values["read"]),
                population=int(values["population"]),
                witnesses=dict(values["witnesses"]),
                tally=Tally(**values["tally"]),
                sampled=values["sampled"],
                twins=dict(values.get("twins", {})),
                centre=Centre.from_dict(values["centre"]) if values["centre"] else None,
                found=int(values["found"]),
                complete=bool(values["complete"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise self._foreign() from error

    def _foreign(self) -> InvalidInput:
        return InvalidInput(f"{self._named} is no checkpoint of an audit; {self._mend}")


class Notes:
    """What an audit notes: on disk where there is a checkpoint, else for as long as it runs."""

    def __init__(self, file: AuditFile | None, findings: Findings, subject: Subject) -> None:
        self._file, self._subject = file, subject
        self.findings = findings
        begun = None if file is None else file.load(subject)
        fresh = Tally(histogram=[0] * len(edges_of(subject.threshold)))
        self.progress = begun or Progress(tally=fresh)
        if begun is not None:
            findings.keep(begun.found)

    def begin(self) -> None:
        """Forget what the audit before this one has found, now that this one can be done.

        The checkpoint first: it never says that there is what is not.
        """
        self.save()
        self.findings.keep(self.progress.found)

    def note(self, findings: Iterable[Finding], after: str | None) -> None:
        """The findings first: a checkpoint says that they are there."""
        self.progress.found = self.findings.add(findings)
        self.progress.after = after
        self.save()

    def save(self) -> None:
        """Have the checkpoint say what ``progress`` says."""
        if self._file is not None:
            self._file.save(self._subject, self.progress)

    @property
    def path(self) -> Path:
        """Of the checkpoint, or of the findings where there is none."""
        return self.findings.path if self._file is None else self._file.path

    def restate(self, change: Callable[[Finding], Finding]) -> None:
        """Every finding has been looked at once more."""
        self.findings.restate(change)

    def complete(self) -> None:
        """The end."""
        self.progress.complete = True
        self.save()


@contextmanager
def taking_notes(file: AuditFile | None, subject: Subject) -> Iterator[Notes]:
    """Notes that nobody else writes meanwhile."""
    with ExitStack() as held:
        if file is None:
            folder = held.enter_context(tempfile.TemporaryDirectory(prefix="samespace-audit-"))
            yield Notes(None, Findings(Path(folder, "found")), subject)
        else:
            held.enter_context(file.held())
            yield Notes(file, file.findings, subject)
