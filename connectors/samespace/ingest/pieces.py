"""What a source's items become in a store, and what of that a store has already. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Final, TypeVar

from samespace.documents import (
    Document,
    Metadata,
    Parent,
    Rejected,
    check_document,
    encode_metadata,
)
from samespace.errors import InvalidInput, SamespaceError, excerpt
from samespace.ingest.chunking import Chunker, chunks
from samespace.names import check_id
from samespace.protocols import Vector

E = TypeVar("E", bound=SamespaceError)
Key = tuple[str, str]
"""Whose rows a unit changes: that of an id, or those of a parent."""
ALL_ROWS: Final = ""
"""A name that all rows belong to: kept by what cannot be read where nobody can say whose it was."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One item of a source: the documents that it is in the store.

    ``parent`` is whose other rows are old ones, None where there can be none. ``kept`` are names
    whose rows stay, since something of them could not be read; :data:`ALL_ROWS` is one.
    """

    pieces: tuple[Document, ...] = ()
    parent: str | None = None
    rejected: tuple[Rejected, ...] = ()
    kept: tuple[str, ...] = ()

    @property
    def characters(self) -> int:
        """How long its texts are."""
        return sum(len(piece.embedded_text) for piece in self.pieces)


def unit_of(item: object, chunker: Chunker | None) -> Unit:
    """What an item of a source is: a document or its chunks, or the reason why it is left out."""
    if isinstance(item, Unit):
        return item
    if isinstance(item, Rejected):
        return Unit(rejected=(item,), kept=(item.id,))
    try:
        if not isinstance(item, Document):
            raise InvalidInput(f"the source yielded {excerpt(item)}; let it yield Documents")  # noqa: TRY301
        if chunker is not None:
            return _checked(Unit(tuple(chunks(item, chunker)), item.id))
        return _checked(Unit((item,)))
    except InvalidInput as error:
        id = getattr(item, "id", None)
        named = id if isinstance(id, str) else excerpt(item)
        kept = (named,) if isinstance(item, Document) and named == id else (named, ALL_ROWS)
        return Unit(rejected=(Rejected(named, error),), kept=kept)


def checked_unit(unit: Unit) -> Unit:
    """A unit of whose pieces all can be stored; the others are rejected before they cost anything.

    Of a document with a chunk that cannot be stored nothing is, or it would be half new, half old.
    """
    return _checked(unit)


def _checked(unit: Unit) -> Unit:
    good, rejected = [], []
    for piece in unit.pieces:
        try:
            check_document(piece)
            encode_metadata(piece.metadata)
            good.append(piece)
        except InvalidInput as error:
            rejected.append(Rejected(piece.id if isinstance(piece.id, str) else "", error))
    if not rejected:
        return unit
    if unit.parent is not None:
        whole = Rejected(unit.parent, of_chunk(rejected[0].id, rejected[0].error))
        return Unit(rejected=(*unit.rejected, whole), kept=(*unit.kept, unit.parent))
    kept = (*unit.kept, *(item.id for item in rejected))
    return Unit(tuple(good), unit.parent, (*unit.rejected, *rejected), kept)


def of_chunk(id: str, error: E) -> E:
    """The error of one chunk as that of its document, which names the chunk."""
    told = copy(error)
    told.args = (f"chunk {excerpt(id)}: {error}",)
    return told


@dataclass(slots=True)
class Batch:
    """Units that are stored together, each id and each parent once; ``stop`` is exclusive.

    ``keys`` says of an id or a parent at which place its unit is. A unit that a later one has
    replaced leaves an empty one at its place.
    """

    first: int
    stop: int
    units: list[Unit] = field(default_factory=list)
    pieces: int = 0
    characters: int = 0
    keys: dict[Key, int] = field(default_factory=dict)

    def has_room_for(self, unit: Unit) -> bool:
        """Whether the unit replaces whole what is here of it; of equal ids the last one must win."""
        return all(_replaces(unit, self.units[place]) for place in self._places(unit))

    def add(self, unit: Unit) -> None:
        """Take the source's next item in."""
        for place in self._places(unit):
            self._empty(place)
        self.keys.update(dict.fromkeys(_keys(unit), len(self.units)))
        self.units.append(unit)
        self.stop += 1
        self.pieces += len(unit.pieces)
        self.characters += unit.characters

    def _places(self, unit: Unit) -> set[int]:
        return {self.keys[key] for key in _keys(unit) if key in self.keys}

    def _empty(self, place: int) -> None:
        old = self.units[place]
        self.units[place] = Unit(rejected=old.rejected, kept=old.kept)
        self.pieces -= len(old.pieces)
        self.characters -= old.characters
        for key in _keys(old):
            del self.keys[key]

    def parents_of(self, ids: Collection[str]) -> set[str]:
        """The documents that one of these chunks is of."""
        return {
            unit.parent
            for unit in self.units
            if unit.parent is not None and any(piece.id in ids for piece in unit.pieces)
        }

    def documents(self) -> Iterator[Document]:
        """All pieces."""
        return (piece for unit in self.units for piece in unit.pieces)

    @property
    def rejected(self) -> list[Rejected]:
        """What cannot be stored."""
        return [item for unit in self.units for item in unit.rejected]

    @property
    def parents(self) -> list[str]:
        """Whose old rows are to go."""
        return [unit.parent for unit in self.units if unit.parent is not None]

    @property
    def kept(self) -> list[str]:
        """Names whose rows stay."""
        return [name for unit in self.units for name in unit.kept if not name or _is_id(name)]

    @property
    def ids(self) -> list[str]:
        """What the source brought, stored or not, but for what no row can be named."""
        found = [piece.id for piece in self.documents()]
        return found + [item.id for item in self.rejected if _is_id(item.id)]


def _is_id(name: str) -> bool:
    try:
        check_id(name)
    except InvalidInput:
        return False
    return True


def _keys(unit: Unit) -> Iterator[Key]:
    yield from (("id", piece.id) for piece in unit.pieces)
    if unit.parent is not None:
        yield "parent", unit.parent


def _replaces(unit: Unit, old: Unit) -> bool:
    if old.parent is not None and old.parent == unit.parent:
        return True
    return set(_keys(old)) <= set(_keys(unit))


@dataclass(slots=True)
class Plan:
    """What is to be done for a batch.

    ``embed`` are documents whose text is new; ``together`` are the chunks of documents to embed in
    sight of one another; ``ready`` have the vector of their text, but are stored otherwise;
    ``metadata`` is all that has changed of the others. ``old`` are ids whose text was stored already
    with a vector that is about to change.
    """

    embed: list[Document] = field(default_factory=list)
    together: list[tuple[Document, ...]] = field(default_factory=list)
    ready: list[tuple[Document, Vector]] = field(default_factory=list)
    metadata: dict[str, Metadata] = field(default_factory=dict)
    unchanged: int = 0
    old: set[str] = field(default_factory=set)

    @property
    def to_embed(self) -> int:
        """How many texts have no vector yet."""
        return len(self.embed) + sum(map(len, self.together))


def asked_for(units: Iterable[Unit], *, together: bool) -> list[str]:
    """The ids to compare with; with ``together`` also that of the chunk after the last one."""
    ids = []
    for unit in units:
        ids += [piece.id for piece in unit.pieces]
        if together and unit.parent is not None:
            ids.append(_beyond(unit))
    return ids


def _beyond(unit: Unit) -> str:
    """The chunk that is stored only if the document had more of them."""
    return f"{unit.parent}#{len(unit.pieces)}"


def compared(
    units: Sequence[Unit],
    stored: Mapping[str, Document],
    *,
    moving: Collection[Key],
    together: bool,
) -> Plan:
    """What has to be done so that the store has these units.

    ``stored`` are the rows of :func:`asked_for` that have a vector. ``moving`` are the ids and parents
    of batches that are not stored yet, of which ``stored`` says nothing. With ``together`` a document
    with a changed chunk is embedded whole: its other chunks' vectors have seen the old one.
    """
    plan = Plan()
    for unit in units:
        known = {} if any(key in moving for key in _keys(unit)) else stored
        if together and unit.parent is not None and not _is_known(unit, known):
            plan.together.append(unit.pieces)
            plan.old |= {piece.id for piece in unit.pieces if _has_text(piece, known)}
            continue
        for piece in unit.pieces:
            _compare(piece, known.get(piece.id), plan)
    plan.together = [pieces for pieces in plan.together if pieces]
    return plan


def _is_known(unit: Unit, stored: Mapping[str, Document]) -> bool:
    whole = all(_has_text(piece, stored) for piece in unit.pieces)
    return whole and _beyond(unit) not in stored


def _has_text(piece: Document, stored: Mapping[str, Document]) -> bool:
    found = stored.get(piece.id)
    return found is not None and found.embedded_text == piece.embedded_text


def _compare(piece: Document, found: Document | None, plan: Plan) -> None:
    if found is None or found.vector is None or found.embedded_text != piece.embedded_text:
        plan.embed.append(piece)
    elif not _is_placed_alike(piece, found):
        plan.ready.append((piece, found.vector))
    elif _is_same(piece.metadata, found.metadata):
        plan.unchanged += 1
    else:
        plan.metadata[piece.id] = piece.metadata


def _is_placed_alike(piece: Document, found: Document) -> bool:
    if (piece.text, piece.embed_text) != (found.text, found.embed_text):
        return False
    return piece.parent == found.parent or _numbers(piece.parent) == _numbers(found.parent)


def _numbers(parent: Parent | None) -> tuple[object, ...] | None:
    """A parent whose span may be any sequence."""
    if parent is None:
        return None
    return (parent.id, parent.ordinal, parent.span if parent.span is None else tuple(parent.span))


def _is_same(value: object, stored: object) -> bool:
    """Whether both are the same in JSON, where 1, 1.0 and true are three values."""
    if type(value) is not type(stored) or value != stored:
        return False
    if isinstance(value, dict) and isinstance(stored, dict):
        return all(_is_same(each, stored[key]) for key, each in value.items())
    if isinstance(value, list) and isinstance(stored, list):
        return all(map(_is_same, value, stored))
    return True
