"""Computing beside an event loop, and no longer than somebody waits for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol, TypeVar

from samespace.protocols import Matrix, Usage
from samespace.space import EmbeddingSpace

T = TypeVar("T")
Stop = Callable[[], bool]
"""Whether nobody waits for the rest any more."""


NOTHING: Final = Usage(0)


class Stopped(Exception):
    """The caller is gone."""


class Answer(NamedTuple):
    """Vectors, and what they cost."""

    vectors: Matrix
    usage: Usage


class Model(Protocol):
    """A model with one space, which any number of threads may ask."""

    @property
    def space(self) -> EmbeddingSpace:
        """The space of its vectors."""

    def documents(self, texts: Sequence[str], stop: Stop = bool) -> Answer:
        """Vectors of documents."""

    def queries(self, texts: Sequence[str], stop: Stop = bool) -> Answer:
        """Vectors of queries."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as a document has it."""

    def provenance(self) -> Mapping[str, str]:
        """What makes the vectors."""


async def computed_async(work: Callable[[Stop], T]) -> T:
    """What ``work`` returns; in a worker thread, which ends after its batch once the task is cancelled."""
    left = threading.Event()
    try:
        return await asyncio.to_thread(work, left.is_set)
    finally:
        left.set()


def computed(work: Callable[[Stop], T]) -> T:
    """What ``work`` returns."""
    return work(bool)
