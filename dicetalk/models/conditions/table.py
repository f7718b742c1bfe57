"""All conditions. The order is that of random drops in training and, among adapted ones, of the adapters."""

from __future__ import annotations

from torch import nn

from dicetalk.models.conditions.audio import AUDIO
from dicetalk.models.conditions.base import AdaptedCondition, Condition
from dicetalk.models.conditions.emotion import EMOTION
from dicetalk.models.conditions.image import IMAGE
from dicetalk.models.widths import Widths

CONDITIONS: tuple[Condition, ...] = (
    AUDIO,
    IMAGE,
    EMOTION,
)


def adapted() -> list[AdaptedCondition]:
    """Return the conditions with adapters; adapter k of every layer is that of the k-th."""
    return [condition for condition in CONDITIONS if isinstance(condition, AdaptedCondition)]


def guided() -> list[Condition]:
    """Return all conditions in the order of guidance."""
    return sorted(CONDITIONS, key=lambda condition: condition.guidance_rank)


def build_further(widths: Widths) -> dict[str, nn.Module]:
    """Return the untrained networks, by name, of conditions that make their own."""
    return {condition.network: condition.build(widths) for condition in adapted() if condition.build}
