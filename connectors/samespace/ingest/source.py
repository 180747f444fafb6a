"""What a job reads: files and folders, or any iterable of documents."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from samespace.documents import Document, Rejected
from samespace.errors import InvalidInput, excerpt
from samespace.ingest.chunking import Chunker
from samespace.ingest.pieces import Batch, Unit, checked_unit, unit_of
from samespace.ingest.reading import (
    Found,
    Source,
    Unread,
    is_readable,
    list_files,
    name_of,
    read_sources,
    size_of,
)

BATCH_CHARACTERS = 16 * 2**20
"""A batch is closed once its texts are this long."""
MOST_AHEAD = 100_000
"""Of how many files it is kept where they were, for those who never ask."""


class Items(Protocol):
    """What a job reads, in the same order each time.

    ``identity`` says which source it is, "" where nobody said; ``version`` what is in it now, ""
    where that cannot be told; ``total`` how many items there are, None where that is not known.
    """

    @property
    def identity(self) -> str: ...  # noqa: D102  the class says it
    @property
    def total(self) -> int | None: ...  # noqa: D102  the class says it
    def version(self) -> str: ...  # noqa: D102  the class says it
    def units(self, chunker: Chunker | None) -> Iterator[Unit]: ...  # noqa: D102  the class says it


class Files:
    """Files and folders, as :func:`~samespace.ingest.reading.read_sources` reads them.

    With a chunker a text is cut by it, without one into passages.
    """

    total: int | None = None

    def __init__(self, paths: Iterable[str | Path], *, identity: str | None = None) -> None:
        self._paths = [_path(path) for path in paths]
        self.identity = identity or _identity(self._paths)
        self._roots = [os.path.abspath(path) for path in self._paths]  # noqa: PTH100  as name_of()
        self._size = 0
        self._items: int | None = None
        self._read: deque[_Read] = deque(maxlen=MOST_AHEAD)
        read_sources(self._paths)  # what is missing is said now

    def version(self) -> str:
        """A digest of which files there are, of their sizes and times, and of which can be read."""
        digest = hashlib.sha256()
        self._size = 0
        for found in list_files(self._paths):
            self._size += 0 if found.error else size_of(found.path)
            digest.update(f"{found.name}\0{_stamp(found)}\0".encode(errors="surrogateescape"))
        return digest.hexdigest()

    def units(self, chunker: Chunker | None) -> Iterator[Unit]:
        """A text is one unit, each record of a file another."""
        self._read.clear()
        self._items = None
        position = before = 0
        for source in read_sources(self._paths, whole=chunker is not None):
            self._read.append(_Read(position, before, source.size, source.lines))
            for unit in _units_of(source, chunker):
                position += 1
                yield unit
            before += source.size
        self._items = position

    def part(self, position: int) -> float | None:
        """Which part of the files the first ``position`` items are; None while nobody can tell.

        By size, from 0 to 1. Positions are asked for as they rise.
        """
        while len(self._read) > 1 and self._read[1].position <= position:
            self._read.popleft()
        if self._items is not None and position >= self._items:
            return 1.0
        if not self._read or not self._size:
            return None
        return min(self._read[0].bytes_at(position) / self._size, 1.0)

    def has(self, row: Document) -> bool:
        """Whether a row came from one of these files, or from one that was here once."""
        source = row.metadata.get("source")
        if not isinstance(source, str) or os.path.normpath(source) != source:
            return False
        place = os.path.abspath(source)  # noqa: PTH100  as name_of()
        below = any(
            place == root or place.startswith(f"{root.rstrip('/')}/") for root in self._roots
        )
        return below and is_readable(Path(source))


@dataclass(frozen=True, slots=True)
class _Read:
    """A file that was read: how many items and bytes there were before it."""

    position: int
    before: int
    size: int
    lines: int

    def bytes_at(self, position: int) -> float:
        """How many bytes the first ``position`` items are, if all lines are equally long."""
        return self.before + self.size * min(max(position - self.position, 0) / self.lines, 1.0)


def _units_of(source: Source, chunker: Chunker | None) -> Iterator[Unit]:
    if not source.is_text:
        for item in source.items:
            yield _left_out(item, source) if isinstance(item, Rejected) else unit_of(item, chunker)
        return
    pieces = tuple(item for item in source.items if isinstance(item, Document))
    if chunker is not None and pieces:
        yield from (unit_of(piece, chunker) for piece in pieces)
    else:
        yield checked_unit(Unit(pieces, source.name))


def _path(given: str | Path) -> Path:
    if given == "":
        raise InvalidInput('a path is ""; pass "." for the working directory')
    return Path(given)


def _left_out(item: Rejected, source: Source) -> Unit:
    kept = item.kept if isinstance(item, Unread) else ()
    return Unit(rejected=(Rejected(item.id, item.error),), kept=(*kept, item.id, source.name))


def _identity(paths: Iterable[Path]) -> str:
    """Ids begin with a file's name as it is seen from the working directory."""
    named = f"files {', '.join(map(name_of, paths))} in {Path.cwd()}"
    return named.encode(errors="backslashreplace").decode()  # a name may be bytes that are no text


def _stamp(found: Found) -> str:
    """Changes with what is there, and where it becomes readable."""
    if found.error is not None:
        return f"unreadable {found.error.errno}"
    try:
        seen = found.path.stat()
    except OSError as error:
        return f"unreadable {error.errno}"
    return f"{seen.st_size} {seen.st_mtime_ns} {_may_read(found.path)}"


def _may_read(path: Path) -> bool:
    """Whether this process may, where the system tells it apart from who has started it."""
    return os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids)


class Documents:
    """Any iterable of documents; ``identity`` says which, for a checkpoint.

    An iterator has its items once: what it has given is not there to be read again.
    """

    def __init__(self, documents: Iterable[Any], *, identity: str | None = None) -> None:
        if isinstance(documents, bytes | Mapping) or not isinstance(documents, Iterable):
            raise InvalidInput(
                f"source is {excerpt(documents)}; pass a path, a list of paths, or an iterable of "
                "Documents"
            )
        self._documents = documents
        self._is_once = isinstance(documents, Iterator) and iter(documents) is documents
        self._is_begun = False
        self.identity = identity or ""
        self.total = len(documents) if isinstance(documents, Sized) else None

    def version(self) -> str:
        """Nobody can tell what an iterable will yield."""
        return ""

    def units(self, chunker: Chunker | None) -> Iterator[Unit]:
        """Each document is one unit; :class:`InvalidInput` for an iterator that was read from."""
        if self._is_once and self._is_begun:
            raise InvalidInput(
                "this source can be read once, and was read from before: make a new IngestJob with a "
                "new one, or pass a list or an object whose iteration begins anew"
            )
        return self._units(chunker)

    def _units(self, chunker: Chunker | None) -> Iterator[Unit]:
        self._is_begun = True
        for item in self._documents:
            yield unit_of(item, chunker)


def items_of(source: object, *, identity: str | None) -> Items:
    """The items of a path, of a list of paths, of an iterable of documents, or of such an object."""
    if identity is not None and (not isinstance(identity, str) or not identity):
        raise InvalidInput(f"identity is {excerpt(identity)}; pass a name for the source")
    if isinstance(source, Files | Documents):
        return source
    if isinstance(source, str | Path):
        return Files([source], identity=identity)
    if (
        isinstance(source, list | tuple)
        and source
        and all(isinstance(p, str | Path) for p in source)
    ):
        return Files(source, identity=identity)
    return Documents(source, identity=identity)  # type: ignore[arg-type]


class Reader:
    """Batches of a source's units, from a position on."""

    def __init__(self, units: Iterator[Unit], *, batch_size: int) -> None:
        self._units = units
        self._batch_size = batch_size
        self._position = 0
        self._held: Unit | None = None

    def skip(self, items: int, *, passed: Callable[[Batch], object] = lambda _: None) -> None:
        """Pass over what is stored; :class:`InvalidInput` if the source has fewer items.

        ``passed`` is called with what is passed over.
        """
        while self._position < items:
            batch = self.batch(stop=items)
            if batch is None:
                raise InvalidInput(
                    f"the checkpoint says that {items} items are stored, and the source ends after "
                    f"{self._position}: it is not what it was; remove the checkpoint to begin anew"
                )
            passed(batch)

    def batch(self, *, stop: int | None = None) -> Batch | None:
        """The next batch, which ends before item ``stop``; None at the source's end."""
        batch = Batch(self._position, self._position)
        while not self._is_full(batch) and batch.stop != stop:
            unit = self._held or next(self._units, None)
            if unit is None:
                break
            self._held = unit
            if not batch.has_room_for(unit):
                break
            self._held = None
            batch.add(unit)
        self._position = batch.stop
        return batch if batch.units else None

    def _is_full(self, batch: Batch) -> bool:
        return (
            batch.pieces >= self._batch_size
            or len(batch.units) >= self._batch_size
            or batch.characters >= BATCH_CHARACTERS
        )
