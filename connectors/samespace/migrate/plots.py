"""Plots as SVG within a page: drawn by hand, so that a report needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

STYLE: Final = """
svg { display: block; max-width: 100%; font: 12px system-ui, sans-serif }
svg text { fill: currentColor } svg .axis { stroke: #8888; fill: none }
svg .old { fill: #999 } svg .new { fill: #47a } svg .fit { stroke: #47a; stroke-width: 2; fill: none }
svg .mark { fill: #b43 } svg .reach { stroke: #b43; stroke-width: 2 }
"""
_WIDTH: Final = 640
_LEFT: Final = 60
_RIGHT: Final = 100
_ROW: Final = 22
_HEIGHT: Final = 220
_FOOT: Final = 40
_HEAD: Final = 20
_SIDE: Final = 420
"""Of a curve, which is a square but for its margins."""
Bar = tuple[str, float, str, str]
"""Its label, its value, that in words, and ``old`` or ``new``."""
Mark = tuple[float, float, float, float]
"""A point, x and y, and from where to where its y may be."""


def bars(rows: Sequence[Bar], *, says: str) -> Iterator[str]:
    """Lying bars, as long as their values; ``says`` is what the plot is for who cannot see it."""
    most = max((value for _, value, _, _ in rows), default=0) or 1
    height = _ROW * len(rows) + 6
    yield _opening(_WIDTH, height, says)
    for place, (label, value, shown, kind) in enumerate(rows):
        top = _ROW * place + 4
        width = (_WIDTH - _LEFT - _RIGHT) * value / most
        yield _text(_LEFT - 6, top + 13, label, anchor="end")
        yield _box(_LEFT, top, max(width, 1), _ROW - 6, kind)
        yield _text(_LEFT + max(width, 1) + 6, top + 13, shown)
    yield "</svg>"


def columns(
    labels: Sequence[str], counts: Sequence[int], *, below: str, says: str
) -> Iterator[str]:
    """Standing bars with their numbers; ``below`` names what they are counted by."""
    most = max(counts, default=0) or 1
    step = (_WIDTH - _LEFT) / max(len(counts), 1)
    floor = _HEIGHT - _FOOT
    yield _opening(_WIDTH, _HEIGHT, says)
    for place, (label, count) in enumerate(zip(labels, counts, strict=True)):
        height = (floor - _HEAD) * count / most
        left = _LEFT / 2 + place * step
        yield _box(left + 3, floor - height, step - 6, height, "new")
        yield _text(left + step / 2, floor + 14, label, anchor="middle")
        if count:
            yield _text(left + step / 2, floor - height - 5, f"{count:,}", anchor="middle")
    yield _line((_LEFT / 2, floor), (_WIDTH - _LEFT / 2, floor))
    yield _text(_WIDTH / 2, _HEIGHT - 6, below, anchor="middle")
    yield "</svg>"


def curve(
    points: Sequence[tuple[float, float]],
    marks: Sequence[Mark],
    *,
    across: str,
    up: str,
    says: str,
) -> Iterator[str]:
    """Points joined by a line, and marks with what bounds them, on axes that begin where these do."""
    xs = [x for x, _ in points] + [mark[0] for mark in marks]
    ys = [y for _, y in points] + [y for mark in marks for y in mark[1:]]
    x, y = _Axis(xs, _LEFT, _SIDE - 20), _Axis(ys, _SIDE - _FOOT, _HEAD)
    yield _opening(_SIDE, _SIDE, says)
    yield _line((_LEFT, _SIDE - _FOOT), (_SIDE - 20, _SIDE - _FOOT))
    yield _line((_LEFT, _SIDE - _FOOT), (_LEFT, _HEAD))
    for value in x.ticks:
        yield _text(x.at(value), _SIDE - _FOOT + 14, f"{value:.2f}", anchor="middle")
    for value in y.ticks:
        yield _text(_LEFT - 6, y.at(value) + 4, f"{value:.2f}", anchor="end")
    path = " ".join(f"{x.at(a):.1f},{y.at(b):.1f}" for a, b in points)
    yield f'<polyline class="fit" points="{path}"/>'
    for a, b, low, high in marks:
        yield _line((x.at(a), y.at(low)), (x.at(a), y.at(high)), kind="reach")
        yield f'<circle class="mark" cx="{x.at(a):.1f}" cy="{y.at(b):.1f}" r="4"/>'
    yield _text((_SIDE + _LEFT) / 2, _SIDE - 6, across, anchor="middle")
    yield _text(_LEFT, _HEAD - 8, up)
    yield "</svg>"


class _Axis:
    """Where values are between two places."""

    def __init__(self, values: Sequence[float], begin: float, end: float) -> None:
        self._low, high = min(values), max(values)
        self._reach = (high - self._low) or 1.0
        self._begin, self._end = begin, end

    def at(self, value: float) -> float:
        return self._begin + (self._end - self._begin) * (value - self._low) / self._reach

    @property
    def ticks(self) -> list[float]:
        return [self._low + self._reach * part / 4 for part in range(5)]


def _opening(width: float, height: float, says: str) -> str:
    return (
        f'<svg role="img" aria-label="{escape(says)}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">'
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _box(x: float, y: float, width: float, height: float, kind: str) -> str:
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
    )


def _line(begin: tuple[float, float], end: tuple[float, float], *, kind: str = "axis") -> str:
    (a, b), (c, d) = begin, end
    return f'<line class="{kind}" x1="{a:.1f}" y1="{b:.1f}" x2="{c:.1f}" y2="{d:.1f}"/>'
