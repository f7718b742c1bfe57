"""Emotions between the named ones: a weighted mean of class priors, as users write it.

The paper's priors are class means in a continuous emotion space, and the release offers only these. That
points between them are useful as well is our reading of the paper's "cooperating" emotions.
"""

from __future__ import annotations

import math

from dicetalk.errors import DicetalkError
from dicetalk.labels import NEUTRAL, class_index

EmotionMix = dict[tuple[str, int], float]


def parse_emotion(text: str, level: int) -> EmotionMix:
    """Return the weights of (emotion, level) pairs that `happy` or `happy:0.7,sad:0.3` stands for.

    Args:
        text: an emotion, or several with weights that sum to 1.
        level: strength of the emotions. In a mixture, neutral is taken at level 1, the only one it has.

    Raises:
        DicetalkError: for an unknown emotion, a level it does not have, or weights that are missing or do
            not sum to 1.
    """
    if ":" not in text and "," not in text:
        class_index(text, level)
        return {(text, level): 1.0}
    mix: EmotionMix = {}
    for part in text.split(","):
        name, _, weight = (piece.strip() for piece in part.partition(":"))
        pair = (name, 1 if name == NEUTRAL else level)
        class_index(*pair)
        if pair in mix:
            raise DicetalkError(f"--emotion {text}: {name} is named twice.")
        try:
            mix[pair] = float(weight)
        except ValueError:
            raise DicetalkError(
                f"--emotion {text}: {part.strip()!r} has no weight; write happy:0.7,sad:0.3."
            ) from None
    if not all(0 <= weight <= 1 for weight in mix.values()) or not math.isclose(sum(mix.values()), 1):
        raise DicetalkError(
            f"--emotion {text}: weights must be in [0, 1] and sum to 1, not to {sum(mix.values()):g}. "
            "To make an emotion half as strong, mix it with neutral: happy:0.5,neutral:0.5."
        )
    return mix
