"""The record of a collection that has lost it, out of the names of its slots. Nothing here asks a store."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from samespace import __version__
from samespace.errors import InvalidInput, SpaceMismatch, SpaceUnknown, command, excerpt
from samespace.guard import (
    Direction,
    SlotRecord,
    SlotState,
    SpaceRecord,
    suggestion,
)
from samespace.protocols import Matrix
from samespace.space import EmbeddingSpace, spaces_named
from samespace.vectors import cosine_text, cosines

SAMPLE: Final = 16
"""Rows that are embedded again before a backend's canary is kept."""
_SLOT: Final = re.compile(r"[a-z0-9_]+_[0-9a-f]{8}\Z")


def is_slot_name(name: str) -> bool:
    """Whether a name may be the id of a space."""
    return len(name.encode()) <= 63 and _SLOT.match(name) is not None


def rebuilt(
    record: SpaceRecord | None,
    names: Sequence[str],
    *,
    known: Iterable[EmbeddingSpace],
    collection: str,
    scope: Sequence[str] = (),
) -> SpaceRecord:
    """A record with the slots that are there: those of ``record`` as it says, others by name.

    ``names`` are the physical slots, ``known`` the spaces that may be meant. :class:`SpaceUnknown`
    where a name tells of no space. ``scope`` is that of :func:`~samespace.errors.command`.
    """
    known = list(known)
    kept = [slot for slot in record.slots if slot.name in names] if record else []
    held = {slot.name for slot in kept}
    named = [_named(name, known, collection) for name in names if name not in held]
    if not kept and not named:
        raise nothing_left(collection, scope)
    layout = record.layout if record else None
    return SpaceRecord(slots=(*kept, *named), layout=layout)


def _named(name: str, known: Sequence[EmbeddingSpace], collection: str) -> SlotRecord:
    spaces = [space for space in (*known, *spaces_named(name)) if space.id == name]
    if not spaces:
        raise SpaceUnknown(
            f"slot {excerpt(name)} of collection {excerpt(collection)} is named after the space of a "
            "model that is not known here, so nothing was written: pass that space (spaces=, or "
            "--space MODEL@DIMENSIONS:TASK) or its backend (backend=, or --backend)"
        )
    return SlotRecord(
        name=name,
        space=spaces[0],
        state=SlotState.FILLING,
        provenance={"samespace": __version__, "record": "rebuilt from the slot's name"},
    )


def nothing_left(collection: str, scope: Sequence[str] = ()) -> SpaceUnknown:
    """The refusal of a collection in which no slot is named after its space."""
    return SpaceUnknown(
        f"no slot of collection {excerpt(collection)} is named after its space, as those of collections "
        f"made here are. Find out which space it is of: {command('identify', collection, scope)}; then "
        "record it with samespace adopt (pass layout= and space= and call adopt())"
    )


def adopted_before(collection: str, scope: Sequence[str] = ()) -> InvalidInput:
    """The refusal to write a record by names where an adopted collection has one that says more."""
    return InvalidInput(
        f"collection {excerpt(collection)} was adopted, so no name says what it holds: its record is in "
        f"order, or {command('adopt', collection, scope)} --backend SPEC (adopt()) writes it anew"
    )


def check_given(
    given: Iterable[EmbeddingSpace],
    names: Sequence[str],
    record: SpaceRecord | None,
    *,
    collection: str,
    scope: Sequence[str] = (),
) -> None:
    """:class:`SpaceUnknown` for a space that was given and is of none of the slots ``names``.

    A slot is of the space that ``record`` says, or that it is named after.
    """
    if not names:
        raise nothing_left(collection, scope)
    recorded = {slot.space for slot in record.slots if slot.name in names} if record else set()
    for space in given:
        if space.id not in names and space not in recorded:
            raise SpaceUnknown(
                f"no slot of collection {excerpt(collection)} is named {space.id}, after {space}; there "
                f"is {', '.join(map(excerpt, names)) or 'none'}; give the space that wrote it"
            )


def with_states(
    record: SpaceRecord, before: SpaceRecord | None, pending: Mapping[str, int]
) -> SpaceRecord:
    """The record with each new slot ready if all rows have a vector there.

    The one with the fewest rows to fill is ready in any case: without it nothing could be searched,
    though a row may always be pending.
    """
    kept = {slot.name for slot in before.slots} if before else set()
    found = tuple(
        slot if slot.name in kept or pending[slot.name] else replace(slot, state=SlotState.READY)
        for slot in record.slots
    )
    if not any(slot.state is SlotState.READY for slot in found):
        fullest = min(found, key=lambda slot: pending[slot.name])
        found = tuple(
            replace(slot, state=SlotState.READY) if slot is fullest else slot for slot in found
        )
    return replace(record, slots=found)


def check_alike(
    stored: Matrix,
    again: Matrix,
    slot: SlotRecord,
    *,
    threshold: float,
    collection: str,
    scope: Sequence[str] = (),
) -> None:
    """:class:`SpaceMismatch` unless most rows' vectors are what their texts give now.

    Shapes ``(n, dimensions)``. Some may differ: a text may have changed since.
    """
    alike = cosines(stored, again)
    middle = float(np.median(alike))
    if not middle >= threshold:
        raise SpaceMismatch(
            f"nothing was recorded of collection {excerpt(collection)}: the backend says {slot.space}, but "
            f"embeds the texts of {len(alike)} rows otherwise than they are stored: median cosine "
            f"{cosine_text(middle, threshold)}, at least {threshold} expected. This suggests "
            f"{suggestion(middle)}. {_mend(slot, collection, scope)}",
            stored=slot.space,
            offered=slot.space,
        )


def _mend(slot: SlotRecord, collection: str, scope: Sequence[str]) -> str:
    if slot.canary is None:
        return "Pass the backend that filled it; or none, which records the space without a canary"
    return (
        "The canary that is recorded says so too: open the collection with the backend that filled it, "
        f"which {command('info', collection, scope)} names"
    )


def check_told_by_rows(
    slot: SlotRecord,
    differing: Mapping[Direction, float],
    *,
    threshold: float,
    collection: str,
    comparable: bool,
    scope: Sequence[str] = (),
) -> None:
    """:class:`SpaceMismatch` where rows cannot say whether a canary or the backend is wrong.

    ``differing`` are the directions in which they differ, ``comparable`` says whether there are rows
    whose texts were embedded alone.
    """
    if not differing or ("documents" in differing and comparable):
        return
    direction = next(iter(differing))
    cosine = cosine_text(differing[direction], threshold)
    why = (
        "no row has a vector, or they are chunks or without a text, so that none can be embedded again alone"
        if "documents" in differing
        else "documents it embeds alike, and there are no rows of queries to compare"
    )
    raise SpaceMismatch(
        f"the canary of collection {excerpt(collection)} stays as it is: the backend embeds known texts as "
        f"{direction} otherwise (cosine {cosine}), and nothing can show that the canary is wrong: {why}. "
        f"Open it with the backend that filled it, which {command('info', collection, scope)} names; or "
        "restore the record from a backup",
        stored=slot.space,
        offered=slot.space,
    )
