"""Who may use a server."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from samespace.backends.jina_api.serving import bearer, wrong_key
from samespace.errors import InvalidInput

ENVIRONMENT: Final = "SAMESPACE_SERVER_KEYS"


class Keys:
    """Keys that are never shown, and compared in a time that says nothing of them."""

    def __init__(self, keys: Iterable[str]) -> None:
        if isinstance(keys, str):
            raise InvalidInput('keys is one string; pass several, or one in a tuple: keys=("…",)')
        self._digests = [_digest(_checked(key, place)) for place, key in enumerate(keys)]

    def __len__(self) -> int:
        return len(self._digests)

    def check(self, authorization: str | None) -> None:
        """:class:`~samespace.backends.jina_api.serving.Refusal` of a header without one of the keys."""
        if not self._digests:
            return
        given = _digest(bearer(authorization))
        if not sum(hmac.compare_digest(given, each) for each in self._digests):
            raise wrong_key()


def read_keys(file: Path | None = None) -> tuple[str, ...]:
    """The keys in a file, one a line, and those in ``SAMESPACE_SERVER_KEYS``, with spaces between them.

    Lines that begin with ``#`` say nothing. :class:`InvalidInput` if the file cannot be read or has no
    key.
    """
    given = tuple(re.split(r"[\s,]+", os.environ.get(ENVIRONMENT, "").strip()))
    return (*(_in_file(file) if file else ()), *filter(None, given))


def _in_file(file: Path) -> list[str]:
    try:
        lines = [line.strip() for line in file.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or "it is no text"
        raise InvalidInput(f"the keys in {file} cannot be read: {said}") from None
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise InvalidInput(f"{file} has no key; write one into each line")
    return keys


def _checked(key: object, place: int) -> str:
    if not isinstance(key, str) or not key.isascii() or not re.fullmatch(r"[!-~]+", key):
        raise InvalidInput(
            f"key {place} is no key; take letters, digits and marks of ASCII, without spaces"
        )
    return key


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
