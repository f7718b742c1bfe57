"""From measured videos to numbers: one row per video, then one estimate per system and metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from dicetalk.config import Evaluate
from dicetalk.errors import DicetalkError
from dicetalk.evaluation.emotion import SCORED_EMOTIONS, is_correct, target_probability
from dicetalk.evaluation.frechet import Moments, frechet_distance, weighted_sum
from dicetalk.evaluation.identity import face_similarity
from dicetalk.evaluation.landmarks import mouth_distance
from dicetalk.evaluation.statistics import Estimate, bootstrap_mean, jackknife_statistic, rng_for
from dicetalk.evaluation.sync import sync_score
from dicetalk.evaluation.systems import Trial
from dicetalk.labels import NEUTRAL

CLIP_MEANS = ("sync_c", "sync_d", "f_sim", "lmd")
MIN_CLIPS_FRECHET = 4


def score_trial(trial: Trial, max_shift_frames: int) -> tuple[dict[str, Any], str | None]:
    """Return the row of a video and, when its landmarks could not be compared, why."""
    real, shown = trial.real, trial.shown
    sync = sync_score(shown.lips, trial.heard, max_shift_frames)
    row: dict[str, Any] = {
        "system": trial.system,
        "clip_id": real.clip_id,
        "identity": real.identity,
        "emotion": real.emotion,
        "level": real.level,
        "sync_c": sync.confidence,
        "sync_d": sync.distance,
        "av_offset_frames": sync.offset_frames,
        "f_sim": face_similarity(shown.identity, trial.reference),
    }
    if real.emotion is not None:
        row["emotion_correct"] = float(is_correct(shown.emotion, real.emotion))
        row["target_probability"] = target_probability(shown.emotion, real.emotion)
    try:
        row["lmd"] = mouth_distance(shown.landmarks, real.landmarks)
    except DicetalkError as error:
        return row, str(error)
    return row, None


def estimate_system(rows: pd.DataFrame, settings: Evaluate) -> tuple[dict[str, Estimate], dict[str, str]]:
    """Estimate every metric that is a mean over clips.

    Args:
        rows: the rows of one system.
        settings: number of bootstrap samples and seed.

    Returns:
        Estimates by metric, and for metrics that could not be estimated the reason.
    """
    system = rows["system"].iloc[0]

    def mean_of(metric: str, column: str, chosen: pd.DataFrame, by_emotion: bool = False) -> Estimate:
        strata = list(chosen["emotion"]) if by_emotion else None
        rng = rng_for(settings.seed, system, metric)
        return bootstrap_mean(list(chosen[column]), rng, settings.bootstrap_samples, strata)

    estimates, skipped = {}, {}
    for metric in CLIP_MEANS:
        known = rows.dropna(subset=[metric]) if metric in rows else rows[:0]
        if known.empty:
            skipped[metric] = "no clip could be measured"
        else:
            estimates[metric] = mean_of(metric, metric, known)
    labelled = rows.dropna(subset=["emotion"])
    if labelled.empty:
        names = ("emotion_accuracy", "emo_score", "emo_score_neutral", "emo_score_non_neutral")
        return estimates, skipped | dict.fromkeys(names, "the clips have no emotion labels")
    estimates["emotion_accuracy"] = mean_of("emotion_accuracy", "emotion_correct", labelled)
    for metric, emotions in {
        "emo_score": SCORED_EMOTIONS,
        "emo_score_neutral": (NEUTRAL,),
        "emo_score_non_neutral": tuple(name for name in SCORED_EMOTIONS if name != NEUTRAL),
    }.items():
        chosen = labelled[labelled["emotion"].isin(emotions)]
        if missing := set(emotions) - set(chosen["emotion"]):
            skipped[metric] = f"no clip shows {', '.join(sorted(missing))}"
        else:
            estimates[metric] = mean_of(metric, "target_probability", chosen, by_emotion=True)
    return estimates, skipped


def estimate_frechet(pairs: Sequence[tuple[Moments, Moments]]) -> Estimate:
    """Estimate the distance between two sets of clips, given as pairs that are left out together.

    Raises:
        DicetalkError: when there are too few clips for an interval.
    """
    if len(pairs) < MIN_CLIPS_FRECHET:
        raise DicetalkError(f"a Fréchet distance needs {MIN_CLIPS_FRECHET} clips, found {len(pairs)}")
    left, right = zip(*pairs, strict=True)
    estimate = jackknife_statistic(
        lambda weights: frechet_distance(weighted_sum(left, weights), weighted_sum(right, weights)),
        len(pairs),
    )
    return replace(estimate, low=max(estimate.low, 0.0))  # no distance is negative


def frechet_pairs(trials: Sequence[Trial], part: str) -> list[tuple[Moments, Moments]]:
    """Pair each video with its real clip; real clips, which would pair with themselves, with a neighbour.

    The real clips are thus split into two halves, whose distance is what two samples of reality differ by.
    """
    if trials and trials[0].system == "real":
        moments = [getattr(trial.shown, part) for trial in trials]
        return list(zip(moments[0::2], moments[1::2], strict=False))
    return [(getattr(trial.shown, part), getattr(trial.real.shown, part)) for trial in trials]
