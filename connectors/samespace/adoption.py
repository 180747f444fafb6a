"""What a record says, against what the collection is and what a layout says. Nothing here asks a store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from samespace import filters
from samespace.errors import InvalidInput, SpaceUnknown, command, excerpt
from samespace.guard import SlotRecord, SpaceRecord
from samespace.layout import Layout, TextLookup
from samespace.space import EmbeddingSpace

_OWN: Final = ("text", "metadata")
"""Where texts and metadata are in every collection of ours."""
_COMPARED: Final = ("id", "text", "metadata", "parent", "order")


ELSEWHERE: Final[TextLookup] = list
"""Stands for texts that a record says are elsewhere; a handle reads ids instead."""


def recorded_layout(record: SpaceRecord) -> Layout | None:
    """Where things are by a record, texts that are elsewhere aside; None for a collection of ours."""
    if record.layout is None:
        return None
    return Layout.from_dict(dict(record.layout), text=ELSEWHERE)


def texts_elsewhere(collection: str) -> InvalidInput:
    """The refusal to read texts by a record that does not say where they are."""
    return InvalidInput(
        f"the texts of collection {excerpt(collection)} are of a query or a function, which its record "
        "cannot hold: name the column with what was embedded (--text COLUMN), or, in Python, pass layout= "
        "as it was adopted"
    )


def missing_part(layout: Layout, has: Callable[[str], bool]) -> str:
    """The part of a layout, slots aside, that names what is not there; empty if all are."""
    pinned = filters.equalities(layout.scope) if layout.scope is not None else ()
    named = [*layout.names, *(("Layout.scope", column) for column in pinned)]
    for part, name in named:
        if part != "Layout.slot" and not has(name):
            return f"{part} is {excerpt(name)}, which is not there"
    return ""


def wrong_slot(slot: SlotRecord, sizes: Mapping[str, int | None]) -> str:
    """What is not so any more of a recorded slot; empty if it is as it was.

    ``sizes`` has the dimensions of each slot that is there, None where nothing fixes them.
    """
    if slot.name not in sizes:
        return f"{excerpt(slot.name)} is not there, or not of vectors"
    size = sizes[slot.name]
    if size in {None, slot.space.dimensions}:
        return ""
    return f"{excerpt(slot.name)} has {size} dimensions, and {slot.space} {slot.space.dimensions}"


def outdated(
    record: SpaceRecord, has: Callable[[str], bool] | None, sizes: Mapping[str, int | None]
) -> str:
    """Why a record says nothing of what is there now; empty if some slot is as it says."""
    layout = recorded_layout(record)
    missing = missing_part(layout, has) if layout is not None and has is not None else ""
    wrong = [wrong_slot(slot, sizes) for slot in record.slots]
    return missing or (wrong[0] if all(wrong) else "")


def altered(collection: str, why: str, *, adopted: bool, scope: Sequence[str] = ()) -> SpaceUnknown:
    """The refusal of a collection that is not what its record says."""
    mend = (
        f"or have it recorded as it is now: {command('adopt', collection, scope)} --backend SPEC (adopt())"
        if adopted
        else "or restore it from a backup"
    )
    return SpaceUnknown(
        f"collection {excerpt(collection)} is not what its record says: {why}. Somebody has altered it, "
        f"or made it anew; undo that, {mend}"
    )


def layout_differences(record: SpaceRecord, layout: Layout) -> list[tuple[str, Any, Any]]:
    """Part, recorded and given, where a layout is not the recorded one; its scope aside."""
    given = layout.to_dict()
    if record.layout is None:
        before: Mapping[str, Any] = {**given, "text": _OWN[0], "metadata": _OWN[1]}
    else:
        before = record.layout
    found = [(part, before[part], given[part]) for part in _COMPARED if before[part] != given[part]]
    slots = {slot.name for slot in record.slots}
    if record.layout is not None:
        slots.add(before["slot"])
    return found if given["slot"] in slots else [*found, ("slot", _slots(record), given["slot"])]


def _slots(record: SpaceRecord) -> str:
    return ", ".join(slot.name for slot in record.slots)


def shown_differences(found: Sequence[tuple[str, Any, Any]]) -> str:
    """Differences between layouts in a sentence's words."""
    return "; ".join(f"{part} {_shown(old)}, given {_shown(new)}" for part, old, new in found)


def _shown(value: object) -> str:
    return "elsewhere" if value is None else excerpt(value)


def check_same_layout(record: SpaceRecord, layout: Layout, *, collection: str) -> None:
    """:class:`InvalidInput` where a layout was passed that is not the recorded one."""
    found = layout_differences(record, layout)
    if not found:
        return
    mend = (
        "to record the other one, call adopt() (samespace adopt)"
        if record.layout is not None
        else "it was made by samespace, and its layout is its own"
    )
    raise InvalidInput(
        f"the record of collection {excerpt(collection)} has another layout: {shown_differences(found)}. "
        f"Leave layout= out, or pass the recorded one; {mend}"
    )


def adopted_again(
    record: SpaceRecord, layout: Layout, space: EmbeddingSpace, *, collection: str
) -> SpaceRecord:
    """The record with another layout for the same slot and space; itself where that is no other.

    :class:`SpaceMismatch` for another space, :class:`InvalidInput` for another slot, or a collection
    of ours.
    """
    slot = record.require(space, collection=collection)
    if record.layout is None:
        check_same_layout(record, layout, collection=collection)
        return record
    if slot.name != layout.slot:
        raise InvalidInput(
            f"collection {excerpt(collection)} is recorded with its vectors of {space} in "
            f"{excerpt(slot.name)}; they cannot be adopted in {excerpt(layout.slot)} beside that: drop the "
            "slot that is wrong, or name the recorded one"
        )
    same = not layout_differences(record, layout)
    return record if same else replace(record, layout=layout.to_dict())


def overlapping(scopes: Iterable[str], *, collection: str) -> InvalidInput:
    """The refusal to record rows a second time; ``scopes`` are those that they are in."""
    return InvalidInput(
        f"rows of collection {excerpt(collection)} are recorded already, as those of "
        f"{'; '.join(scopes)}; leave the "
        "scope out (--scope), or give that one: a row has one record"
    )
