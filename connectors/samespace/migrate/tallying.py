"""What became of a slot's rows: in all, and in one look at them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from samespace.documents import Document, VersionedRow
from samespace.migrate.fingerprints import (
    Fingerprints,
    fingerprint_of,
    fingerprint_of_chunks,
)
from samespace.migrate.progress import NAMED, SlotProgress
from samespace.space import EmbeddingSpace

BEHIND: Final = "its vector is of an earlier text, and its text cannot be embedded: "


@dataclass(slots=True)
class Tally:
    """What was done so far."""

    filled: int = 0
    derived: int = 0
    changed: int = 0
    left: int = 0
    _refused: Fingerprints = field(default_factory=Fingerprints)
    """Of places."""
    _refused_texts: Fingerprints = field(default_factory=Fingerprints)
    """Of places with texts; where a row's text is another now, that of the text before stays."""
    _accepted: Counter[int] = field(default_factory=Counter)
    """How often what is at a place could be embedded again, so that texts before that count no more."""
    _unreachable: Fingerprints = field(default_factory=Fingerprints)
    """Of keys."""
    _named: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Names and reasons, by the place or the key."""

    def progress(self, space: EmbeddingSpace) -> SlotProgress:
        """All of it."""
        return SlotProgress(
            space=space,
            filled=self.filled,
            derived=self.derived,
            changed=self.changed,
            refused=len(self._refused),
            unreachable=len(self._unreachable),
            left=self.left,
            named=tuple(self._named.values()),
        )

    def has_refused(self, row: VersionedRow) -> bool:
        """Whether a row cannot be embedded with the text that it has."""
        is_refused = len(self._refused) and _of_place(row) in self._refused
        return bool(is_refused) and self._text(row) in self._refused_texts

    def refuse(self, row: VersionedRow, reason: str) -> None:
        """A row cannot be embedded."""
        if not self.has_refused(row):
            self._refused.add(_of_place(row))
            self._refused_texts.add(self._text(row))
            self._name(_of_place(row), row.document.id, reason)

    def accept(self, row: VersionedRow) -> None:
        """A row can be embedded, as it may not have been before, or with another text."""
        place = _of_place(row) if len(self._refused) else 0
        if place in self._refused:
            self._refused.discard(place)
            self._accepted[place] += 1
            self._named.pop(place, None)

    def _text(self, row: VersionedRow) -> int:
        return fingerprint_of(f"{_of_text(row)}:{self._accepted[_of_place(row)]}")

    def note_unreachable(self, key: str, reason: str) -> None:
        """No id leads to a row."""
        self._unreachable.add(fingerprint_of(key))
        self._name(fingerprint_of(key), key, reason)

    def _name(self, place: int, name: str, reason: str) -> None:
        if place in self._named or len(self._named) < NAMED:
            self._named[place] = name, reason


def _of_place(row: VersionedRow) -> int:
    return fingerprint_of(repr(row.place))


def _of_text(row: VersionedRow) -> int:
    return fingerprint_of(f"{row.place!r}{row.document.embedded_text}")


@dataclass(slots=True)
class Look:
    """One look at all rows, or at those that were written since the last one."""

    found: int = 0
    """Rows that were taken and not refused."""
    settled: int = 0
    """Those of them that were filled."""
    moved: int = 0
    """Rows that others wrote meanwhile; not one that is, again, what the last look found."""
    again: set[str] = field(default_factory=set)
    """Documents to be embedded again, though each of their chunks may have a vector of its text."""
    unended: set[str] = field(default_factory=set)
    """Documents of which some chunks were written, and maybe in sight of others than there are."""
    _written: Fingerprints = field(default_factory=Fingerprints)
    """Chunks of stale documents by their places, with the texts that their vectors are of."""
    _tried: Fingerprints = field(default_factory=Fingerprints)
    _tried_before: Fingerprints = field(default_factory=Fingerprints)
    """As they were read, rows of batches and documents of which not all could be filled."""
    _given_up: Fingerprints = field(default_factory=Fingerprints)
    _given_up_before: Fingerprints = field(default_factory=Fingerprints)
    """Documents of which the same chunks could not be filled twice."""

    def next(self) -> Look:
        """The look after this one."""
        return Look(
            again=self.again | self.unended,
            _tried_before=self._tried,
            _given_up_before=self._given_up,
        )

    @property
    def left(self) -> int:
        """Rows that were found and not filled."""
        return max(0, self.found - self.settled)

    def note_written(self, chunks: Iterable[VersionedRow]) -> None:
        """Chunks of a document have a vector of their text now."""
        for chunk in chunks:
            self._written.add(_of_text(chunk))

    def has_written(self, chunk: VersionedRow) -> bool:
        """Whether this look has written a vector of a chunk's text."""
        return _of_text(chunk) in self._written

    def note_changed(self, rows: Sequence[VersionedRow], changed: int) -> None:
        """So many rows of a batch were no longer what had been read, or cannot be written at all."""
        tried = {_as_read(row) for row in rows}
        self.moved += min(changed, sum(each not in self._tried_before for each in tried))
        for each in tried:
            self._tried.add(each)

    def note_left(
        self, chunks: Sequence[Document], ids: Collection[str], *, is_alone: bool
    ) -> None:
        """Not all of a document's chunks that were to be filled, those with these ids, could be.

        ``is_alone`` says that none came to them, and that nobody else has written them meanwhile.
        """
        if is_alone and self.has_left(chunks):
            self._given_up.add(_of_parts(chunks, ids))
        else:
            self.moved += 1
        if is_alone:
            self._tried.add(fingerprint_of_chunks(chunks))

    def has_left(self, chunks: Sequence[Document]) -> bool:
        """Whether the last look could not fill all chunks of a document, which nobody else has written."""
        return fingerprint_of_chunks(chunks) in self._tried_before

    def has_given_up(self, chunks: Sequence[Document], ids: Collection[str]) -> bool:
        """Whether the last looks could not fill all of these chunks; so it is for the next one."""
        parts = _of_parts(chunks, ids)
        is_so = parts in self._given_up_before
        if is_so:
            self._given_up.add(parts)
            self._tried.add(fingerprint_of_chunks(chunks))
        return is_so


def _of_parts(chunks: Sequence[Document], ids: Collection[str]) -> int:
    return fingerprint_of(f"{fingerprint_of_chunks(chunks)}:{sorted(ids)}")


def _as_read(row: VersionedRow) -> int:
    place = f"{len(row.document.id)}:{row.document.id}{len(row.native_id)}:{row.native_id}"
    return fingerprint_of(place + row.version.hex())
