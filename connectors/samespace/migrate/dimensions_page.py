"""A dry run of dimensions as one page of HTML: what a ranking keeps, against what a row takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from samespace.audit import markup
from samespace.migrate.estimating import shown_size
from samespace.migrate.line_plot import STYLE, Line, Point, plot

if TYPE_CHECKING:
    from samespace.migrate.dimensions import DimensionReport, DimensionRow

_HEAD = ("size", "precision", "overlap@10", "disk a row", "memory a row")
_MEANT = (
    "overlap@10 is the share of the ten nearest at full size that are among the ten nearest here, on "
    "average, without what an approximate index misses."
)


def dimensions_page(report: DimensionReport) -> str:
    """The page. It has no script, and nothing of it is loaded from elsewhere."""
    title = f"Smaller sizes of {report.space}"
    return markup.page(title, _body(report), style=STYLE)


def _body(report: DimensionReport) -> Iterator[str]:
    asked = "queries that were given" if report.own_queries else "first sentences of these"
    found = f"{report.documents:,} documents, {report.queries:,} {asked}; {report.tokens:,} tokens spent"
    yield from markup.paragraphs((found, _MEANT))
    lines = list(_lines(report.rows))
    if lines:
        yield from plot(
            "overlap@10 by bytes a row",
            lines,
            across="bytes a row on disk, with index",
            up="overlap@10",
        )
        yield from markup.paragraphs(("A point is labelled with its number of dimensions.",))
    else:
        yield from markup.paragraphs(
            ("The store does not say what a row takes, so nothing is drawn.",)
        )
    yield from markup.table(_HEAD, map(_cells, report.rows))


def _lines(rows: Sequence[DimensionRow]) -> Iterator[Line]:
    """One for each precision that the store has, from the smallest size on."""
    for precision in dict.fromkeys(row.precision for row in rows):
        points = [
            Point(row.disk_per_row, row.overlap, str(row.dimensions))
            for row in sorted(rows, key=lambda row: row.dimensions)
            if row.precision == precision and row.disk_per_row is not None
        ]
        if points:
            yield Line(precision, tuple(points))


def _cells(row: DimensionRow) -> tuple[str, ...]:
    weights = (row.disk_per_row, row.memory_per_row)
    return (
        f"{row.dimensions:,}",
        row.precision,
        f"{row.overlap:.3f}",
        *("not there" if size is None else shown_size(size) for size in weights),
    )
