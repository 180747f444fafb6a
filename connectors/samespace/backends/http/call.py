"""What one call has come to so far: its texts, what was paid, cut and refused."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from samespace.backends.http.gate import Stop
from samespace.errors import EmbeddingError
from samespace.protocols import Usage

FAILING_TEXTS: Final = 4
"""Texts in a row on each of which alone a server may fail, and be thought well."""
ATTEMPTS_IN_SEARCH: Final = 2
"""At each part of a portion that has failed as a whole, for as long as that is tried again."""

S = TypeVar("S")


@dataclass(slots=True)
class Call(Generic[S]):
    """One call; several tasks or threads add to it, each step of which is one operation."""

    session: S
    task: str | None
    paid: list[int] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
    refused: dict[int, EmbeddingError] = field(default_factory=dict)
    stop: Stop = field(default_factory=Stop)

    def usage(self) -> Usage:
        """The tokens of the requests that were answered, and the texts of them that were cut."""
        return Usage(sum(self.paid), tuple(sorted(self.cut)))


@dataclass(frozen=True, slots=True)
class Question:
    """One request: its texts, the tokens that they likely have, and what to do with them.

    ``encoding`` counts how often its encoding was refused.
    """

    texts: list[str]
    tokens: int
    task: str | None
    truncate: bool = False
    late_chunking: bool = False
    encoding: int = 0


@dataclass(slots=True)
class Search:
    """For texts on which a server fails, by halves of a portion that had all patience before.

    One that fails alone is at fault only if others of its portion are answered, and only so many in
    a row, beyond which it is the server that fails.
    """

    begun: bool = False
    answered: bool = False
    in_a_row: int = 0
    found: dict[int, EmbeddingError] = field(default_factory=dict)

    def answer(self) -> None:
        """Some were answered, so the server is there."""
        self.answered, self.in_a_row = True, 0

    def blame(self, place: int, error: EmbeddingError) -> bool:
        """Note a text that failed alone; whether the search goes on."""
        self.in_a_row += 1
        self.found[place] = error
        return self.begun and self.in_a_row <= FAILING_TEXTS

    def end(self) -> dict[int, EmbeddingError]:
        """The texts at fault; the error if none was answered."""
        if self.found and not self.answered:
            raise next(iter(self.found.values()))
        return {
            place: EmbeddingError(
                f"{error}. Others were answered, so it is this text: change it or leave it out"
            )
            for place, error in self.found.items()
        }


@dataclass(slots=True)
class Budget:
    """What is left of a request's patience; it begins with its first attempt, not in the queue."""

    seconds: float
    begun: float | None = None
    pause: float = 0.0
    """Seconds before the next attempt."""
    backoff: float = 0.0
    """Seconds to pause where the API does not say how long."""

    @property
    def left(self) -> float:
        """Seconds within which another attempt may begin."""
        return self.seconds if self.begun is None else self.begun + self.seconds - time.monotonic()

    def begin(self) -> None:
        """An attempt begins; the clock is started by the first."""
        self.begun = time.monotonic() if self.begun is None else self.begun
