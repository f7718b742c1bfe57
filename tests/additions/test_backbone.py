"""A second family of backbones: a toy flow model, trained and sampled through the contract alone.

It has nothing of Stable Video Diffusion: no UNet, another prediction, another noise process, tokens that are
added instead of attended to, and a row in each of the two tables.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from diffusers import ConfigMixin, FlowMatchEulerDiscreteScheduler, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from dicetalk.config import Params
from dicetalk.models.backbones.denoisers import table as denoisers
from dicetalk.models.backbones.denoisers.base import Conditions, Denoiser, Prediction
from dicetalk.models.backbones.files import table as files
from dicetalk.models.backbones.files.base import Geometry
from dicetalk.models.backbones.files.components import component_config, load_component, read_widths
from dicetalk.models.backbones.files.svd import SvdFiles
from dicetalk.models.denoising import ClipConditions, denoise
from dicetalk.models.guidance import Guidance
from dicetalk.models.token_sets import TokenSets
from dicetalk.models.widths import Widths
from dicetalk.models.windows import WindowPlan
from dicetalk.planning.networks import Backbone, TrainedNetworks, build_networks, random_batch
from dicetalk.planning.simulate import simulate_step
from dicetalk.training.loop import train


class ToyNetwork(ModelMixin, ConfigMixin):
    """Latent channels and conditions through two layers, pixel by pixel, beside the noisy latents over time.

    The velocity is (latents - clean) / time, so all that the layers have to learn is -clean / time.
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(self, channels: int = 4, tokens: int = 32, width: int = 24):
        super().__init__()
        self.gradient_checkpointing = False
        self.first = nn.Linear(2 * channels + 1, width)
        self.condition = nn.Linear(tokens, width)
        self.pose = nn.Conv2d(width, width, 1)
        self.last = nn.Linear(width, channels)

    def forward(self, latents: Tensor, time: Tensor, portrait: Tensor, tokens: Tensor, pose: Tensor):
        frames, time = latents.shape[1], time.expand(len(latents))[:, None, None, None, None]
        portrait = portrait[:, None].expand(-1, frames, -1, -1, -1)
        time = time.expand(-1, frames, 1, *latents.shape[-2:])
        seen = torch.cat([latents, portrait, time.to(latents)], dim=2).movedim(2, -1)
        hidden = self.first(seen) + self.condition(tokens)[:, :, None, None]
        hidden = torch.tanh(hidden + self.pose(pose).movedim(1, -1)[:, None])
        return latents / time.to(latents) + self.last(hidden).movedim(-1, 2), hidden.movedim(-1, 2)


class ToyFiles(SvdFiles):
    """Files: the tiny project's autoencoder and image encoder, and a denoiser of its own."""

    components = {**SvdFiles.components, "toy": (ToyNetwork,)}
    denoiser = "toy"

    def widths(self, config: Any) -> Widths:
        return Widths(tokens=config["tokens"], features=config["width"], pose=config["width"])

    def geometry(self, config: Any, space: int) -> Geometry:
        return Geometry(config["channels"], space, 1, space, window_frames=3)


class Flow:
    """`(1 - t) * clean + t * noise` with t = sigma / (1 + sigma); the network predicts noise - clean."""

    def input(self, clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        sigma = sigma[:, None, None, None, None]
        return (clean + sigma * noise) / (1 + sigma)

    def target(self, clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return noise - clean

    def scheduler(self, sigma_min: float = 0.01, sigma_max: float = 20.0) -> Any:
        return FlowMatchEulerDiscreteScheduler()

    def start(self, clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return noise

    def state_input(self, scheduler: Any, state: Tensor, timestep: Tensor) -> Tensor:
        return state


class ToyDenoiser(Denoiser):
    files, network_class, noise = ToyFiles(), ToyNetwork, Flow()

    @classmethod
    def from_pretrained(cls, network: ToyNetwork) -> ToyDenoiser:
        return cls(network)

    def inputs(self, scaled: Tensor, sigma: Tensor, conditions: Conditions) -> dict[str, Any]:
        tokens = conditions.image
        for adapted in conditions.adapted:
            values = adapted.gather() if isinstance(adapted, TokenSets) else adapted
            tokens = tokens + values.mean(2)
        tokens = tokens.expand(-1, scaled.shape[1], -1)
        return {
            "latents": scaled,
            "time": sigma / (1 + sigma),
            "portrait": conditions.portrait,
            "tokens": tokens,
            "pose": conditions.pose,
        }

    def read(self, output: Any) -> Prediction:
        return Prediction(*output)

    def adapter_parameters(self) -> list[nn.Parameter]:
        return list(self.network.condition.parameters())

    def unused_parameters(self) -> list[nn.Parameter]:
        return []

    def blocks(self) -> list[nn.Module]:
        return [self.network.first]

    def adapter_width(self) -> int:
        return 0


@pytest.fixture
def backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the family, and its two rows."""
    monkeypatch.setitem(files.FILES, "toy", ToyFiles())
    monkeypatch.setitem(denoisers.DENOISERS, "toy", ToyDenoiser)
    folder = tmp_path / "backbone"
    tiny_models.write_backbone(folder)
    torch.manual_seed(0)
    ToyNetwork(tokens=tiny_models.TOKEN_DIM).save_pretrained(folder / "toy")
    (folder / files.FAMILY_FILE).write_text(json.dumps({"family": "toy"}))
    return folder


def test_the_folder_says_what_it_is(backbone: Path) -> None:
    assert read_widths(backbone) == Widths(tokens=32, features=24, pose=24)
    assert isinstance(denoisers.load_denoiser(backbone), ToyDenoiser)
    assert isinstance(denoisers.denoiser_of(load_component(backbone, "toy")), ToyDenoiser)
    (backbone / files.FAMILY_FILE).unlink()
    assert files.family_name(backbone) == "svd"  # as all folders before there were families


class Batches:
    """Windows whose every latent is 0.5, in the plan's shapes."""

    def __init__(self, params: Params, networks: TrainedNetworks):
        self.params, self.networks = params, networks

    def draw(self, step: int, batch_size: int, num_frames: int | None = None, part: slice = slice(None)):
        torch.manual_seed(step % 1000)
        frames = num_frames or self.params.train_diffusion.num_frames
        batch, _ = random_batch(self.params, self.networks, batch_size, frames)
        return replace(batch, latents=torch.full_like(batch.latents, 0.5))


def test_a_plan_training_steps_and_guided_sampling_go_through_the_contract(
    backbone: Path, repository: Path, tmp_path: Path
) -> None:
    # 1. The plan
    params = tiny_models.tiny_params(
        repository,
        num_steps=60,
        validate_every_steps=60,
        checkpoint_every_steps=60,
        lr=3e-3,
        warmup_steps=0,
        mixed_precision="no",
    )
    bank = params.learn_bank.model_copy(update={"dim": tiny_models.TOKEN_DIM})
    params = params.model_copy(update={"learn_bank": bank})
    planned = Backbone(component_config(backbone, "toy"), backbone)
    assert simulate_step(params, planned).flops > 0

    # 2. Training: latents are constant, so the velocity noise - clean can be read off the input
    networks = build_networks(params, planned)
    objective = networks.objective(params)
    objective.train_batches = objective.test_batches = Batches(params, networks)
    before = objective.validate(0)
    settings, compute = params.train_diffusion.training, params.compute.train_diffusion
    after = train(objective, settings, compute, tmp_path / "run")
    assert after["loss_sigma_1"] < 0.3 * before["loss_sigma_1"]

    # 3. Sampling with four branches and shifted windows of the geometry's length
    denoiser = networks.denoiser
    geometry = denoiser.geometry(8)
    assert geometry.window_frames == 3
    scheduler = denoiser.noise.scheduler()
    scheduler.set_timesteps(8)
    torch.manual_seed(0)
    latent, tokens = (geometry.channels, 8, 8), tiny_models.TOKEN_DIM
    conditions = ClipConditions(
        image_tokens=torch.randn(2, 1, tokens),
        audio_tokens=torch.randn(2, 7, 2, tokens),
        emotion_tokens=torch.randn(2, 1, 2, tokens),
        null_audio_tokens=torch.randn(1, 1, 2, tokens),
        null_emotion_tokens=torch.randn(1, 1, 2, tokens),
        image_latents=torch.randn(2, *latent),
        added_time_ids=torch.zeros(2, 3),
        face_mask=torch.ones(2, 1, 64, 64),
        pose_feature=torch.zeros(2, denoiser.widths.pose, 8, 8),
    )
    noise = torch.randn(2, 7, *latent)
    start = denoiser.noise.start(torch.zeros_like(noise), noise, torch.tensor(1.0))
    guidance, windows = Guidance(1.1, 1.2, 1.3), WindowPlan(geometry.window_frames, 0, 1)
    video = denoise(denoiser, scheduler, start, conditions, guidance, windows, max_batch=5)
    assert (video - 0.5).square().mean() < 0.3 * (noise - 0.5).square().mean()
