"""How fast a migration goes: no faster than the store answers, and no dearer than was agreed."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import accumulate, zip_longest
from typing import Final, Protocol, runtime_checkable

from samespace.embedding import count_tokens_async, uncached
from samespace.errors import InvalidInput
from samespace.ingest.arguments import check_count
from samespace.protocols import AnyBackend, CountsTokens, ReportsUsage

LONGEST_PAUSE: Final = 5.0
"""Seconds."""
LONGEST_WAIT: Final = 60.0
"""Seconds between two attempts of a follower to reach a store or a backend that is not there."""
_WEIGHT: Final = 0.3
"""Of the newest measurement in the moving average."""
_SLOWER: Final = 2.0
"""How many times as slow as it was at its best a store may be before it is left alone for a while."""

_ENDS: Final = 2
"""Tokens that a model puts before and after a text."""


class Pace:
    """Pauses for a store that answers more slowly than it did.

    What it takes for a row is averaged, newest first (exponentially weighted), and compared with the least
    that this average has been. No clock is read here.
    """

    def __init__(self) -> None:
        self._recent: float | None = None
        self._best = 0.0
        self._rows = 0

    def note(self, seconds: float, rows: int) -> None:
        """A call of ``rows`` rows took so long."""
        if rows < 1:
            return
        each = seconds / rows
        before = each if self._recent is None else self._recent
        self._recent = _WEIGHT * each + (1 - _WEIGHT) * before
        self._best = min(self._best, self._recent) if self._rows else self._recent
        self._rows = rows

    def pause(self) -> float:
        """Seconds to wait before the next call: as long as the last one took beyond twice the best."""
        if self._recent is None:
            return 0.0
        return min(LONGEST_PAUSE, max(0.0, self._recent - _SLOWER * self._best) * self._rows)


class Away:
    """What could not be reached, and when to try again: after an interval, then twice as long, and so on."""

    def __init__(self, interval: float) -> None:
        self._interval, self._waited, self._until = interval, 0, 0.0
        self.error: Exception | None = None
        """Why it is not to be tried now."""

    def longer(self) -> float:
        """Seconds until the next attempt."""
        seconds = min(LONGEST_WAIT, self._interval * 2.0**self._waited)
        self._waited = min(self._waited + 1, 10)
        return seconds

    def note(self, error: Exception) -> None:
        """It could not be reached; several who tried at once have waited but once."""
        if self.error is None:
            self.error, self._until = error, time.monotonic() + self.longer()

    def try_again(self) -> None:
        """Let it be tried again, if that has been waited for."""
        if time.monotonic() >= self._until:
            self.error = None

    def end(self) -> None:
        """It is there."""
        self._waited = 0


@runtime_checkable
class KeepsVectors(Protocol):
    """A backend that says which texts it has kept the vectors of, so that its model is not asked for them."""

    def kept(self, texts: Sequence[str]) -> Collection[str]:
        """Those of some texts."""

    def keeps_chunks(self, chunks: Sequence[str]) -> bool:
        """Whether it has those of a document's chunks, embedded together."""


class BudgetSpent(Exception):
    """The next batch would cost more tokens than are left."""


class Budget:
    """How many tokens may be paid; None is any number."""

    def __init__(
        self, tokens: int | None, backend: AnyBackend, spent: Callable[[], int] = int
    ) -> None:
        """``spent`` says how many have been paid."""
        if tokens is not None:
            check_count(tokens, what="budget_tokens (--budget-tokens)")
            if not isinstance(backend, ReportsUsage):
                raise InvalidInput(
                    f"{type(backend).__name__} does not say what its calls cost, so budget_tokens would "
                    "end nothing; leave it out, or pass another backend"
                )
        self._tokens, self._spent = tokens, spent
        self._counter = uncached(backend)
        self._archive = backend if isinstance(backend, KeepsVectors) else None

    @property
    def is_limited(self) -> bool:
        """Whether calls are to be made one after the other, so that none goes beyond."""
        return self._tokens is not None

    async def check(self, texts: Sequence[str]) -> None:
        """:class:`BudgetSpent` if embedding these, all or none, may go beyond it."""
        if await self.fitting(texts) < len(texts):
            raise BudgetSpent

    async def fitting(self, texts: Sequence[str | None], beside: Sequence[int] = ()) -> int:
        """How many of these, from the first one on, can be embedded without going beyond it.

        Each text is paid for once, None for nothing; ``beside`` is what is paid for each elsewhere.
        :class:`BudgetSpent` if not even the first can be.
        """
        if self._tokens is None:
            return len(texts)
        costs = zip_longest(await self.costs(texts), beside, fillvalue=0)
        left = self._left(self._tokens)
        count = sum(paid <= left for paid in accumulate(map(sum, costs)))
        if texts and not count:
            raise BudgetSpent
        return count

    async def costs(self, texts: Sequence[str | None]) -> list[int]:
        """No less than what is paid for each of these; nothing where there is no budget."""
        if self._tokens is None:
            return [0] * len(texts)
        each = self._asked_for(text for text in texts if text is not None)
        counts = dict(zip(each, await self._counts(each) if each else [], strict=True))
        return [counts.pop(text, 0) if text is not None else 0 for text in texts]

    async def check_together(self, texts: Sequence[str], beside: Sequence[int] = ()) -> None:
        """:class:`BudgetSpent` if embedding these in sight of one another may go beyond it.

        Each is paid for, also one that is there again; but none of a document that is kept. ``beside`` is
        what is paid elsewhere.
        """
        if self._tokens is None:
            return
        is_kept = self._archive is not None and self._archive.keeps_chunks(texts)
        cost = 0 if is_kept else sum(await self._counts(texts))
        if cost + sum(beside) > self._left(self._tokens):
            raise BudgetSpent

    def _asked_for(self, texts: Iterable[str]) -> list[str]:
        """Each text that the model would be asked for, once."""
        each = list(dict.fromkeys(texts))
        kept = self._archive.kept(each) if self._archive and each else set[str]()
        return [text for text in each if text not in kept]

    def _left(self, tokens: int) -> int:
        return max(0, tokens - self._spent())

    async def _counts(self, texts: Sequence[str]) -> Sequence[int]:
        if isinstance(self._counter, CountsTokens):
            return await count_tokens_async(self._counter, texts)
        return most_tokens(texts)


def most_tokens(texts: Sequence[str]) -> list[int]:
    """No fewer than the tokens of each text: no token is of less than a byte, but for those at the ends."""
    return [len(text.encode()) + _ENDS for text in texts]
