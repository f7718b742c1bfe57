"""Every reported number carries a 95 % interval over clips and the number of clips behind it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dicetalk.errors import DicetalkError

LOW_PERCENT, HIGH_PERCENT = 2.5, 97.5
NORMAL_95 = 1.96


@dataclass(frozen=True)
class Estimate:
    """A value, its 95 % interval and the number of clips it comes from."""

    value: float
    low: float
    high: float
    n: int

    def as_json(self) -> dict[str, float | int | list[float]]:
        """Return the form of `metrics/evaluate.json`."""
        return {"value": self.value, "ci95": [self.low, self.high], "n": self.n}


def rng_for(seed: int, *names: str) -> np.random.Generator:
    """Return a generator that depends on `seed` and `names` only: metrics do not disturb each other."""
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])


def bootstrap_mean(
    values: Sequence[float], rng: np.random.Generator, num_samples: int, strata: Sequence[str] | None = None
) -> Estimate:
    """Estimate a mean over clips, or the mean of the means of `strata`, each counting equally.

    Clips are resampled with replacement, within their stratum; the interval is the percentile one.

    Args:
        values: one number per clip.
        rng: source of the resamples.
        num_samples: number of resamples.
        strata: the stratum of each clip; one for all when missing.

    Raises:
        DicetalkError: when there are no clips, or a value is not finite.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if not len(numbers) or not np.isfinite(numbers).all():
        raise DicetalkError(
            f"Cannot estimate a mean from {len(numbers)} values, all of which must be finite."
        )
    names = np.array(["all"] * len(numbers) if strata is None else strata)
    groups = [numbers[names == name] for name in sorted(set(names))]
    means = np.mean(
        [group[rng.integers(len(group), size=(num_samples, len(group)))].mean(axis=1) for group in groups],
        axis=0,
    )
    low, high = np.percentile(means, [LOW_PERCENT, HIGH_PERCENT])
    return Estimate(float(np.mean([group.mean() for group in groups])), float(low), float(high), len(numbers))


def jackknife_statistic(statistic: Callable[[np.ndarray], float], num_clips: int) -> Estimate:
    """Estimate a smooth statistic of a set of clips, with the interval of leaving out one clip at a time.

    For distances between distributions, which a bootstrap inflates: a clip drawn twice adds no spread, so
    that most resamples, and with them the percentile interval, lie above the estimate.

    Args:
        statistic: maps how often each clip is in the set, `(num_clips,)`, to a number.
        num_clips: number of clips.
    """
    value = statistic(np.ones(num_clips))
    without_one = np.array([statistic(weights) for weights in 1.0 - np.eye(num_clips)])
    variance = (num_clips - 1) / num_clips * ((without_one - without_one.mean()) ** 2).sum()
    half_width = NORMAL_95 * float(np.sqrt(variance))
    return Estimate(value, value - half_width, value + half_width, num_clips)
