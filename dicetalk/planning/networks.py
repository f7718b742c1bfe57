"""The networks of a profile's diffusion training and a batch for them, without data, weights or memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dicetalk import weights
from dicetalk.config import Params
from dicetalk.data.dataset import DiffusionBatch
from dicetalk.data.shape import planned_shape
from dicetalk.labels import CLASSES
from dicetalk.models.backbones.denoisers.base import Denoiser
from dicetalk.models.backbones.denoisers.table import DENOISERS, denoiser_class
from dicetalk.models.backbones.files.components import component_config
from dicetalk.models.backbones.files.table import WITHOUT_FILE, files_of
from dicetalk.models.build import DataShape, build_conditioners
from dicetalk.models.conditions.table import build_further
from dicetalk.training.diffusion import DiffusionObjective


@dataclass
class TrainedNetworks:
    """What the diffusion training optimises, and the widths of the clips it would read."""

    denoiser: Denoiser
    conditioners: dict[str, nn.Module]
    data: DataShape

    def objective(self, params: Params) -> DiffusionObjective:
        """Return the training's objective on these networks; its batches are not available."""
        nothing: Any = None  # only `draw` would use them, and a plan brings its own batch
        prior_dim = params.train_embedder.embedding_dim
        objective = DiffusionObjective(
            denoiser=self.denoiser,
            conditioners=self.conditioners,
            train_batches=nothing,
            test_batches=nothing,
            clip_priors=(np.zeros((1, prior_dim), np.float32), np.zeros((1, prior_dim), np.float32)),
            class_priors=np.zeros((len(CLASSES), prior_dim), np.float32),
            portrait=lambda latents: latents,
            fps=params.preprocess.fps / params.train_diffusion.frame_stride,
            settings=params.train_diffusion,
        )
        if params.compute.train_diffusion.gradient_checkpointing:
            self.denoiser.network.enable_gradient_checkpointing()
        return objective

    def parts(self) -> nn.ModuleDict:
        """Return all networks as one module, by the names under which training saves them."""
        return nn.ModuleDict({self.denoiser.files.denoiser: self.denoiser.network, **self.conditioners})


@dataclass(frozen=True)
class Backbone:
    """What a plan knows of a backbone.

    Attributes:
        config: of the denoiser; empty: that of Stable Video Diffusion img2vid-xt.
        folder: where it lies; None where it is not on this machine.
    """

    config: dict[str, Any]
    folder: Path | None

    @property
    def origin(self) -> str:
        """Where the configuration comes from, in words."""
        if self.folder is None:
            return "Stable Video Diffusion img2vid-xt"
        return str(self.folder / files_of(self.folder).denoiser / "config.json")

    def denoiser(self) -> Denoiser:
        """Return it untrained, on the default device."""
        cls = denoiser_class(self.folder) if self.folder else DENOISERS[WITHOUT_FILE]
        return cls.empty(self.config)


def find_backbone(params: Params) -> Backbone:
    """Return the backbone of a profile; without its weights on this machine Stable Video Diffusion's."""
    for status in weights.status():
        if status.weights.name == params.backbone.weights and status.path is not None:
            folder = Path(status.path)
            name = files_of(folder).denoiser
            if (folder / name / "config.json").is_file():
                return Backbone(component_config(folder, name), folder)
    return Backbone({}, None)


def build_networks(params: Params, backbone: Backbone) -> TrainedNetworks:
    """Build the networks of `train_diffusion` untrained, on the current default device."""
    denoiser = backbone.denoiser()
    data = planned_shape(params.encode.speech, backbone.folder)
    prior_dim = params.train_embedder.embedding_dim
    widths = denoiser.widths
    conditioners = build_conditioners(params.train_diffusion, params.learn_bank, prior_dim, data, widths)
    return TrainedNetworks(denoiser, {**conditioners, **build_further(widths)}, data)


def random_batch(
    params: Params, networks: TrainedNetworks, batch_size: int, frames: int
) -> tuple[DiffusionBatch, Tensor]:
    """Return a batch in the shapes that training draws, and its emotion priors `(batch, prior_dim)`."""
    settings, size_px = params.train_diffusion, params.preprocess.size_px
    geometry = networks.denoiser.geometry(2 ** (len(settings.pose_guider_channels) - 1))
    side = size_px // geometry.space
    latent = (geometry.channels, side, side)
    speech = networks.data.speech_layers, networks.data.speech_channels
    batch = DiffusionBatch(
        latents=torch.randn(batch_size, frames, *latent),
        reference_latents=torch.randn(batch_size, *latent),
        image_embeddings=torch.randn(batch_size, networks.denoiser.widths.tokens),
        face_masks=torch.ones(batch_size, 1, size_px, size_px),
        mouth_masks=torch.ones(batch_size, 1, size_px, size_px),
        audio_windows=torch.randn(batch_size, frames, settings.audio_projection.window_tokens, *speech),
        rows=torch.zeros(batch_size, dtype=torch.long),
        classes=torch.arange(batch_size) % len(CLASSES),
    )
    return batch, torch.randn(batch_size, params.train_embedder.embedding_dim)
