"""Which emotions choose which codes of the bank."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from dicetalk.labels import CLASSES, EMOTIONS
from dicetalk.models.emotion import EmotionModel

CODE_USAGE_FILE = "code_usage.parquet"  # beside the bank's weights


@torch.no_grad()
def usage_by_emotion(emotion_model: EmotionModel, priors: Tensor, classes: Tensor) -> pd.DataFrame:
    """Count how often the priors of each emotion are quantised to each code.

    Args:
        emotion_model: with the learned bank.
        priors: `(clips, kinds, prior_dim)`; every kind of prior of a clip counts.
        classes: class index of each clip `(clips,)`.

    Returns:
        Columns `emotion`, `code` and `count`; every pair has a row.
    """
    num_codes = emotion_model.config.num_codes
    codes = emotion_model.codebook(priors)[2]
    emotions = torch.tensor([EMOTIONS.index(emotion) for emotion, _ in CLASSES])[classes]
    pairs = emotions[:, None] * num_codes + codes
    counts = pairs.flatten().bincount(minlength=len(EMOTIONS) * num_codes)
    index = pd.MultiIndex.from_product([EMOTIONS, range(num_codes)], names=["emotion", "code"])
    return pd.DataFrame({"count": counts.numpy()}, index=index).reset_index()
