"""What is said: the speech around each frame."""

from __future__ import annotations

from dicetalk.models.conditions.base import AdaptedCondition

AUDIO = AdaptedCondition(
    "audio", guidance_rank=2, scale=6.0, network="audio_projection", source="audio_windows"
)
