"""Places for requests, and answers that have theirs until the client has them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from samespace.backends.jina_api.serving import Refusal, error_body

PART: Final = 64 * 2**10
"""Bytes of an answer that wait for the client at a time."""
SENDING: Final = 20.0
"""Seconds in which a client has to take a part: one that reads nothing must not keep its place for ever."""


class Places:
    """Those of one kind for the requests that may be under way at a time."""

    def __init__(self, most: int) -> None:
        self._most, self._taken = most, 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """A place while it is needed; :class:`Refusal` if all are taken."""
        if self._taken >= self._most:
            detail = f"More than {self._most} requests at a time"
            body = error_body("RATE_CONCURRENCY_LIMIT_EXCEEDED", detail)
            raise Refusal(429, body, {"Retry-After": "1"})
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


class Place(ExitStack):
    """A request's own place, from the moment when it is known of which kind it is."""

    has_one = False

    def take(self, places: Places) -> None:
        """One of these, unless it has one; :class:`Refusal` if all are taken."""
        if not self.has_one:
            self.enter_context(places.one())
            self.has_one = True


class Answer(Response):
    """JSON that is sent in parts, each once the client has taken those before it; then its place is free.

    Where a client takes too long the rest is not sent, and the server closes the connection.
    """

    media_type = "application/json"

    def __init__(self, body: bytes, place: Place) -> None:
        super().__init__(body)
        self._place = place

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        """Send it."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        with self._place, suppress(TimeoutError):
            await send(start)
            for part in self._parts():
                async with asyncio.timeout(SENDING):
                    await send({"type": "http.response.body", **part})

    def _parts(self) -> Iterator[dict[str, Any]]:
        body = memoryview(self.body)
        for start in range(0, len(body), PART):
            yield {"body": bytes(body[start : start + PART]), "more_body": True}
        yield {"body": b"", "more_body": False}  # sent when the last is taken
