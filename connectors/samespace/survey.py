"""What a collection is that somebody else made, and where things probably are in it; no I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from samespace import filters
from samespace.adoption import outdated, recorded_layout, texts_elsewhere
from samespace.errors import CollectionNotFound, InvalidInput, excerpt
from samespace.filters import Filter
from samespace.guard import SpaceRecord, UnreadableRecord, lost_record
from samespace.layout import Layout

SAMPLED_ROWS: Final = 100
"""Of so many rows a survey looks at how full and how long each column is."""
MOST_PROPOSALS: Final = 6
UNKNOWN: Final = "unknown"
"""The maker of what is recognised by its types alone."""
RIVAL: Final = 1 / 8
"""A column this much shorter than the longest is a title or a tag, not another body."""
_BODIES: Final = ("text", "content", "body", "page_content", "document", "chunk", "passage")
_FAVOUR: Final = 1.5
"""How much longer a column must be than one that has a body's name to be taken before it."""
_SHOWN_NAMES: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column or field.

    ``filled`` is the share of the sampled rows that have a value in it, ``length`` the mean number of
    characters of such values where they are text.
    """

    name: str
    kind: str
    is_text: bool = False
    is_object: bool = False
    filled: float = 0.0
    length: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorSlot:
    """One place of vectors; ``unusable`` says why it cannot be adopted, if it cannot.

    Where nothing fixes the size ``dimensions`` are those of most vectors in the sampled rows, and None
    if no row has one.
    """

    name: str
    dimensions: int | None
    metric: str | None = None
    element: str = "float"
    indexed: bool = False
    unusable: str = ""
    is_sized: bool = True
    """Whether vectors of another size than ``dimensions`` cannot be in it."""
    any_length: bool = True
    """Whether vectors that are not of unit norm have cosines for scores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """Where things probably are, who made it so, and what speaks for that."""

    maker: str
    layout: Layout
    dimensions: int | None
    reasons: tuple[str, ...]
    title: str = ""
    """What its maker calls the collection, where several share a table."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "maker": self.maker,
            "title": self.title,
            "layout": self.layout.to_dict(),
            "dimensions": self.dimensions,
            "reasons": list(self.reasons),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What a table, a collection or an index is.

    ``rows`` is an estimate where ``rows_estimated``. ``records`` are those that samespace has written
    there, one for each collection of a table. ``proposals`` come best first; where there are none,
    ``missing`` says what a layout would need.
    """

    store: str
    collection: str
    columns: tuple[Column, ...]
    slots: tuple[VectorSlot, ...]
    rows: int
    rows_estimated: bool
    key: str | None
    records: tuple[SpaceRecord, ...]
    proposals: tuple[Proposal, ...]
    missing: tuple[str, ...] = ()
    refused: str = ""
    """Why it cannot be adopted, whatever the layout; empty if nothing is known."""
    unique: tuple[str, ...] | None = None
    """The columns by which a row can be written; None where that is not to be known."""
    untrue: tuple[str, ...] = ()
    """What records say that is not so any more: adopting writes others in their place."""
    lost_record: bool = False
    """Whether samespace made it and its record is gone, so that nothing is to be adopted."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "store": self.store,
            "collection": self.collection,
            "columns": [asdict(column) for column in self.columns],
            "slots": [asdict(slot) for slot in self.slots],
            "rows": self.rows,
            "rows_estimated": self.rows_estimated,
            "key": self.key,
            "recorded": [
                {
                    "layout": dict(record.layout) if record.layout is not None else None,
                    "spaces": [str(slot.space) for slot in record.slots],
                }
                for record in self.records
            ],
            "proposals": [proposal.to_dict() for proposal in self.proposals],
            "missing": list(self.missing),
            "refused": self.refused or None,
            "unique": None if self.unique is None else list(self.unique),
            "untrue": list(self.untrue),
            "lost_record": self.lost_record,
        }


@dataclass(frozen=True, slots=True)
class Choice:
    """A part of a layout, and why it is that."""

    value: Any
    reason: str


def records_of(
    found: Sequence[object],
    *,
    collection: str,
    slots: Sequence[VectorSlot],
    has: Callable[[str], bool] | None = None,
) -> tuple[list[SpaceRecord], list[str]]:
    """The records that say what is there, and why others do not.

    ``has`` says whether there is a column or field; without it a layout may name anything.
    :class:`~samespace.errors.SpaceUnknown` for a record that is newer than this version.
    """
    sizes = {slot.name: slot.dimensions if slot.is_sized else None for slot in slots}
    records: list[SpaceRecord] = []
    untrue: list[str] = []
    for each in found:
        try:
            record = SpaceRecord.from_dict(each, collection=collection)
        except UnreadableRecord:
            continue  # adopting writes another in its place
        why = outdated(record, has, sizes)
        if why:
            untrue.append(why)
        else:
            records.append(record)
    return records, untrue


def guesses(
    columns: Sequence[Column],
    slots: Sequence[VectorSlot],
    key: Choice,
    metadata: Callable[[str], Choice],
) -> list[Proposal]:
    """Layouts by types, names and lengths alone: each usable slot with each column of texts.

    ``metadata`` says where metadata is when the named column has the texts.
    """
    texts = bodies([column for column in columns if column.name != key.value])
    made = [
        _guess(slot, text, key, metadata(text.value))
        for text in texts
        for slot in sorted(slots, key=lambda slot: not slot.indexed)
        if not slot.unusable
    ]
    return made[:MOST_PROPOSALS]


def _guess(slot: VectorSlot, text: Choice, key: Choice, metadata: Choice) -> Proposal:
    size = "of no fixed size" if slot.dimensions is None else f"of {slot.dimensions} dimensions"
    named = f"slot {excerpt(slot.name)}" if slot.name else "the unnamed vector"
    return Proposal(
        maker=UNKNOWN,
        layout=Layout(id=key.value, text=text.value, slot=slot.name, metadata=metadata.value),
        dimensions=slot.dimensions,
        reasons=(
            f"{named}: vectors {size}",
            text.reason,
            key.reason,
            metadata.reason,
        ),
    )


def bodies(columns: Sequence[Column]) -> list[Choice]:
    """The columns that may be what was embedded, the longest first, with their reasons."""
    texts = [column for column in columns if column.is_text]
    seen = [column for column in texts if column.length > 0] or texts
    ranked = sorted(seen, key=_weight, reverse=True)
    longest = max((column.length for column in ranked), default=0.0)
    rivals = [column for column in ranked if column.length >= longest * RIVAL]
    return [Choice(column.name, _why_text(column)) for column in rivals[:3]]


def _weight(column: Column) -> float:
    favoured = _FAVOUR if column.name.lower() in _BODIES else 1.0
    return (column.length * column.filled or 1e-9) * favoured


def _why_text(column: Column) -> str:
    if not column.length:
        return f"text {excerpt(column.name)}: of type {column.kind}; no row tells more"
    return (
        f"text {excerpt(column.name)}: {column.length:.0f} characters on average, in "
        f"{column.filled:.0%} of the sampled rows"
    )


def lacking(
    columns: Sequence[Column], slots: Sequence[VectorSlot], key: str | None
) -> Iterator[str]:
    """What keeps a collection from being adopted as it is."""
    usable = [slot for slot in slots if not slot.unusable]
    for slot in slots:
        if slot.unusable:
            yield f"vectors {excerpt(slot.name)} cannot be used: {slot.unusable}"
    if not usable and not slots:
        yield "it has no vectors"
    if not any(column.is_text for column in columns if column.name != key):
        yield "it has no column or field of texts; where these are elsewhere, a layout has a function"
    if key is None:
        yield "it has no key of one column that is an integer, a uuid or a text"


def observed(rows: Sequence[Mapping[str, Any]]) -> dict[str, Column]:
    """The fields that sampled rows have, where nothing else says which there are."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: column_of(name, [row.get(name) for row in rows]) for name in names}


def column_of(name: str, values: Sequence[Any], kind: str = "") -> Column:
    """A field by its sampled values; ``kind`` where the store declares one."""
    present = [value for value in values if value is not None]
    texts = [value for value in present if isinstance(value, str)]
    objects = [value for value in present if isinstance(value, dict)]
    is_text = bool(texts) and len(texts) == len(present)
    return Column(
        name=name,
        kind=kind or (type(present[0]).__name__ if present else "null"),
        is_text=is_text,
        is_object=bool(objects) and len(objects) == len(present),
        filled=len(present) / len(values) if values else 0.0,
        length=sum(map(len, texts)) / len(texts) if texts else 0.0,
    )


def choose(
    found: Survey,
    *,
    parts: Mapping[str, Any],
    metadata: Sequence[str] | None = None,
    scope: Filter | None = None,
) -> Layout | None:
    """A layout with these parts (``id``, ``text``, ``slot``, ``parent``, ``order``); the others as proposed.

    ``metadata`` are names of columns, or one of an object; ``()`` is none. None if nothing is given;
    :class:`~samespace.errors.InvalidInput` if a part is not given and no proposal has it,
    :class:`~samespace.errors.SpaceUnknown` for a collection of ours without its record.
    """
    if found.lost_record:
        raise lost_record(found.collection)
    given = {part: name for part, name in parts.items() if name is not None}
    if metadata is not None:
        given["metadata"] = _metadata_named(found, metadata)
    if scope is not None:
        given["scope"] = scope
    if not given:
        return None
    recorded = [layout for each in found.records if (layout := recorded_layout(each))]
    known = [*recorded, *(each.layout for each in found.proposals)]
    fitting = (layout for layout in known if _fits(layout, given))
    base = next(fitting, None) or next(iter(known), None)
    if base is not None:
        if "text" not in given and not isinstance(base.text, str):
            raise texts_elsewhere(found.collection)
        return replace(base, **_without_slot(base, given))
    lacking = sorted({"id", "text", "slot"} - given.keys())
    if lacking:
        raise InvalidInput(
            f"where things are in {excerpt(found.collection)} cannot be told ({'; '.join(found.missing)}): "
            f"give {', '.join('--' + part for part in lacking)} too"
        )
    return Layout(**{"metadata": (), **given})


def _fits(layout: Layout, given: Mapping[str, Any]) -> bool:
    return all(getattr(layout, part) == given[part] for part in ("slot", "scope") if part in given)


def _without_slot(base: Layout, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given parts; a column that has become the text or the id is no metadata any more."""
    taken = {given.get(part) for part in ("slot", "text", "id")}
    if "metadata" in given or isinstance(base.metadata, str) or not taken & {*base.metadata}:
        return dict(given)
    return {**given, "metadata": tuple(name for name in base.metadata if name not in taken)}


def _metadata_named(found: Survey, names: Sequence[str]) -> str | tuple[str, ...]:
    """One object's name, or several columns'; ``*`` is all of a payload."""
    objects = {column.name for column in found.columns if column.is_object} | {"*"}
    return names[0] if len(names) == 1 and names[0] in objects else tuple(filter(None, names))


def scope_text(layout: Layout) -> str:
    """A layout's scope as the command line takes it: ``collection_id=…``, one condition a column."""
    return " ".join(scope_options(layout.scope))


def scope_options(scope: Filter | None) -> tuple[str, ...]:
    """The options of the command line that choose a scope: ``COLUMN=VALUE`` each."""
    pinned = filters.equalities(scope) if scope is not None else {}
    return tuple(f"{column}={value}" for column, values in pinned.items() for value in values)


def same_scope(one: Filter | None, other: Filter | None) -> bool:
    """Whether two scopes pin the same columns to values that are spelled alike."""
    return _spelled(one) == _spelled(other)


def _spelled(scope: Filter | None) -> dict[str, set[str]]:
    pinned = filters.equalities(scope) if scope is not None else {}
    return {column: {str(value) for value in values} for column, values in pinned.items()}


def not_found(collection: str, where: str, candidates: Sequence[str]) -> CollectionNotFound:
    """The error for a name that is not there, with those that are."""
    shown = ", ".join(map(excerpt, candidates[:_SHOWN_NAMES])) or "none"
    more = ", …" if len(candidates) > _SHOWN_NAMES else ""
    return CollectionNotFound(
        f"there is no collection {excerpt(collection)} in {where}; with vectors there are: {shown}{more}"
    )
