from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from dicetalk.errors import DicetalkError
from dicetalk.evaluation.metrics.frechet import Moments
from dicetalk.evaluation.metrics.table import METRICS
from dicetalk.evaluation.protocol import load_protocol
from dicetalk.evaluation.scores import estimate_distance
from dicetalk.evaluation.statistics import bootstrap_mean, jackknife_statistic, rng_for


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


def test_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(4).normal(size=50)
    estimate = jackknife_statistic(lambda weights: float(weights @ values / weights.sum()), 50)
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.high - estimate.value == pytest.approx(1.96 * values.std(ddof=1) / np.sqrt(50))
    assert estimate.value - estimate.low == pytest.approx(estimate.high - estimate.value)


def itself(moments: Moments) -> Moments:
    return moments


def test_jackknife_interval_of_a_frechet_distance_covers_the_truth():
    """Two Gaussians one apart in each of 4 dimensions: the distance is 4."""
    hits = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        left = [Moments.of(rng.standard_normal((8, 4))) for _ in range(30)]
        right = [Moments.of(rng.standard_normal((8, 4)) + 1) for _ in range(30)]
        pairs = [(partial(itself, a), partial(itself, b), "") for a, b in zip(left, right, strict=True)]
        estimate = estimate_distance(pairs, METRICS["fd_image"].value, load_protocol("demo").definition)
        assert estimate.low <= estimate.value <= estimate.high
        hits += estimate.low <= 4.0 <= estimate.high
    assert hits >= 17


@pytest.mark.parametrize("values", [[], [1.0, float("nan")]])
def test_nothing_or_nan_is_refused(values):
    with pytest.raises(DicetalkError):
        bootstrap_mean(values, rng_for(0), 10)
