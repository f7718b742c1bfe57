"""Fréchet distance, sync, landmarks, cosines and emotion scores against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from dicetalk.config import load_params
from dicetalk.errors import DicetalkError
from dicetalk.evaluation.metrics.emotion import is_correct, target_probability, video_probabilities
from dicetalk.evaluation.metrics.frechet import Moments, frechet_distance, weighted_sum
from dicetalk.evaluation.metrics.identity import face_similarity
from dicetalk.evaluation.metrics.metric import ClipMean, Labels
from dicetalk.evaluation.metrics.sync import shift_distances, sync_score
from dicetalk.evaluation.metrics.table import METRICS
from dicetalk.evaluation.protocol import load_protocol
from dicetalk.evaluation.scores import estimate_distance, estimate_system
from dicetalk.labels import EMOTIONS


def moments(values: list[float]) -> Moments:
    return Moments.of(np.array(values)[:, None])


def test_frechet_distance_of_two_normals() -> None:
    # In one dimension (m1 - m2)^2 + (s1 - s2)^2: means 1 and 5, deviations 1 and 3 (unbiased).
    a, b = moments([0.0, 1.0, 2.0]), moments([2.0, 5.0, 8.0])
    assert frechet_distance(a, b) == pytest.approx(16 + 4)
    assert frechet_distance(a, a) == 0.0
    # Independent axes add up.
    grid = np.array([[x, y] for x in (-1.0, 1.0) for y in (-2.0, 2.0)])
    wide = Moments.of(grid * [3.0, 1.0] + [0.0, 1.0])
    scale = math.sqrt(4 / 3)
    assert frechet_distance(Moments.of(grid), wide) == pytest.approx(1 + (2 * scale) ** 2)
    with pytest.raises(DicetalkError, match="at least 2 feature vectors, found 1"):
        frechet_distance(moments([1.0]), a)


def test_moments_add_up_and_can_be_weighted() -> None:
    a, b = moments([1.0, 2.0]), moments([4.0])
    mean, covariance = (a + b).mean_and_covariance()
    assert mean.item() == pytest.approx(7 / 3) and covariance.item() == pytest.approx(
        np.var([1, 2, 4], ddof=1)
    )
    twice = weighted_sum([a, b], np.array([1.0, 2.0]))
    assert twice.count == 4 and twice.total.item() == 11 and twice.products.item() == 1 + 4 + 32


def test_frechet_estimates_leave_out_pairs_people_or_groups(repository) -> None:
    definition = load_protocol("open").definition
    values = [(0.0, 1.0), (2.0, 2.0), (4.0, 9.0), (6.0, 5.0)]
    pairs = [
        (lambda x=x: moments([x]), lambda y=y: moments([y]), n)
        for (x, y), n in zip(values, "AABC", strict=True)
    ]

    def distance(kept: list[int]) -> float:
        left, right = (moments([values[i][side] for i in kept]) for side in (0, 1))
        return frechet_distance(left, right)

    for unit, groups, left_out in (
        ("clip", None, [[0], [1], [2], [3]]),
        ("identity", None, [[0, 1], [2], [3]]),
        ("clip", 2, [[0, 2], [1, 3]]),
    ):
        chosen = definition.model_copy(update={"interval_unit": unit, "frechet_groups": groups})
        estimate = estimate_distance(pairs, METRICS["fid"].value, chosen)
        without = np.array([distance([i for i in range(4) if i not in part]) for part in left_out])
        count = len(left_out)
        half = 1.96 * math.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum())
        assert estimate.value == pytest.approx(distance([0, 1, 2, 3])), unit
        assert estimate.high == pytest.approx(estimate.value + half), unit
        assert estimate.low == pytest.approx(max(estimate.value - half, 0.0)) and estimate.n == 4
    with pytest.raises(DicetalkError, match="needs 4 clips, found 3"):
        estimate_distance(pairs[:3], METRICS["fid"].value, definition)


def test_sync_shifts_sound_against_lips() -> None:
    video = np.array([[1.0], [2.0], [3.0]])
    # Sound of 5, 6, 7 at shifts of -1, 0 and 1, with zeros outside.
    distances = shift_distances(video, np.array([[5.0], [6.0], [7.0]]), 1)
    assert distances.tolist() == [pytest.approx((1 + 3 + 3) / 3), 4.0, pytest.approx((5 + 5 + 3) / 3)]
    score = sync_score(video, np.array([[5.0], [6.0], [7.0]]), 1)
    assert score.distance == pytest.approx(7 / 3) and score.offset_frames == 1
    assert score.confidence == pytest.approx(4 - 7 / 3)
    assert sync_score(video[:1], video[:1], 0).distance == 0.0
    for bad in (np.zeros((0, 1)), np.zeros((2, 1))):
        with pytest.raises(DicetalkError, match="equally many"):
            sync_score(video if len(bad) else bad, bad, 1)


def test_similarity_of_faces_is_the_mean_cosine() -> None:
    assert face_similarity(np.array([[3.0, 0.0], [0.0, 5.0]]), np.array([2.0, 0.0])) == 0.5


def test_a_video_shows_the_emotion_of_its_mean_logits() -> None:
    logits = np.zeros((2, 8))
    logits[0, 2], logits[1, 2] = math.log(3), math.log(27)  # their mean is ln 9
    probabilities = video_probabilities(logits + 700.0)
    assert probabilities[2] == pytest.approx(9 / 16) and probabilities.sum() == pytest.approx(1.0)
    assert target_probability(probabilities, EMOTIONS[2]) == pytest.approx(9 / 16)
    assert is_correct(probabilities, EMOTIONS[2]) and not is_correct(probabilities, EMOTIONS[0])


def test_labelled_means_choose_their_clips() -> None:
    table = pd.DataFrame(
        [("sad", 1, 0.5), ("sad", 2, 1.0), ("happy", 2, 2.0), ("neutral", 1, 9.0), ("happy", 1, None)],
        columns=["emotion", "level", "x"],
    )
    assert Labels(("sad", "happy"), 2, True).choose(table, "x")["x"].tolist() == [1.0, 2.0]
    assert Labels(("sad",)).choose(table, "x")["x"].tolist() == [0.5, 1.0]
    assert Labels(("sad", "fear")).choose(table, "x")["x"].tolist() == [0.5, 1.0]
    with pytest.raises(DicetalkError, match="no clip shows fear at level 2"):
        Labels(("sad", "fear"), 2, True).choose(table, "x")
    with pytest.raises(DicetalkError, match="no clip shows happy at level 1"):
        Labels(("sad", "happy"), 1, True).choose(table, "x")
    for column in ("y", "z"):
        with pytest.raises(DicetalkError, match="no clip with a label"):
            Labels().choose(table.assign(y=None), column)


def test_emo_score_counts_neutral_and_three_emotions_equally(repository) -> None:
    settings = load_params(repository / "profiles/demo.yaml").evaluate
    definition = load_protocol("open").definition
    definition = definition.model_copy(
        update={
            "networks": dict.fromkeys(("emo_score", "emo_score_non_neutral", "emotion_accuracy"), "emotion")
        }
    )
    shown = [
        ("neutral", 0.2),
        ("happy", 0.4),
        ("happy", 0.6),
        ("angry", 0.9),
        ("surprised", 0.7),
        ("sad", 0.0),
    ]
    rows = pd.DataFrame(
        [("ours", f"c{i}", "A", e, 1, p, float(p > 0.5)) for i, (e, p) in enumerate(shown)],
        columns=[
            "system",
            "clip_id",
            "identity",
            "emotion",
            "level",
            "target_probability",
            "emotion_correct",
        ],
    )
    found, skipped = estimate_system(rows, settings, definition, EMOTIONS)
    assert (
        found["emo_score"].value == pytest.approx((0.2 + 0.5 + 0.9 + 0.7) / 4) and found["emo_score"].n == 5
    )
    assert found["emotion_accuracy"].value == 0.5 and not skipped
    assert found["emo_score_non_neutral"].value == pytest.approx((0.5 + 0.9 + 0.7) / 3)
    found, skipped = estimate_system(rows, settings, definition, tuple(e for e in EMOTIONS if e != "angry"))
    assert found["emotion_accuracy"].n == 5 and "angry" in skipped["emo_score"]
    assert set(METRICS) >= {"expression_strength_level_1", "expression_strength_level_3"}
    assert METRICS["emo_score_non_neutral"].value.labels.emotions == ("happy", "surprised", "angry")
    # Of means over labelled clips, only what every clip has is compared clip by clip.
    means = {name: row.value for name, row in METRICS.items() if isinstance(row.value, ClipMean)}
    assert {name for name, mean in means.items() if mean.labels is not None and mean.paired} == {
        "emotion_accuracy",
        "emotion_accuracy_7",
        "emotion_accuracy_second",
    }
