"""How a migration stands: each slot of each collection, and the runs that keep them fresh."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from samespace.documents import SlotInfo
from samespace.errors import command, excerpt
from samespace.filters import of_json
from samespace.guard import SlotState
from samespace.migrate.notes import RunNote
from samespace.migrate.plan import MigrationPlan
from samespace.migrate.walking import Found, Here, Stores, reads_texts, walked
from samespace.space import EmbeddingSpace

Stage = Literal["planned", "filling", "open", "finished"]
"""No slot of the target yet; one that is being filled; one that is ready, beside the source's; alone."""
_CHECKED: Final = (
    "samespace migrate verify --plan PLAN.json --backend SPEC --out VERIFICATION.json, then open"
)
_NEXT: Final[dict[Stage, str]] = {
    "planned": "samespace migrate run --plan PLAN.json --backend SPEC",
    "filling": "samespace migrate run --plan PLAN.json --backend SPEC, then verify and open",
    "open": "deploy what embeds with the new model, then samespace migrate finish --plan PLAN.json",
    "finished": "",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotStatus:
    """One slot: ``part`` is source, target or other.

    ``pending`` rows have no vector, ``stale`` ones one of an earlier text: None where that was not
    counted, or the slot does not say what its vectors were made from. ``opened`` says by what it was.
    ``can_fill`` is whether a run of the plan has something to fill there: of rows that are pending, one with
    a text and within the plan's filter.
    """

    name: str
    space: EmbeddingSpace
    part: Literal["source", "target", "other"]
    state: str
    pending: int
    stale: int | None
    opened: str = ""
    can_fill: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionStatus:
    """One collection; ``unseen`` says which changes nobody sees who keeps its slots fresh.

    ``beyond`` counts the rows that the plan's filter leaves out, while the target's slot is filled.
    """

    name: str
    stage: Stage
    rows: int
    slots: tuple[SlotStatus, ...]
    unseen: str
    beyond: int = 0

    @property
    def next(self) -> str:
        """What comes next, as a command or in words; empty where nothing does."""
        if self.stage != "filling" or not self._is_filled:
            return _NEXT[self.stage]
        if self.beyond:  # the slot would open for them, too
            return (
                "a plan without --where: "
                f"{command('migrate plan', self.name)} --backend SPEC --out FILE"
            )
        return _CHECKED

    @property
    def _is_filled(self) -> bool:
        targets = [slot for slot in self.slots if slot.part == "target"]
        return not any(slot.can_fill for slot in targets)


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationStatus:
    """How a plan's migration stands; ``asked_at`` is in seconds since 1970."""

    plan: str
    collections: tuple[CollectionStatus, ...]
    runs: tuple[RunNote, ...] = ()
    asked_at: float

    @property
    def lag(self) -> float | None:
        """Seconds that the slots are behind the texts at most: None unless every run that follows knows."""
        following = [run for run in self.runs if run.following and run.is_alive is not False]
        lags = [run.lag(self.asked_at) for run in following]
        known = [lag for lag in lags if lag is not None]
        return max(known) if known and len(known) == len(lags) else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "plan": self.plan,
            "asked_at": self.asked_at,
            "lag": self.lag,
            "collections": [_collection_dict(each) for each in self.collections],
            "runs": [
                {**run.to_dict(), "alive": run.is_alive, "lag": run.lag(self.asked_at)}
                for run in self.runs
            ],
        }

    def lines(self) -> list[str]:
        """For a terminal, a line each."""
        lines = [line for each in self.collections for line in _collection_lines(each)]
        return [*lines, *self._run_lines(), *self._aborted_lines()]

    def _aborted_lines(self) -> list[str]:
        """What a run that was complete has filled is gone where a collection is planned alone."""
        gone = [each.name for each in self.collections if each.stage == "planned"]
        if not gone or not any(run.complete for run in self.runs):
            return []
        names = ", ".join(excerpt(name).strip("'") for name in gone)
        return [f"{names}: a run has filled the slot, which was dropped since (migrate abort)"]

    def _run_lines(self) -> list[str]:
        """The runs that may be under way, or else the last; what all of them have paid."""
        if not self.runs:
            return ["no run has begun"]
        present = [run for run in self.runs if run.is_alive is not False] or [self.runs[-1]]
        tokens = sum(run.tokens for run in self.runs)
        together = f"{len(self.runs):,} runs together: {tokens:,} tokens paid"
        return [
            *(run.line(self.asked_at) for run in present),
            *([together] if len(self.runs) > 1 else []),
        ]


def _collection_dict(found: CollectionStatus) -> dict[str, Any]:
    slots = [{**asdict(slot), "space": slot.space.to_dict()} for slot in found.slots]
    return {**asdict(found), "slots": slots, "next": found.next}


def _collection_lines(found: CollectionStatus) -> list[str]:
    name = excerpt(found.name).strip("'")
    following = f"; next: {found.next}" if found.next else ""
    unseen = [f"  unseen by who follows: {found.unseen}"] if found.unseen else []
    return [
        f"{name}: {found.stage}, {found.rows:,} rows{following}",
        *map(_slot_line, found.slots),
        *([] if found.stage == "finished" else unseen),
    ]


def _slot_line(slot: SlotStatus) -> str:
    stale = "stale not known" if slot.stale is None else f"{slot.stale:,} stale"
    opened = f", {excerpt(slot.opened)[1:-1]}" if slot.opened else ""
    return (
        f"  {slot.part:<6} {slot.space} in {excerpt(slot.name)}: {slot.state}{opened}, "
        f"{slot.pending:,} pending, {stale}"
    )


def status(
    stores: Stores,
    plan: MigrationPlan,
    *,
    stale: bool = True,
    runs: Sequence[RunNote] = (),
    now: float | None = None,
) -> MigrationStatus:
    """How a plan's migration stands in the collections of ``stores``; nothing is changed.

    ``stale`` looks at every row for a text that changed behind its vector, in each slot; without it that is
    not known. ``runs`` are the notes that runs have left (:func:`samespace.migrate.notes.read_notes`),
    ``now`` the seconds since 1970 that their lag is reckoned to, by the clock unless given. An async store
    is closed in the end.
    """
    found = walked(
        stores, plan, lambda way: way.each(lambda here: _look_at(here, plan, stale=stale))
    )
    return MigrationStatus(
        plan=plan.hash,
        collections=tuple(found),
        runs=tuple(runs),
        asked_at=time.time() if now is None else now,
    )


async def _look_at(here: Here, plan: MigrationPlan, *, stale: bool) -> CollectionStatus:
    found = await here.look()
    stage = _stage(found, plan)
    return CollectionStatus(
        name=here.planned.name,
        stage=stage,
        rows=found.info.rows,
        slots=tuple([await _slot(here, found, slot, stale=stale) for slot in found.info.slots]),
        unseen="" if here.described is None else here.described.unseen_changes,
        beyond=await here.count_beyond() if stage == "filling" else 0,
    )


def _stage(found: Found, plan: MigrationPlan) -> Stage:
    if found.target is None:
        return "planned"
    if found.target.state != SlotState.READY:
        return "filling"
    same = found.planned.source.space == found.planned.target.space
    return "finished" if same or plan.is_finished(found.planned, found.info) else "open"


async def _slot(here: Here, found: Found, slot: SlotInfo, *, stale: bool) -> SlotStatus:
    part: Literal["source", "target", "other"] = "other"
    if slot.space == found.planned.target.space:
        part = "target"
    elif slot.space == found.planned.source.space:
        part = "source"
    behind = await _count_stale(here, found, slot) if stale else None
    return SlotStatus(
        name=slot.name,
        space=slot.space,
        part=part,
        state=slot.state,
        pending=slot.pending,
        stale=behind,
        opened=slot.provenance.get("opened", ""),
        can_fill=part == "target" and await _can_fill(here, found, slot, behind or 0),
    )


async def _can_fill(here: Here, found: Found, slot: SlotInfo, stale: int) -> bool:
    where = None if found.planned.where is None else of_json(found.planned.where)
    if stale and (where is None or await here.rows.count_stale(slot.space, where)):
        return True
    if not slot.pending or not reads_texts(found.info):
        return bool(slot.pending)
    return await here.rows.has_pending_text(slot.space, where)


async def _count_stale(here: Here, found: Found, slot: SlotInfo) -> int | None:
    """None where nobody can tell, as in a slot that others made."""
    layout = found.info.layout
    has_text = layout is None or isinstance(layout.text, str)
    count = await here.rows.count_stale(slot.space, None)
    return count if count or (slot.name == slot.space.id and has_text) else None
