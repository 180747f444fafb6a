"""What an audit found, as values, lines and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar, get_args

from samespace.audit.intervals import CONFIDENCE, share_interval
from samespace.audit.verdicts import AGREEMENT, Finding, Verdict, bars, edges_of, named
from samespace.errors import InvalidInput
from samespace.guard import check_threshold
from samespace.space import EmbeddingSpace

FORMAT: Final = 1
NAMED: Final = 100_000
"""How many findings a report holds; all of them are counted, and in the file beside a checkpoint."""
SHOWN: Final = 10

Stopped = Literal["", "budget", "error", "cancelled"]
T = TypeVar("T")


def _no_verdicts() -> dict[str, int]:
    return dict.fromkeys(map(str, Verdict), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeFindings:
    """What was suspected without a model.

    ``sees`` is false where the vectors share too little direction for a foreign one to be out of place:
    then no suspects mean nothing. ``right`` counts the suspects that a model audit found foreign, of
    ``foreign`` ones among the rows that were looked at both ways; both are None without a model.
    """

    looked_at: int = 0
    suspects: int = 0
    sees: bool = True
    right: int | None = None
    foreign: int | None = None

    @property
    def recall(self) -> float | None:
        """The share of the foreign rows that were suspected."""
        return self.right / self.foreign if self.foreign and self.right is not None else None

    @property
    def precision(self) -> float | None:
        """The share of the suspects that are foreign."""
        return self.right / self.suspects if self.suspects and self.right is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What an audit found.

    ``population`` counts the rows with a vector in the slot of ``space``, ``pending`` those that the store
    says are to be filled: without one, or with one that does not say what it was made from.
    ``counts`` has a number of rows for each :class:`~samespace.audit.verdicts.Verdict`; those that changed
    while they were judged, or could not be judged, widen the ``interval``. ``findings`` names the rows
    that do not agree, at most 100,000 of them. ``histogram`` counts cosines between ``edges``.
    ``sampled`` says that not all rows were looked at. ``free`` is what would have been suspected without
    a model. ``unasked`` names the candidates that did not answer, each with the reason. ``tokens`` is by
    the backends' count, ``embedded`` counts the texts of this run, ``resumed_at`` the rows that earlier
    runs had judged.
    """

    collection: str
    space: EmbeddingSpace
    population: int
    pending: int = 0
    sampled: bool = False
    counts: Mapping[str, int] = field(default_factory=_no_verdicts)
    findings: tuple[Finding, ...] = ()
    histogram: tuple[int, ...] = ()
    threshold: float = AGREEMENT
    free: FreeFindings | None = None
    unasked: Mapping[str, str] = field(default_factory=dict)
    tokens: int = 0
    embedded: int = 0
    resumed_at: int = 0
    complete: bool = False
    stopped: Stopped = ""

    @property
    def looked_at(self) -> int:
        """How many rows were read."""
        return sum(self.counts.values())

    @property
    def judged(self) -> int:
        """How many rows a verdict was reached on."""
        return sum(self.counts[each] for each in (Verdict.AGREES, Verdict.FOREIGN, Verdict.STALE))

    @property
    def foreign(self) -> int:
        """How many rows have a vector of another space."""
        return self.counts[Verdict.FOREIGN]

    @property
    def stale(self) -> int:
        """How many rows have a vector of another text."""
        return self.counts[Verdict.STALE]

    @property
    def share(self) -> float | None:
        """The share of foreign vectors among the rows that were judged; None of none."""
        return self.foreign / self.judged if self.judged else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Where the share of foreign vectors among all rows is; None where that is :attr:`share`.

        A row that was not judged may be foreign or not: the bounds hold of either. Of a sample they hold
        at 95 %; else they are certain, and rows that have not been looked at yet are not judged either.
        """
        rows = max(self.looked_at, self.population)
        if _is_free(self) or (self.judged == rows and not self.sampled):
            return None
        if not self.sampled:
            return self.foreign / rows, (self.foreign + rows - self.judged) / rows
        low, _ = share_interval(self.foreign, self.looked_at, rows)
        _, high = share_interval(self.foreign + self.looked_at - self.judged, self.looked_at, rows)
        return low, high

    @property
    def edges(self) -> tuple[float, ...]:
        """Where the bins of the histogram begin; the threshold is one of them."""
        return edges_of(self.threshold)

    def ids(self, *verdicts: Verdict) -> list[str]:
        """The ids of the findings with one of these verdicts: what a repair is of unless said."""
        wanted = verdicts or (Verdict.FOREIGN, Verdict.STALE, Verdict.DUPLICATE)
        return [finding.id for finding in self.findings if finding.verdict in wanted]

    @property
    def likely(self) -> dict[str, int]:
        """What the foreign vectors are likely to be, the most frequent first."""
        found: dict[str, int] = {}
        for finding in self.findings:
            if finding.verdict is Verdict.FOREIGN:
                found[finding.likely] = found.get(finding.likely, 0) + 1
        return dict(sorted(found.items(), key=lambda pair: -pair[1]))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        interval = self.interval
        return {
            "format": FORMAT,
            "collection": self.collection,
            "space": self.space.to_dict(),
            "population": self.population,
            "pending": self.pending,
            "sampled": self.sampled,
            "looked_at": self.looked_at,
            "counts": dict(self.counts),
            "share": self.share,
            "interval": None if interval is None else list(interval),
            "confidence": CONFIDENCE,
            "threshold": self.threshold,
            "likely": self.likely,
            "findings": [finding.to_dict() for finding in self.findings],
            "histogram": list(self.histogram),
            "edges": list(self.edges),
            "free": None if self.free is None else _free_to_dict(self.free),
            "unasked": dict(self.unasked),
            "tokens": self.tokens,
            "embedded": self.embedded,
            "resumed_at": self.resumed_at,
            "complete": self.complete,
            "stopped": self.stopped,
        }

    @classmethod
    def from_dict(cls, values: object) -> AuditReport:
        """The inverse of :meth:`to_dict`; :class:`InvalidInput` for anything else."""
        try:
            return _read(values)
        except InvalidInput:
            raise
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidInput(
                "this is no report of an audit; pass what samespace audit --json has written"
            ) from error

    def lines(self) -> list[str]:
        """The report for people, without colours."""
        return list(_lines(self))


def _free_to_dict(free: FreeFindings) -> dict[str, Any]:
    return {
        "looked_at": free.looked_at,
        "suspects": free.suspects,
        "sees": free.sees,
        "right": free.right,
        "foreign": free.foreign,
        "recall": free.recall,
        "precision": free.precision,
    }


def _read(values: Any) -> AuditReport:
    if _count(values["format"]) > FORMAT:
        raise InvalidInput(
            f"the report has format {values['format']}, which a newer samespace wrote; upgrade"
        )
    threshold = check_threshold(values["threshold"], what="threshold")
    histogram = tuple(map(_count, values["histogram"]))
    if len(histogram) not in {0, len(edges_of(threshold))}:
        raise ValueError("a histogram of other bins")
    return AuditReport(
        collection=_as(str, values["collection"]),
        space=EmbeddingSpace.from_dict(values["space"]),
        findings=tuple(Finding.from_dict(each) for each in values["findings"]),
        counts=_no_verdicts()
        | {str(Verdict(each)): _count(n) for each, n in values["counts"].items()},
        histogram=histogram,
        threshold=threshold,
        free=None if values["free"] is None else _read_free(values["free"]),
        unasked={_as(str, who): _as(str, why) for who, why in values["unasked"].items()},
        sampled=_as(bool, values["sampled"]),
        complete=_as(bool, values["complete"]),
        stopped=_stopped(values["stopped"]),
        **{name: _count(values[name]) for name in _COUNTED},
    )


_COUNTED: Final = ("population", "pending", "tokens", "embedded", "resumed_at")


def _read_free(values: Any) -> FreeFindings:
    right, foreign = (
        None if values[name] is None else _count(values[name]) for name in ("right", "foreign")
    )
    return FreeFindings(
        looked_at=_count(values["looked_at"]),
        suspects=_count(values["suspects"]),
        sees=_as(bool, values["sees"]),
        right=right,
        foreign=foreign,
    )


def _stopped(value: Any) -> Stopped:
    if value not in get_args(Stopped):
        raise ValueError("no reason to stop")
    stopped: Stopped = value
    return stopped


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError("no count")
    return value


def _as(kind: type[T], value: Any) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"no {kind.__name__}")
    return value


def _lines(report: AuditReport) -> Iterator[str]:
    yield f"collection {report.collection}: {report.population:,} vectors of {report.space}"
    if report.looked_at:
        yield f"looked at {_of(report.looked_at, report.population)}"
    if report.looked_at and not _is_free(report):
        yield from _said_of_share(report)
        yield from _said_of_others(report)
        yield from ("", _said_of_cosines(report))
        yield from (f"  {line}" for line in bars(report.histogram, report.threshold))
    free = list(said_of_free(report))
    yield from ("", *free) if free else ()
    yield from said_of_end(report)


def _said_of_cosines(report: AuditReport) -> str:
    return (
        "cosine of each stored vector with that of its text now (from there on; x is below "
        f"{report.threshold:g}):"
    )


def _is_free(report: AuditReport) -> bool:
    """Whether no model was asked."""
    return bool(report.counts[Verdict.SUSPECT] or report.counts[Verdict.UNSUSPECTED])


def _of(count: int, population: int) -> str:
    return "all of them" if count == population else f"{count:,} of them"


def _said_of_share(report: AuditReport) -> Iterator[str]:
    if report.share is None:
        yield "no row could be judged"
        return
    within = said_of_interval(report)
    share = f"{report.share:.2%}{said_of_part(report)}"
    yield f"foreign: {report.foreign:,} ({share}{within and f'; {within}'})"
    for likely, count in report.likely.items():
        yield f"  {count:,} likely {likely}"
    for candidate, reason in report.unasked.items():
        yield f"  not compared with {candidate}: {reason}"
    found = [each for each in report.findings if each.verdict is Verdict.FOREIGN]
    yield from (f"  {named(each, report.threshold)}" for each in found[:SHOWN])
    if report.foreign > SHOWN:
        yield f"  and {report.foreign - min(SHOWN, len(found)):,} more"


def said_of_part(report: AuditReport) -> str:
    """Of which rows a share is that is neither of all of them nor of a random sample; else nothing."""
    if report.sampled or report.looked_at >= report.population:
        return ""
    return f" of the first {report.looked_at:,} of {report.population:,} rows, which are no sample"


def said_of_end(report: AuditReport) -> Iterator[str]:
    """Why not all rows that were to be looked at were."""
    if report.stopped == "budget":
        yield "the budget is spent before all rows were looked at"


def said_of_interval(report: AuditReport) -> str:
    """``of all rows 0.33% to 2.32%``, and why it is no single figure; nothing where it is."""
    if report.interval is None:
        return ""
    low, high = report.interval
    within = f"of all rows {low:.2%} to {high:.2%}"
    if report.sampled:
        return f"{within}, at 95 %"
    return f"{within}: {max(report.looked_at, report.population) - report.judged:,} were not judged"


def _said_of_others(report: AuditReport) -> Iterator[str]:
    others = {
        "stale (the text changed, the vector did not)": report.stale,
        "written while they were judged": report.counts[Verdict.CHANGED],
        "not to be judged (blank, or refused by the backend)": report.counts[Verdict.UNJUDGED],
        "pending (no vector)": report.pending,
        "with an id that another row has": report.counts[Verdict.DUPLICATE],
    }
    yield from (f"{what}: {count:,}" for what, count in others.items() if count)
    twins = [each for each in report.findings if each.verdict is Verdict.DUPLICATE]
    yield from (f"  {named(each, report.threshold)}" for each in twins[:SHOWN])
    alone = next((each for each in twins if not each.points), None)
    if alone is not None:
        yield f"  to take one away: store.delete(ids=[{alone.id!r}])"
    if any(each.points for each in twins):
        yield f"  to take one of several away: {taken_away(report.collection)}"


def taken_away(collection: str) -> str:
    """How one of several rows with one id is deleted, which takes what the store calls it."""
    return (
        f"client.delete({collection!r}, points_selector=[…]) of Qdrant's own client, with the point's id, "
        "since the document's takes them all"
    )


def said_of_free(report: AuditReport) -> Iterator[str]:
    """What was seen without a model, and what that is worth."""
    free = report.free
    if free is None:
        if _is_free(report):
            yield "without a model nothing can be said: there are too few vectors to be out of place among"
        return
    if not free.sees:
        yield (
            "without a model nothing can be said: these vectors have no common direction, so that a "
            "foreign one is not out of place"
        )
        return
    yield f"out of place without a model: {free.suspects:,} of {free.looked_at:,}"
    if free.suspects > free.looked_at * 0.4:
        yield "  so many that nobody can say from here which side is foreign"
    if free.recall is not None:
        yield f"  that is {free.recall:.1%} of the foreign ones"
    if free.precision is not None:
        yield f"  and {free.precision:.1%} of what was suspected is foreign"
