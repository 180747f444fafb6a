"""What three kinds of server make of the rows of a collection with two slots, in memory.

A vector is a symbol: the name of its model and the text that it is of. What a server does in one step
is one call here, so that anything may happen between two calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import count
from typing import ClassVar, NamedTuple

OLD, NEW = "old", "new"


class Symbol(NamedTuple):
    """The vector of a text as a model makes it; a slot has the name of its model."""

    model: str
    text: str


Symbols = Mapping[str, Symbol]
"""Vectors by slot."""
NONE: Symbols = {}


@dataclass(slots=True)
class Cell:
    """A row's part of a slot: ``source`` is the text its vector says it is of, ``claim`` a filler's."""

    vector: Symbol | None = None
    source: str | None = None
    claim: int | None = None


@dataclass(slots=True)
class Row:
    """``version`` is another after each change."""

    text: str
    note: int
    version: int
    cells: dict[str, Cell] = field(default_factory=dict)

    def cell(self, slot: str) -> Cell:
        """The row's part of a slot."""
        return self.cells.setdefault(slot, Cell())


@dataclass(frozen=True, slots=True)
class Seen:
    """A row as it was read to be filled."""

    key: str
    text: str
    version: int
    has_vector: bool
    source: str | None
    claim: int | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A fill under way: what was read, the steps to come, and what tells it from all others."""

    slot: str
    rows: tuple[Seen, ...]
    steps: tuple[str, ...]
    token: int


class MemoryRows:
    """The rows; ``slots`` says of each whether its vectors say what they were made from.

    A fill is a sequence of ``steps``, each a method, each of which the server does at once.
    """

    steps: ClassVar[tuple[str, ...]]

    def __init__(self, slots: Mapping[str, bool]) -> None:
        self.rows: dict[str, Row] = {}
        self.slots = dict(slots)
        self.numbers = count(1)

    @property
    def empties(self) -> bool:
        """Whether a text that changes in place empties the slots that it leaves behind."""
        return False

    # What strangers do

    def put(self, key: str, text: str, note: int, vectors: Symbols) -> None:
        """Insert a row, or replace it whole."""
        cells = {slot: Cell(vector) for slot, vector in vectors.items()}
        self.rows[key] = Row(text, note, next(self.numbers), cells)

    def change(
        self, key: str, *, text: str | None = None, note: int | None = None, vectors: Symbols = NONE
    ) -> None:
        """Change parts of a row in place, in one request."""
        row = self.rows[key]
        row.text = row.text if text is None else text
        row.note = row.note if note is None else note
        row.version = next(self.numbers)
        for slot, vector in vectors.items():
            row.cell(slot).vector = vector

    def delete(self, key: str) -> None:
        """Delete a row."""
        del self.rows[key]

    # Slots

    def add_slot(self, slot: str) -> None:
        """A slot of ours, empty."""
        self.slots[slot] = True

    def open_slot(self, slot: str) -> None:
        """It may be searched, which changes nothing in its rows."""

    def drop_slot(self, slot: str) -> None:
        """A slot goes, and its vectors."""
        del self.slots[slot]
        for row in self.rows.values():
            row.cells.pop(slot, None)

    # Reading

    def pending(self, slot: str) -> list[Seen]:
        """The rows without a vector, or with one that does not say what it is of."""
        return [self._seen(key, slot) for key in sorted(self.rows) if self._is_pending(key, slot)]

    def stale(self, slot: str) -> list[Seen]:
        """The rows whose vector says that it is of another text."""
        return [self._seen(key, slot) for key in sorted(self.rows) if self._is_stale(key, slot)]

    def filled(self, slot: str) -> list[Seen]:
        """The rows with a vector."""
        return [self._seen(key, slot) for key in sorted(self.vectors(slot))]

    def fresh(self, slot: str) -> dict[str, Symbol]:
        """What the slot shows as right, by key."""
        found: dict[str, Symbol] = {}
        for key, row in self.rows.items():
            vector = row.cell(slot).vector
            if vector and not self._is_pending(key, slot) and not self._is_stale(key, slot):
                found[key] = vector
        return found

    def texts(self) -> dict[str, tuple[str, int]]:
        """Text and note of each row."""
        return {key: (row.text, row.note) for key, row in self.rows.items()}

    def vectors(self, slot: str) -> dict[str, Symbol]:
        """All vectors of a slot, by key."""
        found = {key: row.cell(slot).vector for key, row in self.rows.items()}
        return {key: vector for key, vector in found.items() if vector is not None}

    def _is_pending(self, key: str, slot: str) -> bool:
        cell = self.rows[key].cell(slot)
        return cell.vector is None or (self.slots[slot] and cell.source is None)

    def _is_stale(self, key: str, slot: str) -> bool:
        row = self.rows[key]
        cell = row.cell(slot)
        has_source = self.slots[slot] and cell.vector is not None and cell.source is not None
        return has_source and cell.source != row.text

    def _seen(self, key: str, slot: str) -> Seen:
        row = self.rows[key]
        cell = row.cell(slot)
        has_vector = cell.vector is not None
        return Seen(key, row.text, row.version, has_vector, cell.source, cell.claim)

    # Filling

    def begin(self, slot: str, rows: Sequence[Seen]) -> Attempt:
        """A fill of rows with the vectors of the texts that were read; nothing is done yet."""
        return Attempt(slot, tuple(rows), self.steps, next(self.numbers))

    def advance(self, attempt: Attempt) -> Attempt | None:
        """Do the next step of a fill; what is left to do."""
        if attempt.slot in self.slots:
            step: Callable[[Attempt, Seen], None] = getattr(self, attempt.steps[0])
            for seen in attempt.rows:
                step(attempt, seen)
        rest = attempt.steps[1:] if attempt.slot in self.slots else ()
        return replace(attempt, steps=rest) if rest else None

    def _write(self, slot: str, seen: Seen) -> None:
        row = self.rows[seen.key]
        row.cell(slot).vector = Symbol(slot, seen.text)
        row.cell(slot).source = seen.text if self.slots[slot] else None
        row.version = next(self.numbers)

    def _has_text(self, seen: Seen) -> bool:
        return seen.key in self.rows and self.rows[seen.key].text == seen.text


class TableRows(MemoryRows):
    """PostgreSQL: a trigger empties what a change of text leaves behind; a fill compares texts."""

    steps = ("fill",)

    @property
    def empties(self) -> bool:
        """The trigger goes with the last slot of ours: the table is somebody's own again."""
        return any(self.slots.values())

    def put(self, key: str, text: str, note: int, vectors: Symbols) -> None:
        """INSERT … ON CONFLICT DO UPDATE, of the columns that its writer knows."""
        if key in self.rows:
            self.change(key, text=text, note=note, vectors=vectors)
        else:
            super().put(key, text, note, vectors)

    def change(
        self, key: str, *, text: str | None = None, note: int | None = None, vectors: Symbols = NONE
    ) -> None:
        """UPDATE, with the trigger where there is one."""
        row = self.rows[key]
        before = {slot: row.cell(slot).vector for slot in self.slots}
        is_other = text is not None and text != row.text
        super().change(key, text=text, note=note, vectors=vectors)
        if is_other and self.empties:
            for slot, vector in before.items():
                cell = row.cell(slot)
                row.cells[slot] = Cell(None if cell.vector == vector else cell.vector)

    def fill(self, attempt: Attempt, seen: Seen) -> None:
        """One UPDATE."""
        if self._has_text(seen):
            cell = self.rows[seen.key].cell(attempt.slot)
            if cell.vector is None or cell.source != seen.text:
                self._write(attempt.slot, seen)


class DocumentRows(MemoryRows):
    """Elasticsearch: a fill is one update of the version that was read."""

    steps = ("fill",)

    def change(
        self, key: str, *, text: str | None = None, note: int | None = None, vectors: Symbols = NONE
    ) -> None:
        """An update, which leaves a row of another version only if it is another row then.

        A vector that is sent again is another one to the server: it has kept it apart from the source, as
        floats.
        """
        before = replace(self.rows[key], cells=deepcopy(self.rows[key].cells))
        super().change(key, text=text, note=note, vectors=vectors)
        if not vectors and replace(self.rows[key], version=before.version) == before:
            self.rows[key].version = before.version

    def fill(self, attempt: Attempt, seen: Seen) -> None:
        """One update with ``if_seq_no``."""
        if seen.key in self.rows and self.rows[seen.key].version == seen.version:
            self._write(attempt.slot, seen)


class PointRows(MemoryRows):
    """Qdrant: a vector and its source are two requests, so a filler claims the row before."""

    steps: ClassVar[tuple[str, ...]] = ("claim", "clear", "give", "stamp")

    def drop_slot(self, slot: str) -> None:
        """The vectors go; what the payload says of them stays."""
        del self.slots[slot]
        for row in self.rows.values():
            row.cell(slot).vector = None

    def begin(self, slot: str, rows: Sequence[Seen]) -> Attempt:
        """Nothing is asked for where there is no vector to take away."""
        attempt = super().begin(slot, rows)
        if any(each.has_vector for each in rows):
            return attempt
        return replace(attempt, steps=tuple(step for step in attempt.steps if step != "clear"))

    def claim(self, attempt: Attempt, seen: Seen) -> None:
        """Where text and slot are as read."""
        if self._has_text(seen):
            row = self.rows[seen.key]
            now = self._seen(seen.key, attempt.slot)
            if replace(now, version=seen.version) == seen:
                row.cells[attempt.slot] = Cell(row.cell(attempt.slot).vector, None, attempt.token)

    def clear(self, attempt: Attempt, seen: Seen) -> None:
        """Take the vector that was there away, where the claim holds."""
        if self._is_claimed(attempt, seen):
            self.rows[seen.key].cell(attempt.slot).vector = None

    def give(self, attempt: Attempt, seen: Seen) -> None:
        """The vector, where claim and text hold."""
        if self._is_claimed(attempt, seen) and self._has_text(seen):
            self.rows[seen.key].cell(attempt.slot).vector = Symbol(attempt.slot, seen.text)

    def stamp(self, attempt: Attempt, seen: Seen) -> None:
        """The source, where the claim holds and there is a vector."""
        if self._is_claimed(attempt, seen) and self.slots[attempt.slot]:
            cell = self.rows[seen.key].cell(attempt.slot)
            cell.source = seen.text if cell.vector else cell.source

    def _is_claimed(self, attempt: Attempt, seen: Seen) -> bool:
        row = self.rows.get(seen.key)
        return row is not None and row.cell(attempt.slot).claim == attempt.token


# Wrong ones, which a checker must find


class Unconditional(DocumentRows):
    """Fills whatever the row has become."""

    def fill(self, attempt: Attempt, seen: Seen) -> None:
        """One update without a condition."""
        if seen.key in self.rows:
            self._write(attempt.slot, seen)


class Inserting(DocumentRows):
    """Fills by an upsert, on condition that nobody has changed what is there."""

    def fill(self, attempt: Attempt, seen: Seen) -> None:
        """An upsert: a row that is gone is no reason not to write it."""
        if seen.key not in self.rows:
            self.put(seen.key, seen.text, 0, NONE)
            self._write(attempt.slot, seen)
        super().fill(attempt, seen)


class SourceFirst(PointRows):
    """Says what the vector is of before it is there."""

    steps = ("say", "write")

    def say(self, attempt: Attempt, seen: Seen) -> None:
        """The source, where the text is as read."""
        if self._has_text(seen):
            self.rows[seen.key].cell(attempt.slot).source = seen.text

    def write(self, attempt: Attempt, seen: Seen) -> None:
        """The vector, where the text is as read."""
        if self._has_text(seen):
            self.rows[seen.key].cell(attempt.slot).vector = Symbol(attempt.slot, seen.text)


class VectorFirst(SourceFirst):
    """The vector, then what it is of, each where the text is as read."""

    steps = ("write", "say")
