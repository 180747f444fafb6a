"""Vectors of full size, kept on disk so that no text is paid for twice."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from samespace.errors import InvalidInput, MigrationError, excerpt
from samespace.migrate.segment import ENDING, KEY_BYTES, Segment
from samespace.protocols import Matrix, Vector
from samespace.space import EmbeddingSpace

_FEW: Final = 4_096
_PART: Final = 16
_SEGMENT: Final = 1 << 40
"""A record's place is its number, and so many times the number of its segment."""


class VectorArchive:
    """Unit vectors of one space in a folder, by a hash of what they were made from.

    Each takes ``20 + 2 * dimensions`` bytes on disk, and some 20 in memory (40 while the folder is
    opened). Components are rounded to float16: 20,000 random directions of 1,024 dimensions, shortened to
    no less than 32 and normalised again, came within a cosine of 1 - 6e-8 of themselves, and such with
    heavy tails (Student's t, 1.5 degrees of freedom) within 1 - 4e-7.

    Several processes may add at once, each to a file of its own; what the others had added is seen from the
    next opening on. Whatever ends a process, what had been added is there; a record that was torn or
    damaged counts as absent. Threads may share it.

    Opening raises :class:`InvalidInput` for a folder that cannot be used, that holds vectors of another
    space, or in which the beginning of a file is damaged; later the disk's refusal is a
    :class:`MigrationError`.
    """

    def __init__(self, folder: Path | str, space: EmbeddingSpace) -> None:
        if not space.normalized:
            raise InvalidInput(
                f"an archive keeps unit vectors, and those of {space} are not; leave it out (--keep-full)"
            )
        self._folder, self._space = Path(folder), space
        self._lock = threading.Lock()
        self._segments: list[Segment] = []
        self._own = -1
        try:
            self._open()
        except BaseException as error:
            self.close()
            if not isinstance(error, OSError):
                raise
            raise InvalidInput(
                f"cannot use the folder {excerpt(str(folder))} as an archive of vectors: {error.strerror}; "
                "pass one that can be written to (--keep-full)"
            ) from error

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(self._folder.glob(f"*{ENDING}")):
            self._segments.append(Segment(path, self._space))
            if self._own < 0 and self._segments[-1].claim():
                self._own = len(self._segments) - 1
        if self._own < 0:
            self._own = len(self._segments)
            self._segments.append(Segment.begun(self._folder, self._space))
        self._places = _Places(self._segments)

    @property
    def space(self) -> EmbeddingSpace:
        """What the vectors are of."""
        return self._space

    def __len__(self) -> int:
        """How many vectors it knows of."""
        return len(self._places)

    def __repr__(self) -> str:
        return f"VectorArchive({str(self._folder)!r}, {self._space})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back the files; what was added is then on disk, even if the machine fails."""
        segments, self._segments = self._segments, []
        for number, segment in enumerate(segments):
            if number == self._own:
                segment.sync()
            segment.close()

    def find(self, keys: Sequence[bytes]) -> dict[bytes, Vector]:
        """Those of the keys that there are vectors of, float32, as :func:`rounded` gives them."""
        with self._lock, self._explained("read"):
            candidates = self._places.find(keys)
            return {
                key: vector
                for key, places in zip(keys, candidates, strict=True)
                if (vector := self._read(key, places)) is not None
            }

    def _read(self, key: bytes, places: Iterable[int]) -> Vector | None:
        found = (self._segments[place // _SEGMENT].read(place % _SEGMENT, key) for place in places)
        return next((vector for vector in found if vector is not None), None)

    def add(self, vectors: Mapping[bytes, Vector]) -> None:
        """Keep vectors of shape ``(dimensions,)`` by their keys."""
        if not vectors:
            return
        with self._lock, self._explained("write"):
            first = self._segments[self._own].append(vectors)
            self._places.add(vectors, self._own * _SEGMENT + first)

    @contextmanager
    def _explained(self, act: str) -> Iterator[None]:
        if not self._segments:
            raise InvalidInput(f"{self!r} is closed; open it again")
        try:
            yield
        except OSError as error:
            raise MigrationError(
                f"cannot {act} the archive of vectors {excerpt(str(self._folder))}: {error.strerror}; mend "
                "that and run it again, which pays for nothing that was kept"
            ) from error


class _Places:
    """Where records are, by the first half of their keys.

    Most are two sorted arrays, 16 bytes a record; the last ones a dict, until there are enough of them to
    sort all anew.
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        counts = list(map(len, segments))  # others may append meanwhile
        prefixes, places = np.empty(sum(counts), np.uint64), np.empty(sum(counts), np.int64)
        self._recent: dict[int, int] = {}
        end = 0
        for number, (segment, count) in enumerate(zip(segments, counts, strict=True)):
            places[end : end + count] = np.arange(count) + number * _SEGMENT
            for block in segment.prefixes(count):
                prefixes[end : end + len(block)] = block
                end += len(block)
        self._sort(prefixes, places)

    def __len__(self) -> int:
        return len(self._prefixes) + len(self._recent)

    def _sort(self, prefixes: NDArray[np.uint64], places: NDArray[np.int64]) -> None:
        order = np.argsort(prefixes, kind="stable")
        self._prefixes, self._places = prefixes[order], places[order]

    def find(self, keys: Sequence[bytes]) -> list[list[int]]:
        """Places of each key, and of others that begin as it does."""
        wanted = _prefixes(keys)
        ends = (np.searchsorted(self._prefixes, wanted, side) for side in ("left", "right"))
        found = [self._places[first:end].tolist() for first, end in zip(*ends, strict=True)]
        for places, prefix in zip(found, wanted.tolist(), strict=True):
            if prefix in self._recent:
                places.append(self._recent[prefix])
        return found

    def add(self, keys: Iterable[bytes], first: int) -> None:
        """Note keys whose records follow one another."""
        wanted = _prefixes(keys).tolist()
        self._recent |= {prefix: first + number for number, prefix in enumerate(wanted)}
        if len(self._recent) < max(_FEW, len(self._prefixes) // _PART):
            return
        prefixes = np.fromiter(self._recent.keys(), np.uint64, len(self._recent))
        places = np.fromiter(self._recent.values(), np.int64, len(self._recent))
        self._recent = {}
        self._sort(
            np.concatenate([self._prefixes, prefixes]), np.concatenate([self._places, places])
        )


def _prefixes(keys: Iterable[bytes]) -> NDArray[np.uint64]:
    return np.frombuffer(b"".join(keys), "<u8")[::2].astype(np.uint64)


def rounded(vectors: Matrix) -> Matrix:
    """Vectors as an archive gives them back."""
    return vectors.astype(np.float16).astype(np.float32)


def document_key(space: EmbeddingSpace, text: str, *, cut: bool = False) -> bytes:
    """The key of a document's text, embedded alone; ``cut`` if the model did not see all of it."""
    return _hash([space.id, "cut text" if cut else "text", text])


def chunk_keys(space: EmbeddingSpace, chunks: Sequence[str]) -> list[bytes]:
    """The keys of chunks that are embedded in sight of one another: of each with all of them."""
    together = _hash([space.id, "chunks", *chunks])
    return [_hash([together.hex(), str(place)]) for place in range(len(chunks))]


def _hash(parts: Iterable[str]) -> bytes:
    """No other parts have the same bytes, for each has its length in front of it."""
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    for part in parts:
        content = part.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.digest()
