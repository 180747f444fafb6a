"""The end of a migration: the slot that it moved from is dropped, or the one that it moved to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from samespace.documents import SlotInfo
from samespace.errors import MigrationError, command, excerpt
from samespace.guard import SlotState
from samespace.migrate.ending import SlotChange, changed, has, rows_of, them
from samespace.migrate.evidence import Named
from samespace.migrate.plan import MigrationPlan
from samespace.migrate.walking import RUN, Found, Here, Stores, Way, typed, walked
from samespace.space import EmbeddingSpace

_OPEN: Final = "samespace migrate open --plan PLAN.json --verification VERIFICATION.json"
Confirm = Callable[[str], bool]
"""Asks somebody a question, and says whether the answer is yes."""


@dataclass(frozen=True, slots=True)
class _Going:
    """What goes with a slot that can be dropped: vectors that are ``lost``, and what is in ``doubt``."""

    lost: str = ""
    doubt: str = ""

    @property
    def aside(self) -> str:
        """For people; empty where there is nothing to say."""
        return "; ".join(each for each in (self.lost, self.doubt) if each)


# Finishing


def finish(
    stores: Stores,
    plan: MigrationPlan,
    *,
    give_up_textless: bool = False,
    of_another_plan: bool = False,
    confirm: Confirm | None = None,
) -> tuple[SlotChange, ...]:
    """Drop the slots that were moved from; whoever still uses those is refused from then on.

    ``stores`` is as for :func:`open_slot`. All collections are looked at, then ``confirm`` is asked, in the
    caller's thread, and each collection is looked at again right before its slot is dropped. Empty if
    the answer is no. A slot that is gone already is said to be that.

    :class:`MigrationError` while a target is not ready, or a row would lose its only vector.
    ``give_up_textless`` gives up those of rows without a text, of which nothing can make another; where
    there are some, what others write at that very moment is not waited for. A target that another plan has
    filled or opened is gone on with only if ``of_another_plan`` says so, and only then is a slot dropped that
    is not known to be the one that was moved from, such as that of a way back.
    """
    work = _Finishing(plan, give_up_textless, of_another_plan)
    return walked(stores, plan, lambda way: work.go(way, confirm))


@dataclass(frozen=True)
class _Finishing:
    """How old slots are dropped."""

    plan: MigrationPlan
    give_up: bool
    of_another: bool

    async def go(self, way: Way, confirm: Confirm | None) -> tuple[SlotChange, ...]:
        """Look at all collections and ask, then drop one after the other."""
        what, warning = "Drop the old vectors of", "There is no way back"
        if await _agreed(way, confirm, self._look, what, warning):
            return await changed(way, self._drop)
        return ()

    async def _look(self, here: Here, found: Found) -> _Going | None:
        """What goes with the old slot, None if it is gone; :class:`MigrationError` while it is needed."""
        planned, target = found.planned, found.require_target()
        if found.source is None or planned.source.space == target.space:
            return None
        found.check_holds()
        self._check_opened(found, target)
        if not self.of_another:
            _check_source(found, found.source, "the slot")
        textless = await self._check_spared(here, found)
        if textless.count and not self.give_up:
            raise _textless(found, textless)
        await here.check_free(planned.source.space)
        lost = f"with the vectors of {rows_of(textless.count)} without text"
        return _Going(lost=lost if textless.count else "")

    def _check_opened(self, found: Found, target: SlotInfo) -> None:
        """:class:`MigrationError` unless this plan has opened the slot that is gone on with."""
        if not found.is_open:
            raise MigrationError(
                f"the slot of {target.space} in collection {found.name} is not ready, so nothing was "
                f"dropped; open it first: {_OPEN}"
            )
        if not self.of_another and not self.plan.is_own(found.planned, target):
            raise _another(found, target, self.plan, "Finish", "the old slot")

    async def _check_spared(self, here: Here, found: Found) -> Named:
        """Rows that only the old slot has for want of a text; :class:`MigrationError` for others."""
        source, target = found.planned.source.space, found.planned.target.space
        alone = await here.count_alone(source, target)
        textless = await here.textless(found) if alone else Named()
        alone = max(alone - textless.count, 0)
        stale = await here.rows.count_stale(target, None)
        if alone or stale:
            beyond = "; those beyond the plan's --where take a plan of their own"
            aside = "" if found.planned.where is None else beyond
            mend = f"fill them first: {typed(RUN, target, self.plan.target)}{aside}"
            raise _refused(found, _lacking(target, alone, stale), mend)
        return textless

    async def _drop(self, here: Here) -> SlotChange:
        found, source = await here.look(), here.planned.source.space
        change = SlotChange(
            collection=here.planned.name,
            space=source,
            changed=False,
            said=f"there is no slot of {source} any more",
        )
        if source == here.planned.target.space:
            return replace(change, said=f"it was in {source} before; there is nothing to drop")
        going = await self._look(here, found)
        if going is None:
            return change
        await here.do("drop_slot", source, keeps=None if going.lost else here.planned.target.space)
        dropped = _dropped(here, change)
        return replace(dropped, said=f"{dropped.said}, {going.lost}") if going.lost else dropped


def _textless(found: Found, rows: Named) -> MigrationError:
    return MigrationError(
        f"in collection {found.name} {rows_of(rows.count)} {has(rows.count)} a vector of "
        f"{found.planned.source.space} and no text to make another from: {rows}; nothing was dropped. Give "
        f"{them(rows.count)} a text or delete {them(rows.count)}, or give the vectors up: samespace "
        "migrate finish --plan PLAN.json --give-up-textless"
    )


# Aborting


def abort(
    stores: Stores,
    plan: MigrationPlan,
    *,
    force: bool = False,
    of_another_plan: bool = False,
    confirm: Confirm | None = None,
) -> tuple[SlotChange, ...]:
    """Drop the slots that were moved to, after which the collections are what they were.

    As :func:`finish`, the other way round: also one that is open is dropped, which takes back the
    opening. Rows that were written since then may have a vector of their text there alone: then it is
    :class:`MigrationError`, unless ``force`` gives those up, which the question and the result say. So it is
    once :func:`finish` has dropped the source, and for a slot that was ready before the plan was made. A
    slot that another plan filled or opened is dropped only if ``of_another_plan`` says so; so is any where
    that which would be left is not known to be the one that was moved from.
    """
    work = _Aborting(plan, force, of_another_plan)
    return walked(stores, plan, lambda way: work.go(way, confirm))


@dataclass(frozen=True)
class _Aborting:
    """How new slots are dropped."""

    plan: MigrationPlan
    force: bool
    of_another: bool

    async def go(self, way: Way, confirm: Confirm | None) -> tuple[SlotChange, ...]:
        """Look at all collections and ask, then drop one after the other."""
        what, warning = "Drop the new vectors of", "They were paid for"
        if await _agreed(way, confirm, self._look, what, warning):
            return await changed(way, self._drop)
        return ()

    async def _look(self, here: Here, found: Found) -> _Going | None:
        """What goes with the new slot, None if there is none; :class:`MigrationError` where it may not go."""
        source, target = found.planned.source.space, found.target
        if target is None:
            return None
        _check_way_back(found)
        self._check_own(found, target)
        if not self.of_another and found.source is not None:
            _check_source(found, found.source, "the new slot")
        await here.check_free(target.space)
        alone = await here.count_alone(target.space, source)
        stale = await here.count_fresh_alone(target.space, source)
        lost = _lacking(source, alone, stale)
        if lost and not self.force:
            mend = (
                f"fill the old slot first: {typed(RUN, target.space, self.plan.target)} --follow "
                f"{typed('--old-backend SPEC', source, _made_by(found.source))}; or give them up (--force)"
            )
            raise _refused(found, lost, mend)
        return _Going(lost, _doubt(here, found))

    def _check_own(self, found: Found, target: SlotInfo) -> None:
        is_own = not target.provenance.get("plan") or self.plan.has_made(target)
        if not is_own and not self.of_another:
            raise _another(found, target, self.plan, "Abort", "its slot")

    async def _drop(self, here: Here) -> SlotChange:
        found, target = await here.look(), here.planned.target.space
        change = SlotChange(
            collection=here.planned.name,
            space=target,
            changed=False,
            said=f"there is no slot of {target}, so there is nothing to drop",
        )
        going = await self._look(here, found)
        if going is None:
            return change
        await here.do("drop_slot", target, keeps=None if going.lost else here.planned.source.space)
        dropped = _dropped(here, change)
        return replace(dropped, said=f"{dropped.said}; {going.aside}") if going.aside else dropped


def _check_way_back(found: Found) -> None:
    """:class:`MigrationError` unless the collection can be what it was before the plan."""
    source, target = found.planned.source.space, found.planned.target.space
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


def _made_by(slot: SlotInfo | None) -> Mapping[str, str]:
    return {} if slot is None else slot.provenance


def _doubt(here: Here, found: Found) -> str:
    """What is not known of the slot that is gone back to; empty where all of it is."""
    if found.source is None or here.is_told_stale(found.source):
        return ""
    return (
        f"others made the slot of {found.source.space}: rows whose text was changed in place since are not "
        "known there, and keep the vector of their earlier text"
    )


# Both


async def _agreed(
    way: Way,
    confirm: Confirm | None,
    look: Callable[[Here, Found], Awaitable[_Going | None]],
    what: str,
    warning: str,
) -> bool:
    """Whether somebody wants dropped what can be; true where nobody is to be asked, or there is nothing."""

    async def asked(here: Here) -> str:
        found = await here.look()
        going = await look(here, found)
        aside = f" ({going.aside})" if going is not None and going.aside else ""
        return f"{rows_of(found.info.rows)} of {found.name}{aside}" if going is not None else ""

    concerned = [each for each in await way.each(asked) if each]
    if confirm is None or not concerned:
        return True
    question = f"{what} {', '.join(concerned)}? {warning}."
    return await way.ask(lambda: confirm(question))


def _dropped(here: Here, change: SlotChange) -> SlotChange:
    left = "" if here.described is None else here.described.unreclaimed_space
    return replace(change, changed=True, said=f"the slot of {change.space} is dropped", left=left)


def _another(
    found: Found, target: SlotInfo, plan: MigrationPlan, verb: str, what: str
) -> MigrationError:
    """The refusal to end by one plan what is another's."""
    other = target.provenance.get("plan", "")
    maker, mend = "no plan", f"Open it with this one ({_OPEN})"
    if found.planned.target_state == "ready":  # to open it again would note nothing
        mend = "Make a plan of this very collection"
    if other:
        maker, mend = f"plan {excerpt(other[:12])}", f"{verb} that one"
    return MigrationError(
        f"the slot of {target.space} in collection {found.name} was filled or opened by {maker}, not by "
        f"{plan.hash[:12]}; nothing was dropped. {mend}, or drop {what} all the same (--of-another-plan)"
    )


def _check_source(found: Found, source: SlotInfo, what: str) -> None:
    """:class:`MigrationError` unless a slot may be that which was moved from, as a way back's is not."""
    planned, by = found.planned.source, source.provenance.get("plan", "")
    is_doubtful = bool(by) or source.state != SlotState.READY
    if not planned.is_another(source) and (planned.slot is not None or not is_doubtful):
        return
    maker = f"plan {excerpt(by[:12])}" if by else "no plan"
    raise MigrationError(
        f"the slot of {source.space} in collection {found.name} is not known to be the one that this plan "
        f"moves from: it is {source.state}, and {maker} has made it; nothing was dropped. If it is of a way "
        f"back, go on with the plan of that; else drop {what} all the same (--of-another-plan)"
    )


def _lacking(kept: EmbeddingSpace, alone: int, stale: int) -> str:
    """What rows would miss in the slot that is left; empty where they miss nothing."""
    said = [f"{rows_of(alone)} {has(alone)} no vector of {kept}"] if alone else []
    said += [f"{rows_of(stale)} {has(stale)} one of an earlier text"] if stale else []
    return " and ".join(said)


def _refused(found: Found, lacking: str, mend: str) -> MigrationError:
    """The refusal to drop the only vectors of some rows."""
    return MigrationError(f"in collection {found.name} {lacking}, so nothing was dropped; {mend}")
