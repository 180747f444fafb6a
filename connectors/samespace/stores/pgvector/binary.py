"""PostgreSQL's binary forms of what psycopg has no dumper for: vectors, and JSON that is bytes."""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
from numpy.typing import NDArray
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format

_HEADER: Final = struct.Struct(">HH")
_JSONB_VERSION: Final = b"\x01"
_JSONB_OID: Final = 3802


class Json(bytes):
    """JSON text in UTF-8, to be sent as ``jsonb``."""

    __slots__ = ()


class VectorDumper(Dumper):
    """A float32 array as pgvector's binary ``vector``: its length, two zero bytes, big-endian.

    The type has no fixed OID, so every placeholder is cast: ``%b::vector``.
    """

    format = Format.BINARY
    oid = 0

    def dump(self, obj: NDArray[np.float32]) -> Buffer:
        """Header and components."""
        return _HEADER.pack(len(obj), 0) + obj.astype(">f4").tobytes()


class JsonDumper(Dumper):
    """Ready JSON as binary ``jsonb``."""

    format = Format.BINARY
    oid = _JSONB_OID

    def dump(self, obj: Json) -> Buffer:
        """Version byte and text."""
        return _JSONB_VERSION + obj


def load_vector(data: bytes | None) -> NDArray[np.float32] | None:
    """A float32 array of shape ``(dimensions,)`` from the binary form of ``vector``."""
    if data is None:
        return None
    return np.frombuffer(data, dtype=">f4", offset=_HEADER.size).astype(np.float32)
