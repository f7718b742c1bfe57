"""MEAD's emotions: eight at three levels, but neutral at one: 22 classes.

Names are MEAD's folder names. The released DICE-Talk emotion classifier has 22 outputs (official `emo.py`);
that they are emotion x level is an inference.
"""

from __future__ import annotations

from dicetalk.emotion_sets.emotion_set import EmotionSet

LEVELS = (1, 2, 3)

MEAD = EmotionSet(
    {
        "angry": LEVELS,
        "contempt": LEVELS,
        "disgusted": LEVELS,
        "fear": LEVELS,
        "happy": LEVELS,
        "neutral": (1,),
        "sad": LEVELS,
        "surprised": LEVELS,
    },
    neutral="neutral",
)
