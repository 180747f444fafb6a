"""Documents from files: ``.md``, ``.txt``, ``.html``, ``.jsonl`` and ``.csv``."""

from __future__ import annotations

import csv
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, Final

import orjson

from samespace.documents import Document, Parent, Rejected
from samespace.errors import InvalidInput, excerpt
from samespace.ingest.corpus import pack
from samespace.ingest.pieces import ALL_ROWS
from samespace.names import check_id

_SILENT: Final = {"script", "style", "title", "template"}
_INLINE: Final = {
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del",
    "dfn", "em", "font", "i", "ins", "kbd", "label", "mark", "q", "s", "samp",
    "small", "span", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr",
}  # fmt: skip
_CLOSE: Final = {"br", "td", "th"}
"""Tags that end a line; those that are neither these nor inline end a paragraph."""
_BLANK_LINES: Final = re.compile(r"\n(?:[^\S\n]*\n)+")
_ENCODING: Final = "utf-8-sig"
_PART: Final = 2**20
"""How many characters of a file of records are in memory at once while its lines are counted."""


@dataclass(frozen=True, slots=True)
class Unread(Rejected):
    """What could not be read, and the names whose rows stay, since it may be theirs."""

    kept: tuple[str, ...] = (ALL_ROWS,)


@dataclass(frozen=True, slots=True)
class Found:
    """A file; or a folder that cannot be listed, with the ``error`` that says why."""

    name: str
    path: Path
    error: OSError | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """One file: its documents, and what of it cannot be read.

    ``name`` is the file's path, relative to the working directory where it is below it.
    ``is_text`` says that the documents are one text: whole, or all its passages, whose parent is the
    file. ``size`` is in bytes, ``lines`` how many records there may be.
    """

    name: str
    items: Iterable[Document | Rejected]
    is_text: bool = False
    size: int = 0
    lines: int = 1


def read_sources(paths: Sequence[Path], *, whole: bool = False) -> Iterator[Source]:
    """The files named, and those in the folders named, each once, in a stable order.

    Texts are cut at blank lines into passages of at most 1,000 characters, with ids ``name#0``,
    ``name#1``, …; with ``whole`` a text is one document with the id ``name``, for a chunker to cut, and
    a blank one is none. A ``.jsonl`` line or a ``.csv`` row is one document: fields ``id`` (else
    ``name#line``) and ``text``, and the rest as metadata; they are read as they are asked for. What is
    missing or of another kind is :class:`InvalidInput` before anything is read; in folders other files
    are passed over. A folder, file, line or row that cannot be read is a :class:`Rejected` among the
    others.
    """
    for path in paths:
        _check(path)
    return _sources(paths, whole=whole)


def _check(path: Path) -> None:
    named = excerpt(str(path))
    mode = _mode_of(path, named)
    if stat.S_ISDIR(mode):
        return
    if not is_readable(path):
        known = " ".join(sorted({*_TEXTS, *_RECORDS}))
        raise InvalidInput(f"{named} is of no known kind; pass one of {known}")
    if not stat.S_ISREG(mode):
        raise InvalidInput(f"{named} is neither a file nor a folder; write it to a file first")


def _mode_of(path: Path, named: str) -> int:
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last of a NUL
        raise InvalidInput(f"cannot read {named}: there is no such file or folder") from None
    except OSError as error:
        raise InvalidInput(f"cannot read {named}: {error.strerror}") from error


def _sources(paths: Iterable[Path], *, whole: bool) -> Iterator[Source]:
    return (_source(found, whole=whole) for found in list_files(paths))


def list_files(paths: Iterable[Path]) -> Iterator[Found]:
    """Every file that :func:`read_sources` reads, and every folder that it cannot, in its order."""
    seen: set[str] = set()
    for path, error in (found for named in paths for found in _files(named)):
        name = name_of(path)
        if name not in seen:
            seen.add(name)
            yield Found(name, path, error)


def _files(path: Path) -> Iterator[tuple[Path, OSError | None]]:
    if not _is_folder(path):
        yield path, None
        return
    for found, error in sorted(_below(path), key=lambda each: each[0]):
        if error is not None or _is_file(found):
            yield found, error


def _below(path: Path) -> Iterator[tuple[Path, OSError | None]]:
    """What may be read in a folder, in no order."""
    closed: list[OSError] = []
    for folder, folders, names in os.walk(path, onerror=closed.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and is_readable(Path(name)):
                yield Path(folder, name), None
    yield from ((Path(error.filename or path), error) for error in closed)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _is_file(path: Path) -> bool:
    """Also what nobody may look at, and a link to a file that is elsewhere now: neither is gone."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return path.is_symlink()
    except OSError:
        return True


def is_readable(path: Path) -> bool:
    """Whether a file is of a kind that is read, by its name."""
    return path.suffix.lower() in {*_TEXTS, *_RECORDS}


def size_of(path: Path) -> int:
    """In bytes; 0 where nobody can tell."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def name_of(path: Path) -> str:
    """A path as ids begin with it: relative to the working directory where it is below it."""
    whole = Path(os.path.abspath(path))  # noqa: PTH100  resolve() would follow links
    here = Path.cwd()
    return (whole.relative_to(here) if whole.is_relative_to(here) else whole).as_posix()


def _source(found: Found, *, whole: bool) -> Source:
    name, path = found.name, found.path
    if found.error is not None:
        why = found.error.strerror
        return Source(name, [Unread(name, InvalidInput(f"cannot read {excerpt(name)}: {why}"))])
    try:
        check_id(name, what="file name")
    except InvalidInput as error:  # nothing of it was ever stored
        return Source(name, [Rejected(name, error)], size=size_of(path))
    if path.suffix.lower() in _TEXTS:
        return _text(path, name, whole=whole)
    return _table(path, name)


def _text(path: Path, name: str, *, whole: bool) -> Source:
    """All its rows have its name as their ``source``."""
    try:
        with _readable(name):
            text = path.read_text(encoding=_ENCODING)
    except InvalidInput as error:
        return Source(name, [Rejected(name, error)], size=size_of(path))
    cut, kind = _whole if whole else _passages, _TEXTS[path.suffix.lower()]
    return Source(name, cut(kind(text), name), is_text=True, size=size_of(path))


def _table(path: Path, name: str) -> Source:
    """Its rows may have a ``source`` of their own."""
    try:
        lines = _lines(path, name)
    except InvalidInput as error:
        return Source(name, [Unread(name, error)], size=size_of(path))
    return Source(name, _documents(path, name), size=size_of(path), lines=lines)


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """:class:`InvalidInput` where a file cannot be read, or is no text."""
    try:
        yield
    except OSError as error:
        raise InvalidInput(f"cannot read {excerpt(name)}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{excerpt(name)} is not UTF-8 at byte {error.start}; convert it"
        ) from error
    except csv.Error as error:
        raise InvalidInput(f"{excerpt(name)} is no CSV ({error}); mend it") from error


def _lines(path: Path, name: str) -> int:
    """How many lines a file has, all of which are text."""
    lines = 1
    with _readable(name), path.open("rb") as raw, TextIOWrapper(raw, encoding=_ENCODING) as file:
        try:
            while part := file.read(_PART):
                lines += part.count("\n")
        except UnicodeDecodeError as error:
            error.start += raw.tell() - len(error.object)
            raise
    return lines


def _whole(text: str, name: str) -> Iterator[Document]:
    if text and not text.isspace():
        yield Document(id=name, text=text, metadata={"source": name})


def _passages(text: str, name: str) -> Iterator[Document]:
    for ordinal, span in enumerate(pack(text, 0, len(text))):
        yield Document(
            id=f"{name}#{ordinal}",
            text=text[slice(*span)],
            metadata={"source": name},
            parent=Parent(name, ordinal, span),
        )


class _Visible(HTMLParser):
    """Collects the text that a reader sees."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self._silent += tag in _SILENT
        self._break(tag)

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in _SILENT and self._silent > 0
        self._break(tag)

    def _break(self, tag: str) -> None:
        if tag not in _INLINE:
            self.parts.append("\n" if tag in _CLOSE else "\n\n")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.parts.append(data)


def _html(text: str) -> str:
    parser = _Visible()
    parser.feed(text)
    parser.close()
    return _BLANK_LINES.sub("\n\n", "".join(parser.parts)).strip()


@dataclass(frozen=True, slots=True)
class _Torn:
    """A line or row that has no fields; which names may be those of its row."""

    why: str
    kept: tuple[str, ...] = (ALL_ROWS,)


Record = tuple[int, Any]
"""The number of a line or row, and what it holds: fields, or why not."""


def _jsonl(file: IO[str]) -> Iterator[Record]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            try:
                yield number, orjson.loads(line.removesuffix("\n"))
            except orjson.JSONDecodeError as error:
                yield number, _Torn(f"not JSON ({error.msg})")


def _csv(file: IO[str]) -> Iterator[Record]:
    # The limit is the process's; a field that memory has room for needs none.
    csv.field_size_limit(max(csv.field_size_limit(), os.fstat(file.fileno()).st_size))
    reader = csv.DictReader(file)
    for number, fields in enumerate(reader, start=2):
        if None in fields or None in fields.values():
            kept = (ALL_ROWS,) if "source" in (reader.fieldnames or ()) else ()
            yield number, _Torn("its columns are not those of the header", kept)
        else:
            yield number, fields


def _documents(path: Path, name: str) -> Iterator[Document | Rejected]:
    records = _RECORDS[path.suffix.lower()]
    try:
        with _readable(name), path.open(encoding=_ENCODING) as file:
            yield from (_read(number, fields, name) for number, fields in records(file))
    except InvalidInput as error:  # it has changed since its lines were counted
        yield Unread(name, error)


def _read(number: int, fields: Any, name: str) -> Document | Rejected:
    place = f"{name}#{number}"
    try:
        return _document(fields, name, place)
    except InvalidInput as error:
        why = InvalidInput(f"{excerpt(name)}, line {number}: {error}")
        return Unread(place, why, _kept(fields))


def _kept(fields: Any) -> tuple[str, ...]:
    """Which row a record without a document may have been: that of its id, or any."""
    if isinstance(fields, _Torn):
        return fields.kept
    id = fields.get("id") if isinstance(fields, dict) else None
    return (str(id),) if type(id) in {str, int} and id != "" else (ALL_ROWS,)


def _document(fields: Any, name: str, place: str) -> Document:
    if isinstance(fields, _Torn):
        raise InvalidInput(fields.why)
    if not isinstance(fields, dict) or not isinstance(fields.get("text"), str):
        raise InvalidInput('no field "text" with a string')
    id = fields.get("id")
    if type(id) not in {str, int, type(None)}:
        raise InvalidInput(f'"id" is {excerpt(id)}; write a string or a whole number')
    rest = {key: value for key, value in fields.items() if key not in {"id", "text"}}
    named = place if id in {None, ""} else str(id)
    return Document(id=check_id(named), text=fields["text"], metadata={"source": name, **rest})


_TEXTS: Final[dict[str, Callable[[str], str]]] = {".md": str, ".txt": str, ".html": _html}
_RECORDS: Final[dict[str, Callable[[IO[str]], Iterator[Record]]]] = {".jsonl": _jsonl, ".csv": _csv}
