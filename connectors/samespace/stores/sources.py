"""What a row's vector was made from: kept beside the vector, compared with the row."""

from __future__ import annotations

import hashlib


def source_of(id: str, text: str) -> bytes:
    """What a vector was made from: 16 bytes of the SHA-256 of id, NUL and text, in UTF-8."""
    return hashlib.sha256(id.encode() + b"\x00" + text.encode()).digest()[:16]
