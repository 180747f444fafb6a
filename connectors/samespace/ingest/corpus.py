"""A real corpus that is on every machine: the topics of Python's language reference."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pydoc_data.topics import topics
from typing import Final

from samespace.documents import Document, Parent

PASSAGE_LENGTH: Final = 1000
"""Longest passage in characters."""

Span = tuple[int, int]

_HEADING: Final = re.compile(
    r"^(?P<title>\S.*)\n(?P<rule>\*{3,}|={3,}|-{3,}|~{3,}|\^{3,})$", re.MULTILINE
)
_PARAGRAPH: Final = re.compile(r"\S[^\n]*(?:\n[^\n]*\S[^\n]*)*")
_LINE: Final = re.compile(r"[^\n]+")
_PIECE: Final = re.compile(
    rf"\S(?:.{{0,{PASSAGE_LENGTH - 2}}}\S)?(?!\S)|\S{{{PASSAGE_LENGTH}}}", re.DOTALL
)
"""As many words as a passage has room for; a part of one that is longer."""


def language_reference() -> Iterator[Document]:
    """The topics of ``pydoc_data.topics``, cut at blank lines into passages.

    A passage has at most 1,000 characters and belongs to one section. Its text is exactly the
    span of its topic; what is embedded has the section's title in front. Some topics contain
    others whole: a text appears once, in the shortest topic that has it. Ids are
    ``topic/ordinal``, the same on every run of one Python version.
    """
    seen: set[str] = set()
    for name in sorted(topics, key=lambda name: (len(topics[name]), name)):
        for passage in _passages(name, topics[name]):
            if passage.text not in seen:
                seen.add(passage.text)
                yield passage


def _passages(topic: str, text: str) -> Iterator[Document]:
    ordinal = 0
    for section, start, end in _sections(text):
        for span in pack(text, start, end):
            passage = text[slice(*span)]
            yield Document(
                id=f"{topic}/{ordinal}",
                text=passage,
                metadata={"topic": topic, "section": section},
                parent=Parent(id=topic, ordinal=ordinal, span=span),
                embed_text=f"{section}\n\n{passage}",
            )
            ordinal += 1


def _sections(text: str) -> Iterator[tuple[str, int, int]]:
    """Title, start and end of each section's body; headings are no part of a body."""
    headings = [(m["title"], m.start(), m.end()) for m in _HEADING.finditer(text)]
    bounds = [("", 0, 0), *headings, ("", len(text), len(text))]
    for (title, _, body), (_, end, _) in pairwise(bounds):
        yield title, body, end


def pack(text: str, start: int, end: int) -> Iterator[Span]:
    """Spans of neighbouring blocks, joined as long as they stay within a passage's length."""
    first = last = None
    for block_start, block_end in _blocks(text, start, end):
        if first is not None and last is not None and block_end - first > PASSAGE_LENGTH:
            yield first, last
            first = None
        first, last = (block_start if first is None else first), block_end
    if first is not None and last is not None:
        yield first, last


def _blocks(text: str, start: int, end: int) -> Iterator[Span]:
    """Paragraphs; of those that are longer than a passage the lines; of such lines, pieces."""
    for paragraph in _PARAGRAPH.finditer(text, start, end):
        for line in _whole_or_cut(paragraph, _LINE):
            yield from (piece.span() for piece in _whole_or_cut(line, _PIECE))


def _whole_or_cut(found: re.Match[str], into: re.Pattern[str]) -> Iterator[re.Match[str]]:
    if found.end() - found.start() <= PASSAGE_LENGTH:
        yield found
    else:
        yield from into.finditer(found.string, *found.span())
