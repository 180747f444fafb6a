"""What an index refuses of those who write to it by themselves, and the pipeline as a change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from samespace.guard import SlotRecord
from samespace.hardening import (
    AUDIT,
    INSTALL,
    REPAIR,
    Change,
    Outcome,
    RawAct,
    RawWrite,
    insertion,
)
from samespace.stores.elasticsearch.final_pipeline import SETTING, PipelineChange
from samespace.stores.elasticsearch.shape import Shape

_Verdict = tuple[Outcome, str, str]
_PIPELINE: Final = "the final pipeline refuses it (an update in _bulk goes past that)"
_ANYTHING: Final = "an update in _bulk passes no final pipeline, which knows no model either"
_NOTE: Final = (
    "documents are written with a vector in a slot, or null there to be filled later; a document "
    "without either is refused from now on"
)


def raw_writes(shape: Shape, slot: SlotRecord, *, guarded: bool) -> tuple[RawWrite, ...]:
    """What becomes of each raw act in the slot of an index as it is.

    ``guarded``: our pipeline is the index's final one, and is of its slots as they are.
    """
    sourced = shape.has_source(slot.name)
    return (
        RawWrite(RawAct.UNNAMED, Outcome.NOT_APPLICABLE, "every field of a document has a name"),
        RawWrite(RawAct.OTHER_SPACE, *_other_space(shape, guarded=guarded)),
        RawWrite(RawAct.UNKNOWN_FIELD, *_unknown(shape, sourced=sourced)),
        RawWrite(RawAct.WRONG_DIMENSION, Outcome.REFUSED, _size(shape, slot)),
        RawWrite(RawAct.UN_NORMALISED, *_off_norm(shape, slot, sourced=sourced, guarded=guarded)),
        RawWrite(RawAct.NO_VECTOR, *_empty(guarded=guarded)),
        RawWrite(RawAct.IN_PLACE, Outcome.STORED, _ANYTHING, AUDIT),
        RawWrite(
            RawAct.OTHER_MODEL,
            *insertion(sourced=sourced, why="numbers do not say which model made them"),
        ),
    )


def _is_strict(shape: Shape) -> bool:
    return shape.mapping.get("dynamic") == "strict"


def _other_space(shape: Shape, *, guarded: bool) -> _Verdict:
    if _is_strict(shape):
        return Outcome.REFUSED, "the mapping is strict", ""
    if guarded:
        return Outcome.REFUSED, _PIPELINE, ""
    return Outcome.PENDING, "the mapping takes fields that it does not know", INSTALL


def _unknown(shape: Shape, *, sourced: bool) -> _Verdict:
    if _is_strict(shape):
        return Outcome.REFUSED, "the mapping is strict", ""
    return insertion(sourced=sourced, why="the mapping takes fields that it does not know")


def _size(shape: Shape, slot: SlotRecord) -> str:
    return f"the field is mapped with {(shape.field(slot.name) or {}).get('dims')} dimensions"


def _off_norm(shape: Shape, slot: SlotRecord, *, sourced: bool, guarded: bool) -> _Verdict:
    if not slot.space.normalized:
        return Outcome.NOT_APPLICABLE, "vectors of this space have any norm", ""
    metric = (shape.field(slot.name) or {}).get("similarity", "cosine")
    if metric == "dot_product":
        return Outcome.REFUSED, "compared by dot_product, Elasticsearch looks at the norm", ""
    if guarded:
        return Outcome.REFUSED, "the final pipeline refuses a list of numbers of another norm", ""
    outcome, why, _ = insertion(sourced=sourced, why=f"compared by {metric}, nothing looks at it")
    return outcome, why, INSTALL


def _empty(*, guarded: bool) -> _Verdict:
    if guarded:
        return Outcome.REFUSED, f"{_PIPELINE}, unless the slot is null", ""
    return Outcome.PENDING, "a document may be without a vector, to be filled", REPAIR


# The pipeline as changes


def changes(change: PipelineChange) -> tuple[Change, ...]:
    """What putting the pipeline before the index, or taking it away, changes, in order."""
    found = [*_body(change), *_setting(change)]
    removing = change.new is None
    return tuple(reversed(found)) if removing else tuple(found)


def _body(change: PipelineChange) -> Iterator[Change]:
    if change.old == change.new:
        return
    path = f"_ingest/pipeline/{change.name}"
    yield Change(
        what=path,
        before=_shown(change.old),
        after=_shown(change.new),
        statement=f"DELETE {path}" if change.new is None else f"PUT {path}\n{_shown(change.new)}",
        note="" if change.new is None else _NOTE,
    )


def _setting(change: PipelineChange) -> Iterator[Change]:
    if change.before == change.after:
        return
    body = orjson.dumps({f"index.{SETTING}": change.after}).decode()
    yield Change(
        what=f"{change.index}: index.{SETTING}",
        before=change.before or "",
        after=change.after or "",
        statement=f"PUT {change.index}/_settings\n{body}",
    )


def _shown(body: Mapping[str, Any] | None) -> str:
    if body is None:
        return ""
    return orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode()
