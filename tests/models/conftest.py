"""Small random models; no weights from elsewhere."""

from __future__ import annotations

import pytest
import torch
from tiny_pipeline import UNET_CONFIG, make_pipeline

from dicetalk.models.pipeline import DiceTalkPipeline

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def unet_config() -> dict:
    return UNET_CONFIG


@pytest.fixture(scope="session")
def pipeline() -> DiceTalkPipeline:
    return make_pipeline()


@pytest.fixture
def fresh_pipeline() -> DiceTalkPipeline:
    """A pipeline a test may change."""
    return make_pipeline()


@pytest.fixture
def clips() -> dict[str, torch.Tensor]:
    """Inputs of two clips of six frames."""
    generator = torch.Generator().manual_seed(1)
    return {
        "image": torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1,
        "audio_windows": torch.randn(2, 6, 10, 1, 6, generator=generator),
        "emotion_prior": torch.randn(2, 12, generator=generator),
        "face_mask": torch.rand(2, 1, 32, 32, generator=generator).round(),
    }
