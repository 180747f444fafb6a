"""What may have been embedded for a row: its text, or a title and its text; no I/O."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from samespace.documents import Document

TITLES: Final = ("title", "name", "heading", "headline", "subject", "header")
JOINS: Final = ("\n", "\n\n", " ", ": ", ". ", " - ")
"""What stands between a title and the text, the most usual first."""
_COMMON: Final = 0.5
"""The share of rows that must have a title for it to be tried."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """A text made of a row; with a ``title``, the metadata's value of that key comes first."""

    title: str = ""
    join: str = ""

    def of(self, document: Document) -> str:
        """The text; of a row without a title its own alone."""
        title = document.metadata.get(self.title) if self.title else None
        body = document.text
        return f"{title}{self.join}{body}" if isinstance(title, str) and title else body

    def __str__(self) -> str:
        return f"{self.title} + {self.join!r} + text" if self.title else "text"


BODY: Final = Rendering()


def titled(documents: Sequence[Document]) -> Iterator[Rendering]:
    """A title in front of the text, where most of the rows have one in their metadata."""
    keys = dict.fromkeys(key for document in documents for key in document.metadata)
    for key in (key for key in keys if key.lower() in TITLES):
        values = [document.metadata.get(key) for document in documents]
        having = sum(isinstance(value, str) and bool(value) for value in values)
        if having > _COMMON * len(documents):
            yield from (Rendering(key, join) for join in JOINS)
