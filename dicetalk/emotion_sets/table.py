"""The emotion sets that there are, and the one that this copy of the project is made for.

The choice is code, not a parameter: it decides the width of networks, the files of a model and the columns of
tables, and every stage depends on this folder, so that another choice runs everything again.
"""

from __future__ import annotations

from dicetalk.emotion_sets.emotion_set import EmotionSet
from dicetalk.emotion_sets.mead import MEAD

CHOSEN: EmotionSet = MEAD
