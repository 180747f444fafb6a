"""What a row's vector was made from: kept beside the vector, compared with the row."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from samespace.documents import VersionedRow


def source_of(id: str, text: str) -> bytes:
    """What a vector was made from: 16 bytes of the SHA-256 of id, NUL and text, in UTF-8."""
    return hashlib.sha256(id.encode() + b"\x00" + text.encode()).digest()[:16]


def vouched(row: VersionedRow, source: str | None, *, always: bool) -> VersionedRow:
    """The row, without its vector where the source beside that (in hex) is of another text.

    ``always`` says that who makes vectors of this slot keeps sources, so that one without tells nothing.
    """
    if source is None and not always:
        return row
    made = source_of(row.document.id, row.document.embedded_text).hex()
    return row if source == made else replace(row, vector=None)
