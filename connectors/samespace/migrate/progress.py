"""What a run of a migration has done."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from samespace.errors import excerpt
from samespace.protocols import Shard
from samespace.space import EmbeddingSpace

NAMED: Final = 100
"""How many refused or unreachable rows of a slot are named; all are counted."""
Stopped = Literal["", "asked", "budget", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotProgress:
    """What was written into one slot.

    ``filled`` counts rows that were written, ``derived`` those of them whose vectors follow from another
    slot's, ``changed`` writes that were not done since somebody else had written the row meanwhile (it is
    looked at again). ``refused`` rows cannot be embedded, ``unreachable`` ones share their id with another
    row; the first are named, with the reason. ``left`` counts the rows that the last sweep found and
    could not fill, but for these.
    """

    space: EmbeddingSpace
    filled: int = 0
    derived: int = 0
    changed: int = 0
    refused: int = 0
    unreachable: int = 0
    left: int = 0
    named: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionProgress:
    """What was done in one collection.

    ``indexed`` says whether the target's index was seen to, ``finished`` that the plan was finished there
    before, so that there was nothing to do.
    """

    name: str
    target: EmbeddingSpace
    slots: tuple[SlotProgress, ...] = ()
    indexed: bool = False
    finished: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationReport:
    """What a run has done so far.

    ``tokens`` and ``embedded`` (texts) are what was paid for rows; a canary's six short texts come on top.
    ``sweeps`` counts the whole looks at all slots, also where ``trouble``, which a follower waits out, keeps
    one of them from being filled; ``sweep_seconds`` is what the last one took, and ``idle`` whether it found
    nothing to do: then every change that was made before it began is in every slot that the run keeps.
    ``stopped`` says why the run ended before all was filled; ``complete`` that its last look, at all rows,
    found none to fill but refused and unreachable ones. ``worker`` is the part of the rows that all this is
    said of.
    """

    collections: tuple[CollectionProgress, ...] = ()
    tokens: int = 0
    embedded: int = 0
    sweeps: int = 0
    sweep_seconds: float = 0.0
    idle: bool = False
    following: bool = False
    trouble: str = ""
    stopped: Stopped = ""
    complete: bool = False
    worker: Shard = (0, 1)

    @property
    def is_begun(self) -> bool:
        """Whether the run may fill something: it is refused nothing any more, and some is not finished."""
        return any(each.slots for each in self.collections)

    @property
    def filled(self) -> int:
        """Rows written, in all slots."""
        return sum(slot.filled for each in self.collections for slot in each.slots)

    def __add__(self, after: MigrationReport) -> MigrationReport:
        """Both, of runs one after the other."""
        return replace(
            after,
            collections=(*self.collections, *after.collections),
            tokens=self.tokens + after.tokens,
            embedded=self.embedded + after.embedded,
            stopped=self.stopped or after.stopped,
            complete=self.complete and after.complete,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "collections": [_collection_dict(each) for each in self.collections],
            "tokens": self.tokens,
            "embedded": self.embedded,
            "sweeps": self.sweeps,
            "sweep_seconds": self.sweep_seconds,
            "idle": self.idle,
            "following": self.following,
            "trouble": self.trouble,
            "stopped": self.stopped,
            "complete": self.complete,
            "worker": list(self.worker),
        }

    def lines(self) -> list[str]:
        """The report for a terminal, a line each."""
        lines = [line for each in self.collections for line in _collection_lines(each)]
        return [
            *lines,
            f"{self.embedded:,} texts embedded, {self.tokens:,} tokens paid",
            self._end(),
        ]

    def _end(self) -> str:
        if self.stopped:
            return _ENDS[self.stopped]
        if not self.complete:
            return "not complete; run again to go on where this ended"
        part, parts = self.worker
        share, others = ("", "") if parts == 1 else (f" of part {part} of {parts}", _OTHERS)
        if any(each.finished for each in self.collections):
            share = f"{share} of the other collections"
        return f"complete: every row{share} that can be embedded has a vector of its text{others}"


_OTHERS: Final = "; the other parts are other workers'"
_ENDS: Final = {
    "asked": "stopped; run again to go on where this ended",
    "budget": "stopped: the budget is spent; run again with another to go on",
    "error": "ended by an error; run again to go on where this ended",
}


def _collection_dict(progress: CollectionProgress) -> dict[str, Any]:
    return {
        "name": progress.name,
        "target": progress.target.to_dict(),
        "indexed": progress.indexed,
        "finished": progress.finished,
        "slots": [_slot_dict(slot) for slot in progress.slots],
    }


def _slot_dict(slot: SlotProgress) -> dict[str, Any]:
    counts = ("filled", "derived", "changed", "refused", "unreachable", "left")
    return {
        "space": slot.space.to_dict(),
        **{name: getattr(slot, name) for name in counts},
        "named": [{"id": id, "error": reason} for id, reason in slot.named],
    }


def _collection_lines(progress: CollectionProgress) -> list[str]:
    if progress.finished:
        return [f"{progress.name}: the plan is finished here, so there was nothing to do"]
    return [
        line
        for slot in progress.slots
        for line in (_slot_line(progress.name, slot), *_named_lines(slot))
    ]


def _slot_line(name: str, slot: SlotProgress) -> str:
    said = [f"{slot.filled:,} filled"]
    said += [f"{slot.derived:,} of them derived"] if slot.derived else []
    said += [f"{slot.changed:,} changed meanwhile"] if slot.changed else []
    said += [f"{slot.refused:,} refused"] if slot.refused else []
    said += [f"{slot.unreachable:,} unreachable"] if slot.unreachable else []
    said += [f"{slot.left:,} left"] if slot.left else []
    return f"{name} {slot.space}: {', '.join(said)}"


def _named_lines(slot: SlotProgress) -> list[str]:
    lines = [f"  {excerpt(id)}: {reason}" for id, reason in slot.named]
    more = slot.refused + slot.unreachable - len(slot.named)
    return [*lines, f"  and {more:,} more"] if more else lines
