"""A fourth condition, the mouth's place, is its file and a row of the table: trained, guided, saved."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import tiny_models
import torch

from dicetalk.models import pipeline_networks
from dicetalk.models.conditions import table
from dicetalk.models.pipeline import DiceTalkPipeline
from dicetalk.planning.networks import Backbone, build_networks
from dicetalk.tracking.tracker import Tracker
from dicetalk.training import diffusion, finetune

NEW_FILE = '''
"""Where the mouth is: its mask, averaged into a few numbers."""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch.nn import functional as F

from dicetalk.models.conditions.base import AdaptedCondition


class MouthPlace(ModelMixin, ConfigMixin):
    @register_to_config
    def __init__(self, dim: int):
        super().__init__()
        self.layer = torch.nn.Linear(16, dim)

    def forward(self, masks):
        return self.layer(F.adaptive_avg_pool2d(masks, 4).flatten(1))[:, None, None]

    def null_tokens(self):
        return self(self.layer.weight.new_zeros(1, 1, 4, 4))


MOUTH = AdaptedCondition(
    "mouth", guidance_rank=4, dropout=0.5, scale=2.0, network="mouth_place", source="mouth_masks",
    build=lambda widths: MouthPlace(widths.tokens),
)
'''
TABLE = "dicetalk/models/conditions/table.py"
NEW_MODULE = "dicetalk.models.conditions.mouth"


@pytest.fixture
def mouth(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The new file beside the others and the table with its row, for the time of a test."""
    text = (repository / TABLE).read_text()
    row = text.replace("    EMOTION,\n)", "    EMOTION,\n    MOUTH,\n)")
    row = row.replace(
        "from dicetalk.models.conditions.image",
        f"from {NEW_MODULE} import MOUTH\nfrom dicetalk.models.conditions.image",
    )
    added = sorted(set(row.splitlines()) - set(text.splitlines()))
    assert added == ["    MOUTH,", f"from {NEW_MODULE} import MOUTH"]
    section = (repository / "CONTRIBUTING.md").read_text().split("## Add a condition")[1].split("\n## ")[0]
    files = {name for name in re.findall(r"`([\w./]+\.py)`", section) if name.startswith("dicetalk/models")}
    assert files == {"dicetalk/models/conditions/NAME.py", TABLE}

    # An overlay of the package: its own folder is searched first
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    (overlay / "mouth.py").write_text(NEW_FILE)
    (overlay / "table.py").write_text(row)
    package = sys.modules["dicetalk.models.conditions"]
    monkeypatch.setattr(package, "__path__", [str(overlay), *package.__path__])
    importlib.invalidate_caches()
    module = importlib.import_module(NEW_MODULE)
    namespace: dict = {}
    exec(compile(row, str(overlay / "table.py"), "exec"), namespace)  # noqa: S102 - the edited table itself
    monkeypatch.setattr(table, "CONDITIONS", namespace["CONDITIONS"])
    monkeypatch.setattr("dicetalk.training.diffusion.CONDITIONS", namespace["CONDITIONS"])
    signature = pipeline_networks.networks_signature()
    monkeypatch.setattr(pipeline_networks.DiceTalkNetworks.__init__, "__signature__", signature)
    yield module
    sys.modules.pop(NEW_MODULE)


def test_a_new_condition_is_trained_dropped_guided_and_saved(
    mouth: ModuleType, repository: Path, tmp_path: Path
) -> None:
    params = tiny_models.tiny_params(repository, num_steps=1, sample_clips=0)
    root = tiny_models.write_project(tmp_path / "project")
    folder = root / "models/diffusion"

    chances = params.train_diffusion.condition_dropout  # 5 % of everything; the file says 50 % of the mouth
    kept = diffusion.Kept.draw(20_000, chances)["mouth"].float().mean().item()
    assert kept == pytest.approx(0.95 * 0.5, abs=0.02)

    # 1. A training step reaches its network and its adapters in every layer
    metrics = finetune.train_diffusion(params, root, root / "run", Tracker())
    assert "mouth_gain_sigma_1" in metrics["training"]
    assert metrics["parameters"]["mouth_place"] == (16 + 1) * tiny_models.TOKEN_DIM
    pipeline = DiceTalkPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    assert isinstance(pipeline.mouth_place, mouth.MouthPlace)
    keys = pipeline.unet.state_dict()
    assert sum(key.endswith("to_k_ip.2.weight") for key in keys) == len(
        pipeline.unet.named_cross_attentions()
    )

    # 2. Guided sampling: what it is told changes the video, its scale weighs it, and without it nothing does
    torch.manual_seed(0)
    window = pipeline.audio_projection.window_shape
    clips = {
        "image": torch.rand(1, 3, 64, 64) * 2 - 1,
        "audio_windows": torch.randn(1, 4, *window),
        "emotion_prior": torch.randn(1, 16),
        "face_mask": torch.ones(1, 1, 64, 64),
        "num_inference_steps": 2,
        "output_type": "latent",
    }

    def sample(**options: object) -> torch.Tensor:
        return pipeline(**clips, generator=torch.Generator().manual_seed(0), **options).frames

    masks = torch.zeros(1, 1, 64, 64)
    masks[..., 32:, 16:48] = 1.0
    told, untold = sample(further={"mouth": masks}), sample()
    stronger = sample(further={"mouth": masks}, further_scales={"mouth": 4.0})
    assert (told - untold).abs().max() > 1e-6 and (stronger - told).abs().max() > 1e-6
    ignored = sample(further={"mouth": masks}, further_scales={"mouth": 0.0})
    assert (ignored - untold).abs().max() < 0.1 * (told - untold).abs().max()

    # 3. A plan sizes it
    backbone = Backbone(dict(pipeline.unet.config), root / "models/backbone")
    planned = build_networks(params, backbone).parts()
    assert "mouth_place" in planned
