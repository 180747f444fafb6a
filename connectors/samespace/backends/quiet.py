"""Loading a model without a bar for its weights, which are there within a second or two."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers.utils import logging


@contextmanager
def without_bars() -> Iterator[None]:
    """No bars of the transformers library meanwhile; afterwards they are as they were."""
    bars: Any = logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()
