"""Does a higher level look stronger? Differences between levels of one emotion, shown by one person.

Strength varies more between emotions and people than between levels, so levels are compared within both.
Neutral videos are compared with the real neutral clips they were made to resemble.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from dicetalk.evaluation.metrics.emotion import EXPRESSIVE
from dicetalk.evaluation.paired import MIN_PAIRS, swap_test
from dicetalk.evaluation.statistics import bootstrap_mean, rng_for
from dicetalk.labels import LEVELS, NEUTRAL

COLUMN = "expression_strength"
Differences = dict[str, dict[str, Any]]


def strength_differences(
    rows: pd.DataFrame, by_identity: bool, seed: int, num_samples: int
) -> dict[str, Differences]:
    """Compare neighbouring levels of each system, and its neutral videos with the real ones.

    Args:
        rows: one row per video, with `system`, `clip_id`, `identity`, `emotion`, `level` and, where it was
            measured, `expression_strength`.
        by_identity: whether people, not pairs, are drawn and swapped.
        seed: of the draws.
        num_samples: of resamples, and of swaps.

    Returns:
        `{system: {comparison: {"difference", "ci95", "n", "p"}}}` in levels; `n` is the number of pairs.
        Comparisons are `level 2 - level 1`, `level 3 - level 2` and, but for real clips, `neutral - real
        neutral`. Those with fewer than two pairs are left out.
    """
    if COLUMN not in rows:
        return {}
    known = rows.dropna(subset=[COLUMN])
    neutral = known[known["emotion"] == NEUTRAL].set_index("clip_id")
    real = neutral.loc[neutral["system"] == "real", COLUMN]
    found: dict[str, Differences] = {}
    for system, own in known.groupby("system", sort=False):
        shown = own[own["emotion"].isin(EXPRESSIVE)]
        # Several takes of one level count as their mean, so that a pair is a person and an emotion.
        levels = shown.groupby(["identity", "emotion", "level"])[COLUMN].mean().unstack("level")
        pairs = {
            f"level {level} - level {level - 1}": (levels[level] - levels[level - 1])
            .dropna()
            .reset_index(name="d")
            for level in LEVELS[1:]
            if {level, level - 1} <= set(levels)
        }
        if system != "real":
            calm = neutral[neutral["system"] == system]
            pairs["neutral - real neutral"] = calm.assign(d=calm[COLUMN] - real).dropna(subset=["d"])
        tests = {
            name: _test(table, str(system), name, by_identity, seed, num_samples)
            for name, table in pairs.items()
            if len(table) >= MIN_PAIRS
        }
        if tests:
            found[str(system)] = tests
    return found


def _test(
    pairs: pd.DataFrame, system: str, name: str, by_identity: bool, seed: int, num_samples: int
) -> dict[str, Any]:
    differences = pairs["d"].to_numpy(np.float64)
    people = list(pairs["identity"])
    rng = rng_for(seed, system, name)
    # Not within emotions: few pairs of each would make the interval too narrow.
    estimate = bootstrap_mean(list(differences), rng, num_samples, identities=people if by_identity else None)
    units = people if by_identity else [str(index) for index in range(len(pairs))]
    chance = swap_test(differences, units, rng, num_samples)
    return {"difference": estimate.value, "ci95": [estimate.low, estimate.high], "n": estimate.n, "p": chance}
