"""The end of a migration: its slot is opened, and the old one dropped; or the new one is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Final

from samespace.documents import SlotInfo
from samespace.errors import InvalidInput, MigrationError, SamespaceError, command, excerpt
from samespace.filters import of_json
from samespace.guard import SlotState
from samespace.ingest.target import IDS
from samespace.migrate.evidence import Named
from samespace.migrate.plan import MigrationPlan
from samespace.migrate.verification import Verification, VerifiedCollection, slot_id
from samespace.migrate.walking import RUN, Found, Here, Stores, Way, typed, walked
from samespace.space import EmbeddingSpace

_VERIFY: Final = "samespace migrate verify --plan PLAN.json --backend SPEC --out VERIFICATION.json"
_OPEN: Final = "samespace migrate open --plan PLAN.json --verification VERIFICATION.json"
LOOK: Final = 0.5
"""Seconds between two looks at rows that are being filled."""
Confirm = Callable[[str], bool]
"""Asks somebody a question, and says whether the answer is yes."""


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
    provenance. One that this plan has opened already is left as it is.

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
        return typed(command, spaces[0]) if spaces else command

    async def go(self, way: Way) -> tuple[SlotChange, ...]:
        """Look at all collections, then open one after the other."""

        async def look(here: Here) -> None:
            await self._check(here, await here.look())

        await way.each(look)
        return await _changed(way, self._open)

    async def _check(self, here: Here, found: Found) -> int:
        """How many rows with a text are pending; more than none is refused unless that was asked for."""
        target = found.require_target()
        found.check_holds()
        if self.force or self._was_opened(found):
            return target.pending
        await self._check_seen(here, found, target)
        missing = await self._missing(here, target)
        if missing:
            raise MigrationError(
                f"{_rows(missing)} of collection {found.name} {_has(missing)} no vector of "
                f"{target.space}, and a search would miss {_them(missing)}; nothing was opened. Fill "
                f"{_them(missing)}: {self._typed(RUN)}; what the model refuses, shorten or delete; what the "
                "plan's --where leaves out, move with another plan; or open in spite of it (--force)"
            )
        stale = await self._left(partial(here.stale, target.space))
        if stale:
            raise MigrationError(
                f"{_count(stale)} of collection {found.name} {_has(len(stale))} a vector of an earlier text "
                f"in the slot of {target.space}; nothing was opened. Fill {_them(len(stale))} again: "
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
        if seen.slot != slot_id(target):
            raise MigrationError(
                f"the verification is of another slot of {target.space} than the one that collection "
                f"{found.name} has now, as after an abort or in another store; nothing was opened. Verify "
                f"this one: {self._typed(_VERIFY)}"
            )
        beyond = await self._beyond(here, found)
        if beyond:
            again = f"{command('migrate plan', found.planned.name)} --backend SPEC --out FILE"
            raise MigrationError(
                f"the verification has not seen {_rows(beyond)} of {found.info.rows:,} in collection "
                f"{found.name}, which the plan's --where leaves out, and the slot would open for all; "
                f"nothing was opened. Verify a plan without it: {self._typed(again)}; or open in spite of it "
                "(--force)"
            )

    async def _beyond(self, here: Here, found: Found) -> int:
        """How many rows the plan leaves out now: how many there were tells nothing once others write."""
        where = found.planned.where
        return 0 if where is None else await here.rows.count(~of_json(where))

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
        planned_ready = found.planned.target_state == "ready"
        return planned_ready or found.target.provenance.get("plan") == self.plan.hash

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
        if self._was_opened(found):
            return change
        how = "forced"
        if not pending and await self._is_verified(here, found, target):
            how = f"verified {self.verification.hash[:12]}" if self.verification else how
        noted = {"opened": how, "plan": self.plan.hash}
        await here.do("mark", target.space, SlotState.READY, provenance=noted)
        left = f"; {_rows(pending)} pending" if pending else ""
        return replace(
            change, changed=True, said=f"the slot of {target.space} is ready ({how}){left}"
        )


# Finishing


def finish(
    stores: Stores,
    plan: MigrationPlan,
    *,
    give_up_textless: bool = False,
    confirm: Confirm | None = None,
) -> tuple[SlotChange, ...]:
    """Drop the slots that were moved from; whoever still uses those is refused from then on.

    ``stores`` is as for :func:`open_slot`. All collections are looked at, then ``confirm`` is asked, in the
    caller's thread, and each collection is looked at again right before its slot is dropped. Empty if
    the answer is no. A slot that is gone already is said to be that.

    :class:`MigrationError` while a target is not ready, or a row would lose its only vector.
    ``give_up_textless`` gives up those of rows without a text, of which nothing can make another; where
    there are some, what others write at that very moment is not waited for.
    """
    return walked(stores, plan, lambda way: _finished(way, confirm, give_up=give_up_textless))


async def _finished(way: Way, confirm: Confirm | None, *, give_up: bool) -> tuple[SlotChange, ...]:
    def check(here: Here, found: Found) -> Awaitable[bool]:
        return _can_finish(here, found, give_up=give_up)

    if await _agreed(way, confirm, check, "Drop the old vectors of", "There is no way back"):
        return await _changed(way, lambda here: _finish(here, give_up=give_up))
    return ()


async def _can_finish(here: Here, found: Found, *, give_up: bool) -> bool:
    """Whether there is something to drop; :class:`MigrationError` while it is needed."""
    planned, target = found.planned, found.require_target()
    if found.source is None or planned.source.space == target.space:
        return False
    found.check_holds()
    if not found.is_open:
        raise MigrationError(
            f"the slot of {target.space} in collection {found.name} is not ready, so nothing was dropped; "
            f"open it first: {_OPEN}"
        )
    alone = await here.count_alone(planned.source.space, target.space)
    textless = await here.textless(found) if alone else Named()
    alone = max(alone - textless.count, 0)
    stale = await here.rows.count_stale(target.space, None)
    if alone or stale:
        beyond = "; those beyond the plan's --where take a plan of their own"
        mend = (
            f"fill them first: {typed(RUN, target.space)}{'' if planned.where is None else beyond}"
        )
        raise _lost(found, target.space, alone, stale, mend)
    if textless.count and not give_up:
        raise _textless(found, textless)
    await here.check_free(planned.source.space)
    return True


def _textless(found: Found, rows: Named) -> MigrationError:
    return MigrationError(
        f"in collection {found.name} {_rows(rows.count)} {_has(rows.count)} a vector of "
        f"{found.planned.source.space} and no text to make another from: {rows}; nothing was dropped. Give "
        f"{_them(rows.count)} a text or delete {_them(rows.count)}, or give the vectors up: samespace "
        "migrate finish --plan PLAN.json --give-up-textless"
    )


async def _finish(here: Here, *, give_up: bool) -> SlotChange:
    found, source = await here.look(), here.planned.source.space
    change = SlotChange(
        collection=here.planned.name,
        space=source,
        changed=False,
        said=f"there is no slot of {source} any more",
    )
    if source == here.planned.target.space:
        return replace(change, said=f"it was in {source} before; there is nothing to drop")
    if not await _can_finish(here, found, give_up=give_up):
        return change
    lost = await here.textless(found) if give_up else Named()
    await here.do("drop_slot", source, keeps=None if lost.count else here.planned.target.space)
    dropped = _dropped(here, change)
    if not lost.count:
        return dropped
    return replace(
        dropped, said=f"{dropped.said}, with the vectors of {_rows(lost.count)} without text"
    )


# Aborting


def abort(
    stores: Stores, plan: MigrationPlan, *, force: bool = False, confirm: Confirm | None = None
) -> tuple[SlotChange, ...]:
    """Drop the slots that were moved to, after which the collections are what they were.

    As :func:`finish`, the other way round: also one that is open is dropped, which takes back the
    opening. Rows that were written since then may have a vector of their text there alone: then it is
    :class:`MigrationError`, unless ``force`` gives those up. So it is once :func:`finish` has dropped the
    source, and for a slot that was ready before the plan was made. A slot that another plan filled or
    opened is dropped with ``force`` alone.
    """
    own = None if force else plan
    return walked(stores, plan, lambda way: _aborted(way, confirm, own))


async def _aborted(
    way: Way, confirm: Confirm | None, own: MigrationPlan | None
) -> tuple[SlotChange, ...]:
    """``own`` is the plan whose slots alone are dropped, and for which nothing is given up."""

    def check(here: Here, found: Found) -> Awaitable[bool]:
        return _can_abort(here, found, own)

    what, warning = "Drop the new vectors of", "They were paid for"
    if await _agreed(way, confirm, check, what, warning, doubt=_doubt):
        return await _changed(way, lambda here: _abort(here, own))
    return ()


async def _can_abort(here: Here, found: Found, own: MigrationPlan | None) -> bool:
    """Whether there is something to drop; :class:`MigrationError` where it may not be."""
    source, target = found.planned.source.space, found.planned.target.space
    if found.target is None:
        return False
    if found.planned.target_state == "ready":
        raise MigrationError(
            f"the slot of {target} in collection {found.name} was ready before this plan was made, so it is "
            "not the plan's to drop; drop_slot() does it"
        )
    if found.source is None:
        again = f"{command('migrate plan', found.planned.name)} --backend SPEC --out FILE"
        raise MigrationError(
            f"collection {found.name} has no slot of {source} any more, to go back to; make a plan from "
            f"{target} to it: {typed(again, source)}"
        )
    found.check_holds()
    if own is not None:
        _check_own(found, own)
    await here.check_free(target)
    if own is None:
        return True
    alone = await here.count_alone(target, source)
    stale = await here.count_fresh_alone(target, source)
    if alone or stale:
        mend = (
            f"fill the old slot first: {typed(RUN, target)} --follow "
            f"{typed('--old-backend SPEC', source)}; or give them up (--force)"
        )
        raise _lost(found, source, alone, stale, mend)
    return True


def _check_own(found: Found, plan: MigrationPlan) -> None:
    other = found.require_target().provenance.get("plan", "")
    if not plan.hash.startswith(other):
        raise MigrationError(
            f"the slot of {found.planned.target.space} in collection {found.name} was filled or opened by "
            f"plan {excerpt(other[:12])}, not by {plan.hash[:12]}; nothing was dropped. Abort that one, or "
            "drop its slot all the same (--force)"
        )


def _doubt(here: Here, found: Found) -> str:
    """What is not known of the slot that is gone back to; empty where all of it is."""
    if found.source is None or here.is_told_stale(found.source):
        return ""
    return (
        f"others made the slot of {found.source.space}: rows whose text was changed in place since are not "
        "known there, and keep the vector of their earlier text"
    )


async def _abort(here: Here, own: MigrationPlan | None) -> SlotChange:
    found, target = await here.look(), here.planned.target.space
    change = SlotChange(
        collection=here.planned.name,
        space=target,
        changed=False,
        said=f"there is no slot of {target}, so there is nothing to drop",
    )
    if not await _can_abort(here, found, own):
        return change
    await here.do("drop_slot", target, keeps=None if own is None else here.planned.source.space)
    dropped, doubt = _dropped(here, change), _doubt(here, found)
    return replace(dropped, said=f"{dropped.said}; {doubt}") if doubt else dropped


# Both


async def _agreed(
    way: Way,
    confirm: Confirm | None,
    can_drop: Callable[[Here, Found], Awaitable[bool]],
    what: str,
    warning: str,
    *,
    doubt: Callable[[Here, Found], str] = lambda _here, _found: "",
) -> bool:
    """Whether somebody wants dropped what can be; true where nobody is to be asked, or there is nothing."""

    async def look(here: Here) -> str:
        found = await here.look()
        can = await can_drop(here, found)
        unknown = doubt(here, found)
        aside = f" ({unknown})" if unknown else ""
        return f"{_rows(found.info.rows)} of {found.name}{aside}" if can else ""

    concerned = [each for each in await way.each(look) if each]
    if confirm is None or not concerned:
        return True
    question = f"{what} {', '.join(concerned)}? {warning}."
    return await way.ask(lambda: confirm(question))


async def _changed(
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


def _dropped(here: Here, change: SlotChange) -> SlotChange:
    left = "" if here.described is None else here.described.unreclaimed_space
    return replace(change, changed=True, said=f"the slot of {change.space} is dropped", left=left)


def _lost(found: Found, kept: EmbeddingSpace, alone: int, stale: int, mend: str) -> MigrationError:
    """The refusal to drop the only vectors of some rows; ``kept`` is the space that would be left."""
    said = [f"{_rows(alone)} {_has(alone)} no vector of {kept}"] if alone else []
    said += [f"{_rows(stale)} {_has(stale)} one of an earlier text"] if stale else []
    return MigrationError(
        f"in collection {found.name} {' and '.join(said)}, so nothing was dropped; {mend}"
    )


def _count(found: Collection[str]) -> str:
    """How many rows, of which only so many were looked for."""
    return f"more than {IDS:,} rows" if len(found) > IDS else _rows(len(found))


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _has(count: int) -> str:
    return "has" if count == 1 else "have"


def _them(count: int) -> str:
    return "it" if count == 1 else "them"
