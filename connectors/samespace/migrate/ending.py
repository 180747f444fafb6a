"""A migration's slot is opened, once it is shown to hold what it must."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Final

from samespace.documents import SlotInfo
from samespace.errors import InvalidInput, MigrationError, SamespaceError, command, excerpt
from samespace.guard import SlotState
from samespace.ingest.target import IDS
from samespace.migrate.plan import MigrationPlan
from samespace.migrate.verification import Verification, VerifiedCollection, slot_id
from samespace.migrate.walking import RUN, Found, Here, Stores, Way, typed, walked
from samespace.space import EmbeddingSpace

_VERIFY: Final = "samespace migrate verify --plan PLAN.json --backend SPEC --out VERIFICATION.json"
_OPEN: Final = "samespace migrate open --plan PLAN.json --verification VERIFICATION.json"
LOOK: Final = 0.5
"""Seconds between two looks at rows that are being filled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotChange:
    """What became of the slot of ``space`` in one collection.

    ``changed`` is false where it was so before; ``said`` is a sentence for people, ``left`` what the store
    does not give back by itself, if something was dropped.
    """

    collection: str
    space: EmbeddingSpace
    changed: bool
    said: str
    left: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "space": self.space.to_dict()}

    def lines(self) -> list[str]:
        """For a terminal."""
        name = excerpt(self.collection).strip("'")
        return [f"{name}: {self.said}", *([f"  {self.left}"] if self.left else [])]


# Opening


def open_slot(
    stores: Stores,
    plan: MigrationPlan,
    verification: Verification | None = None,
    *,
    force: bool = False,
    patience: float = 0.0,
) -> tuple[SlotChange, ...]:
    """Mark the target's slots ready, from which on they are searched and written like any other.

    ``stores`` is a handle on each collection, or several that can be gone through twice: all are looked at
    before the first is marked. ``verification`` is of this plan, these very slots and all their rows, and has
    passed, and no row with a text may be pending, nor any stale, but for those that a run which follows has
    filled within ``patience`` seconds; ``force`` does without both. What opened a slot is kept in its
    provenance. One that this plan has opened already is left as it is, also where it is finished since.

    :class:`MigrationError` says what is missing; then nothing is marked.
    """
    opening = _Opening(plan, verification, force, patience)
    opening.check()
    return walked(stores, plan, opening.go)


@dataclass(frozen=True)
class _Opening:
    """By what slots are opened."""

    plan: MigrationPlan
    verification: Verification | None
    force: bool
    patience: float

    def check(self) -> None:
        """Refuse evidence that would do for no collection."""
        found = self.verification
        if self.force:
            return
        if found is None:
            raise InvalidInput(
                "nothing shows that the new vectors are right; verify them first: "
                f"{self._typed(_VERIFY)}, and pass what that found (--verification); or open without "
                "(--force)"
            )
        if found.plan != self.plan.hash:
            raise MigrationError(
                f"the verification is of plan {excerpt(found.plan[:12])}, not of {self.plan.hash[:12]}; "
                f"verify this one: {self._typed(_VERIFY)}"
            )
        if not found.passed:
            raise MigrationError(
                "the verification has not passed, so nothing was opened; mend what it found "
                f"({self._typed(RUN)}) and verify again: {self._typed(_VERIFY)}; or open in "
                "spite of it (--force)"
            )

    def _typed(self, command: str) -> str:
        """With the backend that the plan moves to."""
        spaces = [each.target.space for each in self.plan.collections]
        return typed(command, spaces[0], self.plan.target) if spaces else command

    async def go(self, way: Way) -> tuple[SlotChange, ...]:
        """Look at all collections, then open one after the other."""

        async def look(here: Here) -> None:
            await self._check(here, await here.look())

        await way.each(look)
        return await changed(way, self._open)

    async def _check(self, here: Here, found: Found) -> int:
        """How many rows with a text are pending; more than none is refused unless that was asked for."""
        target = found.require_target()
        if self.plan.is_finished(found.planned, found.info):
            return 0
        found.check_holds()
        if self.force or self._was_opened(found):
            return target.pending
        await self._check_seen(here, found, target)
        missing = await self._missing(here, target)
        if missing:
            raise MigrationError(
                f"{rows_of(missing)} of collection {found.name} {has(missing)} no vector of "
                f"{target.space}, and a search would miss {them(missing)}; nothing was opened. Fill "
                f"{them(missing)}: {self._typed(RUN)}; what the model refuses, shorten or delete; what the "
                "plan's --where leaves out, move with another plan; or open in spite of it (--force)"
            )
        stale = await self._left(partial(here.stale, target.space))
        if stale:
            raise MigrationError(
                f"{_count(stale)} of collection {found.name} {has(len(stale))} a vector of an earlier text "
                f"in the slot of {target.space}; nothing was opened. Fill {them(len(stale))} again: "
                f"{self._typed(RUN)}; "
                "what the model refuses, shorten or delete; or open in spite of it (--force)"
            )
        return 0

    async def _check_seen(self, here: Here, found: Found, target: SlotInfo) -> None:
        """:class:`MigrationError` unless the verification is of this very slot, and of all its rows."""
        seen = self._verified(found.planned.name)
        if seen is None:
            raise MigrationError(
                f"the verification has not looked at collection {found.name}, so nothing was opened; verify "
                f"all of the plan: {self._typed(_VERIFY)}; or open without (--force)"
            )
        if not slot_id(target):
            raise MigrationError(
                f"nothing tells the slot of {target.space} in collection {found.name} from another one of "
                "its space, so no verification is known to be of it; nothing was opened. Make it anew: "
                f"samespace migrate abort --plan PLAN.json, then {self._typed(RUN)}; or open in spite of it "
                "(--force)"
            )
        if seen.slot != slot_id(target):
            raise MigrationError(
                f"the verification is of another slot of {target.space} than the one that collection "
                f"{found.name} has now, as after an abort or in another store; nothing was opened. Verify "
                f"this one: {self._typed(_VERIFY)}"
            )
        beyond = await here.count_beyond()
        if beyond:
            again = f"{command('migrate plan', found.planned.name)} --backend SPEC --out FILE"
            raise MigrationError(
                f"the verification has not seen {rows_of(beyond)} of {found.info.rows:,} in collection "
                f"{found.name}, which the plan's --where leaves out, and the slot would open for all; "
                f"nothing was opened. Verify a plan without it: {self._typed(again)}; or open in spite of it "
                "(--force)"
            )

    async def _missing(self, here: Here, target: SlotInfo) -> int:
        """Rows with a text and no vector, that nobody fills while there is patience."""
        if not target.pending:
            return 0
        left = await self._left(partial(here.missing, target.space))
        return target.pending if len(left) > IDS else len(left)

    async def _left(
        self, look: Callable[[Collection[str] | None], Awaitable[set[str]]]
    ) -> set[str]:
        """What each look finds, if it is a little, while there is patience."""
        left = await look(None)
        clock = asyncio.get_running_loop().time
        until = clock() + self.patience
        while left and len(left) <= IDS and clock() < until:
            await asyncio.sleep(LOOK)
            left = await look(left)
        return left

    def _verified(self, name: str) -> VerifiedCollection | None:
        """What counts as evidence for a collection."""
        found = self.verification
        if found is None or found.plan != self.plan.hash or not found.passed:
            return None
        return next((each for each in found.collections if each.name == name), None)

    async def _is_verified(self, here: Here, found: Found, target: SlotInfo) -> bool:
        with suppress(MigrationError):
            await self._check_seen(here, found, target)
            return True
        return False

    def _was_opened(self, found: Found) -> bool:
        """By this plan, or before there was one."""
        if found.target is None or not found.is_open:
            return False
        planned, by = found.planned, found.target.provenance.get("plan")
        was_ready = planned.target_state == "ready" and not planned.target.is_another(found.target)
        return was_ready or by == self.plan.hash

    async def _open(self, here: Here) -> SlotChange:
        found = await here.look()
        pending = await self._check(here, found)  # others may have written since
        target = found.require_target()
        change = SlotChange(
            collection=here.planned.name,
            space=target.space,
            changed=False,
            said=f"the slot of {target.space} is ready already",
        )
        if self.plan.is_finished(found.planned, found.info):
            return replace(change, said=f"{change.said}, and the plan is finished here")
        if self._was_opened(found):
            return change
        how = "forced"
        if not pending and await self._is_verified(here, found, target):
            how = f"verified {self.verification.hash[:12]}" if self.verification else how
        noted = {"opened": how, "plan": self.plan.hash}
        await here.do("mark", target.space, SlotState.READY, provenance=noted)
        left = f"; {rows_of(pending)} pending" if pending else ""
        return replace(
            change, changed=True, said=f"the slot of {target.space} is ready ({how}){left}"
        )


# For all that ends a migration


async def changed(
    way: Way, change: Callable[[Here], Awaitable[SlotChange]]
) -> tuple[SlotChange, ...]:
    """What became of each collection; an error says what was done before it."""
    done: list[SlotChange] = []

    async def noted(here: Here) -> None:
        done.append(await change(here))

    try:
        await way.each(noted)
    except SamespaceError as error:
        lines = [line for each in done if each.changed for line in each.lines()]
        if lines:
            error.add_note("Done before that: " + "; ".join(lines))
        raise
    return tuple(done)


def _count(found: Collection[str]) -> str:
    """How many rows, of which only so many were looked for."""
    return f"more than {IDS:,} rows" if len(found) > IDS else rows_of(len(found))


def rows_of(count: int) -> str:
    """So many rows, in words."""
    return "1 row" if count == 1 else f"{count:,} rows"


def has(count: int) -> str:
    """The verb for so many."""
    return "has" if count == 1 else "have"


def them(count: int) -> str:
    """The pronoun for so many."""
    return "it" if count == 1 else "them"
