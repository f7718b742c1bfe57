"""Who is shown: the portrait, by its latent and its embedding, which backbones take without adapters."""

from __future__ import annotations

from dicetalk.models.conditions.base import Condition

IMAGE = Condition("image", guidance_rank=1, scale=3.0)
