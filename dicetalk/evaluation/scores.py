"""From measured videos to numbers: one row per video, then one estimate per system and metric."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd

from dicetalk.config import Evaluate
from dicetalk.errors import DicetalkError
from dicetalk.evaluation.emotion import is_correct, target_probability
from dicetalk.evaluation.frechet import Moments, frechet_distance, weighted_sum
from dicetalk.evaluation.identity import face_similarity
from dicetalk.evaluation.labelled import LABELLED_MEANS
from dicetalk.evaluation.landmarks import FACE, MESH_PX, MOUTH, mouth_distance, pixel_distance
from dicetalk.evaluation.protocol import Definition
from dicetalk.evaluation.statistics import Estimate, bootstrap_mean, jackknife_statistic, rng_for
from dicetalk.evaluation.sync import sync_score
from dicetalk.evaluation.systems import Trial

# Metrics that are means over clips -> the column of a clip's value.
CLIP_MEANS = {name: name for name in ("sync_c", "sync_d", "f_sim", "lmd", "m_lmd", "f_lmd")}
CLIP_MEANS |= {name: name for name in ("psnr", "ssim", "lpips")} | {"av_offset": "av_offset_frames"}
PAIRED_COLUMNS = CLIP_MEANS | {name: item.column for name, item in LABELLED_MEANS.items() if item.paired}
# Fréchet distances compare these parts, by the role that the protocol names.
FRECHET_METRICS = ("fid", "fvd", "fd_image", "fd_video", "fd_expression")
FRECHET_PARTS = {
    "image": "image",
    "video": "video",
    "identity": "identity",
    "sync": "lips",
    "emotion": "expression",
}
MIN_CLIPS_FRECHET = 4


def score_trial(trial: Trial, max_shift_frames: int) -> tuple[dict[str, Any], str | None]:
    """Return the row of a video and, when its landmarks could not be compared, why."""
    real, shown = trial.real, trial.shown
    row: dict[str, Any] = {
        "system": trial.system,
        "clip_id": real.clip_id,
        "identity": real.identity,
        "emotion": real.emotion,
        "level": real.level,
    }
    if "lips" in shown and "heard" in trial.heard:
        lips, heard = _common(shown["lips"], trial.heard["heard"])
        sync = sync_score(lips, heard, max_shift_frames)
        row |= {"sync_c": sync.confidence, "sync_d": sync.distance, "av_offset_frames": sync.offset_frames}
    if "identity" in shown and "reference_identity" in trial.reference:
        row["f_sim"] = face_similarity(shown["identity"], trial.reference["reference_identity"])
    if real.emotion is not None and "emotion" in shown:
        probabilities = shown["emotion"]
        row["emotion_correct"] = float(is_correct(probabilities, real.emotion))
        row["target_probability"] = target_probability(probabilities, real.emotion)
    if real.emotion is not None and "emotion_second" in shown:
        row["emotion_second_correct"] = float(is_correct(shown["emotion_second"], real.emotion))
    if "strength" in shown:
        row["expression_strength"] = float(shown["strength"])
    if trial.system not in (
        "real",
        "still",
        "wrong_emotion",
    ):  # whose frames were not compared with this clip
        row |= {name: float(shown[name]) for name in ("psnr", "ssim", "lpips") if name in shown}
    known = "known_landmarks" if "known_landmarks" in real.seen else "landmarks"
    if "landmarks" not in shown or known not in real.seen:
        return row, None
    points, real_points = _common(shown["landmarks"], real.seen[known])
    try:
        row["lmd"] = mouth_distance(points, real_points)
        row["m_lmd"] = pixel_distance(points * MESH_PX, real_points * MESH_PX, MOUTH)
        row["f_lmd"] = pixel_distance(points * MESH_PX, real_points * MESH_PX, FACE)
    except DicetalkError as error:
        return row, str(error)
    return row, None


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

    def mean_of(metric: str, column: str, chosen: pd.DataFrame, by_emotion: bool = False) -> Estimate:
        strata = list(chosen["emotion"]) if by_emotion else None
        people = list(chosen["identity"]) if definition.interval_unit == "identity" else None
        rng = rng_for(settings.seed, system, metric)
        return bootstrap_mean(list(chosen[column]), rng, settings.bootstrap_samples, strata, people)

    estimates, skipped = {}, {}
    for metric, column in CLIP_MEANS.items():
        if metric not in definition.networks:
            continue
        known = rows.dropna(subset=[column]) if column in rows else rows[:0]
        if known.empty:
            skipped[metric] = "no clip could be measured"
        else:
            estimates[metric] = mean_of(metric, column, known)
    wanted = [name for name in LABELLED_MEANS if name in definition.networks]
    if rows["emotion"].isna().all():
        return estimates, skipped | dict.fromkeys(wanted, "the clips have no emotion labels")
    known_emotions = rows[rows["emotion"].isin(emotions)]
    for metric in wanted:
        mean = LABELLED_MEANS[metric]
        try:
            estimates[metric] = mean_of(metric, mean.column, mean.choose(known_emotions), mean.by_emotion)
        except DicetalkError as error:
            skipped[metric] = str(error)
    return estimates, skipped


Pair = tuple[Callable[[], Moments], Callable[[], Moments], str]


def frechet_pairs(trials: Sequence[Trial], part: str) -> list[Pair]:
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


def estimate_frechet(pairs: Sequence[Pair], definition: Definition) -> Estimate:
    """Estimate the distance between two sets of clips, given as pairs that are left out together.

    Features are read one clip at a time; what is kept are the moments of groups of pairs.

    Raises:
        DicetalkError: when there are too few clips for an interval.
    """
    if len(pairs) < MIN_CLIPS_FRECHET:
        raise DicetalkError(f"a Fréchet distance needs {MIN_CLIPS_FRECHET} clips, found {len(pairs)}")
    groups = _groups([identity for _, _, identity in pairs], definition)
    left: dict[int, Moments] = {}
    right: dict[int, Moments] = {}
    for group, (read_left, read_right, _) in zip(groups, pairs, strict=True):
        for side, read in ((left, read_left), (right, read_right)):
            moments = read()
            side[group] = side[group] + moments if group in side else moments
    lefts, rights = list(left.values()), list(right.values())
    estimate = jackknife_statistic(
        lambda weights: frechet_distance(weighted_sum(lefts, weights), weighted_sum(rights, weights)),
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


def _common(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    length = min(len(first), len(second))
    return first[:length], second[:length]
