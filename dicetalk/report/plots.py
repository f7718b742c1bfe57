"""Charts of values with intervals over a numeric axis, and scatter plots, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from dicetalk.report.figure import described_svg

# Marks that can be told apart without colour, within a circle of radius 1 around the origin.
MARKS = (
    "M1,0A1,1,0,1,1,-1,0A1,1,0,1,1,1,0Z",  # circle
    "M-.85,-.85H.85V.85H-.85Z",  # square
    "M0,-1.05L1,.75H-1Z",  # triangle
    "M0,1.05L1,-.75H-1Z",  # triangle, point down
    "M0,-1.2L1.2,0L0,1.2L-1.2,0Z",  # diamond
    "M-.35,-1H.35V-.35H1V.35H.35V1H-.35V.35H-1V-.35H-.35Z",  # plus
    "M-1,-.6L-.6,-1L0,-.4L.6,-1L1,-.6L.4,0L1,.6L.6,1L0,.4L-.6,1L-1,.6L-.4,0Z",  # cross
    "M0,-1.2L.3,-.35L1.15,-.35L.5,.2L.75,1.05L0,.55L-.75,1.05L-.5,.2L-1.15,-.35L-.3,-.35Z",  # star
)


@dataclass(frozen=True)
class Series:
    """A line of `interval_lines`.

    Attributes:
        label: its name.
        colour: CSS colour, so that the theme of the page decides.
        x, y: the points.
        low, high: ends of the 95 % interval of each point.
        dashed: drawn broken, to be told apart without colour.
    """

    label: str
    colour: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    dashed: bool = False


@dataclass(frozen=True)
class Point:
    """A mark of `scatter`: place, colour, form as index into `MARKS`, and whether it stands out."""

    x: float
    y: float
    colour: str
    mark: int
    marked: bool


def interval_lines(
    title: str,
    description: str,
    series: Sequence[Series],
    *,
    x_label: str,
    limits: tuple[float, float] | None = None,
    logarithmic: bool = False,
    reference: tuple[float, str] | None = None,
    size: tuple[int, int] = (340, 190),
) -> Markup:
    """Draw lines through points with their intervals.

    Args:
        title: what the picture shows.
        description: the same for readers that do not see it.
        series: the lines; their x values are the ticks of the axis.
        x_label: quantity and unit of the horizontal axis.
        limits: of the vertical axis; by default what the intervals need.
        logarithmic: whether x is drawn on a logarithmic scale.
        reference: a value with its name, drawn as a horizontal line.
        size: width and height in pixels.
    """
    from matplotlib.ticker import MaxNLocator

    width, height = size
    left, right, top, bottom = 40, 14, 10, 36
    xs = sorted({x for line in series for x in line.x})
    low, high = limits or (
        min(value for line in series for value in line.low),
        max(value for line in series for value in line.high),
    )
    ticks = MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    scale = math.log if logarithmic else float
    first, last = scale(xs[0]), scale(xs[-1])

    def place_x(x: float) -> float:
        share = (scale(x) - first) / (last - first) if last > first else 0.5
        return left + 12 + share * (width - left - right - 24)

    def place_y(y: float) -> float:
        return height - bottom - (y - ticks[0]) / (ticks[-1] - ticks[0]) * (height - top - bottom)

    parts = []
    for tick in ticks:
        y = place_y(tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick end" x="{left - 6}" y="{y + 3.5:.1f}">{round(tick, 10):g}</text>')
    parts += [
        f'<text class="tick middle" x="{place_x(x):.1f}" y="{height - bottom + 14}">{x:g}</text>' for x in xs
    ]
    middle = (left + width - right) / 2
    parts.append(f'<text class="tick middle" x="{middle:.1f}" y="{height - 5}">{escape(x_label)}</text>')
    if reference:
        y = place_y(reference[0])
        parts.append(f'<line class="reference" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="tick end" x="{width - right}" y="{y - 4:.1f}">{escape(reference[1])}</text>'
        )
    for number, line in enumerate(series):
        shift = 3 * (number - (len(series) - 1) / 2)  # intervals of one x stay side by side
        points = [(place_x(x) + shift, place_y(y)) for x, y in zip(line.x, line.y, strict=True)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dash = ' stroke-dasharray="5 3"' if line.dashed else ""
        parts.append(f'<polyline class="curve" style="stroke:{line.colour}"{dash} points="{path}"/>')
        for (x, y), bottom_end, top_end in zip(points, line.low, line.high, strict=True):
            parts.append(
                f'<line class="whisker" style="stroke:{line.colour}" x1="{x:.1f}" x2="{x:.1f}"'
                f' y1="{place_y(bottom_end):.1f}" y2="{place_y(top_end):.1f}"/>'
            )
            parts.append(f'<circle style="fill:{line.colour}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
    return described_svg(width, height, title, description, parts)


def line_sample(colour: str, dashed: bool = False) -> Markup:
    """Return a piece of a line for a legend."""
    dash = ' stroke-dasharray="5 3"' if dashed else ""
    return Markup(
        f'<svg class="sample" viewBox="0 0 24 10" width="24" height="10" aria-hidden="true">'
        f'<polyline class="curve" style="stroke:{colour}"{dash} points="0,5 24,5"/></svg>'
    )


def scatter(title: str, description: str, points: Sequence[Point], side: int = 380) -> Markup:
    """Draw points of a plane without axes: only who is near whom has a meaning."""
    places = np.array([(point.x, point.y) for point in points])
    low, high = places.min(axis=0), places.max(axis=0)
    scale = (side - 24) / max(float((high - low).max()), 1e-9)
    offset = (side - scale * (high - low)) / 2
    parts = [f'<rect class="frame" x="0.5" y="0.5" width="{side - 1}" height="{side - 1}" rx="6"/>']
    order = sorted(range(len(points)), key=lambda index: points[index].marked)  # marked ones on top
    for index in order:
        x, y = offset + scale * (places[index] - low)
        parts.append(_mark(points[index], x, side - y))
    return described_svg(side, side, title, description, parts)


def mark_sample(colour: str, mark: int, marked: bool = True) -> Markup:
    """Return a mark for a legend."""
    content = _mark(Point(0, 0, colour, mark, marked), 7, 7)
    return Markup(
        f'<svg class="sample" viewBox="0 0 14 14" width="14" height="14" aria-hidden="true">{content}</svg>'
    )


def _mark(point: Point, x: float, y: float) -> str:
    size = 4.6 if point.marked else 2.6
    kind = "marked" if point.marked else "unmarked"
    return (
        f'<path class="mark {kind}" style="fill:{point.colour}" d="{MARKS[point.mark]}"'
        f' transform="translate({x:.1f} {y:.1f}) scale({size})"/>'
    )
