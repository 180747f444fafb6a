"""An audit's report as one page of HTML that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from typing import Final

from samespace.audit.report import (
    AuditReport,
    said_of_end,
    said_of_free,
    said_of_interval,
    said_of_part,
)
from samespace.audit.verdicts import Finding, edge_text, shown

SHOWN: Final = 1_000
"""How many findings a page lists; all are in the JSON."""
_STYLE: Final = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .2rem .6rem; border-bottom: 1px solid #8884 }
td.n { text-align: right; font-variant-numeric: tabular-nums }
td.bar { width: 60% } td.bar span { display: block; height: 1rem; background: #47a }
tr.low td.bar span { background: #b43 }
.big { font-size: 2rem }
"""


def page_of(report: AuditReport) -> str:
    """The page. It has no script, and nothing of it is loaded from elsewhere."""
    return "\n".join(_page(report)) + "\n"


def _page(report: AuditReport) -> Iterator[str]:
    title = escape(f"Audit of {report.collection}")
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width">'
    yield f"<title>{title}</title><style>{_STYLE}</style></head><body>"
    yield f"<h1>{title}</h1><p>{escape(str(report.space))}, {report.population:,} vectors</p>"
    yield f'<p class="big">{_headline(report)}</p>'
    yield from _paragraphs(said_of_end(report))
    yield from _table(("what", "rows"), _numbered(_counts(report)))
    if report.likely:
        yield "<h2>What the foreign vectors are likely to be</h2>"
        yield from _table(("likely", "rows"), _numbered(report.likely.items()))
    if report.unasked:
        yield "<h2>Candidates that did not answer</h2>"
        yield from _table(("candidate", "reason"), report.unasked.items())
    if any(report.histogram):
        yield "<h2>Cosine of each stored vector with that of its text now</h2>"
        yield from _histogram(report)
    free = list(said_of_free(report))
    if free:
        yield "<h2>Without a model</h2>"
        yield from _paragraphs(free)
    if report.findings:
        yield "<h2>Rows</h2>"
        rows = (_row(each, report.threshold) for each in report.findings[:SHOWN])
        yield from _table(("verdict", "id", "cosine", "likely"), rows)
    if len(report.findings) > SHOWN:
        yield f"<p>and {len(report.findings) - SHOWN:,} more</p>"
    yield "</body></html>"


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


def _paragraphs(lines: Iterable[str]) -> Iterator[str]:
    return (f"<p>{escape(line.strip())}</p>" for line in lines)


def _row(finding: Finding, threshold: float) -> tuple[str, str, str, str]:
    cosine = "" if finding.cosine is None else shown(finding.cosine, threshold)
    return (str(finding.verdict), finding.id, cosine, finding.likely)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    yield "<table><tr>" + "".join(f"<th>{escape(each)}</th>" for each in head) + "</tr>"
    for row in rows:
        yield "<tr>" + "".join(f"<td>{escape(each)}</td>" for each in row) + "</tr>"
    yield "</table>"


def _histogram(report: AuditReport) -> Iterator[str]:
    most = max(report.histogram, default=0)
    yield "<table><tr><th>from</th><th>rows</th><th></th></tr>"
    for edge, count in zip(report.edges, report.histogram, strict=False):
        if count:
            kind = ' class="low"' if edge < report.threshold else ""
            width = max(1, round(100 * count / most))
            yield (
                f'<tr{kind}><td class="n">{edge_text(edge)}</td><td class="n">{count:,}</td>'
                f'<td class="bar"><span style="width:{width}%"></span></td></tr>'
            )
    yield "</table>"
