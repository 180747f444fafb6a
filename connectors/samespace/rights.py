"""Who does what with a collection, so that each can be given no more than that takes."""

from __future__ import annotations

from typing import Literal, get_args

from samespace.errors import InvalidInput, excerpt

Part = Literal["reader", "writer", "migrator"]
"""Searching and reading; writing rows and filling slots too; adding, marking and dropping slots too."""


def known_part(part: object) -> Part:
    """``part``, or :class:`InvalidInput`."""
    for known in get_args(Part):
        if part == known:
            found: Part = known
            return found
    raise InvalidInput(f"{excerpt(part)} is no part; pass one of {', '.join(get_args(Part))}")
