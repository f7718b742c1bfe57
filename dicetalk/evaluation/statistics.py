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
    """A value, its 95 % interval and what it comes from.

    Attributes:
        value: the number.
        low, high: its interval.
        n: clips behind it.
        identities: how many people the interval was resampled over; None when over clips.
    """

    value: float
    low: float
    high: float
    n: int
    identities: int | None = None

    def as_json(self) -> dict[str, float | int | list[float]]:
        """Return the form of `metrics/evaluate.json`."""
        people = {} if self.identities is None else {"identities": self.identities}
        return {"value": self.value, "ci95": [self.low, self.high], "n": self.n, **people}


def rng_for(seed: int, *names: str) -> np.random.Generator:
    """Return a generator that depends on `seed` and `names` only: metrics do not disturb each other."""
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])


def bootstrap_mean(
    values: Sequence[float],
    rng: np.random.Generator,
    num_samples: int,
    strata: Sequence[str] | None = None,
    identities: Sequence[str] | None = None,
) -> Estimate:
    """Estimate a mean over clips, or the mean of the means of `strata`, each counting equally.

    Clips are resampled with replacement, within their stratum; or, when `identities` tell at least two people
    apart, people with all their clips. The interval is the percentile one.

    Args:
        values: one number per clip.
        rng: source of the resamples.
        num_samples: number of resamples.
        strata: the stratum of each clip; one for all when missing.
        identities: who is seen in each clip; missing when clips are to be resampled.

    Raises:
        DicetalkError: when there are no clips, or a value is not finite.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if not len(numbers) or not np.isfinite(numbers).all():
        raise DicetalkError(
            f"Cannot estimate a mean from {len(numbers)} values, all of which must be finite."
        )
    names = np.array(["all"] * len(numbers) if strata is None else strata)
    groups = [names == name for name in sorted(set(names))]
    value = float(np.mean([numbers[group].mean() for group in groups]))
    people = sorted(set(identities or ()))
    if len(people) > 1:
        means = _means_over_people(numbers, groups, np.array(identities), people, rng, num_samples)
    else:
        means = np.mean(
            [
                numbers[group][rng.integers(group.sum(), size=(num_samples, group.sum()))].mean(axis=1)
                for group in groups
            ],
            axis=0,
        )
    low, high = np.percentile(means, [LOW_PERCENT, HIGH_PERCENT])
    counted = len(people) if len(people) > 1 else None
    return Estimate(value, float(low), float(high), len(numbers), counted)


def _means_over_people(
    numbers: np.ndarray,
    groups: Sequence[np.ndarray],
    identities: np.ndarray,
    people: Sequence[str],
    rng: np.random.Generator,
    num_samples: int,
) -> np.ndarray:
    """Return the mean of the strata's means of each resample that has a clip of every stratum."""
    drawn = rng.integers(len(people), size=(num_samples, len(people)))
    times = np.stack([(drawn == index).sum(axis=1) for index in range(len(people))], axis=1)
    owned = np.stack([identities == name for name in people])
    sums = np.stack([times @ (owned * (numbers * group)).sum(axis=1) for group in groups])
    counts = np.stack([times @ (owned * group).sum(axis=1) for group in groups])
    complete = (counts > 0).all(axis=0)
    return (sums[:, complete] / counts[:, complete]).mean(axis=0)


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


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (S. Holm, 1979), in the given order."""
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(p_values))
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected.tolist()
