# Generated from canceller_async.py by tools/generate_sync.py; change that file, not this one.
"""Cancelling what a connection does until the server has heard of it."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from typing import Any, Final

import psycopg

from samespace.stores.running import Beside, Endable

PAUSE_S: Final = 0.02
PATIENCE_S: Final = 2.0


class Canceller:
    """Stands in for ``cancel_safe`` of a connection while that is lent, and insists.

    psycopg cancels once. The server ignores a cancellation that arrives before the statement that
    it is meant for, and whoever waited for a lock waits on: for good at the end of a pipeline, else
    until psycopg hangs up after some seconds, and then the server's session waits alone. So it is
    cancelled again until the loan ends, and the connection is then closed: one more cancellation
    may be on its way. Where the server does not react, the connection is cut.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._once = connection.cancel_safe
        self._insisting: Beside[None] | None = None
        self._is_over = False
        vars(connection)["cancel_safe"] = self.cancel
        self._endable = Endable(self.cancel)

    def cancel(self, **_: object) -> None:
        """Begin to cancel; whoever waits for the server's answer gets one, or an error."""
        if self._insisting is None:
            self._insisting = Beside()
            self._insisting.start(self._insist)

    def _insist(self) -> None:
        until = time.monotonic() + PATIENCE_S
        while not self._is_over and time.monotonic() < until:
            with suppress(psycopg.Error):
                self._once(timeout=PATIENCE_S)
            time.sleep(PAUSE_S)
        if not self._is_over:
            _hang_up(self._connection)

    def finish(self) -> None:
        """Cancel no more; a connection that was cancelled is closed."""
        self._endable.withdraw()
        del vars(self._connection)["cancel_safe"]
        self._is_over = True
        if self._insisting is not None:
            try:
                with self._insisting:
                    pass
            finally:  # nobody gets what may still be cancelled
                self._connection.close()


def _hang_up(connection: psycopg.Connection[Any]) -> None:
    """End the conversation, from any thread; the descriptor stays the connection's."""
    with (
        suppress(psycopg.Error, OSError),
        socket.socket(fileno=os.dup(connection.fileno())) as wire,
    ):
        wire.shutdown(socket.SHUT_RDWR)
