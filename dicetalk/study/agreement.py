"""Krippendorff's alpha: how much raters agree beyond chance, for any number of raters and missing answers.

Definition: K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011). The packages that
compute it are under the GPL, which this project does not depend on.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np


def krippendorff_alpha(
    units: Sequence[Sequence[Hashable]], values: Sequence[Hashable], level: Literal["nominal", "ordinal"]
) -> float | None:
    """Return alpha: 1 for perfect agreement, 0 for agreement by chance, negative for less.

    Args:
        units: the answers each stimulus got, one per rater who saw it.
        values: all possible answers, in their order when `level` is `ordinal`.
        level: whether two different answers just differ, or differ by the number of answers between them.

    Returns:
        `None` when no stimulus has two answers, or all answers are the same: alpha is then not defined.
    """
    paired = [list(unit) for unit in units if len(unit) > 1]
    counts = np.array([[unit.count(value) for value in values] for unit in paired], float)
    if not len(counts):
        return None
    sizes = counts.sum(axis=1)
    # Coincidences: ordered pairs of answers to the same unit, each unit weighted by 1 / (its size - 1).
    pairs = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(len(values))
    observed = (pairs / (sizes - 1)[:, None, None]).sum(axis=0)
    totals = observed.sum(axis=0)
    if level == "nominal":
        distances = 1 - np.eye(len(values))
    else:
        # Number of answers from c to k, half of c's and k's own: middles of the ranks.
        middles = np.cumsum(totals) - totals / 2
        distances = (middles[:, None] - middles[None, :]) ** 2
    expected = (np.outer(totals, totals) * distances).sum() / (totals.sum() - 1)
    if expected == 0:
        return None
    return float(1 - (observed * distances).sum() / expected)
