"""What a collection says of itself, and what follows from it.

A collection carries a :class:`SpaceRecord`: its slots, each with the embedding space, a state, how
its vectors were made and a canary. The functions here compare and explain; they never reach a
store.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from samespace.errors import (
    InvalidInput,
    MigrationError,
    SlotNotReady,
    SpaceMismatch,
    SpaceUnknown,
    command,
    excerpt,
)
from samespace.layout import Layout, TextQuery
from samespace.legality import Use, legality
from samespace.names import is_collection_name
from samespace.space import EmbeddingSpace, Verdict, differences
from samespace.vectors import cosine_text, cosines

FORMAT: Final = 1
"""The version of the record's JSON that this library writes, and the newest it reads."""

UPGRADE: Final = "python -m pip install --upgrade samespace"
"""What to type where a newer version is needed."""

CANARY_TEXTS: Final = (
    "The lighthouse keeper counted seven ships before the fog came in.",
    "Der Bäcker öffnet um sechs Uhr, doch das Brot ist erst um sieben fertig.",
    "図書館の三階には、古い地図が静かに並んでいる。",
)
"""Embedded when a slot is created, and again when a handle first writes or searches."""

CANARY_THRESHOLD: Final = 0.995
"""Smallest cosine at which a canary counts as unchanged."""

Direction = Literal["documents", "queries"]
_ELSEWHERE: Final = TextQuery("elsewhere")
"""Stands for a text that only who opens the collection knows, where a layout is but checked."""


class SlotState(StrEnum):
    """Whether a slot can be searched."""

    FILLING = "filling"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class Canary:
    """The canary texts as one backend embedded them, each ``(3, dimensions)`` float16."""

    documents: NDArray[np.float16]
    queries: NDArray[np.float16]

    def to_dict(self) -> dict[str, str]:
        """JSON-ready: base64 of little-endian float16."""
        return {
            "documents": _encode(self.documents),
            "queries": _encode(self.queries),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, str]) -> Canary:
        """The inverse of :meth:`to_dict`; ValueError on anything else."""
        return cls(_decode(values["documents"]), _decode(values["queries"]))

    def of(self, direction: Direction) -> NDArray[np.float16]:
        """The vectors of one direction, shape ``(3, dimensions)``."""
        return self.documents if direction == "documents" else self.queries

    def equals(self, other: Canary | None) -> bool:
        """Whether both are the same to the last bit."""
        return other is not None and (
            np.array_equal(self.documents, other.documents)
            and np.array_equal(self.queries, other.queries)
        )

    def fits(self, space: EmbeddingSpace) -> bool:
        """Whether both matrices have the dimensions of ``space``."""
        sizes = {self.documents.shape[1], self.queries.shape[1]}
        return sizes == {space.dimensions}


def _encode(matrix: NDArray[np.float16]) -> str:
    return base64.b64encode(matrix.astype("<f2").tobytes()).decode()


def _decode(text: str) -> NDArray[np.float16]:
    values = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f2")
    return values.reshape(len(CANARY_TEXTS), -1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRecord:
    """One slot: ``name`` is physical (a column, a vector name, a field)."""

    name: str
    space: EmbeddingSpace
    state: SlotState = SlotState.READY
    provenance: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    canary: Canary | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "name": self.name,
            "space": self.space.to_dict(),
            "state": str(self.state),
            "provenance": dict(self.provenance),
            "canary": self.canary.to_dict() if self.canary else None,
        }

    def with_provenance(
        self, entries: Mapping[str, str] | None, *, state: SlotState | None = None
    ) -> SlotRecord:
        """This slot with entries of its provenance added or replaced, and in another state if given."""
        merged = {**self.provenance, **(entries or {})}
        return replace(self, provenance=MappingProxyType(merged), state=state or self.state)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SlotRecord:
        """The inverse of :meth:`to_dict`; KeyError, TypeError or ValueError on anything else."""
        slot = cls(
            name=values["name"],
            space=EmbeddingSpace.from_dict(values["space"]),
            state=SlotState(values["state"]),
            provenance=MappingProxyType(dict(values["provenance"])),
            canary=Canary.from_dict(values["canary"]) if values.get("canary") else None,
        )
        if not isinstance(slot.name, str):
            raise TypeError("a slot's name is a string")
        if slot.canary is not None and not slot.canary.fits(slot.space):
            raise ValueError("the canary is of another size than its space")
        return slot


class UnreadableRecord(SpaceUnknown):
    """A record that no version of this library wrote; adopting writes another in its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceRecord:
    """What a collection says of itself; ``layout`` is recorded where it is not ours."""

    slots: tuple[SlotRecord, ...]
    layout: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "format": FORMAT,
            "slots": [slot.to_dict() for slot in self.slots],
            "layout": dict(self.layout) if self.layout is not None else None,
        }

    @classmethod
    def from_dict(
        cls, values: object, *, collection: str, scope: Sequence[str] = ()
    ) -> SpaceRecord:
        """Read what :meth:`to_dict` wrote; :class:`SpaceUnknown` if newer or unreadable."""
        unreadable = partial(_unreadable, collection, scope)
        if not isinstance(values, Mapping) or not isinstance(values.get("format"), int):
            raise UnreadableRecord(unreadable("it has no format number"))
        if values["format"] > FORMAT:
            raise SpaceUnknown(
                f"the record of collection {excerpt(collection)} has format {values['format']}, newer "
                f"than {FORMAT}, which this version reads, so that it neither reads nor writes anything "
                f"there; upgrade samespace: {UPGRADE}, or use another collection until then"
            )
        try:
            slots = tuple(SlotRecord.from_dict(slot) for slot in values["slots"])
            layout = values.get("layout")
            if layout is not None:
                Layout.from_dict(dict(layout), text=_ELSEWHERE)
            if slots:
                return cls(slots=slots, layout=layout)
        except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
            raise UnreadableRecord(unreadable(type(error).__name__)) from error
        raise UnreadableRecord(unreadable("its slots are missing"))

    def find(self, space: EmbeddingSpace) -> SlotRecord | None:
        """The slot of this space, if there is one."""
        return next((slot for slot in self.slots if slot.space == space), None)

    def require(self, space: EmbeddingSpace, *, collection: str, use: Use = "write") -> SlotRecord:
        """The slot of this space, or :class:`SpaceMismatch` with the differences."""
        slot = self.find(space)
        if slot is None:
            raise mismatch(self, space, collection=collection, use=use)
        return slot

    def with_slot(self, slot: SlotRecord) -> SpaceRecord:
        """This record with a slot added, or replaced where one of its space is there."""
        kept = tuple(other for other in self.slots if other.space != slot.space)
        return replace(self, slots=(*kept, slot))

    def with_state(
        self,
        space: EmbeddingSpace,
        state: SlotState,
        provenance: Mapping[str, str] | None = None,
    ) -> SpaceRecord:
        """This record with one slot's state changed, in place, and entries of its provenance."""
        return replace(
            self,
            slots=tuple(
                slot.with_provenance(provenance, state=state) if slot.space == space else slot
                for slot in self.slots
            ),
        )

    def without(self, space: EmbeddingSpace) -> SpaceRecord:
        """This record without the slot of ``space``; the last one cannot go."""
        kept = tuple(slot for slot in self.slots if slot.space != space)
        if not kept:
            raise InvalidInput(
                "a collection keeps at least one slot; use drop() to remove it whole"
            )
        return replace(self, slots=kept)


def _unreadable(collection: str, scope: Sequence[str], reason: str) -> str:
    return (
        f"the record of collection {excerpt(collection)} cannot be read ({reason}), so its embedding "
        "space is unknown. Restore it from a backup; or, where slots are named after their spaces, "
        f"rebuild it: {command('guard repair-record', collection, scope)} (repair_record()); or write "
        f"another: {command('adopt', collection, scope)} --backend SPEC (pass layout= and space= and call "
        "adopt())"
    )


def mismatch(
    record: SpaceRecord, offered: EmbeddingSpace, *, collection: str, use: Use = "write"
) -> SpaceMismatch:
    """The refusal: a diff against the nearest slot, the verdict, and what mends it."""
    nearest = min(record.slots, key=lambda slot: len(differences(slot.space, offered)))
    stored = nearest.space
    found = differences(stored, offered)
    rows = [("field", "stored", "offered")]
    rows += [(d.field, _shown(d.stored), _shown(d.offered)) for d in found]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    table = "\n".join(f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in rows)
    judged = legality(stored, offered, use)
    message = (
        f"collection {excerpt(collection)} holds {stored}; this handle offers {offered}\n"
        f"{table}\nverdict: {judged.verdict}. {judged.reason} {_mend(judged.verdict, stored, offered)}"
    )
    return SpaceMismatch(message, stored=stored, offered=offered, differences=found)


def _shown(value: object) -> str:
    return str(value) if not isinstance(value, str) else excerpt(value).strip("'")


def _mend(verdict: Verdict, stored: EmbeddingSpace, offered: EmbeddingSpace) -> str:
    if verdict is Verdict.DERIVABLE:
        return f"Open the collection with {stored}, or add_slot({offered}) and fill it."
    return (
        f"Open the collection with {stored}, use another collection, or add a slot for the offered "
        "space (add_slot) and embed the texts again."
    )


def missing_record(
    collection: str,
    *,
    claimed: bool = False,
    scope: Sequence[str] = (),
    others: Sequence[str] = (),
) -> SpaceUnknown:
    """The refusal of a collection that has rows and no record; ``claimed``: to who says what it is.

    ``scope`` has a condition for each column that tells it from ``others`` in its table, which have one.
    """
    adopt = f"{command('adopt', collection, scope)} --backend SPEC"
    if claimed:
        return SpaceUnknown(
            f"collection {excerpt(collection)} exists and has no record of its embedding space, without "
            f"which nothing is written: record what this handle claims with adopt() ({adopt})"
        )
    identify = command("identify", collection, scope)
    if scope:
        there = f"one for {'; '.join(others)}" if others else "none for others"
        return SpaceUnknown(
            f"collection {excerpt(collection)} has no record for {excerpt(' '.join(scope))}; there is "
            f"{there}. Give the scope of a record; or find out what these rows hold: {identify}, and "
            f"record it: {adopt} (pass layout= with that scope, and call adopt())"
        )
    if not is_collection_name(collection):  # it was not made here
        return SpaceUnknown(
            f"collection {excerpt(collection)} exists and does not say which embedding space it holds; "
            f"find out: {identify}, and record it: {adopt} (pass layout= and space= and call adopt())"
        )
    return SpaceUnknown(
        f"collection {excerpt(collection)} exists and does not say which embedding space it holds; "
        f"where its slots are named after their spaces: {command('guard repair-record', collection)} "
        f"(repair_record()); else find out: {identify}, and record it: "
        f"{adopt} (pass layout= and space= and call adopt()); or use another name"
    )


def lost_record(collection: str) -> SpaceUnknown:
    """The refusal to take a collection of ours, whose record is gone, for somebody else's."""
    return SpaceUnknown(
        f"collection {excerpt(collection)} was made by samespace and has lost its record, so there is "
        f"nothing to adopt; have the record written anew: {command('guard repair-record', collection)} "
        "(repair_record())"
    )


def lost_slot(
    slot: SlotRecord, *, collection: str, place: str, scope: Sequence[str] = ()
) -> SpaceUnknown:
    """The refusal of a record that names a slot which is not there; ``place`` is what one is."""
    return SpaceUnknown(
        f"collection {excerpt(collection)} says that its vectors are in the {place} "
        f"{excerpt(slot.name)}, which it lacks. Restore it from a backup; or, where the rows have vectors "
        "in other slots, take it out of the record: "
        f"{command('guard repair-record', collection, scope)} (repair_record())"
    )


def not_ready(
    slot: SlotRecord, *, collection: str, pending: int, rows: int, scope: Sequence[str] = ()
) -> SlotNotReady:
    """The refusal of a search in a slot that is being filled."""
    return SlotNotReady(
        f"slot {slot.name} of collection {excerpt(collection)} is being filled: {pending} of {rows} "
        f"rows have no vector of {slot.space} yet; search with the collection's other space, or wait "
        f"until it is marked ready ({command('info', collection, scope)})"
    )


def lone_vectors(
    space: EmbeddingSpace, keeps: EmbeddingSpace, *, collection: str, alone: int
) -> MigrationError:
    """The refusal to drop a slot that is the only one in which some rows have a vector."""
    rows = "1 row has its" if alone == 1 else f"{alone:,} rows have their"
    return MigrationError(
        f"{rows} only vector in the slot of {space} of collection {excerpt(collection)}, and none of "
        f"{keeps}; nothing was dropped. Fill that slot first: samespace migrate run --plan PLAN.json "
        "--backend SPEC --follow (pending(), fill())"
    )


def check_distinct_ids(spaces: Iterable[EmbeddingSpace]) -> None:
    """:class:`SpaceMismatch` if unequal spaces share an id, which would share a slot."""
    seen: dict[str, EmbeddingSpace] = {}
    for space in spaces:
        other = seen.setdefault(space.id, space)
        if other != space:
            raise SpaceMismatch(
                f"{other} and {space} have the same id {space.id}; give one a variant",
                stored=other,
                offered=space,
                differences=differences(other, space),
            )


def check_threshold(threshold: Any, *, what: str = "canary_threshold") -> float:
    """The smallest cosine that passes, or :class:`InvalidInput`.

    It is below 1, since canaries and some stored vectors are kept in half precision.
    """
    is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if not is_number or not 0 < threshold < 1:
        raise InvalidInput(
            f"{what} is {excerpt(threshold)}; pass a cosine between 0 and 1, such as "
            f"{CANARY_THRESHOLD}"
        )
    return float(threshold)


def check_canary(
    slot: SlotRecord,
    direction: Direction,
    answers: NDArray[np.float32],
    *,
    collection: str,
    threshold: float = CANARY_THRESHOLD,
    scope: Sequence[str] = (),
) -> float | None:
    """Refuse a backend that embeds the first canary texts otherwise than the slot's backend did.

    ``answers`` has shape ``(n, dimensions)`` for the first n of :data:`CANARY_TEXTS`. The lowest
    cosine is returned, None of a slot without a canary; :class:`SpaceMismatch` says what the answers
    suggest. ``scope`` is that of :func:`~samespace.errors.command`.
    """
    if slot.canary is None:
        return None
    cosine = _lowest(answers, slot.canary.of(direction))
    if not cosine >= threshold:
        raise SpaceMismatch(
            f"the backend says {slot.space}, but embeds known texts as {direction} otherwise than "
            f"what filled collection {excerpt(collection)}: cosine "
            f"{cosine_text(cosine, threshold)}, at least {threshold} expected. This suggests "
            f"{_suspicion(slot.canary, direction, answers, threshold)}. "
            "Nothing was written or searched. Open the collection with the backend that filled it, "
            f"which {command('info', collection, scope)} names; where the canary may be wrong instead, "
            f"{command('guard repair-record', collection, scope)} --backend SPEC (repair_record()) writes "
            "it anew, if the rows are as this backend embeds them; if another space is meant, give it a "
            "variant, add a slot for it (add_slot) and embed the texts again.",
            stored=slot.space,
            offered=slot.space,
        )
    return cosine


def differing(slot: SlotRecord, made: Canary, *, threshold: float) -> dict[Direction, float]:
    """The lowest cosine of each direction in which ``made`` is not the slot's canary, if that has one."""
    if slot.canary is None:
        return {}
    directions: tuple[Direction, ...] = ("documents", "queries")
    kept = slot.canary
    found = {each: _lowest(made.of(each).astype(np.float32), kept.of(each)) for each in directions}
    return {each: cosine for each, cosine in found.items() if not cosine >= threshold}


def _lowest(answers: NDArray[np.float32], kept: NDArray[np.float16]) -> float:
    return float(cosines(answers, kept[: len(answers)].astype(np.float32)).min())


def _suspicion(
    canary: Canary, direction: Direction, answers: NDArray[np.float32], threshold: float
) -> str:
    """What answers that differ from a canary most likely are."""
    other: Direction = "queries" if direction == "documents" else "documents"
    if _lowest(answers, canary.of(other)) >= threshold:
        return f"that documents and queries are swapped: these are the vectors of {other}"
    size = int(np.flatnonzero(np.any(answers != 0, axis=0)).max(initial=-1)) + 1
    kept = canary.of(direction)
    if 0 < size < answers.shape[1] and _lowest(answers[:, :size], kept[:, :size]) >= threshold:
        return f"vectors cut to {size} dimensions and filled up with zeros"
    turned = [np.roll(kept, place, axis=0).astype(np.float32) for place in range(len(kept))]
    if len(answers) == len(kept):
        best = np.max([cosines(answers, each) for each in turned], axis=0)
        if best.min() >= threshold:
            return "vectors in another order than their texts"
    return suggestion(_lowest(answers, kept))


_SUGGESTIONS: Final[Sequence[tuple[float, str]]] = (
    (0.95, "another revision of the weights, a lower precision or a changed prompt"),
    (0.72, "a wrong task, or a prompt that was changed or left out"),
    (0.45, "a task or prompt that was ignored or left out"),
)


def suggestion(cosine: float) -> str:
    """What a canary's cosine suggests where nothing but the number is known.

    The bounds are those measured between v3's tasks: query against passage of one text is near 0.8,
    no task against passage near 0.63. A prompt that is left out moves vectors by as much or less
    (docs/canary.md).
    """
    return next(
        (cause for bound, cause in _SUGGESTIONS if cosine >= bound),
        "another model, or vectors cut to another size",
    )
