"""Texts that people wrote: paragraphs of NumPy's documentation."""

from __future__ import annotations

import re

import numpy as np


def paragraphs(count: int) -> list[str]:
    """Distinct paragraphs of 41 to 159 characters, in English; :class:`ValueError` if too few."""
    pages = [getattr(getattr(np, name), "__doc__", None) or "" for name in dir(np)]
    found = [" ".join(each.split()) for page in pages for each in re.split(r"\n\s*\n", page)]
    fit = [text for text in dict.fromkeys(found) if 40 < len(text) < 160 and ">>>" not in text]
    if len(fit) < count:
        raise ValueError(f"{len(fit)} paragraphs are fit, {count} were asked for")
    return fit[:count]
