"""Emotions, intensity levels and the 22 (emotion, level) classes of MEAD.

Names are MEAD's folder names. Neutral is recorded at one level only, the other seven emotions at three, which
gives the 22 outputs of the released DICE-Talk emotion classifier (official `emo.py`; the reading as emotion x
level is an inference).
"""

from __future__ import annotations

from dicetalk.errors import DicetalkError

EMOTIONS: tuple[str, ...] = ("angry", "contempt", "disgusted", "fear", "happy", "neutral", "sad", "surprised")
LEVELS: tuple[int, ...] = (1, 2, 3)
NEUTRAL = "neutral"


def levels_of(emotion: str) -> tuple[int, ...]:
    """Return the intensity levels recorded for `emotion`: `(1,)` for neutral, `(1, 2, 3)` otherwise."""
    check_emotion(emotion)
    return (1,) if emotion == NEUTRAL else LEVELS


def check_emotion(emotion: str) -> None:
    """Raise `DicetalkError` unless `emotion` is one of the eight names."""
    if emotion not in EMOTIONS:
        raise DicetalkError(f"Unknown emotion {emotion!r}; expected one of {', '.join(EMOTIONS)}.")


CLASSES: tuple[tuple[str, int], ...] = tuple(
    (emotion, level) for emotion in EMOTIONS for level in levels_of(emotion)
)
_CLASS_INDEX = {pair: index for index, pair in enumerate(CLASSES)}


def class_index(emotion: str, level: int) -> int:
    """Return the index in `[0, 22)` of an (emotion, level) pair.

    Raises:
        DicetalkError: for an unknown emotion or a level the emotion does not have.
    """
    if level not in levels_of(emotion):
        raise DicetalkError(f"Emotion {emotion!r} has levels {levels_of(emotion)}, not {level!r}.")
    return _CLASS_INDEX[emotion, level]


def emotion_index(emotion: str) -> int:
    """Return the index in `[0, 8)` of an emotion."""
    check_emotion(emotion)
    return EMOTIONS.index(emotion)


def class_name(emotion: str, level: int) -> str:
    """Return the printable name of a class, e.g. `happy_3`."""
    return f"{emotion}_{level}"
