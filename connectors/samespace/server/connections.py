"""Connections that do not wait for their clients for ever.

uvicorn has a time for those on which nothing comes, but none for a head that has come by half, nor for
bytes that a client does not take. Both keep a file open, of which a process has few, and the second keeps
the server from ending.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

KEEP_ALIVE: Final = 75
"""Seconds: longer than clients keep a connection that nobody uses, so that none is closed under them."""
ASKING: Final = 80.0
"""Seconds until the head of a request is there, idle ones included, which uvicorn closes before that."""
STANDING: Final = 20.0
"""Seconds in which a client takes what is written, at most one part of an answer."""
_NAME: Final = "samespace.connection"


class Connection(AutoHTTPProtocol):  # type: ignore[misc,valid-type]
    """One whose client has so long to ask, and so long to take what it is sent."""

    def __init__(self, *, app_state: dict[str, Any], **given: Any) -> None:
        super().__init__(app_state={**app_state, _NAME: self}, **given)
        self._asked = 0
        self._waits: dict[str, asyncio.TimerHandle] = {}

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # any byte that is not taken pauses
        self._wait("ask", ASKING)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        for wait in self._waits.values():
            wait.cancel()
        self._waits.clear()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not take what is written."""
        super().pause_writing()
        self._wait("take", STANDING)

    def resume_writing(self) -> None:
        """It has taken all."""
        self._wait_no_more("take")
        super().resume_writing()

    def begins(self) -> None:
        """A request's head is there."""
        self._asked += 1
        self._wait_no_more("ask")

    def ends(self) -> None:
        """It is answered."""
        self._asked -= 1
        if not self._asked and not self.transport.is_closing():
            self._wait("ask", ASKING)

    def cut(self) -> None:
        """Let go of the client; what waits for it is lost."""
        self.transport.abort()

    def _wait(self, what: str, seconds: float) -> None:
        self._wait_no_more(what)
        self._waits[what] = asyncio.get_running_loop().call_later(seconds, self.cut)

    def _wait_no_more(self, what: str) -> None:
        if wait := self._waits.pop(what, None):
            wait.cancel()


def watched(app: ASGIApp) -> ASGIApp:
    """An app that tells connections of their requests."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        connection: Connection = scope["state"].pop(_NAME)
        connection.begins()
        try:
            await app(scope, receive, send)
        finally:
            connection.ends()

    return answer
