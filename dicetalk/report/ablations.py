"""The ablation table over seeds, and which of the paper's orderings it confirms.

Means carry Student's t interval over seeds. Differences to the baseline are taken seed by seed, as both
share data, metric networks, test clips and the seed of everything random, and carry the t interval of
these. With the few seeds of an affordable run the intervals are wide: t is 4.3 for three seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dicetalk.evaluation.metrics.table import by_topic
from dicetalk.files import read_json
from dicetalk.report.graph import load_yaml

PUBLISHED = Path(__file__).with_name("published.yaml")
# Name -> label and which way is better; the embedder's on held-out identities, see embedder_metrics.py.
COLUMNS = {row.name: (row.label, row.arrow) for row in by_topic()} | {
    "emotion_probe": ("Embedder: emotion probe", "↑"),
    "identity_probe": ("Embedder: identity probe", "↓"),
    "clustering_strength": ("Embedder: clustering strength", "↑"),
}
# Table 5 compares what the embedder is given; all columns of it are clustering strengths.
INPUTS = {"audio_only": "audio", "video_only": "video", "full": "video + audio"}
HOLDS, REVERSED, UNDECIDED = "holds", "reversed", "undecided"


@dataclass(frozen=True)
class Mean:
    """A mean over seeds; `low` and `high` are `None` for one seed, which has no interval."""

    value: float
    low: float | None
    high: float | None
    n: int

    def __str__(self) -> str:
        interval = "" if self.low is None else f" [{self.low:.3f}, {self.high:.3f}]"
        return f"{self.value:.3f}{interval}"

    def signed(self) -> str:
        """Return a difference for people."""
        interval = "" if self.low is None else f" [{self.low:+.3f}, {self.high:+.3f}]"
        return f"{self.value:+.3f}{interval}"

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low is not None and self.high is not None and self.low * self.high > 0


@dataclass(frozen=True)
class Row:
    """One variant: what it is, its seeds, and by metric the mean and the difference to the baseline."""

    name: str
    says: str
    seeds: list[int]
    means: dict[str, Mean]
    differences: dict[str, Mean]


@dataclass(frozen=True)
class Ordering:
    """One ordering of the paper's tables and what this run says about it.

    Attributes:
        claim: the ordering in words.
        source: the paper's two numbers.
        ours: the difference of the same two here, `None` where it was not measured.
        reading: `holds`, `reversed`, or `undecided` when the interval includes zero or there is none.
        drawn: why drawings may differ from people; a conjecture.
    """

    claim: str
    source: str
    ours: Mean | None
    reading: str
    drawn: str


@dataclass(frozen=True)
class Ablations:
    """All the report shows.

    Attributes:
        profile: what was shortened.
        baseline: name of the variant with everything.
        overrides: what all runs share.
        seed_keys: parameters that a seed changes, by `seed_step` times the seed.
        seed_step: see there.
        metrics: the columns, label and which way is better.
        rows: one per variant.
        orderings: of the paper.
        seconds: of one run.
        expected_by_chance: how many differences would exclude zero if nothing had an effect.
    """

    profile: str
    baseline: str
    overrides: dict[str, Any]
    seed_keys: list[str]
    seed_step: int
    metrics: dict[str, tuple[str, str]]
    rows: list[Row]
    orderings: list[Ordering]
    seconds: Mean | None
    expected_by_chance: float


def read_ablations(path: Path) -> Ablations | None:
    """Read `metrics/ablations.json`; `None` when there is no run in it, or no such file."""
    content = read_json(path) if path.is_file() else {"runs": []}
    runs = content["runs"]
    if not runs:
        return None
    found = {name for run in runs for name in run["metrics"]}
    metrics = {name: COLUMNS[name] for name in COLUMNS if name in found}
    values = {
        name: {run["seed"]: run["metrics"] for run in runs if run["variant"] == name}
        for name in content["variants"]
    }
    baseline = content["baseline"]
    rows = [
        Row(
            name,
            variant["says"],
            sorted(values[name]),
            {m: mean for m in metrics if (mean := _mean(values[name], m)) is not None},
            {
                m: difference
                for m in metrics
                if name != baseline and (difference := _difference(values, name, baseline, m)) is not None
            },
        )
        for name, variant in content["variants"].items()
    ]
    seconds = [run["seconds"] for run in runs if run["seconds"] is not None]
    return Ablations(
        content["profile"],
        baseline,
        content["overrides"],
        content["seeds"]["keys"],
        content["seeds"]["step"],
        metrics,
        rows,
        orderings(content["variants"], baseline, values),
        over_seeds(seconds) if seconds else None,
        0.05 * sum(d.low is not None for row in rows for d in row.differences.values()),
    )


def over_seeds(values: Sequence[float]) -> Mean:
    """Return the mean of independent values and its 95 % t interval."""
    from scipy.stats import t

    numbers = np.asarray(values, np.float64)
    mean, n = float(numbers.mean()), len(numbers)
    if n < 2:
        return Mean(mean, None, None, n)
    half = float(t.ppf(0.975, n - 1) * numbers.std(ddof=1) / np.sqrt(n))
    return Mean(mean, mean - half, mean + half, n)


def orderings(
    variants: Mapping[str, Mapping[str, Any]], baseline: str, values: Mapping[str, Mapping[int, Any]]
) -> list[Ordering]:
    """Return the orderings of the paper's tables 4 and 5 between variants of this run.

    Args:
        variants: by name, with `paper`, the row of table 4, and `drawn`.
        baseline: name of the variant that the others leave something out of.
        values: metrics by variant and seed.
    """
    tables = {table["number"]: table for table in load_yaml(PUBLISHED)["tables"]}
    found = []
    ablation = tables[4]
    for name, variant in variants.items():
        if name == baseline or variant["paper"] is None or baseline not in variants:
            continue
        pair = [ablation["rows"][variants[v]["paper"]] for v in (name, baseline)]
        for metric, *quoted in zip(ablation["metrics"], *pair, strict=True):
            found.append(_ordering(name, baseline, metric, quoted, values, variant["drawn"], "4"))
    strengths = tables[5]["rows"]
    known = [i for i in range(len(tables[5]["columns"])) if all(row[i] for row in strengths.values())]
    means = {name: f"{np.mean([float(row[i]) for i in known]):.2f}" for name, row in strengths.items()}
    of = "5, mean of " + " and ".join(tables[5]["columns"][i] for i in known)
    for name, other in (("audio_only", "video_only"), ("video_only", "full")):
        if name in values and other in values:
            quoted = [means[INPUTS[name]], means[INPUTS[other]]]
            drawn = variants[name]["drawn"]
            found.append(_ordering(name, other, "clustering_strength", quoted, values, drawn, of))
    return found


def text_table(table: Ablations) -> str:
    """Return the means as a Markdown table."""
    lines = [
        "| variant | seeds | " + " | ".join(label for label, _ in table.metrics.values()) + " |",
        "|---|---|" + "---|" * len(table.metrics),
    ]
    for row in table.rows:
        cells = [str(row.means[name]) if name in row.means else "–" for name in table.metrics]
        lines.append(f"| {row.name} | {len(row.seeds)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _ordering(
    name: str,
    other: str,
    metric: str,
    quoted: Sequence[str],
    values: Mapping[str, Mapping[int, Any]],
    drawn: str,
    table: str,
) -> Ordering:
    label = COLUMNS[metric][0]
    paper = float(quoted[0]) - float(quoted[1])
    ours = _difference(values, name, other, metric)
    reading = UNDECIDED
    if ours is not None and ours.excludes_zero:
        reading = HOLDS if ours.value * paper > 0 else REVERSED
    claim = f"{label}: {name} {'below' if paper < 0 else 'above'} {other}"
    return Ordering(claim, f"{quoted[0]} against {quoted[1]} (table {table})", ours, reading, drawn)


def _mean(by_seed: Mapping[int, Mapping[str, float]], metric: str) -> Mean | None:
    numbers = [metrics[metric] for metrics in by_seed.values() if metric in metrics]
    return over_seeds(numbers) if numbers else None


def _difference(
    values: Mapping[str, Mapping[int, Mapping[str, float]]], name: str, other: str, metric: str
) -> Mean | None:
    """Return the mean difference over the seeds that both have."""
    own, against = values[name], values.get(other, {})
    pairs = [
        own[seed][metric] - against[seed][metric]
        for seed in own
        if seed in against and metric in own[seed] and metric in against[seed]
    ]
    return over_seeds(pairs) if pairs else None
