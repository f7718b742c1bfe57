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
from dicetalk.files import read_json
from dicetalk.labels import CLASSES
from dicetalk.models.emotion import EmotionModel
from dicetalk.models.pose_guider import PoseGuider
from dicetalk.models.projection import AudioProjection
from dicetalk.models.unet import DiceTalkUNet
from dicetalk.training.diffusion import DiffusionObjective

WHISPER_LAYERS, WHISPER_CHANNELS = 5, 384  # whisper-tiny: embedding output and four layers


@dataclass
class TrainedNetworks:
    """What the diffusion training optimises."""

    unet: DiceTalkUNet
    audio_projection: AudioProjection
    emotion_model: EmotionModel
    pose_guider: PoseGuider

    def objective(self, params: Params) -> DiffusionObjective:
        """Return the training's objective on these networks; its batches are not available."""
        nothing: Any = None  # only `draw` would use them, and a plan brings its own batch
        prior_dim = self.emotion_model.config.prior_dim
        objective = DiffusionObjective(
            unet=self.unet,
            audio_projection=self.audio_projection,
            emotion_model=self.emotion_model,
            pose_guider=self.pose_guider,
            train_batches=nothing,
            test_batches=nothing,
            clip_priors=(np.zeros((1, prior_dim), np.float32), np.zeros((1, prior_dim), np.float32)),
            class_priors=np.zeros((len(CLASSES), prior_dim), np.float32),
            scaling_factor=1.0,
            fps=params.preprocess.fps / params.train_diffusion.frame_stride,
            settings=params.train_diffusion,
        )
        if params.compute.train_diffusion.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
        return objective

    def parts(self) -> nn.ModuleDict:
        """Return all networks as one module."""
        return nn.ModuleDict(vars(self))


def unet_config(params: Params) -> tuple[dict[str, Any], str]:
    """Return the backbone's UNet configuration and where it comes from.

    Without the weights on this machine it is that of Stable Video Diffusion img2vid-xt, which are the
    defaults of `DiceTalkUNet`.
    """
    for status in weights.status():
        if status.weights.name == params.backbone.weights and status.path is not None:
            file = Path(status.path) / "unet/config.json"
            if file.is_file():
                return read_json(file), str(file)
    return {}, "Stable Video Diffusion img2vid-xt"


def build_networks(params: Params, config: dict[str, Any]) -> TrainedNetworks:
    """Build the networks of `train_diffusion` untrained, on the current default device."""
    unet = DiceTalkUNet.from_config(config) if config else DiceTalkUNet()
    settings, bank = params.train_diffusion, params.learn_bank
    layers, channels = speech_shape(params)
    return TrainedNetworks(
        unet=unet,
        audio_projection=AudioProjection(
            window_size=settings.audio_projection.window_tokens,
            num_layers=layers,
            channels=channels,
            hidden_dim=settings.audio_projection.hidden_dim,
            num_tokens=settings.audio_projection.num_tokens,
            output_dim=unet.config.cross_attention_dim,
        ),
        emotion_model=EmotionModel(
            prior_dim=params.train_embedder.embedding_dim,
            dim=bank.dim,
            num_codes=bank.num_codes,
            num_tokens=bank.num_tokens,
            num_heads=bank.num_heads,
            hidden_dim=bank.dim,
            classifier_in_channels=unet.config.block_out_channels[-1],
            num_classes=len(CLASSES),
            use_bank=bank.use_bank,
        ),
        pose_guider=PoseGuider(
            conditioning_embedding_channels=unet.config.block_out_channels[0],
            block_out_channels=tuple(settings.pose_guider_channels),
        ),
    )


def speech_shape(params: Params) -> tuple[int, int]:
    """Return layers and channels of the speech features."""
    speech = params.encode.speech
    return (WHISPER_LAYERS, WHISPER_CHANNELS) if speech.backend == "whisper" else (1, speech.num_mels)


def random_batch(
    params: Params, networks: TrainedNetworks, batch_size: int, frames: int
) -> tuple[DiffusionBatch, Tensor]:
    """Return a batch in the shapes that training draws, and its emotion priors `(batch, prior_dim)`."""
    settings, config = params.train_diffusion, networks.unet.config
    layers_channels = speech_shape(params)
    side = params.preprocess.size_px // 2 ** (len(settings.pose_guider_channels) - 1)
    latent = (config.out_channels, side, side)
    batch = DiffusionBatch(
        latents=torch.randn(batch_size, frames, *latent),
        reference_latents=torch.randn(batch_size, *latent),
        image_embeddings=torch.randn(batch_size, config.cross_attention_dim),
        face_masks=torch.ones(batch_size, 1, params.preprocess.size_px, params.preprocess.size_px),
        mouth_masks=torch.ones(batch_size, 1, params.preprocess.size_px, params.preprocess.size_px),
        audio_windows=torch.randn(
            batch_size, frames, settings.audio_projection.window_tokens, *layers_channels
        ),
        rows=torch.zeros(batch_size, dtype=torch.long),
        classes=torch.arange(batch_size) % len(CLASSES),
    )
    return batch, torch.randn(batch_size, networks.emotion_model.config.prior_dim)
