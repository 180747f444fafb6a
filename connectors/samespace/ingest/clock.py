"""How long a stage of a job was busy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class StageClock:
    """How long a stage was busy; what is done at the same time counts once."""

    def __init__(self) -> None:
        self._before = self._since = 0.0
        self._running = 0

    @property
    def seconds(self) -> float:
        """So far."""
        return self._before + (time.monotonic() - self._since if self._running else 0.0)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the seconds of a ``with`` block."""
        if not self._running:
            self._since = time.monotonic()
        self._running += 1
        try:
            yield
        finally:
            if self._running == 1:
                self._before = self.seconds
            self._running -= 1
