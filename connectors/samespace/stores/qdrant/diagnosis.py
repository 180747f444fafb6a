"""What the facts about a Qdrant server, or a folder of its local mode, mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from samespace.findings import Finding, Level, numbers_of

OLDEST: Final = (1, 16)
"""From here on a collection has metadata, where its record is."""
OLDEST_INSERT_ONLY: Final = (1, 17)
OLDEST_SLOTS: Final = (1, 18)
_UPDATE: Final = "install Qdrant 1.18 or newer, one minor version after the other"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server says of itself, and of what its caller may do there."""

    server: str | None
    """The server's version; None in local mode."""
    collections: int
    may_manage: bool


def findings(facts: Facts, *, client: str) -> Iterator[Finding]:
    """What there is to say of a store that answers."""
    there = f"(client {client}); it has {facts.collections or 'no'} collection"
    there += "s" if facts.collections != 1 else ""
    if facts.server is None:
        yield Finding(Level.OK, f"Qdrant's local mode opens {there}")
        yield Finding(
            Level.NOTE,
            "it keeps all vectors in memory, compares them one by one, and serves one handle at a time",
            "for more than trying out, use a server: qdrant://host:6333",
        )
        return
    yield Finding(Level.OK, f"Qdrant {facts.server} answers {there}")
    yield from _version(facts.server)
    yield _rights(may_manage=facts.may_manage)


def _version(server: str) -> Iterator[Finding]:
    numbers = numbers_of(server)
    if numbers < OLDEST:
        what = f"Qdrant {server} is too old: it has no place for a collection's record before 1.16"
        yield Finding(Level.PROBLEM, what, _UPDATE)
        return
    if numbers < OLDEST_INSERT_ONLY:
        what = f'Qdrant {server} writes with on_conflict="overwrite" alone, before 1.17'
        yield Finding(Level.WARNING, what, _UPDATE)
    if numbers < OLDEST_SLOTS:
        what = (
            f"Qdrant {server} cannot add or drop a slot, before 1.18: collections keep their space"
        )
        yield Finding(Level.WARNING, what, _UPDATE)


def _rights(*, may_manage: bool) -> Finding:
    if may_manage:
        return Finding(Level.OK, "this login may read, and create collections")
    return Finding(
        Level.WARNING,
        "this login may read, and not create or change collections",
        "for that, use a key that manages them: QDRANT_API_KEY",
    )
