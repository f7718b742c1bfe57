"""Emotions, levels and classes of the chosen emotion set, `dicetalk.emotion_sets.table`."""

from __future__ import annotations

from dicetalk.emotion_sets.table import CHOSEN

EMOTIONS = CHOSEN.emotions
LEVELS = CHOSEN.levels
NEUTRAL = CHOSEN.neutral
CLASSES = CHOSEN.classes
check_emotion = CHOSEN.check_emotion
levels_of = CHOSEN.levels_of
emotion_index = CHOSEN.emotion_index
class_index = CHOSEN.class_index
