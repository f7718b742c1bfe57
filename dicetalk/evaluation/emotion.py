"""Does the video show its emotion? Accuracy over eight classes, and Emo-Score over the paper's four.

Emo-Score (paper section 4.2): mean over neutral, happy, surprised and angry. The published numbers obey
(neutral + 3 x non-neutral) / 4, so each emotion counts equally, and so it is here. The paper does not say
whether a video's score is the probability of its target class or a hit; ours is the probability.
"""

from __future__ import annotations

import numpy as np

from dicetalk.labels import EMOTIONS, NEUTRAL, emotion_index

SCORED_EMOTIONS: tuple[str, ...] = (NEUTRAL, "happy", "surprised", "angry")


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
