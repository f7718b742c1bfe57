"""From measured videos to numbers: one row per video, then one estimate per system and metric."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import pandas as pd

from dicetalk.config import Evaluate
from dicetalk.errors import DicetalkError
from dicetalk.evaluation.metrics.frechet import Moments, weighted_sum
from dicetalk.evaluation.metrics.metric import ClipMean, Measure, Metric, SetDistance
from dicetalk.evaluation.protocol import Definition
from dicetalk.evaluation.statistics import Estimate, bootstrap_mean, jackknife_statistic, rng_for
from dicetalk.evaluation.trial import Trial

MIN_CLIPS_OF_SET = 4


def score_trial(
    trial: Trial, metrics: Iterable[Metric], settings: Evaluate
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the row of a video: what the metrics' files measure of it, in the order of the metrics.

    Returns:
        The row, and for metrics that could not be measured although the parts are there, why.
    """
    real = trial.real
    row: dict[str, Any] = {
        "system": trial.system,
        "clip_id": real.clip_id,
        "identity": real.identity,
        "emotion": real.emotion,
        "level": real.level,
    }
    problems: dict[str, str] = {}
    by_measure: dict[Measure, list[str]] = {}
    for metric in metrics:
        if isinstance(metric.value, ClipMean):
            by_measure.setdefault(metric.value.measure, []).append(metric.name)
    for measure, names in by_measure.items():
        try:
            row |= measure(trial, settings)
        except DicetalkError as error:
            problems |= dict.fromkeys(names, str(error))
    return row, problems


def estimate_system(
    rows: pd.DataFrame, settings: Evaluate, definition: Definition, emotions: Sequence[str]
) -> tuple[dict[str, Estimate], dict[str, str]]:
    """Estimate every metric of a protocol that is a mean over clips.

    Args:
        rows: the rows of one system.
        settings: number of bootstrap samples and seed.
        definition: the protocol.
        emotions: those its emotion network knows; clips of others do not count.

    Returns:
        Estimates by metric, and for metrics that could not be estimated the reason.
    """
    system = rows["system"].iloc[0]
    estimates, skipped = {}, {}
    for metric, mean in clip_means(definition).items():
        try:
            chosen = mean.choose(rows, emotions)
            strata = list(chosen["emotion"]) if mean.by_emotion else None
            people = list(chosen["identity"]) if definition.interval_unit == "identity" else None
            rng, values = rng_for(settings.seed, system, metric), list(chosen[mean.column])
            estimates[metric] = bootstrap_mean(values, rng, settings.bootstrap_samples, strata, people)
        except DicetalkError as error:
            skipped[metric] = str(error)
    return estimates, skipped


def clip_means(definition: Definition) -> dict[str, ClipMean]:
    """Return a protocol's means over clips by metric: those over all clips, then those over labelled ones."""
    found = {row.name: row.value for row in definition.metrics if isinstance(row.value, ClipMean)}
    return dict(sorted(found.items(), key=lambda item: item[1].labels is not None))


Pair = tuple[Callable[[], Moments], Callable[[], Moments], str]


def set_pairs(trials: Sequence[Trial], part: str) -> list[Pair]:
    """Pair each video with its real clip; real clips, which would pair with themselves, with a neighbour.

    The real clips are thus split into two halves, whose distance is what two samples of reality differ by.
    Pairs in which a video lacks the part are left out.

    Returns:
        Functions that read the features of either side, and the identity.
    """
    if trials and trials[0].system == "real":
        sides = zip(islice(trials, 0, None, 2), islice(trials, 1, None, 2), strict=False)
        both = [(left.shown, right.shown, left.real.identity) for left, right in sides]
    else:
        both = [(trial.shown, trial.real.seen, trial.real.identity) for trial in trials]
    return [
        (partial(_moments, left, part), partial(_moments, right, part), identity)
        for left, right, identity in both
        if part in left and part in right
    ]


def estimate_distance(pairs: Sequence[Pair], value: SetDistance, definition: Definition) -> Estimate:
    """Estimate the distance between two sets of clips, given as pairs that are left out together.

    Features are read one clip at a time; what is kept are the moments of groups of pairs.

    Raises:
        DicetalkError: when there are too few clips for an interval.
    """
    if len(pairs) < MIN_CLIPS_OF_SET:
        raise DicetalkError(f"a {value.noun} needs {MIN_CLIPS_OF_SET} clips, found {len(pairs)}")
    groups = _groups([identity for _, _, identity in pairs], definition)
    left: dict[int, Moments] = {}
    right: dict[int, Moments] = {}
    for group, (read_left, read_right, _) in zip(groups, pairs, strict=True):
        for side, read in ((left, read_left), (right, read_right)):
            moments = read()
            side[group] = side[group] + moments if group in side else moments
    lefts, rights = list(left.values()), list(right.values())
    estimate = jackknife_statistic(
        lambda weights: value.distance(weighted_sum(lefts, weights), weighted_sum(rights, weights)),
        len(lefts),
    )
    return replace(estimate, low=max(estimate.low, 0.0), n=len(pairs))  # no distance is negative


def _groups(identities: Sequence[str], definition: Definition) -> list[int]:
    """Return the group of each pair: itself, or its person, or one of `frechet_groups` of these in turn."""
    people = sorted(set(identities))
    by_person = definition.interval_unit == "identity" and len(people) > 1
    units: Iterable[int] = (
        (people.index(name) for name in identities) if by_person else range(len(identities))
    )
    number = definition.frechet_groups
    return [unit if number is None else unit % number for unit in units]


def _moments(observation: Any, part: str) -> Moments:
    return Moments.of(observation[part])
