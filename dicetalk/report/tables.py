"""Numbers of the metric files for people, with the labels of the tables of metrics and systems."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dicetalk.evaluation.metrics.table import METRICS, by_topic
from dicetalk.evaluation.systems import SYSTEMS, find_system
from dicetalk.files import read_json
from dicetalk.labels import EMOTIONS, LEVELS
from dicetalk.report.charts import Interval
from dicetalk.tracking.runs import flatten


def metric_rows(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one row per metric, with its network, the cell of each system, and the intervals to draw."""
    systems = system_names(evaluation)
    found = {name for metrics in evaluation["systems"].values() for name in metrics}
    rows = []
    for name in in_order(found):
        label, arrow = heading(name)
        entries = {system: evaluation["systems"][system].get(name) for system in systems}
        rows.append(
            {
                "name": name,
                "label": label,
                "arrow": arrow,
                "network": evaluation["networks"].get(name),
                "cells": [_cell(entry) if entry else None for entry in entries.values()],
                "intervals": [_interval(system, entry) for system, entry in entries.items() if entry],
            }
        )
    return rows


def in_order(metrics: Collection[str]) -> list[str]:
    """Return metrics in the order of pages: topic by topic, and then those that the table does not have."""
    return [*(row.name for row in by_topic() if row.name in metrics), *sorted(set(metrics) - set(METRICS))]


def heading(metric: str) -> tuple[str, str]:
    """Return a metric's label and its arrow; one that the table does not have goes by its own name."""
    row = METRICS.get(metric)
    return (row.label, row.arrow) if row else (metric, "")


def strength_rows(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one row per comparison of expression strengths, with the cell of each system.

    The order of the cells is that of `strength_systems`.
    """
    tests = evaluation.get("expression_strength_differences", {})
    names = dict.fromkeys(name for found in tests.values() for name in found)
    return [
        {
            "label": name,
            "cells": [_difference(tests[system].get(name)) for system in strength_systems(evaluation)],
        }
        for name in names
    ]


def strength_systems(evaluation: dict[str, Any]) -> list[str]:
    """Return the systems whose expression strengths were compared, in the order of `system_names`."""
    return [
        name
        for name in system_names(evaluation)
        if name in evaluation.get("expression_strength_differences", {})
    ]


def paired_rows(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one row per metric with its differences between systems on the clips that both have.

    The order of the cells is that of `evaluation["paired"]`.
    """
    pairs = evaluation.get("paired", {})
    names = {name for tests in pairs.values() for name in tests}
    return [
        {
            "label": heading(name)[0],
            "cells": [_difference(tests.get(name), digits=3, p="p_holm") for tests in pairs.values()],
        }
        for name in in_order(names)
    ]


def pair_label(pair: str) -> str:
    """Return the labels of a pair such as `ours_v - ours`."""
    return " − ".join(find_system(system).label for system in pair.split(" - "))


def accuracy_by_emotion(per_clip: pd.DataFrame, systems: list[str]) -> tuple[list[str], np.ndarray]:
    """Return how often the emotion network names each emotion correctly.

    Args:
        per_clip: one row per video, with `system`, `emotion`, `level` and `emotion_correct`.
        systems: which systems, in order; `ours` is also split by level.

    Returns:
        Row names, and shares `(rows, 8)` in the order of `EMOTIONS`; NaN where there is no clip.
    """
    tables = {find_system(name).label: per_clip[per_clip["system"] == name] for name in systems}
    ours = per_clip[per_clip["system"] == "ours"]
    tables |= {f"level {level}": ours[ours["level"] == level] for level in LEVELS}
    rows = [
        table.groupby("emotion")["emotion_correct"].mean().reindex(list(EMOTIONS))
        for table in tables.values()
    ]
    return list(tables), np.stack([row.to_numpy(float) for row in rows])


def system_names(evaluation: dict[str, Any]) -> list[str]:
    """Return the systems of an evaluation: the ceiling first, then ours, then the floors."""
    found = evaluation["systems"]
    return [*(name for name in SYSTEMS if name in found), *(name for name in found if name not in SYSTEMS)]


def data_counts(metrics: Path, processed: Path, datasets: list[str]) -> list[dict[str, Any]]:
    """Return, per data set, what was indexed, kept and rejected, by split, emotion and reason.

    Args:
        metrics: folder of `index-<set>.json` and `preprocess-<set>.json`.
        processed: folder of `<set>/kept.parquet` and `<set>/rejected.csv`.
        datasets: names of the sets.
    """
    counts = []
    for name in datasets:
        kept = pd.read_parquet(processed / name / "kept.parquet")
        kept["emotion"] = kept["emotion"].fillna("no label")
        labels = [label for label in (*EMOTIONS, "no label") if (kept["emotion"] == label).any()]
        by_emotion = pd.crosstab(kept["split"], kept["emotion"])[labels]
        rejected = pd.read_csv(processed / name / "rejected.csv", keep_default_na=False)
        identities = kept.groupby("split")["identity"].nunique()
        counts.append(
            {
                "name": name,
                "index": read_json(metrics / f"index-{name}.json"),
                "preprocess": read_json(metrics / f"preprocess-{name}.json"),
                "labels": labels,
                "splits": [
                    (split, int(identities[split]), int(row.sum()), row.tolist())
                    for split, row in by_emotion.iterrows()
                ],
                "rejected": rejected.to_dict("records"),
            }
        )
    return counts


def final_metrics(folder: Path) -> dict[str, float]:
    """Return every number of `metrics/*.json` by a flat name, evaluation values as `<system>.<metric>`."""
    values: dict[str, float] = {}
    for path in sorted(folder.glob("*.json")):
        content = read_json(path)
        if path.name == "evaluate.json":
            for system, metrics in content["systems"].items():
                values |= {f"{system}.{name}": float(entry["value"]) for name, entry in metrics.items()}
        else:
            values |= {
                name: value for name, value in flatten(content, path.stem).items() if _is_number(value)
            }
    # MLflow's alphabet for names of metrics.
    return {re.sub(r"[^\w\-.: /]", "_", name): value for name, value in values.items()}


def _interval(system: str, entry: dict[str, Any]) -> Interval:
    low, high = entry["ci95"]
    return Interval(find_system(system).label, entry["value"], low, high, find_system(system).standing)


def _cell(entry: dict[str, Any]) -> dict[str, str]:
    digits = 3 if abs(entry["value"]) < 10 else 1
    low, high = entry["ci95"]
    return {
        "value": f"{entry['value']:.{digits}f}",
        "interval": f"{low:.{digits}f} to {high:.{digits}f}",
        "n": str(entry["n"]),
    }


def _difference(test: dict[str, Any] | None, digits: int = 2, p: str = "p") -> dict[str, str] | None:
    if test is None:
        return None
    low, high = test["ci95"]
    return {
        "value": f"{test['difference']:+.{digits}f}",
        "interval": f"{low:+.{digits}f} to {high:+.{digits}f}",
        "n": str(test["n"]),
        "p": f"{test[p]:.3f}",
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
