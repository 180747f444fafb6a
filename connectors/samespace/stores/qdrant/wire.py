"""Points as the bytes of their messages, in a fifth of the time that it takes to build objects."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

import numpy as np
from qdrant_client import grpc

from samespace.protocols import Vector
from samespace.stores.qdrant.requests import Point, PointId

WORD: Final = 64
"""Characters of a text that may be kept, to be written again."""
_WIRE_TYPES: Final = {1: 1, 3: 0, 4: 0, 8: 0, 14: 0}
"""How a field's type is written: in 8 bytes, as a varint, all others with their length in front."""


@lru_cache(maxsize=4096)
def varint(number: int) -> bytes:
    """A whole number in groups of 7 bits, the lowest first."""
    groups = bytearray()
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def _tag(message: Any, name: str) -> bytes:
    field = message.DESCRIPTOR.fields_by_name[name]
    return varint(field.number << 3 | _WIRE_TYPES.get(field.type, 2))


_POINTS: Final = _tag(grpc.UpsertPoints, "points")
_ID, _PAYLOAD, _VECTORS = (_tag(grpc.PointStruct, name) for name in ("id", "payload", "vectors"))
_NUMBER, _UUID = _tag(grpc.PointId, "num"), _tag(grpc.PointId, "uuid")
_NAMED: Final = _tag(grpc.Vectors, "vectors")
_VECTOR: Final = _tag(grpc.NamedVectors, "vectors")
_DENSE, _FLOATS = _tag(grpc.Vector, "dense"), b"\x0a"  # packed: their length in front
_NULL, _DOUBLE, _INTEGER, _TEXT, _BOOL, _OBJECT, _LIST = (
    _tag(grpc.Value, f"{name}_value")
    for name in ("null", "double", "integer", "string", "bool", "struct", "list")
)
_FIELD: Final = _tag(grpc.Struct, "fields")
_ITEM: Final = _tag(grpc.ListValue, "values")


def point(given: Point) -> bytes:
    """A point, as one of the points of an upsert."""
    vectors = [(name, _field(_DENSE, dense(vector))) for name, vector in given.vectors.items()]
    return _field(
        _POINTS,
        _field(_ID, _point_id(given.id))
        + _fields(_PAYLOAD, given.payload)
        + _field(_VECTORS, _field(_NAMED, _map(_VECTOR, vectors))),
    )


def dense(vector: Vector) -> bytes:
    """A vector's floats, little-endian."""
    return _field(_FLOATS, np.ascontiguousarray(vector, "<f4").tobytes())


def _point_id(id: PointId) -> bytes:
    return _NUMBER + varint(id) if isinstance(id, int) else _field(_UUID, id.encode())


def _field(tag: bytes, data: bytes) -> bytes:
    return tag + varint(len(data)) + data


@lru_cache(maxsize=4096)
def _key(key: str) -> bytes:
    """The first part of an entry of any map, and the tag of its second."""
    return _field(b"\x0a", key.encode()) + b"\x12"


def _map(tag: bytes, entries: Iterable[tuple[str, bytes]]) -> bytes:
    """A map's entries, each with the tag of its field."""
    parts: list[bytes] = []
    for key, value in entries:
        start, size = _key(key), varint(len(value))
        parts += tag, varint(len(start) + len(size) + len(value)), start, size, value
    return b"".join(parts)


def _fields(tag: bytes, values: Mapping[str, Any]) -> bytes:
    return _map(tag, [(key, _value(value)) for key, value in values.items()])


def _value(value: Any) -> bytes:
    """A value of a payload, which is what JSON has."""
    if isinstance(value, str):
        return _field(_TEXT, value.encode())
    if isinstance(value, dict):
        return _field(_OBJECT, _fields(_FIELD, value))
    if isinstance(value, list):
        return _field(_LIST, b"".join(map(_item, value)))
    if isinstance(value, bool):
        return _BOOL + varint(value)
    if isinstance(value, int):
        return _INTEGER + varint(struct.unpack("<Q", struct.pack("<q", value))[0])
    return _NULL + b"\x00" if value is None else _DOUBLE + struct.pack("<d", value)


def _item(value: Any) -> bytes:
    if isinstance(value, str) and len(value) <= WORD:
        return _word(value)
    return _field(_ITEM, _value(value))


@lru_cache(maxsize=4096)
def _word(text: str) -> bytes:
    """A short text in a list: many rows have the same terms."""
    return _field(_ITEM, _value(text))
