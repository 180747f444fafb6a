"""How far a job is, in a file that is whole at every moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from samespace.errors import InvalidInput, excerpt
from samespace.ingest.durable import CheckpointPath

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


class CheckpointFile(CheckpointPath):
    """The checkpoint at ``path``; :class:`InvalidInput` where something is that is no file."""

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
        self.replace(orjson.dumps(_described(checkpoint)))

    def _read(self) -> Checkpoint | None:
        values = self.values()
        if values is None:
            return None
        try:
            self._check_format(values["format"])
            return _checkpoint_of(values)
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
