"""Clustering strength of the embedding per emotion, beside the paper's table 5."""

from __future__ import annotations

from typing import Any

from dicetalk.labels import EMOTIONS
from dicetalk.report.charts import value_axis
from dicetalk.report.figure import Figure, described_svg
from dicetalk.report.plots import MARKS, mark_sample

INPUTS = {
    "audio": ("audio", "--series-2", 2),
    "video": ("video", "--ceiling", 1),
    "both": ("video + audio", "--series-1", 0),
}
PAPER_TABLE = 5


def clustering_figure(strengths: dict[str, dict[str, float]], published: list[dict[str, Any]]) -> Figure:
    """Draw `clustering_strength` of `metrics/train_embedder.json` and table the paper's values below.

    Args:
        strengths: input -> emotion -> strength; inputs the embedder does not have are missing.
        published: the tables of `published.yaml`.
    """
    inputs = {name: style for name, style in INPUTS.items() if name in strengths}
    rows = [
        [f"this run, {label}", *(_text(strengths[name].get(emotion)) for emotion in EMOTIONS)]
        for name, (label, _, _) in inputs.items()
    ]
    paper = next(table for table in published if table["number"] == PAPER_TABLE)
    for label, values in paper["rows"].items():
        known = dict(zip(paper["columns"], values, strict=True))
        rows.append([f"paper, {label}", *(known.get(emotion) or "–" for emotion in EMOTIONS)])
    return Figure(
        "Clustering strength",
        "Held-out people; mean distance to clips of other emotions over mean distance to clips"
        " of the same emotion by"
        " other people, per emotion; 1 = no clusters. The paper does not state its formula:"
        " compare which input"
        " clusters better and which emotion stands out, not the values. A dash is a value not known to us.",
        [_dots(strengths, inputs)],
        ["Clustering strength", *EMOTIONS],
        rows,
        [(mark_sample(f"var({colour})", mark), label) for label, colour, mark in inputs.values()],
    )


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _dots(strengths: dict[str, dict[str, float]], inputs: dict[str, tuple[str, str, int]]) -> Any:
    from matplotlib.ticker import MaxNLocator

    width, row, left, right, bottom = 520, 26, 84, 16, 22
    values = [value for name in inputs for value in strengths[name].values()]
    ticks = MaxNLocator(nbins=5).tick_values(min(1.0, *values), max(values))
    height = row * len(EMOTIONS) + bottom + 4
    place, parts = value_axis(ticks, left, width - right, height, bottom)
    for number, emotion in enumerate(EMOTIONS):
        y = 4 + row * (number + 0.5)
        parts.append(f'<text class="name end" x="{left - 10}" y="{y + 4:.1f}">{emotion}</text>')
        for name, (_, colour, mark) in inputs.items():
            if emotion in strengths[name]:
                parts.append(
                    f'<path class="mark marked" style="fill:var({colour})" d="{MARKS[mark]}"'
                    f' transform="translate({place(strengths[name][emotion]):.1f} {y:.1f}) scale(5)"/>'
                )
    return described_svg(
        width, height, "Clustering strength per emotion", "A row per emotion and a mark per input.", parts
    )
