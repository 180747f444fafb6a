"""Documents from files: ``.md``, ``.txt``, ``.html``, ``.jsonl`` and ``.csv``."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final

import orjson

from samespace.documents import Document, Parent, Rejected
from samespace.errors import InvalidInput, excerpt
from samespace.ingest.corpus import pack
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
    ``name#line``) and ``text``, and the rest as metadata. What is missing or of another kind is
    :class:`InvalidInput` before anything is read; in folders other files are passed over. A file,
    line or row that cannot be read is a :class:`Rejected` among the others.
    """
    for path in paths:
        _check(path)
    return _sources(paths, whole=whole)


def _check(path: Path) -> None:
    if not path.exists():
        raise InvalidInput(f"cannot read {excerpt(str(path))}: there is no such file or folder")
    if not path.is_dir() and not is_readable(path):
        known = " ".join(sorted({*_TEXTS, *_RECORDS}))
        raise InvalidInput(f"{excerpt(str(path))} is of no known kind; pass one of {known}")


def _sources(paths: Iterable[Path], *, whole: bool) -> Iterator[Source]:
    return (_source(path, name, whole=whole) for name, path in list_files(paths))


def list_files(paths: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """Name and path of every file that :func:`read_sources` reads, in its order."""
    seen: set[str] = set()
    for path in (found for named in paths for found in _files(named)):
        name = name_of(path)
        if name not in seen:
            seen.add(name)
            yield name, path


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for found in sorted(path.rglob("*")):
        hidden = any(part.startswith(".") for part in found.relative_to(path).parts)
        if found.is_file() and not hidden and is_readable(found):
            yield found


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


def _source(path: Path, name: str, *, whole: bool) -> Source:
    kind, size = path.suffix.lower(), size_of(path)
    try:
        text = _read(path, check_id(name, what="file name"))
    except InvalidInput as error:
        return Source(name, [Rejected(name, error)], size=size)
    if kind in _TEXTS:
        cut = _whole if whole else _passages
        return Source(name, cut(_TEXTS[kind](text), name), is_text=True, size=size)
    records = _documents(_RECORDS[kind](text), name)
    return Source(name, records, size=size, lines=text.count("\n") + 1)


def _read(path: Path, name: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidInput(f"cannot read {excerpt(name)}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{excerpt(name)} is not UTF-8 at byte {error.start}; convert it"
        ) from error


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


Record = tuple[int, Any]
"""The number of a line or row, and what it holds: fields, or the error that says why not."""


def _jsonl(text: str) -> Iterator[Record]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, orjson.loads(line)
            except orjson.JSONDecodeError as error:
                yield number, InvalidInput(f"not JSON ({error.msg})")


def _csv(text: str) -> Iterator[Record]:
    # The limit is the process's; a text that is in memory whole needs none.
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    for number, fields in enumerate(csv.DictReader(io.StringIO(text)), start=2):
        ragged = None in fields or None in fields.values()
        yield number, InvalidInput("its columns are not those of the header") if ragged else fields


def _documents(records: Iterable[Record], name: str) -> Iterator[Document | Rejected]:
    for number, fields in records:
        place = f"{name}#{number}"
        try:
            yield _document(fields, name, place)
        except InvalidInput as error:
            yield Rejected(place, InvalidInput(f"{excerpt(name)}, line {number}: {error}"))


def _document(fields: Any, name: str, place: str) -> Document:
    if isinstance(fields, InvalidInput):
        raise fields
    if not isinstance(fields, dict) or not isinstance(fields.get("text"), str):
        raise InvalidInput('no field "text" with a string')
    id = fields.get("id")
    if type(id) not in {str, int, type(None)}:
        raise InvalidInput(f'"id" is {excerpt(id)}; write a string or a whole number')
    rest = {key: value for key, value in fields.items() if key not in {"id", "text"}}
    named = place if id in {None, ""} else str(id)
    return Document(id=check_id(named), text=fields["text"], metadata={"source": name, **rest})


_TEXTS: Final[dict[str, Callable[[str], str]]] = {".md": str, ".txt": str, ".html": _html}
_RECORDS: Final[dict[str, Callable[[str], Iterator[Record]]]] = {".jsonl": _jsonl, ".csv": _csv}
