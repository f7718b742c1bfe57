from __future__ import annotations

import numpy as np
import pytest

from dicetalk.evaluation.metrics.emotion import (
    SCORED_EMOTIONS,
    is_correct,
    target_probability,
    video_probabilities,
)
from dicetalk.evaluation.metrics.identity import face_similarity
from dicetalk.labels import EMOTIONS, emotion_index


def logits_of(*emotions: str) -> np.ndarray:
    return 5.0 * np.eye(len(EMOTIONS))[[emotion_index(emotion) for emotion in emotions]]


def test_video_shows_what_most_frames_show():
    probabilities = video_probabilities(logits_of("happy", "happy", "sad"))
    assert probabilities.sum() == pytest.approx(1.0)
    assert is_correct(probabilities, "happy") and not is_correct(probabilities, "sad")
    assert target_probability(probabilities, "happy") > target_probability(probabilities, "sad") > 1 / 8


def test_large_logits_do_not_overflow():
    assert np.isfinite(video_probabilities(1e4 * logits_of("angry"))).all()


def test_the_papers_four_emotions():
    assert sorted(SCORED_EMOTIONS) == ["angry", "happy", "neutral", "surprised"]


def test_similarity_is_the_mean_cosine():
    frames = np.array([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    assert face_similarity(frames, np.array([5.0, 0.0])) == pytest.approx((1 + 0 - 1) / 3)
    assert face_similarity(frames[:1], np.array([5.0, 0.0])) == pytest.approx(1.0)
