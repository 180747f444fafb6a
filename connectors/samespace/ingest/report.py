"""What a job did, and how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from samespace.documents import WriteReport

Stage = Literal["read", "compare", "embed", "write"]
STAGES: tuple[Stage, ...] = ("read", "compare", "embed", "write")


def _nothing() -> dict[Stage, float]:
    return dict.fromkeys(STAGES, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestReport:
    """What a job did, from where it began to where it ended.

    ``write`` counts as ``written`` what was stored anew or changed, chunks one by one, and as
    ``skipped`` what was stored already as it is; its ``rejected`` names what was left out, also what
    the source could not read. ``documents`` counts the source's items that are done, ``resumed_at``
    those that earlier runs had done, ``rejected_before`` what these have left out, ``embedded`` the
    texts that were embedded, ``removed`` the old chunks that were deleted, ``pruned`` the documents
    that had left the source; ``prune_withheld`` says that none were deleted, since of what could not
    be read nobody can say which rows it had. ``seconds`` says how long each stage was busy: the one
    with the most is what limits the job. ``complete`` is false where the job ended before its source,
    and ``stopped`` says why.
    """

    write: WriteReport = field(default_factory=WriteReport)
    documents: int = 0
    resumed_at: int = 0
    rejected_before: int = 0
    embedded: int = 0
    removed: int = 0
    pruned: int = 0
    prune_withheld: bool = False
    complete: bool = False
    stopped: Literal["", "budget", "error", "cancelled"] = ""
    seconds: Mapping[Stage, float] = field(default_factory=_nothing)
    wall: float = 0.0

    @property
    def limiter(self) -> Stage:
        """The stage that was busy longest."""
        return max(STAGES, key=lambda stage: self.seconds[stage])


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a job would do.

    ``documents`` counts the source's items, without the ``resumed_at`` that a checkpoint says are done;
    ``pieces`` the documents and chunks that they are in the store, ``to_embed`` the new texts among
    them, ``characters`` and ``tokens`` what these have; tokens are None where the backend counts
    none. ``pruned`` counts the rows that have left the source; ``prune_withheld`` is as a report's.
    """

    documents: int = 0
    resumed_at: int = 0
    pieces: int = 0
    unchanged: int = 0
    to_embed: int = 0
    characters: int = 0
    tokens: int | None = None
    rejected: int = 0
    pruned: int = 0
    prune_withheld: bool = False
