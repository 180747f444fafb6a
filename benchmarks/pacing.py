"""The time that a fast embedder takes, without a model: what is left of it is the store's share."""

from __future__ import annotations

import time
from typing import Final

RATE: Final = 3000
"""Texts a second."""


class Pace:
    """Waits as long as texts take to embed, and counts the seconds."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def take(self, texts: int) -> None:
        """Be as long about it as an embedder."""
        begun = time.perf_counter()
        time.sleep(texts / RATE)
        self.seconds += time.perf_counter() - begun
