"""What an account at the API is allowed, and how much of it a backend may use."""

from __future__ import annotations

import math
from dataclasses import dataclass

from samespace.errors import InvalidInput, excerpt


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is asked for at once, and how often; of the account, not of one call.

    A request has at most ``texts_per_request`` texts and about ``tokens_per_request`` tokens.
    ``requests_per_minute``, ``tokens_per_minute`` and ``in_flight`` (requests at the same time) are
    shared by all threads or tasks of one backend. None means that nothing is held back, beyond what
    the API itself says in its answers. The figures are those of the key's tier and differ between
    keys, so none of the first two has a default.

    ``share`` (above 0, at most 1) is the part of the three that this backend may use: below 1 for a
    job beside live queries. ``window`` is the time in seconds over which the API counts; one that
    counts over a second gets a sixtieth of the minute's amount in each.
    """

    texts_per_request: int = 512
    tokens_per_request: int = 50_000
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    in_flight: int | None = 4
    share: float = 1.0
    window: float = 60.0

    def __post_init__(self) -> None:
        for name in ("texts_per_request", "tokens_per_request"):
            _check_count(name, getattr(self, name))
        for name in ("requests_per_minute", "tokens_per_minute", "in_flight"):
            if getattr(self, name) is not None:
                _check_count(name, getattr(self, name), or_none=", or None for no limit of ours")
        if type(self.share) not in {int, float} or not 0 < self.share <= 1:
            raise InvalidInput(
                f"share is {excerpt(self.share)}; pass a part above 0 and at most 1, like 0.5"
            )
        if type(self.window) not in {int, float} or not 0 < self.window < math.inf:
            raise InvalidInput(f"window is {excerpt(self.window)}; pass seconds above 0")

    @property
    def requests_per_window(self) -> int | None:
        """Requests of this backend in one window, at least 1; None: not limited by us."""
        return self._per_window(self.requests_per_minute)

    @property
    def tokens_per_window(self) -> int | None:
        """Tokens of this backend in one window, at least 1; None: not limited by us."""
        return self._per_window(self.tokens_per_minute)

    @property
    def tokens_at_once(self) -> int:
        """The tokens that a request is packed for: those of a window, if these are fewer."""
        return min(self.tokens_per_request, self.tokens_per_window or self.tokens_per_request)

    def _per_window(self, per_minute: int | None) -> int | None:
        if per_minute is None:
            return None
        return max(1, math.floor(per_minute * self.share * self.window / 60 + 1e-9))


def _check_count(name: str, value: object, *, or_none: str = "") -> None:
    if type(value) is not int or value < 1:
        raise InvalidInput(f"{name} is {excerpt(value)}; pass a whole number from 1 on{or_none}")
