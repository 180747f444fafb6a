"""Names, keys and ids: what may be one, and what is refused before anything is sent."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samespace.errors import InvalidInput
from samespace.names import (
    COLLECTION_BYTES,
    ID_BYTES,
    IDENTIFIER_BYTES,
    KEY_BYTES,
    bounded,
    check_collection_name,
    check_id,
    check_identifier,
    check_key,
    is_unstorable,
)

STORABLE = st.text().filter(lambda text: "\x00" not in text)  # hypothesis leaves surrogates out
UNSTORABLE = ["\x00", "a\x00b", "é\x00", "\ud800", "a\udfff", "\udc00 \ud800"]
NO_STRINGS = [None, 0, b"name", ["name"], Ellipsis]


# Collections of ours


@pytest.mark.parametrize("name", ["a", "manuals", "docs_2024", "a_", "x" * COLLECTION_BYTES])
def test_a_collection_may_be_called(name: str) -> None:
    assert check_collection_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *NO_STRINGS,
        *UNSTORABLE,
        "",
        " ",
        "a b",
        "a ",
        " a",
        "a\n",
        "a\x00",
        "x" * (COLLECTION_BYTES + 1),
        "Manuals",
        "mAnuals",
        "MANUALS",
        "1st",
        "_hidden",
        "-a",
        "a-b",
        "a%s",
        "%",
        "..",
        ".",
        "../etc/passwd",
        "a/b",
        "a\\b",
        "/a",
        "~a",
        "a.b",
        "a*",
        "a,b",
        "a;drop table b",
        'a"b',
        "a'b",
        "bücher",
        "aé",
        "\uff41",
        "a٣",
        "\u0131",
    ],
    ids=ascii,
)
def test_a_collection_may_not_be_called(name: object) -> None:
    with pytest.raises(InvalidInput, match="is not usable: use 1 to 48 characters"):
        check_collection_name(name)


@given(st.text())
def test_every_name_that_passes_is_plain(name: str) -> None:
    try:
        check_collection_name(name)
    except InvalidInput:
        return
    assert name.encode().isascii()
    assert name == name.lower()
    assert name.isidentifier()
    assert len(name) <= COLLECTION_BYTES


# Identifiers of somebody else


@pytest.mark.parametrize("name", ["Embedding", "a b", "%", 'say "x"', "größe", "x" * 63, "é" * 31])
def test_an_existing_column_may_have_any_name(name: str) -> None:
    assert check_identifier(name, what="column") == name


@pytest.mark.parametrize("name", [*NO_STRINGS, *UNSTORABLE, ""], ids=ascii)
def test_what_cannot_name_a_column(name: object) -> None:
    with pytest.raises(InvalidInput, match="is not an identifier"):
        check_identifier(name, what="column")


@pytest.mark.parametrize("name", ["x" * 64, "é" * 32])
def test_what_a_server_would_cut_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="longer than 63 bytes"):
        check_identifier(name, what="column")


# Ids and keys


@pytest.mark.parametrize("value", ["a", " ", "%", "../..", "A", "💡", "x" * ID_BYTES, "é" * 256])
def test_an_id_is_any_string(value: str) -> None:
    assert check_id(value) is value


@pytest.mark.parametrize(
    "value", [*NO_STRINGS, *UNSTORABLE, "", "x" * (ID_BYTES + 1), "é" * 257, "💡" * 129], ids=ascii
)
def test_what_is_no_id(value: object) -> None:
    with pytest.raises(InvalidInput, match=r"^parent\.id "):
        check_id(value, what="parent.id")


@pytest.mark.parametrize("value", ["lang", "a.b", " ", "$where", "x" * KEY_BYTES, "é" * 128])
def test_a_key_is_any_string(value: str) -> None:
    assert check_key(value) is value


@pytest.mark.parametrize(
    "value", [*NO_STRINGS, *UNSTORABLE, "", "x" * (KEY_BYTES + 1), "é" * 129, "💡" * 65], ids=ascii
)
def test_what_is_no_key(value: object) -> None:
    with pytest.raises(InvalidInput, match="metadata key "):
        check_key(value)


@given(st.text(st.characters(), max_size=600))
def test_ids_pass_by_their_size_in_bytes(value: str) -> None:
    fits = 1 <= len(value.encode("utf-8", "surrogatepass")) <= ID_BYTES
    if fits and not is_unstorable(value):
        assert check_id(value) == value
    else:
        with pytest.raises(InvalidInput):
            check_id(value)


@pytest.mark.parametrize("text", UNSTORABLE, ids=ascii)
def test_no_store_keeps_a_nul_or_a_lone_surrogate(text: str) -> None:
    assert is_unstorable(text)


@given(STORABLE)
def test_any_other_string_can_be_stored(text: str) -> None:
    assert not is_unstorable(text)


# Names that are put together


@given(STORABLE, st.text("abc_", max_size=20))
def test_bounded_names_fit_and_keep_their_ending(stem: str, suffix: str) -> None:
    name = bounded(stem, suffix)
    assert len(name.encode()) <= IDENTIFIER_BYTES
    assert name.endswith(suffix)
    assert bounded(stem, suffix) == name


def test_a_name_that_fits_is_left_alone() -> None:
    assert bounded("manuals", "_vectors") == "manuals_vectors"
    assert bounded("x" * 63) == "x" * 63


def test_a_name_that_does_not_fit_ends_in_digits_of_its_own() -> None:
    stem = "manuals_" * 10
    digest = hashlib.sha256(stem.encode()).hexdigest()[:8]
    assert bounded(stem, "_idx") == f"{stem[:50]}_{digest}_idx"


def test_a_cut_never_splits_a_character() -> None:
    assert bounded("é" * 40, "_").startswith("é" * 26 + "_")


def test_long_names_that_begin_alike_stay_apart() -> None:
    assert bounded("x" * 100 + "a", "_idx") != bounded("x" * 100 + "b", "_idx")
