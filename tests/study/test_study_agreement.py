"""Krippendorff's alpha and the statistics of raters, against values worked out by hand or published."""

from __future__ import annotations

import numpy as np
import pytest

from dicetalk.study.agreement import krippendorff_alpha
from dicetalk.study.statistics import mean_with_interval, sign_flip_p

# The example of Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability": 4 observers, 12 units.
OBSERVERS = [
    "1 2 3 3 2 1 4 1 2 . . .",
    "1 2 3 3 2 2 4 1 2 5 . 3",
    ". 3 3 3 2 3 4 2 2 5 1 .",
    "1 2 3 3 2 4 4 1 2 5 1 .",
]
UNITS = [[int(x) for x in unit if x != "."] for unit in zip(*(row.split() for row in OBSERVERS), strict=True)]


@pytest.mark.parametrize(("level", "published"), [("nominal", 0.743), ("ordinal", 0.815)])
def test_alpha_of_the_published_example(level, published: float) -> None:
    assert krippendorff_alpha(UNITS, (1, 2, 3, 4, 5), level) == pytest.approx(published, abs=5e-4)


def test_alpha_worked_out_by_hand() -> None:
    # Units (a a) (a b) (b b). Coincidences aa 2, bb 2, ab 1, ba 1; totals a 3, b 3, n 6.
    # Observed disagreement 2, expected 2 * 3 * 3 / 5 = 3.6; alpha = 1 - 2 / 3.6.
    units = [["a", "a"], ["a", "b"], ["b", "b"]]
    assert krippendorff_alpha(units, ("a", "b"), "nominal") == pytest.approx(1 - 2 / 3.6)
    # Ordinal, units (1 1) (1 3) (2 2) (3 3): totals 1: 3, 2: 2, 3: 3. Middles of ranks 1.5, 4, 6.5, so
    # squared distances 12: 6.25, 13: 25, 23: 6.25. Observed 2 * 25 = 50.
    # Expected 2 * (6 * 6.25 + 9 * 25 + 6 * 6.25) / 7 = 600 / 7. Alpha = 1 - 350 / 600.
    units = [[1, 1], [1, 3], [2, 2], [3, 3]]
    assert krippendorff_alpha(units, (1, 2, 3), "ordinal") == pytest.approx(1 - 350 / 600)


def test_alpha_at_its_ends() -> None:
    assert krippendorff_alpha([[1, 1], [2, 2], [5, 5]], (1, 2, 3, 4, 5), "ordinal") == pytest.approx(1.0)
    assert krippendorff_alpha([[1, 2], [2, 1]], (1, 2), "nominal") < 0
    assert krippendorff_alpha([[1], [2]], (1, 2), "nominal") is None
    assert krippendorff_alpha([[1, 1], [1, 1]], (1, 2), "nominal") is None
    rng = np.random.default_rng(0)
    noise = rng.integers(1, 6, (400, 6)).tolist()
    assert abs(krippendorff_alpha(noise, (1, 2, 3, 4, 5), "ordinal")) < 0.03


def test_mean_and_interval_worked_out_by_hand() -> None:
    # 2, 3, 4: mean 3, standard deviation 1, standard error 1 / sqrt(3), t(2) = 4.302653.
    entry = mean_with_interval([2, 3, 4], -10, 10)
    half = 4.302653 / np.sqrt(3)
    assert entry["value"] == 3 and entry["n_raters"] == 3
    assert entry["ci95"] == pytest.approx([3 - half, 3 + half], abs=1e-6)
    assert mean_with_interval([2, 3, 4], 1, 5)["ci95"] == [1, 5]  # cut at the ends of the scale
    assert mean_with_interval([4.0], 1, 5) == {"value": 4.0, "ci95": None, "n_raters": 1}


def test_sign_flips_worked_out_by_hand() -> None:
    # Four raters, all positive: 2 of 16 sign patterns are as extreme, one on each side.
    assert sign_flip_p([1, 2, 1, 3]) == pytest.approx(2 / 16)
    # 2, 1, -1: means 2/3. Patterns with |sum| >= 2: sums 4, 2, 2, -2, -2, -4 of 8, so 6 / 8.
    assert sign_flip_p([2, 1, -1]) == pytest.approx(6 / 8)
    assert sign_flip_p([0, 0, 0]) == 1.0
    assert sign_flip_p([0.5]) == 1.0  # one rater proves nothing


def test_sign_flips_are_calibrated() -> None:
    rng = np.random.default_rng(1)
    values = [sign_flip_p(row) for row in rng.normal(size=(300, 8))]
    assert 0.02 < np.mean(np.array(values) <= 0.05) < 0.09
