"""The rights of an ordinary user, in tests that root may run."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_VERSION: Final = 0x20080522
_READING_ANYTHING: Final = 0b110
"""The capabilities that pass over the rights of files and folders."""


@contextmanager
def ordinary() -> Iterator[None]:
    """In this thread, and in those that it starts, what nobody may read cannot be read."""
    before = _capabilities()
    _become([before[0] & ~_READING_ANYTHING, *before[1:]])
    try:
        yield
    finally:
        _become(before)


def _capabilities() -> list[int]:
    found = (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).capget((ctypes.c_uint32 * 2)(_VERSION, 0), found) == 0
    return list(found)


def _become(capabilities: list[int]) -> None:
    wanted = (ctypes.c_uint32 * 6)(*capabilities)
    assert ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(_VERSION, 0), wanted) == 0
