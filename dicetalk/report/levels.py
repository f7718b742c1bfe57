"""Does a higher level look stronger? Measured strength per level, ours beside real clips."""

from __future__ import annotations

import pandas as pd
from markupsafe import Markup

from dicetalk.evaluation.metrics.emotion import EXPRESSIVE
from dicetalk.evaluation.statistics import bootstrap_mean, rng_for
from dicetalk.evaluation.systems import find_system
from dicetalk.labels import EMOTIONS, LEVELS, NEUTRAL, levels_of
from dicetalk.report.figure import Figure
from dicetalk.report.plots import Series, interval_lines, line_sample

STRENGTH = "expression_strength"  # column of outputs/evaluation/per_clip.parquet
# System -> label, colour of its line, and whether it is dashed.
SYSTEMS = {
    name: (find_system(name).label, *style)
    for name, style in {"real": ("var(--ceiling)", True), "ours": ("var(--series-1)", False)}.items()
}
SEED = 0


def level_figure(per_clip: pd.DataFrame, num_samples: int) -> Figure | None:
    """Draw a small chart per emotion; None when no network measured the strength.

    Args:
        per_clip: a row per video with `system`, `emotion`, `level`, `identity` and `expression_strength`.
        num_samples: resamples of the bootstrap.
    """
    if STRENGTH not in per_clip or per_clip[STRENGTH].isna().all():
        return None
    table = per_clip[per_clip["system"].isin(SYSTEMS)].dropna(subset=[STRENGTH])
    charts, rows = [], []
    for emotion in EXPRESSIVE:
        lines = [
            _series(table[(table["system"] == system) & (table["emotion"] == emotion)], system, num_samples)
            for system in SYSTEMS
        ]
        shown = [line for line in lines if line.x]
        if shown:  # a small profile has no clip of some emotions
            charts.append(_chart(emotion, shown))
        rows += [[f"{emotion}, {line.label}", *_cells(line)] for line in shown]
    neutral = table[table["emotion"] == NEUTRAL].groupby("system")[STRENGTH].mean()
    note = ", ".join(f"{SYSTEMS[str(system)][0]} {value:.2f}" for system, value in neutral.items())
    return Figure(
        "Level and measured strength",
        "Strength of the expression as a network reads it from the frames, over the level that"
        " was asked for, with 95 %"
        f" bootstrap intervals over test people. Neutral, which has no levels, for comparison: {note}."
        " The network's scale is its own: compare ours with real clips and one level with the next.",
        charts,
        ["Strength at level", *(str(level) for level in LEVELS)],
        rows,
        [(line_sample(colour, dashed), label) for label, colour, dashed in SYSTEMS.values()],
    )


def _series(clips: pd.DataFrame, system: str, num_samples: int) -> Series:
    label, colour, dashed = SYSTEMS[system]
    levels = [level for level in levels_of(EMOTIONS[0]) if (clips["level"] == level).any()]
    estimates = []
    for level in levels:
        own = clips[clips["level"] == level]
        rng = rng_for(SEED, system, str(own["emotion"].iloc[0]), str(level))
        estimates.append(
            bootstrap_mean(own[STRENGTH].tolist(), rng, num_samples, identities=own["identity"].tolist())
        )
    return Series(
        label,
        colour,
        levels,
        [estimate.value for estimate in estimates],
        [estimate.low for estimate in estimates],
        [estimate.high for estimate in estimates],
        dashed,
    )


def _chart(emotion: str, lines: list[Series]) -> Markup:
    chart = interval_lines(
        f"Strength of {emotion} over its level",
        "A line for real clips and one for ours; the values are in the table below.",
        lines,
        x_label=f"{emotion}: level",
        size=(240, 160),
    )
    return chart


def _cells(line: Series) -> list[str]:
    values = dict(zip(line.x, zip(line.y, line.low, line.high, strict=True), strict=True))
    return ["{:.2f} [{:.2f}, {:.2f}]".format(*values[level]) if level in values else "–" for level in LEVELS]
