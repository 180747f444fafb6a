"""Documents: what may be stored, and metadata that comes back as it went in."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal
from enum import IntEnum
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samespace.documents import (
    MAX_DEPTH,
    Document,
    Hit,
    Parent,
    Rejected,
    WriteReport,
    check_document,
    decode_metadata,
    encode_metadata,
)
from samespace.errors import InvalidInput
from samespace.names import KEY_BYTES

TEXTS = st.text().filter(lambda text: "\x00" not in text)
KEYS = st.text(min_size=1, max_size=KEY_BYTES // 4).filter(lambda key: "\x00" not in key)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=10
)
METADATA = st.dictionaries(KEYS, VALUES)


class Colour(IntEnum):
    RED = 1


def document(**changes: Any) -> Document:
    return Document(**{"id": "a1", "text": "A text.", **changes})


def nested(depth: int) -> dict[str, Any]:
    """Objects in one another, ``depth`` in all."""
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"k": value}
    return value


# Documents


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"id": "💡"},
        {"text": "  x\n"},
        {"embed_text": "A title. A text."},
        {"text": "-", "embed_text": "x"},
        {"parent": Parent("p")},
        {"parent": Parent("p", ordinal=0, span=(0, 0))},
        {"parent": Parent("p", ordinal=2**31 - 1, span=(5, 2**31 - 1))},
    ],
    ids=repr,
)
def test_a_document_that_can_be_stored(changes: dict[str, Any]) -> None:
    check_document(document(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": ""}, "id '' is not usable"),
        ({"id": 5}, "id 5 is not usable"),
        ({"id": "a\x00"}, "has a NUL"),
        ({"id": "x" * 513}, "longer than 512 bytes"),
        ({"text": None}, "text is None; pass a string"),
        ({"text": b"bytes"}, "text is b'bytes'"),
        ({"text": ""}, "text is blank"),
        ({"text": " \t\n\u2003"}, "text is blank"),
        ({"text": "a\x00b"}, "text has a NUL"),
        ({"text": "a\ud800"}, "text has a NUL or a lone surrogate"),
        ({"embed_text": ""}, "embed_text is blank"),
        ({"embed_text": "\x00"}, "embed_text has a NUL"),
        ({"embed_text": 5}, "embed_text is 5"),
        ({"parent": "p"}, "parent is 'p'; pass a Parent"),
        ({"parent": Parent("")}, "parent.id '' is not usable"),
        ({"parent": Parent("p", ordinal=-1)}, "whole numbers"),
        ({"parent": Parent("p", ordinal=2**31)}, "whole numbers"),
        ({"parent": Parent("p", ordinal=True)}, "whole numbers"),
        ({"parent": Parent("p", span=(-1, 2))}, "whole numbers"),
        ({"parent": Parent("p", span=(0.0, 1.0))}, "whole numbers"),  # type: ignore[arg-type]
        ({"parent": Parent("p", span=(None, 3))}, "whole numbers"),  # type: ignore[arg-type]
        ({"parent": Parent("p", span="ab")}, "whole numbers"),  # type: ignore[arg-type]
        ({"parent": Parent("p", span=())}, "pass \\(start, end\\)"),  # type: ignore[arg-type]
        ({"parent": Parent("p", span=5)}, "pass \\(start, end\\)"),  # type: ignore[arg-type]
        ({"parent": Parent("p", span=0)}, "pass \\(start, end\\)"),  # type: ignore[arg-type]
        ({"parent": Parent("p", span=(2, 1))}, "pass \\(start, end\\)"),
    ],
    ids=ascii,
)
def test_a_document_that_cannot_be_stored(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        check_document(document(**changes))


@pytest.mark.parametrize(
    "value", [None, "a text", {"id": "a1", "text": "x"}, ("a1", "x")], ids=repr
)
def test_what_is_no_document(value: Any) -> None:
    with pytest.raises(InvalidInput, match="expected a Document"):
        check_document(value)


def test_a_document_without_a_vector_may_be_blank_where_that_is_allowed() -> None:
    check_document(document(text=""), allow_blank=True)
    with pytest.raises(InvalidInput, match="NUL"):
        check_document(document(text="\x00"), allow_blank=True)


def test_what_is_embedded_is_the_text_unless_something_else_is_named() -> None:
    assert document().embedded_text == "A text."
    assert document(embed_text="Title. A text.").embedded_text == "Title. A text."


def test_vectors_take_no_part_in_comparison() -> None:
    vector = np.ones(3, dtype=np.float32)
    assert document(vector=vector) == document()
    assert Hit(document(), 0.5, vector) == Hit(document(), 0.5)


def test_two_documents_do_not_share_their_default_metadata() -> None:
    assert document().metadata is not document().metadata


# Metadata


@given(METADATA)
def test_metadata_comes_back_as_it_went_in(metadata: dict[str, Any]) -> None:
    encoded = encode_metadata(metadata)
    assert orjson.loads(encoded) == metadata
    decoded = decode_metadata(encoded)
    assert repr(decoded) == repr(
        metadata
    )  # stricter than ==: 1 is not 1.0 is not True, 0.0 not -0.0


@pytest.mark.parametrize("number", [1e16, -1e16, 1.5e300, 2.0**63, 1e22])
def test_a_large_float_stays_a_float_in_stores_that_expand_exponents(number: float) -> None:
    written = encode_metadata({"n": number})
    assert b"e" not in written
    assert written.endswith(b".0}")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, "is nan, which JSON lacks; use None"),
        (math.inf, "is inf"),
        (-math.inf, "is -inf"),
        (2**63, "beyond int64"),
        (-(2**63) - 1, "beyond int64"),
        (10**30, "beyond int64"),
        ("a\x00b", "NUL"),
        ("\ud800", "lone surrogate"),
        (b"bytes", "is a bytes, which JSON lacks"),
        ((1, 2), "is a tuple"),
        ({1, 2}, "is a set"),
        (datetime(2024, 1, 1, tzinfo=UTC), "is a datetime"),
        (Decimal("1.5"), "is a Decimal"),
        (1j, "is a complex"),
        (np.float32(1), "is a float32"),
        (np.int64(1), "is a int64"),
        (np.ones(2), "is a ndarray"),
        (Colour.RED, "is a Colour"),
        (object, "is a type"),
        ({"": 1}, "metadata key '' is not usable"),
        ({1: 2}, "metadata key 1 is not usable"),
        ({None: 2}, "metadata key None is not usable"),
        ({"k\x00": 2}, "NUL"),
        ({"k" * 257: 2}, "longer than 256 bytes"),
    ],
    ids=ascii,
)
def test_what_metadata_cannot_hold(value: object, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        encode_metadata({"key": value})
    with pytest.raises(InvalidInput, match=message):
        encode_metadata({"outer": [{"inner": [1, value]}]})


def test_the_refusal_names_the_path() -> None:
    with pytest.raises(InvalidInput, match=r"'author\.names\.1' has a NUL"):
        encode_metadata({"author": {"names": ["ok", "\x00"]}})


@pytest.mark.parametrize("metadata", [None, [], "{}", [("a", 1)], b"{}"], ids=repr)
def test_metadata_is_a_dict(metadata: object) -> None:
    with pytest.raises(InvalidInput, match="pass a dict"):
        encode_metadata(metadata)


def test_metadata_may_be_nested_to_a_depth() -> None:
    encode_metadata(nested(MAX_DEPTH))
    with pytest.raises(InvalidInput, match="deeper than 16"):
        encode_metadata(nested(MAX_DEPTH + 1))


def test_a_list_counts_as_a_level() -> None:
    value: Any = 1
    for _ in range(MAX_DEPTH - 1):
        value = [value]
    encode_metadata({"a": value})
    with pytest.raises(InvalidInput, match="deeper than 16"):
        encode_metadata({"a": [value]})


def test_a_cycle_comes_to_an_end() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(InvalidInput, match="deeper than 16"):
        encode_metadata({"a": cycle})


# Reports


def test_reports_add_up() -> None:
    refused = Rejected("b", InvalidInput("no"))
    first = WriteReport(written=2, tokens=10, truncated=("a",), pending=1)
    second = WriteReport(written=3, skipped=1, rejected=(refused,), tokens=5, truncated=("c",))
    assert first + second == WriteReport(
        written=5, skipped=1, rejected=(refused,), tokens=15, truncated=("a", "c"), pending=1
    )
    assert first + WriteReport() == first
