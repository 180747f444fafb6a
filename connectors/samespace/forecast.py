"""What one more slot would need in a store, and what others may notice of it: values only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to know before a migration: a ``code`` for programs, a ``sentence`` for people."""

    code: str
    sentence: str


@dataclass(frozen=True, slots=True)
class ClientChange:
    """What a client that names a slot by itself changes to go on with another.

    ``what`` it is, and how it reads ``before`` and ``after``.
    """

    what: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotForecast:
    """What a slot of a space would need in a collection.

    ``store`` is the kind of store. ``disk_per_row`` are the bytes of a row's vector with its share of the
    index, ``memory_per_row`` those that the index wants in memory while it is built and searched;
    ``sizes_from`` says how both are known. ``fills_per_second`` are rows that a migration writes, as
    ``rate_from`` says; ``builds_per_second`` those that enter the index after that, None where they enter
    it with the fill. ``notices`` are what clients that know nothing of it may feel.
    """

    store: str
    disk_per_row: int
    memory_per_row: int
    sizes_from: str
    fills_per_second: float
    rate_from: str
    builds_per_second: float | None = None
    notices: tuple[Notice, ...] = ()
