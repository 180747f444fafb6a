"""A plot of lines as SVG within a page: drawn by hand, so that a report needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final, NamedTuple

STYLE: Final = """
:root { --c0: #47a; --c1: #c60; --c2: #2a7; --c3: #a4a }
svg { width: 100%; height: auto } svg text { font: 13px system-ui, sans-serif; fill: currentColor }
svg .axis { stroke: #8886 } svg polyline { fill: none; stroke-width: 2 }
"""
_WIDTH: Final = 800
_HEIGHT: Final = 420
_LEFT: Final = 70
_RIGHT: Final = 30
_TOP: Final = 40
_BOTTOM: Final = 60
_TICKS: Final = 6
_COLOURS: Final = 4
_DASHES: Final = ("", "7 4", "2 3", "9 3 2 3")
_ASIDE: Final = ((0, 22, "middle"), (0, -10, "middle"), (10, 5, "start"), (-10, 5, "end"))
"""Where the label of a point is, by its line, so that those of lines that meet do not."""


class Point(NamedTuple):
    """A point of a plot, and what stands beside it."""

    across: float
    up: float
    label: str


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a plot, through its points in their order."""

    name: str
    points: tuple[Point, ...]


def plot(title: str, lines: Sequence[Line], *, across: str, up: str) -> Iterator[str]:
    """Lines through labelled points over two axes that are named ``across`` and ``up``, as SVG.

    Both axes begin at 0; there is at least one point. ``title`` is for who does not see it.
    """
    right = _nice(max(point.across for line in lines for point in line.points))
    top = _nice(max(point.up for line in lines for point in line.points))
    yield f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
    yield from _axis_across(right, across)
    yield from _axis_up(top, up)
    for place, line in enumerate(lines):
        at = [_at(point, right, top) for point in line.points]
        yield from _legend(place, line.name)
        yield from _drawn(place, line, at)
    yield "</svg>"


def _nice(most: float) -> float:
    """An end of an axis that is not below ``most`` and that few round steps lead to."""
    step = _step(most)
    return max(step, step * math.ceil(most / step - 1e-9))


def _step(most: float) -> float:
    rough = (most or 1) / _TICKS
    unit = 10.0 ** math.floor(math.log10(rough))
    return next(unit * each for each in (1, 2, 2.5, 5, 10) if unit * each >= rough * (1 - 1e-9))


def _ticks(end: float) -> list[float]:
    step = _step(end)
    return [step * number for number in range(round(end / step) + 1)]


def _at(point: Point, right: float, top: float) -> tuple[float, float]:
    """Where a point is drawn."""
    x = _LEFT + point.across / right * (_WIDTH - _LEFT - _RIGHT)
    return x, _HEIGHT - _BOTTOM - point.up / top * (_HEIGHT - _TOP - _BOTTOM)


def _axis_across(end: float, name: str) -> Iterator[str]:
    for tick in _ticks(end):
        x, y = _at(Point(tick, 0, ""), end, 1)
        yield f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{y:.1f}"/>'
        yield _text(x, y + 20, f"{tick:,g}")
    yield _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 14, name)


def _axis_up(end: float, name: str) -> Iterator[str]:
    for tick in _ticks(end):
        x, y = _at(Point(0, tick, ""), 1, end)
        yield f'<line class="axis" x1="{x}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield _text(x - 8, y + 4, f"{tick:g}", "end")
    yield _text(_LEFT, 14, name)


def _legend(place: int, name: str) -> Iterator[str]:
    x = _LEFT + 160 + 130 * place
    yield f'<polyline {_stroke(place)} points="{x},10 {x + 34},10"/>'
    yield _text(x + 42, 14, name, "start")


def _drawn(place: int, line: Line, at: Sequence[tuple[float, float]]) -> Iterator[str]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    yield f'<polyline {_stroke(place)} points="{path}"/>'
    aside, below, anchor = _ASIDE[place % len(_ASIDE)]
    for point, (x, y) in zip(line.points, at, strict=True):
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{_colour(place)}"/>'
        yield _text(x + aside, y + below, point.label, anchor, f' style="fill: {_colour(place)}"')


def _colour(place: int) -> str:
    return f"var(--c{place % _COLOURS})"


def _stroke(place: int) -> str:
    dashes = _DASHES[place % len(_DASHES)]
    return f'stroke="{_colour(place)}" stroke-dasharray="{dashes}"'


def _text(x: float, y: float, text: str, anchor: str = "middle", style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{escape(text)}</text>'
