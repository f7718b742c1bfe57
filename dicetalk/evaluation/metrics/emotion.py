"""Does the video show its emotion, and how strongly? Accuracy, Emo-Score and the strength of expressions.

Emo-Score (paper section 4.2): mean over neutral, happy, surprised and angry. The published numbers obey
(neutral + 3 x non-neutral) / 4, so each emotion counts equally, and so it is here. The paper does not say
whether a video's score is the probability of its target class or a hit; ours is the probability.
"""

from __future__ import annotations

import numpy as np

from dicetalk.config import Evaluate
from dicetalk.evaluation.trial import Trial
from dicetalk.labels import EMOTIONS, NEUTRAL, emotion_index

SCORED_EMOTIONS: tuple[str, ...] = (NEUTRAL, "happy", "surprised", "angry")
EXPRESSIVE = tuple(name for name in EMOTIONS if name != NEUTRAL)


def measure(trial: Trial, settings: Evaluate) -> dict[str, float]:
    """Return `emotion_correct` and `target_probability` of a video whose real clip has a label."""
    emotion = trial.real.emotion
    if emotion is None or "emotion" not in trial.shown:
        return {}
    probabilities = trial.shown["emotion"]
    return {
        "emotion_correct": float(is_correct(probabilities, emotion)),
        "target_probability": target_probability(probabilities, emotion),
    }


def measure_second(trial: Trial, settings: Evaluate) -> dict[str, float]:
    """Return `emotion_second_correct`, by the second network."""
    emotion = trial.real.emotion
    if emotion is None or "emotion_second" not in trial.shown:
        return {}
    return {"emotion_second_correct": float(is_correct(trial.shown["emotion_second"], emotion))}


def measure_strength(trial: Trial, settings: Evaluate) -> dict[str, float]:
    """Return `expression_strength` in levels."""
    return {"expression_strength": float(trial.shown["strength"])} if "strength" in trial.shown else {}


def video_probabilities(frame_logits: np.ndarray) -> np.ndarray:
    """Turn a video's frame logits `(frames, 8)` into class probabilities `(8,)`: softmax of the mean."""
    logits = frame_logits.astype(np.float64).mean(axis=0)
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()


def is_correct(probabilities: np.ndarray, emotion: str) -> bool:
    """Whether the likeliest class of `probabilities` `(8,)` is `emotion`."""
    return EMOTIONS[int(np.argmax(probabilities))] == emotion


def target_probability(probabilities: np.ndarray, emotion: str) -> float:
    """Return the probability that `probabilities` `(8,)` give to `emotion`."""
    return float(probabilities[emotion_index(emotion)])
