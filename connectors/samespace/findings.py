"""What an examination of a store, a collection or an installation found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from samespace.errors import SamespaceError


class Level(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    NOTE = "note"
    """Something is not there, and not needed for everything."""
    WARNING = "warning"
    """It works, and something is slower, missing or unsafe."""
    PROBLEM = "problem"
    """What was examined cannot be used like this."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; ``mend`` is what to do where something is amiss."""

    level: Level
    what: str
    mend: str = ""

    @classmethod
    def of(cls, error: SamespaceError) -> Finding:
        """The problem that an error tells of."""
        what, _, mend = str(error).partition("; ")
        return cls(Level.PROBLEM, what, mend)


def is_usable(findings: Iterable[Finding]) -> bool:
    """Whether none of the findings is a problem."""
    return all(finding.level is not Level.PROBLEM for finding in findings)


def numbers_of(version: str) -> tuple[int, ...]:
    """The numbers of a version that begins with them: ``"9.4.3-SNAPSHOT"`` is ``(9, 4, 3)``."""
    leading = version.replace("-", "+").partition("+")[0]
    return tuple(int(part) for part in leading.split(".") if part.isdecimal())
