"""Documents from files: ``.md``, ``.txt``, ``.html``, ``.jsonl`` and ``.csv``."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final

import orjson

from samespace.documents import Document, Parent
from samespace.errors import InvalidInput, excerpt
from samespace.ingest.corpus import pack

_SILENT: Final = {"script", "style", "head", "template"}


def read_documents(paths: Iterable[Path]) -> Iterator[Document]:
    """The documents of files and folders, in a stable order.

    Texts are cut at blank lines into passages of at most 1,000 characters, whose parent is the
    file. A ``.jsonl`` line or a ``.csv`` row is one document: fields ``id`` (else the line's number)
    and ``text``, and the rest as metadata. In folders other files are passed over; named
    themselves they are :class:`InvalidInput`, as is what cannot be read, with its line.
    """
    for path in paths:
        if path.is_dir():
            for found in sorted(path.rglob("*")):
                name = found.relative_to(path)
                hidden = any(part.startswith(".") for part in name.parts)
                if found.is_file() and not hidden and found.suffix.lower() in _READERS:
                    yield from _read(found, name.as_posix())
        elif path.suffix.lower() in _READERS:
            yield from _read(path, path.name)
        else:
            known = " ".join(sorted(_READERS))
            raise InvalidInput(f"{excerpt(str(path))} is of no known kind; pass one of {known}")


def _read(path: Path, name: str) -> Iterator[Document]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidInput(f"cannot read {excerpt(str(path))}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{excerpt(str(path))} is not UTF-8 at byte {error.start}; convert it"
        ) from error
    return _READERS[path.suffix.lower()](text, name)


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

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in _SILENT and self._silent > 0
        self.parts.append("\n\n" if tag in {"p", "div", "li", "h1", "h2", "h3", "tr"} else "")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.parts.append(data)


def _html(text: str, name: str) -> Iterator[Document]:
    parser = _Visible()
    parser.feed(text)
    parser.close()
    return _passages("".join(parser.parts), name)


def _jsonl(text: str, name: str) -> Iterator[Document]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                fields = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise InvalidInput(f"{name}, line {number}: not JSON ({error.msg})") from error
            yield _record(fields, name, number)


def _csv(text: str, name: str) -> Iterator[Document]:
    for number, fields in enumerate(csv.DictReader(io.StringIO(text)), start=2):
        if None in fields or None in fields.values():
            raise InvalidInput(f"{name}, row {number}: its columns are not those of the header")
        yield _record(dict(fields), name, number)


def _record(fields: Any, name: str, number: int) -> Document:
    if not isinstance(fields, dict) or not isinstance(fields.get("text"), str):
        raise InvalidInput(f'{name}, line {number}: no field "text" with a string')
    rest = {key: value for key, value in fields.items() if key not in {"id", "text"}}
    id = str(fields.get("id") or f"{name}#{number}")
    return Document(id=id, text=fields["text"], metadata={**rest, "source": name})


_READERS: Final[dict[str, Callable[[str, str], Iterator[Document]]]] = {
    ".md": _passages,
    ".txt": _passages,
    ".html": _html,
    ".jsonl": _jsonl,
    ".csv": _csv,
}
