"""The limits of an account as the API enforces them: counted in a window, the time passed in."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """At most so many ``requests`` and ``tokens`` in any ``window`` (seconds), and ``in_flight``.

    None is no limit. With ``tells`` each answer says what remains, with ``retry_after`` a refusal
    says when to come again.
    """

    requests: int | None = None
    tokens: int | None = None
    in_flight: int | None = None
    window: float = 60.0
    tells: bool = True
    retry_after: bool = True


class QuotaUsed:
    """What has been used of a quota. Requests that were refused do not count."""

    def __init__(self, quota: Quota) -> None:
        self._quota = quota
        self._log: deque[tuple[float, int]] = deque()
        self._tokens = 0
        self._in_flight = 0

    def enter(self, tokens: int, now: float) -> str | None:
        """Count a request, which must :meth:`leave`; or the code of the limit that refuses it."""
        self._forget(now)
        quota = self._quota
        if quota.in_flight is not None and self._in_flight >= quota.in_flight:
            return "RATE_CONCURRENCY_LIMIT_EXCEEDED"
        if quota.requests is not None and len(self._log) >= quota.requests:
            return "RATE_REQUEST_LIMIT_EXCEEDED"
        if quota.tokens is not None and self._tokens + tokens > quota.tokens:
            return "RATE_TOKEN_LIMIT_EXCEEDED"
        self._log.append((now, tokens))
        self._tokens += tokens
        self._in_flight += 1
        return None

    def leave(self) -> None:
        """A request that was counted has been answered."""
        self._in_flight -= 1

    def headers(self, now: float, refusal: str | None = None) -> dict[str, str]:
        """What an answer says of the quota."""
        self._forget(now)
        found: dict[str, str] = {}
        quota = self._quota
        if quota.tells and quota.requests is not None:
            found["X-RateLimit-Remaining-Requests"] = str(quota.requests - len(self._log))
        if quota.tells and quota.tokens is not None:
            found["X-RateLimit-Remaining-Tokens"] = str(quota.tokens - self._tokens)
        if refusal and quota.retry_after and "CONCURRENCY" not in refusal and self._log:
            seconds = self._log[0][0] + quota.window - now
            found["Retry-After"] = f"{math.ceil(seconds * 1000) / 1000:g}"
        return found

    def _forget(self, now: float) -> None:
        while self._log and self._log[0][0] + self._quota.window <= now:
            self._tokens -= self._log.popleft()[1]
