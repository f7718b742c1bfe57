"""A figure of the report: pictures, what they show in words, and their numbers as a table below them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape


@dataclass(frozen=True)
class Figure:
    """What the template `figure.html.j2` draws.

    Attributes:
        title: one line.
        caption: how to read it, and what the numbers are.
        charts: the pictures.
        columns: heads of the table that says the same in text.
        rows: its cells, the first of each row names the row.
        legend: sample and name of each series.
    """

    title: str
    caption: str
    charts: Sequence[Markup]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    legend: Sequence[tuple[Markup, str]] = ()


def described_svg(width: float, height: float, title: str, description: str, parts: Sequence[str]) -> Markup:
    """Return inline SVG with a title and a description for readers that do not see it."""
    return Markup(
        f'<svg class="chart" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
        f' role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>'
        f"<desc>{escape(description)}</desc>{''.join(parts)}</svg>"
    )
