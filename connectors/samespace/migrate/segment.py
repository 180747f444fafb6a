"""One file of an archive of vectors: a header, and after it records of one size, only ever appended."""

from __future__ import annotations

import fcntl
import os
import secrets
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Self

import numpy as np
import orjson
from numpy.typing import NDArray

from samespace.errors import InvalidInput, excerpt
from samespace.protocols import Vector
from samespace.space import EmbeddingSpace

ENDING: Final = ".vectors"
KEY_BYTES: Final = 16
_FORMAT: Final = b"samespace vectors 1\n"
_ANY_FORMAT: Final = b"samespace vectors "
_LONGEST_HEADER: Final = 1 << 20
_BLOCK_BYTES: Final = 1 << 18


class Segment:
    """A file of records: key, checksum and float16 vector. Only who has its lock appends to it.

    A header or a last record that a crash has torn counts as not written, and is written over;
    :class:`InvalidInput` for a file of another kind, format or space. What the system refuses is an
    :class:`OSError`.
    """

    def __init__(self, path: Path, space: EmbeddingSpace, *, new: bool = False) -> None:
        self._path = path
        self._header = _header(space)
        self._type = _record_type(space.dimensions)
        made = os.O_CREAT | os.O_EXCL if new else 0
        self._handle = os.open(path, os.O_RDWR | os.O_CLOEXEC | made, 0o600)
        try:
            _check_header(os.pread(self._handle, _LONGEST_HEADER, 0), self._header, path, space)
        except BaseException:
            self.close()
            raise

    @classmethod
    def begun(cls, folder: Path, space: EmbeddingSpace) -> Self:
        """A new one, in a file that nobody else has."""
        while True:
            segment = cls(folder / f"{secrets.token_hex(8)}{ENDING}", space, new=True)
            if segment.claim():
                return segment
            segment.close()  # another saw the file, and was faster

    def claim(self) -> bool:
        """Take its lock, which ends with the process whatever happens; False if another has it."""
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if self._size() < len(self._header):
            self._write(self._header, 0)
        return True

    def close(self) -> None:
        """Give back the file, and the lock with it."""
        os.close(self._handle)

    def sync(self) -> None:
        """Have all of it on disk, whatever becomes of the machine."""
        os.fsync(self._handle)

    def __len__(self) -> int:
        """How many whole records there are, also those that another process has appended."""
        return max(0, self._size() - len(self._header)) // self._type.itemsize

    def prefixes(self, count: int) -> Iterator[NDArray[np.uint64]]:
        """The first 8 bytes of the keys of so many records, a block at a time."""
        step = max(1, _BLOCK_BYTES // self._type.itemsize)
        for first in range(0, count, step):
            block = self._bytes(first, min(step, count - first))
            yield np.frombuffer(block, self._type)["prefix"].copy()

    def append(self, vectors: Mapping[bytes, Vector]) -> int:
        """Write records by their keys; the number of the first."""
        first = len(self)
        records = np.zeros(len(vectors), self._type)
        keys = np.frombuffer(b"".join(vectors), "<u8").reshape(-1, 2)
        records["prefix"], records["rest"] = keys[:, 0], keys[:, 1]
        records["vector"] = np.stack(list(vectors.values()))
        records["check"] = [_checksum(record) for record in records]
        self._write(records.tobytes(), self._place(first))
        return first

    def read(self, number: int, key: bytes) -> Vector | None:
        """A record's vector, float32; None if the record is of another key or damaged."""
        content = self._bytes(number, 1)
        if len(content) < self._type.itemsize or not content.startswith(key):
            return None
        record = np.frombuffer(content, self._type)[0]
        if record["check"] != _checksum(record):
            return None
        return np.asarray(record["vector"], np.float32)

    def _bytes(self, first: int, count: int) -> bytes:
        return os.pread(self._handle, count * self._type.itemsize, self._place(first))

    def _place(self, number: int) -> int:
        return len(self._header) + number * self._type.itemsize

    def _size(self) -> int:
        return os.fstat(self._handle).st_size

    def _write(self, content: bytes, place: int) -> None:
        done = 0
        while done < len(content):
            done += os.pwrite(self._handle, content[done:], place + done)


def _record_type(dimensions: int) -> np.dtype[np.void]:
    """The key is two numbers, of which the first is what records are looked up by."""
    fields = [
        ("prefix", "<u8"),
        ("rest", "<u8"),
        ("check", "<u4"),
        ("vector", "<f2", (dimensions,)),
    ]
    return np.dtype(fields)


def _checksum(record: np.void) -> int:
    """CRC-32 of a record's key and vector."""
    content = record.tobytes()
    return zlib.crc32(content[KEY_BYTES + 4 :], zlib.crc32(content[:KEY_BYTES]))


def _header(space: EmbeddingSpace) -> bytes:
    return _FORMAT + orjson.dumps(space.to_dict(), option=orjson.OPT_SORT_KEYS) + b"\n"


def _check_header(found: bytes, wanted: bytes, path: Path, space: EmbeddingSpace) -> None:
    if found.startswith(wanted) or wanted.startswith(found):  # else it is not yet written whole
        return
    if found.startswith(_ANY_FORMAT) and not found.startswith(_FORMAT):
        raise InvalidInput(
            f"{excerpt(path.name)} is of a newer format than this version reads; install a newer samespace, "
            "or pass another folder (--keep-full)"
        )
    other = _space_of(found)
    if other is None or other == space:
        raise InvalidInput(
            f"{excerpt(path.name)} is no archive of vectors, or the beginning of the file is damaged; remove "
            "the file, and its texts are embedded again, or pass another folder (--keep-full)"
        )
    raise InvalidInput(
        f"{excerpt(path.name)} holds vectors of {other}, and those to keep are of {space}; pass another "
        "folder (--keep-full)"
    )


def _space_of(header: bytes) -> EmbeddingSpace | None:
    said = header.removeprefix(_FORMAT).partition(b"\n")[0]
    try:
        return EmbeddingSpace.from_dict(orjson.loads(said))
    except (ValueError, TypeError):
        return None
