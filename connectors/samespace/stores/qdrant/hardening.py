"""What a collection refuses of those who write to it by themselves; nothing can be added to that."""

from __future__ import annotations

from qdrant_client import models

from samespace.guard import SlotRecord
from samespace.hardening import AUDIT, REPAIR, Outcome, RawAct, RawWrite, insertion
from samespace.stores.qdrant.collection import State

_Verdict = tuple[Outcome, str, str]
_NO_SUCH_NAME = "Qdrant takes vectors under the collection's names alone"


def raw_writes(state: State, slot: SlotRecord, *, is_local: bool) -> tuple[RawWrite, ...]:
    """What becomes of each raw act in the slot of a collection as it is.

    ``is_local``: Qdrant is the client's local mode, which differs from a server here and there.
    """
    sourced = slot.name == slot.space.id
    return (
        RawWrite(RawAct.UNNAMED, *_unnamed(state, slot, is_local=is_local)),
        RawWrite(RawAct.OTHER_SPACE, Outcome.REFUSED, _NO_SUCH_NAME),
        RawWrite(RawAct.UNKNOWN_FIELD, *insertion(sourced=sourced, why="a payload has any keys")),
        RawWrite(RawAct.WRONG_DIMENSION, Outcome.REFUSED, _size(state, slot)),
        RawWrite(RawAct.UN_NORMALISED, *_off_norm(state, slot, sourced=sourced)),
        RawWrite(RawAct.NO_VECTOR, Outcome.PENDING, "a point may be without a vector", REPAIR),
        RawWrite(RawAct.IN_PLACE, Outcome.STORED, "Qdrant has no conditions on a vector", AUDIT),
        RawWrite(
            RawAct.OTHER_MODEL,
            *insertion(sourced=sourced, why="numbers do not say which model made them"),
        ),
    )


def _unnamed(state: State, slot: SlotRecord, *, is_local: bool) -> _Verdict:
    if slot.name:
        return Outcome.REFUSED, _NO_SUCH_NAME, ""
    if is_local and len(state.vectors) > 1:
        return Outcome.REFUSED, "local mode takes no unnamed vector beside named ones", ""
    return Outcome.STORED, "the slot is the unnamed vector, which names no space", AUDIT


def _size(state: State, slot: SlotRecord) -> str:
    return f"the vector has {state.vectors[slot.name].size} dimensions"


def _off_norm(state: State, slot: SlotRecord, *, sourced: bool) -> _Verdict:
    if not slot.space.normalized:
        return Outcome.NOT_APPLICABLE, "vectors of this space have any norm", ""
    if state.vectors[slot.name].metric is models.Distance.COSINE:
        return insertion(sourced=sourced, why="compared by Cosine, Qdrant brings it to unit norm")
    metric = state.vectors[slot.name].metric.value
    return insertion(sourced=sourced, why=f"compared by {metric}, Qdrant looks at no norm")
