"""Means over clips of certain labels: how often an emotion is recognised, how strong an expression is."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from dicetalk.errors import DicetalkError
from dicetalk.evaluation.emotion import SCORED_EMOTIONS
from dicetalk.labels import EMOTIONS, LEVELS, NEUTRAL

EXPRESSIVE = tuple(name for name in EMOTIONS if name != NEUTRAL)


@dataclass(frozen=True)
class LabelledMean:
    """What a metric is the mean of.

    Attributes:
        column: of the table of clips.
        emotions: clips with these labels count.
        level: clips of this level count; all when None.
        by_emotion: whether each emotion counts equally, and none may be missing.
        paired: whether systems are compared clip by clip in it.
    """

    column: str
    emotions: tuple[str, ...] = EMOTIONS
    level: int | None = None
    by_emotion: bool = False
    paired: bool = False

    def choose(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the rows that count; raises `DicetalkError` when none does or an emotion is missing."""
        if self.column not in rows or (found := rows.dropna(subset=[self.column])).empty:
            raise DicetalkError("no clip with a label could be measured")
        found = found[found["emotion"].isin(self.emotions)]
        if self.level is not None:
            found = found[found["level"] == self.level]
        missing = set(self.emotions) - set(found["emotion"]) if self.by_emotion or found.empty else set()
        if missing:
            where = "" if self.level is None else f" at level {self.level}"
            raise DicetalkError(f"no clip shows {', '.join(sorted(missing))}{where}")
        return found


LABELLED_MEANS = {
    "emotion_accuracy": LabelledMean("emotion_correct", paired=True),
    "emotion_accuracy_7": LabelledMean("emotion_correct", paired=True),  # by a network without contempt
    "emotion_accuracy_second": LabelledMean("emotion_second_correct", paired=True),
    "emo_score": LabelledMean("target_probability", SCORED_EMOTIONS, by_emotion=True),
    "emo_score_neutral": LabelledMean("target_probability", (NEUTRAL,), by_emotion=True),
    "emo_score_non_neutral": LabelledMean(
        "target_probability", tuple(name for name in SCORED_EMOTIONS if name != NEUTRAL), by_emotion=True
    ),
    "neutral_accuracy": LabelledMean("emotion_correct", (NEUTRAL,)),
    "neutral_accuracy_second": LabelledMean("emotion_second_correct", (NEUTRAL,)),
    "expression_strength_neutral": LabelledMean("expression_strength", (NEUTRAL,)),
}
LABELLED_MEANS |= {
    f"expression_strength_level_{level}": LabelledMean(
        "expression_strength", EXPRESSIVE, level, by_emotion=True
    )
    for level in LEVELS
}
