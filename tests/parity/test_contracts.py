"""Full-size modules have exactly the official state-dict names and shapes."""

from __future__ import annotations

import pytest
import torch

from dicetalk.models.emotion import EmotionModel
from dicetalk.models.pose_guider import PoseGuider
from dicetalk.models.projection import AudioProjection
from dicetalk.models.unet import DiceTalkUNet


@pytest.mark.parametrize(
    ("name", "model_class"),
    [
        ("audio_linear", AudioProjection),
        ("emo_model", EmotionModel),
        ("pose_guider", PoseGuider),
        ("unet", DiceTalkUNet),
    ],
)
def test_default_module_matches_the_official_checkpoint(contract, name, model_class):
    with torch.device("meta"):
        model = model_class()
    assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == contract(name)
