"""An audit's report as one page of HTML that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from typing import Final

from samespace.audit import markup
from samespace.audit.report import (
    AuditReport,
    said_of_end,
    said_of_free,
    said_of_interval,
    said_of_part,
)
from samespace.audit.verdicts import Finding, shown

SHOWN: Final = 1_000
"""How many findings a page lists; all are in the JSON."""


def page_of(report: AuditReport) -> str:
    """The page. It has no script, and nothing of it is loaded from elsewhere."""
    return markup.page(f"Audit of {report.collection}", _body(report))


def _body(report: AuditReport) -> Iterator[str]:
    yield f"<p>{escape(str(report.space))}, {report.population:,} vectors</p>"
    yield f'<p class="big">{_headline(report)}</p>'
    yield from markup.paragraphs(said_of_end(report))
    yield from markup.table(("what", "rows"), _numbered(_counts(report)))
    if report.likely:
        yield "<h2>What the foreign vectors are likely to be</h2>"
        yield from markup.table(("likely", "rows"), _numbered(report.likely.items()))
    if report.unasked:
        yield "<h2>Candidates that did not answer</h2>"
        yield from markup.table(("candidate", "reason"), report.unasked.items())
    if any(report.histogram):
        yield "<h2>Cosine of each stored vector with that of its text now</h2>"
        yield from markup.histogram(report.edges, report.histogram, report.threshold)
    free = list(said_of_free(report))
    if free:
        yield "<h2>Without a model</h2>"
        yield from markup.paragraphs(free)
    if report.findings:
        yield "<h2>Rows</h2>"
        rows = (_row(each, report.threshold) for each in report.findings[:SHOWN])
        yield from markup.table(("verdict", "id", "cosine", "likely"), rows)
    if len(report.findings) > SHOWN:
        yield f"<p>and {len(report.findings) - SHOWN:,} more</p>"


def _headline(report: AuditReport) -> str:
    if report.share is None:
        return "no row was judged"
    within = said_of_interval(report)
    return f"{report.share:.2%} foreign{said_of_part(report)}{within and f' ({within})'}"


def _counts(report: AuditReport) -> Iterator[tuple[str, int]]:
    yield "looked at", report.looked_at
    yield from ((verdict, count) for verdict, count in report.counts.items() if count)
    yield "pending", report.pending


def _numbered(counts: Iterable[tuple[str, int]]) -> Iterator[tuple[str, str]]:
    return ((what, f"{count:,}") for what, count in counts)


def _row(finding: Finding, threshold: float) -> tuple[str, str, str, str]:
    cosine = "" if finding.cosine is None else shown(finding.cosine, threshold)
    return (str(finding.verdict), finding.id, cosine, finding.likely)
