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
"""Characters of a term that may be kept, to be written again."""
LABEL: Final = 24
"""Characters of a value that may be: an id or a hash, which does not come again, has more."""
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


def points(given: Iterable[Point]) -> list[bytes | memoryview]:
    """The points of an upsert in parts that are to be joined, so that vectors are copied once."""
    return [part for each in given for part in _point(each)]


def _point(given: Point) -> list[bytes | memoryview]:
    vectors: list[bytes | memoryview] = []
    size = 0
    for name, vector in given.vectors.items():
        floats = np.ascontiguousarray(vector, "<f4")
        before = _before_floats(name, floats.nbytes)
        vectors += before, floats.data
        size += len(before) + floats.nbytes
    told = _field(_ID, _point_id(given.id)) + _fields(_PAYLOAD, given.payload)
    told += _before_vectors(size)
    return [_POINTS + varint(len(told) + size) + told, *vectors]


def dense(vector: Vector) -> bytes:
    """A vector's floats, little-endian."""
    return _field(_FLOATS, np.ascontiguousarray(vector, "<f4").tobytes())


@lru_cache(maxsize=256)
def _before_floats(name: str, size: int) -> bytes:
    """All of a named vector's entry but its floats, which take ``size`` bytes."""
    floats = _FLOATS + varint(size)
    inner = _DENSE + varint(len(floats) + size) + floats
    value = _key(name) + varint(len(inner) + size) + inner
    return _VECTOR + varint(len(value) + size) + value


@lru_cache(maxsize=256)
def _before_vectors(size: int) -> bytes:
    """What is in front of the entries of all vectors, which take ``size`` bytes."""
    named = _NAMED + varint(size)
    return _VECTORS + varint(len(named) + size) + named


def _point_id(id: PointId) -> bytes:
    return _NUMBER + varint(id) if isinstance(id, int) else _field(_UUID, id.encode())


def _field(tag: bytes, data: bytes) -> bytes:
    return tag + varint(len(data)) + data


@lru_cache(maxsize=4096)
def _key(key: str) -> bytes:
    """The first part of an entry of any map, and the tag of its second."""
    return _field(b"\x0a", key.encode()) + b"\x12"


def _fields(tag: bytes, values: Mapping[str, Any]) -> bytes:
    """A map's entries, each with the tag of its field."""
    entries = []
    for key, value in values.items():
        kind = type(value)
        kept = kind is int or kind is bool or (kind is str and len(value) <= LABEL)
        entries.append((_kept_entry if kept else _entry)(tag, key, value))
    return b"".join(entries)


def _entry(tag: bytes, key: str, value: Any) -> bytes:
    start, encoded = _key(key), _value(value)
    size = varint(len(encoded))
    return b"".join((tag, varint(len(start) + len(size) + len(encoded)), start, size, encoded))


_kept_entry: Final = lru_cache(maxsize=4096, typed=True)(_entry)  # True is no 1
"""Entries of short values: many rows have the same."""


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
