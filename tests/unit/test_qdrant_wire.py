from __future__ import annotations

import struct
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client import grpc
from qdrant_client.conversions.conversion import RestToGrpc

from samespace.stores.qdrant.packing import json_points, local_points, message_upsert
from samespace.stores.qdrant.requests import Point, Spelt

keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | keys
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
ids = st.integers(0, 2**64 - 1) | st.uuids().map(str)
vectors = st.dictionaries(
    keys, st.lists(st.floats(width=32, allow_nan=False), max_size=40), max_size=3
)


@given(ids, st.dictionaries(keys, values, max_size=4), vectors)
def test_a_point_is_the_message_that_the_client_makes_of_it(
    id: int | str, payload: dict[str, Any], lists: dict[str, list[float]]
) -> None:
    arrays = {name: np.array(floats, dtype=np.float32) for name, floats in lists.items()}
    point = Point(id=id, payload=payload, vectors=arrays)
    sent = grpc.UpsertPoints.SerializeToString(message_upsert([point, point], None, "c"))
    assert grpc.UpsertPoints.FromString(sent) == grpc.UpsertPoints(
        collection_name="c", wait=True, points=[made_by_the_client(id, payload, lists)] * 2
    )


def made_by_the_client(
    id: int | str, payload: dict[str, Any], lists: dict[str, list[float]]
) -> grpc.PointStruct:
    named = {
        name: grpc.Vector(dense=grpc.DenseVector(data=floats)) for name, floats in lists.items()
    }
    return grpc.PointStruct(
        id=RestToGrpc.convert_extended_point_id(id),
        payload=RestToGrpc.convert_payload(payload),
        vectors=grpc.Vectors(vectors=grpc.NamedVectors(vectors=named)),
    )


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1])
def test_an_integer_that_qdrant_cannot_keep_is_not_cut(number: int) -> None:
    with pytest.raises(struct.error):
        message_upsert([Point(id=1, payload={"n": number})], None, "c")


def test_a_string_of_another_library_is_a_string() -> None:
    def sent(text: str) -> bytes:
        payload = {"text": text, "o": {"a": text, "l": [text]}}
        point = Point(id=1, payload=payload)
        encoded: bytes = message_upsert([point], None, "c").SerializeToString()
        return encoded

    assert sent(np.str_("abc")) == sent("abc")
    assert sent(np.str_("abc" * 30)) == sent("abc" * 30)


def test_what_rows_share_is_written_as_what_they_do_not() -> None:
    def points(values: Any, items: Any) -> list[Point]:
        return [Point(id=1, payload={"o": values, "x": {"l": items}})] * 2

    values, items = {"a": 1, "b": {"c": "text" * 30}}, ["a", {"b": 2.5}, None]
    plain, spelt = points(values, items), points(*map(Spelt, map(orjson.dumps, (values, items))))
    assert message_upsert(spelt, None, "c").SerializeToString() == (
        message_upsert(plain, None, "c").SerializeToString()
    )
    assert json_points(spelt, None) == json_points(plain, None)
    assert local_points(spelt) == local_points(plain)
