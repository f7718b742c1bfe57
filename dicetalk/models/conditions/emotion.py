"""How it is said: the emotion prior, through the bank; the same for all frames."""

from __future__ import annotations

from torch import Tensor

from dicetalk.models.conditions.base import AdaptedCondition
from dicetalk.models.emotion import EmotionModel


def _tokens(model: EmotionModel, priors: Tensor) -> Tensor:
    return model(priors[:, None]).tokens


EMOTION = AdaptedCondition(
    "emotion", guidance_rank=3, scale=6.0, network="emotion_model", source="priors", tokens=_tokens
)
