"""Charts as inline SVG; colours are CSS variables of the page, so they follow its light and dark theme."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval, as one row of `interval_chart`.

    Attributes:
        label: what was measured.
        value: the estimate.
        low: lower end.
        high: upper end.
        role: CSS class: `ours`, `ceiling` or `floor`.
    """

    label: str
    value: float
    low: float
    high: float
    role: str


def line_chart(label: str, series: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Markup:
    """Draw one or two curves over optimiser steps; the last value of each is written beside its end.

    Args:
        label: what the picture shows, for screen readers.
        series: CSS class (`train` or `validation`) -> steps and finite values.
    """
    width, height, right, top, bottom = 300, 150, 50, 8, 22
    steps = np.concatenate([x for x, _ in series.values()])
    values = np.concatenate([y for _, y in series.values()])
    ticks = _ticks(float(values.min()), float(values.max()))
    left = max(44, 8 + 7 * max(len(f"{tick:g}") for tick in ticks))
    last_step = max(float(steps.max()), 1.0)

    def place_x(step: float) -> float:
        return left + step / last_step * (width - left - right)

    def place_y(value: float) -> float:
        return height - bottom - (value - ticks[0]) / (ticks[-1] - ticks[0]) * (height - top - bottom)

    parts = []
    for tick in ticks:
        y = place_y(tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick end" x="{left - 6}" y="{y + 3.5:.1f}">{tick:g}</text>')
    for step in (0.0, last_step):
        parts.append(f'<text class="tick middle" x="{place_x(step):.1f}" y="{height - 6}">{step:g}</text>')
    ends = []
    for name, curve in series.items():
        points = [(place_x(step), place_y(value)) for step, value in zip(*curve, strict=True)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline class="curve {name}" points="{line}"/>')
        if name == "validation":
            parts += [f'<circle class="dot {name}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in points]
        ends.append((points[-1][1], name, f"{curve[1][-1]:.3g}"))
    for y, name, text in _spread(ends, 11.0):
        parts.append(f'<text class="value {name}" x="{width - right + 5}" y="{y + 3.5:.1f}">{text}</text>')
    return _svg(width, height, label, parts)


def interval_chart(label: str, rows: Sequence[Interval]) -> Markup:
    """Draw estimates as dots on their 95 % intervals, one row per system."""
    width, row_height, left, right, bottom = 340, 22, 112, 16, 22
    height = row_height * len(rows) + bottom + 4
    ticks = _ticks(min(row.low for row in rows), max(row.high for row in rows))
    place, parts = value_axis(ticks, left, width - right, height, bottom)
    for number, row in enumerate(rows):
        y = 4 + row_height * (number + 0.5)
        parts.append(
            f'<text class="name end {row.role}" x="{left - 10}" y="{y + 4:.1f}">{escape(row.label)}</text>'
        )
        parts.append(
            f'<line class="whisker {row.role}" x1="{place(row.low):.1f}" x2="{place(row.high):.1f}"'
            f' y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(f'<circle class="dot {row.role}" cx="{place(row.value):.1f}" cy="{y:.1f}" r="4"/>')
    return _svg(width, height, label, parts)


def value_axis(
    ticks: Sequence[float] | np.ndarray, left: float, right: float, height: float, bottom: float
) -> tuple[Callable[[float], float], list[str]]:
    """Return what places values between `left` and `right`, and grid lines and numbers of the axis."""

    def place(value: float) -> float:
        return left + (value - ticks[0]) / (ticks[-1] - ticks[0]) * (right - left)

    parts = []
    for tick in ticks:
        x = place(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{height - bottom}"/>')
        parts.append(f'<text class="tick middle" x="{x:.1f}" y="{height - 7}">{round(tick, 10):g}</text>')
    return place, parts


def heat_map(label: str, rows: Sequence[str], columns: Sequence[str], matrix: np.ndarray) -> Markup:
    """Draw a matrix in `[-1, 1]` with its values: blue above zero, orange below.

    Args:
        label: what the picture shows, for screen readers.
        rows: names, from the top.
        columns: names, from the left.
        matrix: `(rows, columns)`; NaN leaves a cell empty.
    """
    cell, left, top = 38, 92, 62
    width, height = left + cell * len(columns) + 30, top + cell * len(rows)
    parts = []
    for j, name in enumerate(columns):
        move = f"translate({left + cell * (j + 0.5):.1f} {top - 8}) rotate(-45)"
        parts.append(f'<text class="tick" transform="{move}">{escape(name)}</text>')
    for i, name in enumerate(rows):
        middle = top + cell * (i + 0.5)
        parts.append(f'<text class="tick end" x="{left - 8}" y="{middle + 3.5:.1f}">{escape(name)}</text>')
        for j in range(len(columns)):
            if np.isfinite(matrix[i, j]):
                parts.append(_cell(float(matrix[i, j]), left + cell * j, top + cell * i, cell))
    return _svg(width, height, label, parts)


def _cell(value: float, x: float, y: float, size: float) -> str:
    strength = round(100 * min(abs(value), 1.0))
    hue = "--series-1" if value >= 0 else "--series-2"
    text = f"{value:.2f}".replace("0.", ".", 1).replace("-.00", ".00")
    return (
        f'<rect x="{x}" y="{y}" width="{size - 2}" height="{size - 2}" rx="3"'
        f' style="fill:color-mix(in srgb, var({hue}) {strength}%, var(--surface))"/>'
        f'<text class="cell{" strong" if strength > 55 else ""}" x="{x + size / 2 - 1}"'
        f' y="{y + size / 2 + 3:.1f}">{text}</text>'
    )


def _ticks(low: float, high: float) -> np.ndarray:
    from matplotlib.ticker import MaxNLocator

    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    return np.round(MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high), 10)


def _spread(ends: list[tuple[float, str, str]], gap: float) -> list[tuple[float, str, str]]:
    """Move labels apart vertically so that they do not overlap."""
    placed: list[tuple[float, str, str]] = []
    for y, name, text in sorted(ends):
        placed.append((max(y, placed[-1][0] + gap) if placed else y, name, text))
    return placed


def _svg(width: float, height: float, label: str, parts: Sequence[str]) -> Markup:
    return Markup(
        f'<svg class="chart" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"'
        f' aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
