"""A verification as one page of HTML that needs nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Any, Final

from samespace.audit import markup
from samespace.migrate import plots
from samespace.migrate.ranking import NEAREST
from samespace.migrate.thresholds import Threshold
from samespace.migrate.verification import (
    Answer,
    Check,
    Example,
    Verification,
    VerifiedCollection,
    mark,
)

_STYLE: Final = (
    plots.STYLE
    + """
td.ok { color: #283 } td.failed { color: #b43; font-weight: bold } td.none { opacity: .6 }
.passed { color: #283 } .failed { color: #b43 }
table.side td { width: 50%; vertical-align: top } .score { opacity: .6; font-variant-numeric: tabular-nums }
mark { background: #47a3; color: inherit }
@media (prefers-color-scheme: dark) { td.ok, .passed { color: #6c7 } td.failed, .failed { color: #f87 } }
"""
)


def verification_page(verification: Verification) -> str:
    """The page. It has no script, and nothing of it is loaded from elsewhere."""
    return markup.page("Verification of a migration", _body(verification), style=_STYLE)


def _body(found: Verification) -> Iterator[str]:
    kind = "passed" if found.passed else "failed"
    yield f'<p class="big {kind}">{escape(found.verdict)}</p>'
    when = "" if found.made_at is None else f"made at {found.made_at}, "
    yield from markup.paragraphs(
        [
            f"{when}by samespace {found.version}; {found.tokens:,} tokens spent; hash {found.hash[:12]}"
        ]
    )
    for each in found.collections:
        yield from _collection(each)


def _collection(found: VerifiedCollection) -> Iterator[str]:
    yield f"<h2>{escape(found.name)}</h2>"
    yield from markup.paragraphs([f"{found.source} to {found.target}, {found.rows:,} rows"])
    yield from _checks(found.checks)
    figures = {each.name: each.figures for each in found.checks if each.figures}
    for name, plot in _PLOTS.items():
        if name in figures:
            yield from _drawn(plot, figures[name])
    yield from _thresholds(found)
    if found.examples:
        yield "<h3>Queries whose rankings changed most</h3>"
        for example in found.examples:
            yield from _example(example)


def _drawn(plot: Callable[[Any], Iterator[str]], figures: Any) -> list[str]:
    """A plot, or nothing where a file has other figures than it is made of."""
    try:
        return list(plot(figures))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return []


def _checks(checks: Sequence[Check]) -> Iterator[str]:
    yield "<table><tr><th></th><th>check</th><th>what was found</th></tr>"
    for each in checks:
        said = mark(each)
        kind = {"ok": "ok", "FAILED": "failed"}.get(said, "none")
        yield (
            f'<tr><td class="{kind}">{said}</td><td>{escape(each.name)}</td>'
            f"<td>{escape(each.sentence)}</td></tr>"
        )
    yield "</table>"


def _cosines(figures: Any) -> Iterator[str]:
    if "histogram" in figures:
        yield "<h3>Cosine of each sampled vector with that of its text now</h3>"
        yield from markup.histogram(figures["edges"], figures["histogram"], figures["threshold"])


def _tenths(figures: Any) -> Iterator[str]:
    yield f"<h3>How many of the first {NEAREST} hits stayed</h3>"
    yield from plots.columns(
        [str(place) for place in range(NEAREST + 1)],
        figures["tenths"],
        below=f"hits that both rankings have among their first {NEAREST}, and how many queries",
        says=f"overlap at {NEAREST} is {figures['mean']:.3f} on average",
    )


def _places(figures: Any) -> Iterator[str]:
    yield "<h3>By how many places these moved</h3>"
    yield from plots.columns(
        [str(place) for place in range(NEAREST)],
        figures["places"],
        below="places up or down, and how many hits",
        says=f"half of the hits moved by at most {figures['p50']} places",
    )


def _latency(figures: Any) -> Iterator[str]:
    yield "<h3>How long a search takes</h3>"
    rows = [
        (f"{share} {side}", figures[side][share], f"{figures[side][share] * 1000:.2f} ms", side)
        for share in ("p50", "p95")
        for side in ("old", "new")
    ]
    says = ", ".join(f"{label} {shown}" for label, _, shown, _ in rows)
    yield from plots.bars(rows, says=says)


_PLOTS: Final = {
    "sample": _cosines,
    "overlap": _tenths,
    "rank-shift": _places,
    "latency": _latency,
}


def _thresholds(found: VerifiedCollection) -> Iterator[str]:
    if not found.curve:
        return
    yield "<h3>Thresholds</h3>"
    said = (
        "Scores of two spaces are not comparable. On the line as large a share of the hits reaches the "
        "old threshold in the old space as reaches the new one in the new."
    )
    yield from markup.paragraphs([said])
    yield from plots.curve(
        [(old, new) for _, old, new in found.curve],
        [_marked(each, found) for each in found.thresholds],
        across="old threshold",
        up="new threshold",
        says="; ".join(map(str, found.thresholds)) or "the new threshold for each old one",
    )
    rows = [
        (f"{each.old:g}", f"{each.new:.4f}", _bounds(each), f"{each.share:.1%}")
        for each in found.thresholds
    ]
    if rows:
        yield from markup.table(("old", "new", "at 95 %", "hits that pass"), rows)


def _marked(each: Threshold, found: VerifiedCollection) -> plots.Mark:
    """An open side goes as far as the curve does."""
    scores = [new for _, _, new in found.curve]
    low = min(scores) if each.low is None else each.low
    high = max(scores) if each.high is None else each.high
    return each.old, each.new, low, high


def _bounds(each: Threshold) -> str:
    low = "open" if each.low is None else f"{each.low:.4f}"
    high = "open" if each.high is None else f"{each.high:.4f}"
    return f"{low} to {high}"


def _example(example: Example) -> Iterator[str]:
    shared = {each.id for each in example.old} & {each.id for each in example.new}
    stayed = round(example.overlap * NEAREST)
    yield f"<h4>{escape(example.query)}</h4>"
    yield from markup.paragraphs([f"{stayed} of the first {NEAREST} stayed"])
    yield '<table class="side"><tr><th>old</th><th>new</th></tr><tr>'
    for side in (example.old, example.new):
        yield f"<td>{_answers(side, shared)}</td>"
    yield "</tr></table>"


def _answers(answers: Sequence[Answer], shared: set[str]) -> str:
    found = []
    for each in answers:
        id = escape(each.id)
        shown = f"<mark>{id}</mark>" if each.id in shared else id
        found.append(
            f'<li>{shown} <span class="score">{each.score:.4f}</span><br>{escape(each.text)}</li>'
        )
    return f"<ol>{''.join(found)}</ol>"
