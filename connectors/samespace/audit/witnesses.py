"""Rows that tell whether a collection is the one that was looked at before; no I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from samespace.documents import Document, VersionedRow
from samespace.protocols import Vector

MOST: Final = 20
IN_PAGE: Final = 4


def witnesses_of(rows: Sequence[Document], firm: Collection[str]) -> dict[str, str]:
    """Some of these rows, far from one another, by id: what each of them is, short.

    They are those that are ``firm``, if any is: the others will be repaired, after which nothing but
    their texts is what it was.
    """
    lasting = [row for row in rows if row.id in firm]
    chosen = lasting or rows
    step = max(1, len(chosen) // IN_PAGE)
    return {
        row.id: _trace(row, row.vector if lasting else None) for row in chosen[::step][:IN_PAGE]
    }


def latest(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """As many as are kept, the new ones last."""
    return dict([*old.items(), *new.items()][-MOST:])


def unchanged(witnesses: Mapping[str, str], rows: Iterable[VersionedRow]) -> int:
    """How many of the witnesses these rows show to be what they were."""
    return len(
        {
            row.document.id
            for row in rows
            if witnesses[row.document.id]
            in {_trace(row.document, row.vector), _trace(row.document, None)}
        }
    )


def _trace(row: Document, vector: Vector | None) -> str:
    """What a row's text and its vector are; without a vector of the text alone."""
    made = hashlib.sha256(row.embedded_text.encode())
    made.update(b"" if vector is None else vector.astype(np.float32).tobytes())
    return made.hexdigest()[:16]
