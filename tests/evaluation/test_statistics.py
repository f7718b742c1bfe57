from __future__ import annotations

import numpy as np
import pytest

from dicetalk.errors import DicetalkError
from dicetalk.evaluation.statistics import bootstrap_mean, bootstrap_statistic, rng_for


def test_interval_of_a_mean_matches_theory():
    values = np.random.default_rng(0).normal(5.0, 2.0, size=400)
    estimate = bootstrap_mean(values, rng_for(1, "test"), 2000)
    half_width = 1.96 * values.std() / 20
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.high - estimate.value == pytest.approx(half_width, rel=0.15)
    assert estimate.value - estimate.low == pytest.approx(half_width, rel=0.15)
    assert estimate.n == 400


def test_interval_covers_the_truth_about_95_percent_of_the_time():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        estimate = bootstrap_mean(rng.normal(1.0, 1.0, size=60), rng, 300)
        hits += estimate.low <= 1.0 <= estimate.high
    assert 0.88 <= hits / 200 <= 0.99


def test_strata_count_equally():
    estimate = bootstrap_mean([0.0, 0.0, 0.0, 1.0], rng_for(1), 100, ["a", "a", "a", "b"])
    assert estimate.value == 0.5
    assert estimate.low == estimate.high == 0.5  # no variation inside either stratum


def test_same_names_same_numbers_other_names_other_numbers():
    values = [0.0, 1.0, 2.0, 5.0]
    first = bootstrap_mean(values, rng_for(3, "ours", "lmd"), 50)
    assert first == bootstrap_mean(values, rng_for(3, "ours", "lmd"), 50)
    assert first != bootstrap_mean(values, rng_for(3, "real", "lmd"), 50)


def test_statistic_of_resampled_clips():
    values = np.random.default_rng(4).normal(size=50)
    estimate = bootstrap_statistic(lambda w: float(w @ values / w.sum()), 50, rng_for(0), 2000)
    mean = bootstrap_mean(values, rng_for(0), 2000)
    assert estimate.value == pytest.approx(mean.value)
    assert estimate.low == pytest.approx(mean.low, abs=0.05)
    assert estimate.high == pytest.approx(mean.high, abs=0.05)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")]])
def test_nothing_or_nan_is_refused(values):
    with pytest.raises(DicetalkError):
        bootstrap_mean(values, rng_for(0), 10)
