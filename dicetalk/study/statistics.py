"""Means, intervals and tests with the rater as the unit: answers of one person are not independent.

Each rater's answers are averaged first; means, intervals and tests are about these averages. They say how the
result would vary with other raters, not with other clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

RESAMPLES = 9_999  # exact up to 13 raters, whose signs have 2^13 combinations
SEED = 0


def mean_with_interval(values: Sequence[float], low: float, high: float) -> dict[str, Any]:
    """Return the mean of the raters' averages and its 95 % t-interval.

    Args:
        values: one average per rater; at least one.
        low: lower end of the scale, where the interval is cut.
        high: upper end of the scale.

    Returns:
        `value`, `ci95` (`None` for one rater, who tells nothing about others) and `n_raters`.
    """
    numbers = np.asarray(values, np.float64)
    mean, interval = float(numbers.mean()), None
    if len(numbers) > 1:
        half = float(stats.t.ppf(0.975, len(numbers) - 1) * stats.sem(numbers))
        interval = [max(low, mean - half), min(high, mean + half)]
    return {"value": mean, "ci95": interval, "n_raters": len(numbers)}


def sign_flip_p(differences: Sequence[float]) -> float:
    """Return the two-sided p of a mean difference of zero, by flipping the signs of raters.

    A paired permutation test: exact for up to 13 raters, and right with the many ties of a scale.

    Args:
        differences: one per rater; at least one.
    """
    numbers = np.asarray(differences, np.float64)
    if len(numbers) == 1 or not numbers.any():
        return 1.0
    test = stats.permutation_test(
        (numbers,),
        np.mean,
        permutation_type="samples",
        n_resamples=RESAMPLES,
        vectorized=True,
        random_state=np.random.default_rng(SEED),
    )
    return float(test.pvalue)
