"""Schedules that are worth keeping: those that break wrong fillers, and those that nobody can see."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Final

from tests.migrate.memory_rows import NEW, OLD
from tests.migrate.schedules import Schedule, Step

CHANGED: Final[Schedule] = (
    ("put", "a", "x", NEW),
    ("read", 0, OLD, "pending"),
    ("put", "a", "y", OLD),
    ("advance", 0),
)
"""A fill without a condition gives the old slot a vector of another text."""
DELETED: Final[Schedule] = (
    ("put", "a", "x", OLD),
    ("read", 0, NEW, "pending"),
    ("delete", "a"),
    ("advance", 0),
)
"""A fill that inserts brings a row back."""
SAID: Final[Schedule] = (
    ("put", "a", "x", OLD),
    ("read", 0, NEW, "pending"),
    ("complete", 0),
    ("edit", "a", "y", OLD),
    ("read", 0, NEW, "stale"),
    ("advance", 0),
    ("crash", 0),
)
"""A source before its vector, and a crash: the vector of the text before passes for right."""
RETURNED: Final[Schedule] = (
    ("put", "a", "x", OLD),
    ("read", 0, NEW, "pending"),
    ("advance", 0),
    ("edit", "a", "y", OLD),
    ("read", 1, NEW, "pending"),
    ("advance", 1),
    ("crash", 1),
    ("edit", "a", "x", OLD),
    ("complete", 0),
)
"""A vector before its source, two fillers and a text that returns."""
REPLACED: Final[Schedule] = (
    ("put", "a", "x", OLD),
    ("read", 0, NEW, "pending"),
    ("delete", "a"),
    ("put", "a", "x", OLD),
    ("read", 1, NEW, "pending"),
    ("advance", 1),
    ("put", "a", "y", OLD),
    ("complete", 0),
    ("put", "a", "x", OLD),
    ("complete", 1),
)
"""A row that goes and comes again between read and fill, with its own text and another."""
MIXED: Final[Schedule] = (
    ("put", "a", "x", OLD),
    ("put", "b", "x", NEW),
    ("read", 0, NEW, "pending"),
    ("edit_text", "b", "y", NEW),
    ("read", 1, OLD, "pending"),
    ("annotate", "a"),
    ("advance", 1),
    ("edit_vector", "b"),
    ("complete", 0),
    ("complete", 1),
    ("edit", "a", "z", NEW),
    ("edit_only", "a", "y"),
    ("annotate", "b"),
)
"""Both models write, one of them in two requests, and fillers read in between."""
FINISHED: Final[Schedule] = (
    ("put", "a", "x", OLD),
    ("put", "b", "x", NEW),
    ("read", 0, NEW, "pending"),
    ("open",),
    ("finish",),
    ("complete", 0),
    ("settle",),
    ("open",),
    ("read", 1, NEW, "pending"),
    ("put", "c", "y", OLD),
    ("read", 0, OLD, "pending"),
    ("finish",),
    ("settle",),
    ("finish",),
    ("complete", 0),
    ("put", "c", "x", NEW),
    ("delete", "a"),
)
"""Opened and finished once that takes nobody's only vector, with a filler of the old slot at work."""
ABORTED: Final[Schedule] = (
    ("put", "a", "x", OLD),
    ("read", 0, NEW, "pending"),
    ("advance", 0),
    ("read", 1, NEW, "pending"),
    ("put", "b", "y", NEW),
    ("abort",),
    ("abandon",),
    ("advance", 0),
    ("edit", "a", "y", OLD),
    ("begin",),
    ("edit", "a", "x", NEW),
    ("complete", 1),
    ("settle",),
    ("open",),
    ("abort",),
    ("complete", 0),
)
"""Aborted with fillers at work, begun again, and aborted once it was open."""
UNFINISHED: Final[Schedule] = (("put", "a", "x", OLD), ("finish_unchecked",))
"""The old slot goes while it has a row's only vector: a wrong migration."""

CORPUS: Final[dict[str, Schedule]] = {
    "changed": CHANGED,
    "deleted": DELETED,
    "said": SAID,
    "returned": RETURNED,
    "replaced": REPLACED,
    "mixed": MIXED,
    "finished": FINISHED,
    "aborted": ABORTED,
}

LEFT: Final[Schedule] = (
    ("put", "a", "x", OLD),
    ("edit", "a", "y", NEW),
)
"""No source: the old slot, which says nothing of its vectors, keeps that of the text before."""
GIVEN: Final[Schedule] = (
    ("put", "a", "x", OLD),
    ("read", 0, NEW, "pending"),
    ("complete", 0),
    ("edit", "a", "y", NEW),
    ("edit", "a", "x", OLD),
)
"""A text that returns: the new slot's vector is of the text between, its source of this one."""


def steps(models: Sequence[str], fillers: int, slots: Sequence[str]) -> list[Step]:
    """All that writers of these models and so many fillers of these slots can do to one row."""
    changes = ("put", "edit", "edit_text")
    found: list[Step] = [(how, "a", *rest) for how, *rest in product(changes, "xy", models)]
    found += [("edit_only", "a", text) for text in "xy"]
    found += [("edit_vector", "a"), ("delete", "a")]
    reads = product(range(fillers), slots, ("pending", "stale"))
    found += [("read", *each) for each in reads]
    return found + [("advance", filler) for filler in range(fillers)]


MIGRATING: Final[Sequence[Step]] = (("begin",), ("open",), ("finish",), ("abort",), ("abandon",))
