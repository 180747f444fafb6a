"""A migration's plan: what is moved, how, what that takes, and what to know before."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from samespace.documents import CollectionInfo, SlotInfo
from samespace.errors import InvalidInput, MigrationError, SpaceMismatch, command, excerpt
from samespace.forecast import Notice
from samespace.guard import SlotState
from samespace.migrate import estimating
from samespace.migrate.advice import Use
from samespace.migrate.estimating import Estimate, Figure
from samespace.migrate.hashed import Fields, Kind, digest, hashed
from samespace.migrate.verification import slot_id
from samespace.protocols import NamesKind
from samespace.space import EmbeddingSpace, differences

FORMAT: Final = 1
Path = Literal["nothing", "derive", "embed"]
"""What fills the target's slot: nothing has to, the source's vectors, or a model."""
TargetState = Literal["absent", "filling", "ready"]
_KIND: Final = Kind(
    "the plan", "make a plan again: samespace migrate plan --backend SPEC --out FILE"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSlot:
    """A slot by the name that it has in the store, and its space.

    ``slot`` is what tells it from another one of its space: empty where nothing does, None where there was
    none yet, and in a plan of before that was kept.
    """

    name: str
    space: EmbeddingSpace
    slot: str | None = None

    def is_this(self, found: SlotInfo) -> bool:
        """Whether it is known that a slot is the one that was planned with."""
        return bool(self.slot) and self.slot == slot_id(found)

    def is_another(self, found: SlotInfo) -> bool:
        """Whether it is known that a slot is not the one that was planned with."""
        return self.slot is not None and self.slot != slot_id(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCollection:
    """One collection of a plan.

    ``store`` is the kind of store, ``reason`` why ``path`` is the cheapest legal one. ``layout`` is that of
    a collection which others made, as its record has it, and ``where`` the fields that the rows to move
    are pinned by, each with its permitted values; None is all rows. ``rows``, ``pending`` and ``stale`` speak
    of the source's slot: rows that there are, those without a vector, and those whose text changed behind
    theirs, None where the slot does not say what its vectors were made from. ``estimate`` is of this
    collection alone.
    """

    name: str
    store: str
    path: Path
    reason: str
    source: PlannedSlot
    target: PlannedSlot
    target_state: TargetState
    layout: Mapping[str, Any] | None
    where: Mapping[str, Sequence[Any]] | None
    rows: int
    pending: int
    stale: int | None
    estimate: Estimate

    def check_target(self, offered: EmbeddingSpace) -> None:
        """:class:`SpaceMismatch` for vectors of another space than was planned."""
        if offered != self.target.space:
            raise SpaceMismatch(
                f"the backend embeds as {offered}, and the plan moves {excerpt(self.name)} to "
                f"{self.target.space}; pass the backend that was planned with (--backend), or make "
                "another plan",
                stored=self.target.space,
                offered=offered,
                differences=differences(self.target.space, offered),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationPlan:
    """What a migration will do, hashed, so that running, verifying and opening hold to it.

    ``version`` is that of the library that made it, ``use`` what the collections are for, ``target`` how the
    target's backend makes vectors, ``estimate`` what all collections take together. It is a value: making
    one changes nothing in a store.
    """

    version: str
    use: Use
    target: Mapping[str, str]
    collections: tuple[PlannedCollection, ...]
    estimate: Estimate
    warnings: tuple[Notice, ...]

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON of everything else: sorted keys, no spaces, UTF-8."""
        return digest(self._content())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the inverse of :meth:`from_dict`."""
        return hashed(self._content())

    def _content(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": self.version,
            "use": self.use,
            "target": dict(self.target),
            "collections": [_collection_dict(each) for each in self.collections],
            "estimate": estimating.to_dict(self.estimate),
            "warnings": [{"code": each.code, "sentence": each.sentence} for each in self.warnings],
        }

    @classmethod
    def from_dict(cls, values: object) -> MigrationPlan:
        """Read what :meth:`to_dict` wrote.

        :class:`InvalidInput` names the field that is not what it must be; so is a plan that was edited
        after it was made, which its hash shows.
        """
        fields = Fields(values, _KIND)
        fields.check_format(FORMAT)
        plan = cls(
            version=fields.text("version"),
            use=fields.one_of("use", get_args(Use)),
            target=fields.texts("target"),
            collections=tuple(map(_collection, fields.items("collections"))),
            estimate=_estimate(fields.inner("estimate")),
            warnings=tuple(map(_notice, fields.items("warnings"))),
        )
        fields.check_hash()
        return plan

    def of(self, collection: str) -> PlannedCollection:
        """What is planned for a collection; :class:`InvalidInput` if nothing is."""
        found = next((each for each in self.collections if each.name == collection), None)
        if found is None:
            names = ", ".join(excerpt(each.name) for each in self.collections)
            raise InvalidInput(
                f"the plan is for {names}, not for {excerpt(collection)}; pass a handle on one of these, or "
                "make another plan"
            )
        return found

    def has_made(self, slot: SlotInfo) -> bool:
        """Whether a run of this plan has added a slot, or this plan has opened it."""
        made_by = slot.provenance.get("plan", "")
        return bool(made_by) and self.hash.startswith(made_by)

    def is_own(self, planned: PlannedCollection, slot: SlotInfo) -> bool:
        """Whether the target's slot is of this plan: made or opened by it, or the very one it found ready."""
        found_ready = planned.target_state == "ready" and planned.target.is_this(slot)
        return found_ready or self.has_made(slot)

    def is_finished(self, planned: PlannedCollection, info: CollectionInfo) -> bool:
        """Whether a collection's target is ready, and the slot that was moved from is gone.

        One of the source's space that is there all the same is of a way back, made since.
        """
        held = {slot.space: slot for slot in info.slots}
        source, target = held.get(planned.source.space), held.get(planned.target.space)
        if source is target or target is None or target.state != SlotState.READY:
            return False
        if source is None:
            return True
        return planned.source.is_another(source) and self.is_own(planned, target)

    def lines(self) -> list[str]:
        """The plan for a terminal, a line each."""
        return [line for each in self.collections for line in _collection_lines(each)] + [
            *_estimate_lines(self.estimate, len(self.collections)),
            *(f"! {each.code}: {each.sentence}" for each in self.warnings),
            f"plan {self.hash[:12]}; nothing was changed",
        ]


def _collection_dict(collection: PlannedCollection) -> dict[str, Any]:
    slots = {"source": collection.source, "target": collection.target}
    return {
        "name": collection.name,
        "store": collection.store,
        "path": collection.path,
        "reason": collection.reason,
        **{side: _slot_dict(slot) for side, slot in slots.items()},
        "target_state": collection.target_state,
        "layout": None if collection.layout is None else dict(collection.layout),
        "where": None if collection.where is None else dict(collection.where),
        "rows": collection.rows,
        "pending": collection.pending,
        "stale": collection.stale,
        "estimate": estimating.to_dict(collection.estimate),
    }


def _slot_dict(slot: PlannedSlot) -> dict[str, Any]:
    known = {} if slot.slot is None else {"slot": slot.slot}  # else an older plan had another hash
    return {"name": slot.name, "space": slot.space.to_dict(), **known}


# Reading


def _collection(fields: Fields) -> PlannedCollection:
    return PlannedCollection(
        name=fields.text("name"),
        store=fields.text("store"),
        path=fields.one_of("path", get_args(Path)),
        reason=fields.text("reason"),
        source=_slot(fields.inner("source")),
        target=_slot(fields.inner("target")),
        target_state=fields.one_of("target_state", get_args(TargetState)),
        layout=fields.optional("layout", fields.mapping),
        where=fields.optional("where", fields.mapping),
        rows=fields.number("rows"),
        pending=fields.number("pending"),
        stale=fields.optional("stale", fields.number),
        estimate=_estimate(fields.inner("estimate")),
    )


def _slot(fields: Fields) -> PlannedSlot:
    known = fields.text("slot") if "slot" in fields.values else None
    return PlannedSlot(name=fields.text("name"), space=fields.space("space"), slot=known)


def _estimate(fields: Fields) -> Estimate:
    return Estimate(**{name: _figure(fields, name) for name in Estimate.__dataclass_fields__})


def _figure(fields: Fields, name: str) -> Figure:
    found = fields.value(name)
    if not isinstance(found, Mapping) or not estimating.is_figure(found):
        raise fields.refuse(name, "a figure with value, basis, source, low and high")
    return Figure(**found)


def _notice(fields: Fields) -> Notice:
    return Notice(fields.text("code"), fields.text("sentence"))


# For people


def _collection_lines(collection: PlannedCollection) -> Iterator[str]:
    named = excerpt(collection.name).strip("'")
    yield f"{named} ({collection.store}): {collection.path}"
    yield f"  from   {collection.source.space} in {excerpt(collection.source.name)}"
    state = "" if collection.target_state == "absent" else f", {collection.target_state}"
    yield f"  to     {collection.target.space} in {excerpt(collection.target.name)}{state}"
    yield f"  why    {collection.reason}"
    stale = "not known" if collection.stale is None else f"{collection.stale:,}"
    yield f"  rows   {collection.rows:,}, {collection.pending:,} pending, {stale} stale in the source"
    if collection.where is not None:
        pinned = json.dumps(dict(collection.where), ensure_ascii=False)
        yield f"  where  {excerpt(pinned).strip(chr(39))}"


def _estimate_lines(found: Estimate, collections: int) -> Iterator[str]:
    together = f" of {collections} collections together" if collections > 1 else ""
    shown = {
        "texts to embed or derive": (found.texts, estimating.shown_number),
        "tokens": (found.tokens, estimating.shown_number),
        "cost": (found.cost, estimating.shown_cost),
        "time": (found.seconds, estimating.shown_seconds),
        "disk": (found.disk_bytes, estimating.shown_bytes),
        "memory": (found.memory_bytes, estimating.shown_bytes),
    }
    yield f"it takes{together}"
    for name, (figure, write) in shown.items():
        yield f"  {name}: {write(figure)} [{figure.basis}: {figure.source}]"


# Holding to it


def check_store(planned: PlannedCollection, store: object) -> None:
    """:class:`MigrationError` for a handle on another kind of store than that of the plan."""
    if isinstance(store, NamesKind) and store.kind != planned.store:
        raise MigrationError(
            f"the plan is of collection {excerpt(planned.name)} in {planned.store}, and this store is "
            f"{store.kind}, where a collection of that name is another one; nothing was changed. Pass the "
            f"store that was planned for (--store, or the environment's SAMESPACE_STORE)"
        )


def check_holds(planned: PlannedCollection, info: CollectionInfo, *, opened: bool = False) -> None:
    """:class:`MigrationError`, a diff, unless a collection still is what was planned.

    It must have the source's slot, the layout, and the target's slot as it was; one that was absent may
    be filling by now, which is the plan at work, and where it may be ``opened``, ready.
    """
    differences = _differences(planned, info, opened=opened)
    found = [row for row in differences if row[1] != row[2]]
    if not found:
        return
    rows = [("what", "planned", "found"), *found]
    widths = [max(len(row[place]) for row in rows) for place in (0, 1)]
    table = "\n".join(f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in rows)
    again = command("migrate plan", planned.name)
    raise MigrationError(
        f"collection {excerpt(planned.name)} is not what was planned:\n{table}\n"
        f"Nothing was changed; make another plan: {again} --backend SPEC --out FILE"
    )


def _differences(
    planned: PlannedCollection, info: CollectionInfo, *, opened: bool
) -> Iterator[tuple[str, str, str]]:
    held = {slot.space: slot for slot in info.slots}
    source, target = held.get(planned.source.space), held.get(planned.target.space)
    yield (
        f"slot of {planned.source.space}",
        excerpt(planned.source.name),
        "none" if source is None else excerpt(source.name),
    )
    layout = None if info.layout is None else info.layout.to_dict()
    yield "layout", _json(planned.layout), _json(layout)
    if target is not None:
        yield f"slot of {planned.target.space}", excerpt(planned.target.name), excerpt(target.name)
    state = "absent" if target is None else str(target.state)
    begun = planned.target_state == "absent" and state == SlotState.FILLING
    if not begun and not (opened and state == SlotState.READY):
        yield f"{planned.target.space} is", planned.target_state, state


def _json(value: Mapping[str, Any] | None) -> str:
    return "ours" if value is None else json.dumps(value, sort_keys=True, ensure_ascii=False)
