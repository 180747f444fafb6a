"""What becomes of writes that go around this library, and what makes a store refuse more of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

AUDIT: Final = "samespace audit looks for such rows"
REPAIR: Final = "samespace repair embeds such rows again"
INSTALL: Final = "samespace guard install"


class RawAct(StrEnum):
    """What somebody with the store's own driver may do; each is right but for what it says."""

    UNNAMED = "unnamed or positional write"
    OTHER_SPACE = "another space's slot"
    UNKNOWN_FIELD = "unknown field"
    WRONG_DIMENSION = "wrong dimension"
    UN_NORMALISED = "un-normalised vector"
    NO_VECTOR = "no vector"
    IN_PLACE = "vector changed in place"
    OTHER_MODEL = "right name, wrong model"


class Outcome(StrEnum):
    """What becomes of it."""

    REFUSED = "refused by the server"
    PENDING = "stored, and pending"
    """``pending()`` hands the row out, whether it has a vector or not."""
    STORED = "stored"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True, slots=True)
class RawWrite:
    """What becomes of one raw act in a collection as it is now, why, and what mends it."""

    act: RawAct
    outcome: Outcome
    why: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """One change that hardening makes, or undoes.

    ``before`` and ``after`` are what ``what`` is, empty where it is not there. ``statement`` does it:
    SQL, or a request as its server's console takes it. ``note`` says who should mind.
    """

    what: str
    before: str
    after: str
    statement: str
    note: str = ""


def insertion(*, sourced: bool, why: str) -> tuple[Outcome, str, str]:
    """Outcome, reason and mend of a row that a slot takes; one without a source is made again."""
    if sourced:
        return Outcome.PENDING, f"{why}; it does not say what it was made from", REPAIR
    return Outcome.STORED, why, AUDIT
