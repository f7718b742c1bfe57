"""What raters are asked: four criteria, each as a rating from 1 to 5 and as a comparison of two videos.

The criteria and the scale are those of the paper's user study (table 3); the wording is ours, as the paper's
is not known.
"""

from __future__ import annotations

from dataclasses import dataclass

SCALE = (1, 2, 3, 4, 5)
PREFERENCES = ("a", "same", "b")
# MEAD's folder names as nouns, for "how well does the face express ...?".
EMOTION_NOUNS = {
    "angry": "anger",
    "contempt": "contempt",
    "disgusted": "disgust",
    "fear": "fear",
    "happy": "happiness",
    "neutral": "a neutral mood",
    "sad": "sadness",
    "surprised": "surprise",
}


@dataclass(frozen=True)
class Criterion:
    """One criterion; `{emotion}` in a text stands for the noun of the wanted emotion.

    Attributes:
        label: its name in tables.
        rating: the question about one video.
        worst, best: what 1 and 5 mean.
        comparison: the question about two videos.
    """

    label: str
    rating: str
    worst: str
    best: str
    comparison: str


CRITERIA = {
    "emotion": Criterion(
        "Emotion",
        "Emotion: how well does the face express {emotion}?",
        "not at all",
        "very well",
        "Emotion: which face expresses {emotion} better?",
    ),
    "lip_sync": Criterion(
        "Lip sync",
        "Lip sync: how well do the lips fit the speech?",
        "not at all",
        "perfectly",
        "Lip sync: which lips fit the speech better?",
    ),
    "quality": Criterion(
        "Quality",
        "Quality: how good is the picture?",
        "bad",
        "excellent",
        "Quality: which picture is better?",
    ),
    "smoothness": Criterion(
        "Smoothness",
        "Smoothness: how smooth and natural is the motion?",
        "jerky or stiff",
        "smooth, natural",
        "Smoothness: which motion is smoother and more natural?",
    ),
}


def wording(text: str, emotion: str | None) -> str:
    """Return a question with the wanted emotion filled in; without one it asks for any clear emotion."""
    return text.format(emotion="a clear emotion" if emotion is None else EMOTION_NOUNS[emotion])
