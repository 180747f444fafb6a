"""Points as the bytes of their messages, in a fifth of the time that it takes to build objects."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

import numpy as np
from qdrant_client import grpc

from samespace.protocols import Vector
from samespace.stores.qdrant.requests import Point, PointId, Spelt

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
_SIGNS: Final[Mapping[type, bytes]] = {str: _TEXT, dict: _OBJECT, list: _LIST}
_FIELD: Final = _tag(grpc.Struct, "fields")
_ITEM: Final = _tag(grpc.ListValue, "values")


def points(given: Iterable[Point]) -> list[bytes | Vector]:
    """The points of an upsert in parts that are to be joined, so that vectors are copied once."""
    parts: list[bytes | Vector] = []
    for point in given:
        vectors: list[bytes | Vector] = []
        size = 0
        for name, vector in point.vectors.items():
            floats = np.ascontiguousarray(vector, "<f4")
            before = _before_floats(name, floats.nbytes)
            vectors += before, floats
            size += len(before) + floats.nbytes
        told = b"".join(
            (_point_id(point.id), _fields(_PAYLOAD, point.payload), _before_vectors(size))
        )
        parts += _POINTS + varint(len(told) + size), told, *vectors
    return parts


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
    told = _NUMBER + varint(id) if isinstance(id, int) else _field(_UUID, id.encode())
    return _field(_ID, told)


def _field(tag: bytes, data: bytes) -> bytes:
    return tag + varint(len(data)) + data


@lru_cache(maxsize=4096)
def _key(key: str) -> bytes:
    """The first part of an entry of any map, and the tag of its second."""
    return _field(b"\x0a", key.encode()) + b"\x12"


def _fields(tag: bytes, values: Mapping[str, Any]) -> bytes:
    """A map's entries, each with the tag of its field."""
    parts = []
    for key, value in values.items():
        kind = type(value)
        if (kind is str and len(value) <= LABEL) or kind is int or kind is bool:
            parts.append(_kept_entry(tag, key, value))
        elif kind in _SIGNS:
            inner = _inner(value)
            parts += _before(tag, key, _SIGNS[kind], len(inner)), inner
        elif kind is Spelt:
            inner = value.wire = _inner(value.value) if value.wire is None else value.wire
            sign = _OBJECT if value.json.startswith(b"{") else _LIST
            parts += _before(tag, key, sign, len(inner)), inner
        else:
            parts.append(_entry(tag, key, value))
    return b"".join(parts)


def _inner(value: str | dict[str, Any] | list[Any]) -> bytes:
    """What is inside of a text, an object or a list."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict):
        return _fields(_FIELD, value)
    return b"".join([_item(each) for each in value])


@lru_cache(maxsize=4096)
def _before(tag: bytes, key: str, sign: bytes, size: int) -> bytes:
    """All of an entry but the inside of its value, which takes ``size`` bytes."""
    inner = sign + varint(size)
    value = _key(key) + varint(len(inner) + size) + inner
    return tag + varint(len(value) + size) + value


def _entry(tag: bytes, key: str, value: Any) -> bytes:
    encoded = _value(value)
    start = _key(key) + varint(len(encoded))
    return tag + varint(len(start) + len(encoded)) + start + encoded


_kept_entry: Final = lru_cache(maxsize=4096, typed=True)(_entry)  # True is no 1
"""Entries of short values: many rows have the same."""


def _sign(value: str | dict[str, Any] | list[Any]) -> bytes:
    if isinstance(value, str):
        return _TEXT
    return _OBJECT if isinstance(value, dict) else _LIST


def _item(value: Any) -> bytes:
    kind = type(value)
    if kind is str and len(value) <= WORD:
        return _word(value)
    if kind is dict:
        inner = _fields(_FIELD, value)
        return _before_item(len(inner)) + inner
    return _field(_ITEM, _value(value))


@lru_cache(maxsize=4096)
def _word(text: str) -> bytes:
    """A short text in a list: many rows have the same terms."""
    return _field(_ITEM, _value(text))


@lru_cache(maxsize=4096)
def _before_item(size: int) -> bytes:
    """All of an object in a list but its entries, which take ``size`` bytes."""
    inner = _OBJECT + varint(size)
    return _ITEM + varint(len(inner) + size) + inner


def _value(value: Any) -> bytes:
    """A value of a payload, which is what JSON has."""
    if isinstance(value, str | dict | list):  # or of a kind of it, as numpy's strings are
        return _field(_sign(value), _inner(value))
    if isinstance(value, bool):
        return _BOOL + varint(value)
    if isinstance(value, int):
        return _INTEGER + varint(struct.unpack("<Q", struct.pack("<q", value))[0])
    return _NULL + b"\x00" if value is None else _DOUBLE + struct.pack("<d", value)
