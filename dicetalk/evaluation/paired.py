"""Is one system better than another, or were its clips easier? Tests on the clips that both have.

The difference of each clip, its mean with a bootstrap interval, and the chance of a mean this far from zero
if the systems' names meant nothing: the two values of a clip (or of all clips of a person) are swapped at
random. Over the metrics of one pair of systems, chances are corrected by Holm's method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dicetalk.evaluation.statistics import bootstrap_mean, holm, rng_for

MIN_PAIRS = 2


def paired_tests(
    rows: pd.DataFrame,
    baseline: str,
    systems: Sequence[str],
    columns: Mapping[str, str],
    by_identity: bool,
    seed: int,
    num_samples: int,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Compare systems with a baseline on the clips both have.

    Args:
        rows: one row per video, with `system`, `clip_id`, `identity` and the columns.
        baseline: the system the others are compared with.
        systems: the others.
        columns: metric -> column of its per-clip value.
        by_identity: whether people, not clips, are drawn and swapped.
        seed: of the draws.
        num_samples: of resamples, and of swaps.

    Returns:
        `{"<system> - <baseline>": {metric: {"difference", "ci95", "n", "p", "p_holm"}}}`.
    """
    tests = {}
    for system in systems:
        both = pd.merge(
            rows[rows["system"] == system],
            rows[rows["system"] == baseline],
            on=["clip_id", "identity"],
            suffixes=("", "_baseline"),
        )
        found: dict[str, dict[str, Any]] = {}
        for metric, column in columns.items():
            if column not in both:
                continue
            known = both.dropna(subset=[column, f"{column}_baseline"])
            if len(known) < MIN_PAIRS:
                continue
            differences = (known[column] - known[f"{column}_baseline"]).to_numpy(float)
            people = list(known["identity"]) if by_identity else None
            rng = rng_for(seed, system, baseline, metric)
            estimate = bootstrap_mean(list(differences), rng, num_samples, identities=people)
            found[metric] = {
                "difference": estimate.value,
                "ci95": [estimate.low, estimate.high],
                "n": estimate.n,
                "p": swap_test(differences, people or list(known["clip_id"]), rng, num_samples),
            }
        for test, corrected in zip(found.values(), holm([t["p"] for t in found.values()]), strict=True):
            test["p_holm"] = corrected
        tests[f"{system} - {baseline}"] = found
    return tests


def swap_test(
    differences: np.ndarray, units: Sequence[str], rng: np.random.Generator, num_samples: int
) -> float:
    """Return the chance of a mean difference at least this far from zero under random swaps of both systems.

    Args:
        differences: one per clip.
        units: what is swapped together.
        rng: source of the swaps.
        num_samples: number of swaps; all of them are tried when there are not more.
    """
    names = sorted(set(units))
    totals = np.array([differences[np.array(units) == name].sum() for name in names])
    if 2 ** min(len(names), 62) <= num_samples:
        signs = 1 - 2 * ((np.arange(2 ** len(names))[:, None] >> np.arange(len(names))) & 1)
        added = 0  # the observed one is among them
    else:
        signs = rng.choice([-1, 1], size=(num_samples, len(names)))
        added = 1
    swapped = np.abs(signs @ totals)
    as_far = int((swapped >= np.abs(totals.sum()) * (1 - 1e-12)).sum())
    return (as_far + added) / (len(signs) + added)
