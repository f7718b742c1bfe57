"""Fréchet distance between two sets of features, from running moments in float64.

FID and FVD are this distance on the features of Inception and I3D. With any other network it has another name
here (`fd_image`, `fd_video`), because the numbers do not compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dicetalk.errors import DicetalkError


@dataclass(frozen=True)
class Moments:
    """Sufficient statistics of features: moments of two sets added are the moments of their union.

    Attributes:
        count: number of feature vectors.
        total: their sum `(dim,)`.
        products: sum of their outer products `(dim, dim)`.
    """

    count: float
    total: np.ndarray
    products: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Moments:
        """Collect features `(vectors, dim)`."""
        features = features.astype(np.float64)
        return cls(len(features), features.sum(axis=0), features.T @ features)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.count + other.count, self.total + other.total, self.products + other.products)

    def mean_and_covariance(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean `(dim,)` and unbiased covariance `(dim, dim)`; refuses less than two vectors."""
        if self.count < 2:
            raise DicetalkError(
                f"A Fréchet distance needs at least 2 feature vectors, found {self.count:.0f}."
            )
        mean = self.total / self.count
        return mean, (self.products - self.count * np.outer(mean, mean)) / (self.count - 1)


def weighted_sum(moments: Sequence[Moments], weights: np.ndarray) -> Moments:
    """Return the moments of a set that holds clip i `weights[i]` times."""
    return Moments(
        float(np.dot(weights, [item.count for item in moments])),
        np.tensordot(weights, np.stack([item.total for item in moments]), axes=1),
        np.tensordot(weights, np.stack([item.products for item in moments]), axes=1),
    )


def frechet_distance(a: Moments, b: Moments) -> float:
    """Return `|mean_a - mean_b|^2 + tr(cov_a + cov_b - 2 (cov_a cov_b)^(1/2))`, never negative.

    The trace of the root is the sum of the roots of the eigenvalues of `cov_a^(1/2) cov_b cov_a^(1/2)`. That
    matrix is symmetric, so no complex parts appear even when there are fewer vectors than dimensions (Dowson
    & Landau, 1982).
    """
    from scipy.linalg import eigh, eigvalsh

    mean_a, covariance_a = a.mean_and_covariance()
    mean_b, covariance_b = b.mean_and_covariance()
    values, vectors = eigh(covariance_a)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    eigenvalues = eigvalsh(root @ covariance_b @ root)
    trace_of_root = np.sqrt(np.clip(eigenvalues, 0, None)).sum()
    distance = (
        ((mean_a - mean_b) ** 2).sum() + np.trace(covariance_a) + np.trace(covariance_b) - 2 * trace_of_root
    )
    return float(max(distance, 0.0))
