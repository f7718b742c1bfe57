from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from dicetalk.errors import DicetalkError
from dicetalk.evaluation.metrics.frechet import Moments, frechet_distance, weighted_sum


def features(seed: int, count: int, dim: int = 6) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, dim)) @ rng.standard_normal((dim, dim)) + rng.standard_normal(dim)


def test_equals_the_textbook_formula():
    a, b = features(1, 80), features(2, 90)
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(
        cov_a + cov_b - 2 * np.real(sqrtm(cov_a @ cov_b))
    )
    assert frechet_distance(Moments.of(a), Moments.of(b)) == pytest.approx(expected, rel=1e-8)


def test_of_gaussians_along_axes_is_known():
    rng = np.random.default_rng(0)
    whitened = np.linalg.qr(rng.standard_normal((40, 3)) - 0)[0]
    whitened -= whitened.mean(0)
    values, vectors = np.linalg.eigh(np.cov(whitened.T))
    whitened = whitened @ vectors / np.sqrt(values)  # mean 0, covariance exactly 1
    moved = whitened * [2.0, 1.0, 1.0] + [0.0, 3.0, 0.0]
    assert frechet_distance(Moments.of(whitened), Moments.of(moved)) == pytest.approx(9.0 + (2.0 - 1.0) ** 2)


def test_same_set_is_zero_and_symmetric():
    a, b = Moments.of(features(1, 50)), Moments.of(features(2, 50))
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-6)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))


def test_fewer_vectors_than_dimensions_stay_real():
    distance = frechet_distance(Moments.of(features(1, 4, dim=20)), Moments.of(features(2, 5, dim=20)))
    assert np.isfinite(distance) and distance > 0


def test_moments_of_parts_add_up():
    a = features(3, 70)
    whole, parts = Moments.of(a), [Moments.of(a[:20]), Moments.of(a[20:])]
    for summed in (parts[0] + parts[1], weighted_sum(parts, np.ones(2))):
        for left, right in zip(whole.mean_and_covariance(), summed.mean_and_covariance(), strict=True):
            np.testing.assert_allclose(left, right)
    twice = weighted_sum(parts, np.array([2.0, 0.0]))
    np.testing.assert_allclose(twice.mean_and_covariance()[1], np.cov(np.vstack([a[:20], a[:20]]).T))


def test_one_vector_is_refused():
    with pytest.raises(DicetalkError, match="at least 2"):
        Moments.of(features(1, 1)).mean_and_covariance()
