"""PostgreSQL's binary forms of what psycopg has no dumper for: vectors, ready JSON, whole columns."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format

TEXT_OID: Final = 25
INT4_OID: Final = 23
BYTEA_OID: Final = 17
JSONB_OID: Final = 3802
_HEADER: Final = struct.Struct(">HH")
_LENGTH: Final = struct.Struct(">I")
_ONE_AXIS: Final = struct.Struct(">IIIII")
_INT4: Final = struct.Struct(">i")
_NULL: Final = b"\xff\xff\xff\xff"
_JSONB_VERSION: Final = b"\x01"


class Json(bytes):
    """JSON text in UTF-8, to be sent as ``jsonb``."""

    __slots__ = ()


class Array(bytes):
    """A one-dimensional array in its binary form; every placeholder is cast: ``%b::text[]``."""

    __slots__ = ()


class VectorDumper(Dumper):
    """A float32 array as pgvector's binary ``vector``: its length, two zero bytes, big-endian.

    The type has no fixed OID, so every placeholder is cast: ``%b::vector``.
    """

    format = Format.BINARY
    oid = 0

    def dump(self, obj: NDArray[np.float32]) -> Buffer:
        """Header and components."""
        return dump_vector(obj)


class JsonDumper(Dumper):
    """Ready JSON as binary ``jsonb``."""

    format = Format.BINARY
    oid = JSONB_OID

    def dump(self, obj: Json) -> Buffer:
        """Version byte and text."""
        return dump_json(obj)


class ArrayDumper(Dumper):
    """A whole column, which is in its binary form already."""

    format = Format.BINARY
    oid = 0

    def dump(self, obj: Array) -> Buffer:
        """The array as it stands."""
        return obj


def dump_vector(vector: NDArray[np.float32]) -> bytes:
    """One ``vector``, from shape ``(dimensions,)``."""
    return _HEADER.pack(len(vector), 0) + vector.astype(">f4").tobytes()


def dump_json(data: bytes) -> bytes:
    """One ``jsonb``, from JSON text in UTF-8."""
    return _JSONB_VERSION + data


def load_vector(data: bytes | None) -> NDArray[np.float32] | None:
    """A float32 array of shape ``(dimensions,)`` from the binary form of ``vector``."""
    if data is None:
        return None
    return np.frombuffer(data, dtype=">f4", offset=_HEADER.size).astype(np.float32)


def array(oid: int, items: Sequence[bytes | None]) -> Array:
    """An array of elements in their binary forms; None is NULL. ``oid`` is the element type's."""
    parts = [_ONE_AXIS.pack(1, None in items, oid, len(items), 1)]
    for item in items:
        parts += (_NULL,) if item is None else (_LENGTH.pack(len(item)), item)
    return Array(b"".join(parts))


def texts(items: Iterable[str | None]) -> Array:
    """An array of ``text``."""
    return array(TEXT_OID, [None if item is None else item.encode() for item in items])


def integers(items: Iterable[int | None]) -> Array:
    """An array of ``int``."""
    return array(INT4_OID, [None if item is None else _INT4.pack(item) for item in items])


def vectors(oid: int, rows: Sequence[NDArray[np.float32] | None]) -> Array:
    """An array of ``vector`` (whose type has this ``oid``), from shapes ``(dimensions,)``."""
    present = [row for row in rows if row is not None]
    if len(present) < len(rows) or not present:
        return array(oid, [None if row is None else dump_vector(row) for row in rows])
    size = len(present[0])
    form = [("length", ">u4"), ("size", ">u2"), ("unused", ">u2"), ("components", ">f4", (size,))]
    column = np.zeros(len(rows), dtype=form)
    column["length"] = _HEADER.size + 4 * size
    column["size"] = size
    column["components"] = present
    return Array(_ONE_AXIS.pack(1, 0, oid, len(rows), 1) + column.tobytes())
