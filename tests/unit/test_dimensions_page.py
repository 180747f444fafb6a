"""The page of a dry run: text stays text, and what is drawn is where its figures say."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape

import pytest

from samespace.migrate.dimensions import DimensionReport, DimensionRow
from samespace.migrate.dimensions_page import dimensions_page
from samespace.migrate.line_plot import Line, Point, plot
from samespace.space import EmbeddingSpace

SPACE = EmbeddingSpace(model="jina-embeddings-v3", dimensions=1024, task="retrieval.passage")


def drawn(*lines: Line) -> str:
    return "".join(plot("A <plot>", lines, across="bytes & more", up="overlap"))


def circles(svg: str) -> list[tuple[float, float]]:
    """Where their centres are."""
    found = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', svg)
    return [(float(x), float(y)) for x, y in found]


def row(dimensions: int, precision: str, overlap: float, disk: int | None) -> DimensionRow:
    return DimensionRow(
        dimensions=dimensions,
        precision=precision,  # type: ignore[arg-type]
        overlap=overlap,
        disk_per_row=disk,
        memory_per_row=disk,
    )


def report(*rows: DimensionRow) -> DimensionReport:
    return DimensionReport(
        space=SPACE, documents=300, queries=40, own_queries=False, tokens=12_345, rows=rows
    )


def test_text_stays_text_and_the_page_loads_nothing() -> None:
    space = EmbeddingSpace(model="<script>", dimensions=8)
    made = dimensions_page(replace(report(), space=space))
    assert "<title>Smaller sizes of &lt;script&gt;@8</title>" in made
    assert "<script" not in made
    assert not re.search(r"https?:|src=|@import|url\(", made)


def test_points_are_where_their_figures_say() -> None:
    ends = (Point(0, 0, "none"), Point(6000, 1, "<all>"))
    found = drawn(Line("float", ends), Line("half", (Point(3000, 0.5, "mid"),)))
    (x0, y0), (x1, y1), (x2, y2) = circles(found)
    assert (x2, y2) == pytest.approx(((x0 + x1) / 2, (y0 + y1) / 2), abs=0.1)
    assert x0 < x1
    assert y1 < y0
    said = {unescape(each) for each in re.findall(r"<text[^>]*>([^<]*)</text>", found)}
    assert said > {"none", "<all>", "mid", "float", "half", "bytes & more", "overlap"}
    assert said > {"0", "1,000", "6,000", "0.2", "1"}


@pytest.mark.parametrize("most", [1e-4, 0.07, 1, 3, 6853, 1e7])
def test_an_axis_reaches_the_last_point_in_a_few_round_steps(most: float) -> None:
    found = drawn(Line("only", (Point(most, most, ""),)))
    [(x, y)] = circles(found)
    assert 400 < x < 800
    assert 0 < y < 210
    assert 8 <= found.count("<line") <= 16


def test_a_dry_run_is_a_line_for_each_precision_that_the_store_has() -> None:
    rows = (
        row(1024, "float", 1.0, 6850),
        row(1024, "binary", 0.52, None),
        row(256, "float", 0.6, 2000),
        row(256, "half", 0.6, 1500),
    )
    made = dimensions_page(report(*rows))
    assert made.count("<circle") == 3
    assert ">half</text>" in made
    assert ">binary</text>" not in made
    assert "<td>binary</td><td>0.520</td><td>not there</td>" in made
    assert "12,345 tokens" in made


def test_without_sizes_nothing_is_drawn_and_the_page_says_so() -> None:
    made = dimensions_page(report(row(1024, "float", 1.0, None)))
    assert "<svg" not in made
    assert "nothing is drawn" in made
