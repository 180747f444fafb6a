"""The patterns and byte limits of names, keys and ids: the only place that knows them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

from samespace.errors import InvalidInput, excerpt

COLLECTION_BYTES: Final = 48
ID_BYTES: Final = 512
KEY_BYTES: Final = 256
IDENTIFIER_BYTES: Final = 63
"""Longest identifier that PostgreSQL keeps whole (NAMEDATALEN - 1)."""

_COLLECTION = re.compile(r"[a-z][a-z0-9_]*\Z")
_SURROGATE = re.compile("[\ud800-\udfff]")


def check_collection_name(name: object) -> str:
    """Return ``name`` if it may name a collection of ours, in every store.

    Lower-case ASCII letters, digits and ``_``, starting with a letter, at most 48 bytes.
    """
    if not isinstance(name, str) or not is_collection_name(name):
        raise InvalidInput(
            f"collection name {excerpt(name)} is not usable: use 1 to {COLLECTION_BYTES} characters "
            "of a-z, 0-9 and _, starting with a letter "
            "(one of another name that others made: samespace adopt; then open_store(), or pass layout=)"
        )
    return name


def is_collection_name(name: str) -> bool:
    """Whether a collection of ours may have this name."""
    return _COLLECTION.match(name) is not None and len(name) <= COLLECTION_BYTES


def check_part(name: object, *, what: str) -> str:
    """Return ``name`` if it can name a column or a field that exists already."""
    if not isinstance(name, str) or not name or is_unstorable(name):
        raise InvalidInput(f"{what} {excerpt(name)} is not an identifier: it is empty or has a NUL")
    return name


def check_identifier(name: object, *, what: str) -> str:
    """Return ``name`` if PostgreSQL can have it as the name of a column or schema (1 to 63 bytes)."""
    if len(check_part(name, what=what).encode()) > IDENTIFIER_BYTES:
        raise InvalidInput(
            f"{what} {excerpt(name)} is longer than {IDENTIFIER_BYTES} bytes; "
            "the server would silently cut it"
        )
    return str(name)


def check_id(value: object, *, what: str = "id") -> str:
    """Return ``value`` if it may be a document's id: a storable string of 1 to 512 UTF-8 bytes."""
    if not isinstance(value, str) or not value:
        raise InvalidInput(f"{what} {excerpt(value)} is not usable: pass a non-empty string")
    check_storable(value, what=what)
    if len(value) > ID_BYTES // 4 and len(value.encode()) > ID_BYTES:
        raise InvalidInput(
            f"{what} {excerpt(value)} is longer than {ID_BYTES} bytes; use a hash of it"
        )
    return value


def check_storable(value: object, *, what: str) -> str:
    """Return ``value`` if a store can be asked for it: a string without NUL or lone surrogate."""
    if not isinstance(value, str):
        raise InvalidInput(f"{what} is {excerpt(value)}; pass a string")
    if is_unstorable(value):
        raise InvalidInput(f"{what} {excerpt(value)} has a NUL or a lone surrogate; remove it")
    return value


def check_key(value: object, *, what: str = "metadata key") -> str:
    """Return ``value`` if it may be a metadata key: a storable string of 1 to 256 UTF-8 bytes."""
    if not isinstance(value, str) or not value:
        raise InvalidInput(f"{what} {excerpt(value)} is not usable: keys are non-empty strings")
    check_storable(value, what=what)
    if len(value) > KEY_BYTES // 4 and len(value.encode()) > KEY_BYTES:
        raise InvalidInput(f"{what} {excerpt(value)} is longer than {KEY_BYTES} bytes; shorten it")
    return value


def check_texts_listed(texts: Any) -> None:
    """:class:`InvalidInput` for what is no list of strings: one string, a generator, a dict."""
    if isinstance(texts, str):
        raise InvalidInput("texts is one string; pass a list of strings")
    is_listed = hasattr(texts, "__len__") and hasattr(texts, "__getitem__")
    if not is_listed or isinstance(texts, bytes | Mapping):
        raise InvalidInput(f"texts is {excerpt(texts)}; pass a list of strings")
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInput(f"text {place} is {excerpt(text)}; pass a string")


def is_unstorable(text: str) -> bool:
    """Whether a string has a NUL or a lone surrogate, which no store keeps."""
    if text.isascii():
        return "\x00" in text
    return "\x00" in text or _SURROGATE.search(text) is not None


def bounded(stem: str, suffix: str = "") -> str:
    """``stem + suffix``, cut to 63 bytes; a cut stem ends in 8 hex digits of its own SHA-256."""
    if len((stem + suffix).encode()) <= IDENTIFIER_BYTES:
        return stem + suffix
    digest = hashlib.sha256(stem.encode()).hexdigest()[:8]
    room = IDENTIFIER_BYTES - len(suffix.encode()) - len(digest) - 1
    return stem.encode()[:room].decode(errors="ignore") + "_" + digest + suffix
