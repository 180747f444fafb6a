"""Index: what may be asked for."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from samespace.errors import InvalidInput
from samespace.index import Index


def test_the_default_is_a_graph_that_the_store_builds_in_its_own_time() -> None:
    assert Index() == Index(kind="hnsw", m=16, ef_construction=64, quantization=None, build="auto")


@pytest.mark.parametrize(
    "options",
    [
        *({"kind": kind} for kind in ("hnsw", "flat")),
        *({"quantization": form} for form in (None, "half", "int8", "binary")),
        *({"build": moment} for moment in ("auto", "immediate", "manual")),
        {"m": 2, "ef_construction": 2},
        {"m": 100, "ef_construction": 1000},
    ],
    ids=str,
)
def test_what_may_be_asked_for(options: dict[str, Any]) -> None:
    for name, value in options.items():
        assert getattr(Index(**options), name) == value


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "ivfflat"}, "choose one of 'hnsw', 'flat'"),
        ({"kind": None}, "Index.kind is None"),
        ({"kind": ["hnsw"]}, "Index.kind is"),
        ({"quantization": "scalar"}, "choose one of None, 'half', 'int8', 'binary'"),
        ({"quantization": False}, "Index.quantization is False"),
        ({"build": "later"}, "choose one of 'auto', 'immediate', 'manual'"),
        ({"m": 1}, "Index.m is 1; pass a whole number from 2"),
        ({"m": 16.0}, "Index.m is 16.0"),
        ({"m": True}, "Index.m is True"),
        ({"m": None}, "Index.m is None"),
        ({"ef_construction": 0}, "Index.ef_construction is 0"),
        ({"ef_construction": "64"}, "Index.ef_construction is '64'"),
    ],
    ids=str,
)
def test_what_is_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Index(**options)


def test_an_index_is_a_value() -> None:
    assert hash(Index(m=8)) == hash(Index(m=8))
    with pytest.raises(FrozenInstanceError):
        Index().m = 8  # type: ignore[misc]
