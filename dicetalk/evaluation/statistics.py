"""Every reported number carries a 95 % bootstrap interval over clips and the number of clips behind it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dicetalk.errors import DicetalkError

LOW_PERCENT, HIGH_PERCENT = 2.5, 97.5


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
    values = np.asarray(values, dtype=np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise DicetalkError(f"Cannot estimate a mean from {len(values)} values, all of which must be finite.")
    names = np.array(["all"] * len(values) if strata is None else strata)
    groups = [values[names == name] for name in sorted(set(names))]
    means = np.mean(
        [group[rng.integers(len(group), size=(num_samples, len(group)))].mean(axis=1) for group in groups],
        axis=0,
    )
    low, high = np.percentile(means, [LOW_PERCENT, HIGH_PERCENT])
    return Estimate(float(np.mean([group.mean() for group in groups])), float(low), float(high), len(values))


def bootstrap_statistic(
    statistic: Callable[[np.ndarray], float], num_clips: int, rng: np.random.Generator, num_samples: int
) -> Estimate:
    """Estimate any statistic of a set of clips.

    Args:
        statistic: maps how often each clip is in the set, `(num_clips,)`, to a number.
        num_clips: number of clips.
        rng: source of the resamples.
        num_samples: number of resamples.
    """
    uniform = np.full(num_clips, 1.0 / num_clips)
    resamples = rng.multinomial(num_clips, uniform, size=num_samples).astype(np.float64)
    low, high = np.percentile([statistic(weights) for weights in resamples], [LOW_PERCENT, HIGH_PERCENT])
    return Estimate(statistic(np.ones(num_clips)), float(low), float(high), num_clips)
