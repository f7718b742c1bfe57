"""Pretraining of the demo backbone: an SVD-shaped image-to-video model without audio or emotion.

It stands for Stable Video Diffusion in the demo: DICE-Talk fine-tunes a pretrained video model, so the demo
does too. Noise, preconditioning and conditioning (image embedding in cross-attention, clean latent on the
channels, constant micro-conditioning) are those of the fine-tuning.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNetSpatioTemporalConditionModel
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from dicetalk.models.autoencoder import PatchAutoencoder
from dicetalk.models.preprocessing import CLIP_MEAN, CLIP_STD
from dicetalk.progress import track
from dicetalk.training.autoencoder import to_images

# fps, motion bucket, expression bucket: the constants of the official pipeline.
ADDED_TIME_IDS = (12.5, 8.0, 16.0)
SHORT_WINDOW_FRAMES = 2


def build_unet(
    latent_channels: int,
    block_out_channels: tuple[int, ...],
    attention_heads: tuple[int, ...],
    cross_attention_dim: int,
    sample_size: int,
    num_frames: int,
) -> UNetSpatioTemporalConditionModel:
    """Return an untrained UNet of SVD's kind with as many levels as `block_out_channels` has entries."""
    levels = len(block_out_channels)
    return UNetSpatioTemporalConditionModel(
        sample_size=sample_size,
        in_channels=2 * latent_channels,
        out_channels=latent_channels,
        down_block_types=("CrossAttnDownBlockSpatioTemporal",) * (levels - 1) + ("DownBlockSpatioTemporal",),
        up_block_types=("UpBlockSpatioTemporal",) + ("CrossAttnUpBlockSpatioTemporal",) * (levels - 1),
        block_out_channels=block_out_channels,
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=3 * 32,
        layers_per_block=1,
        cross_attention_dim=cross_attention_dim,
        num_attention_heads=attention_heads,
        num_frames=num_frames,
    )


def build_image_encoder(image_size: int, projection_dim: int) -> CLIPVisionModelWithProjection:
    """Return an untrained CLIP image encoder of two small layers; it is trained with the UNet."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=image_size,
            patch_size=16,
            projection_dim=projection_dim,
        )
    )


class BackboneObjective:
    """Velocity prediction on windows of clips, given one random frame of the same person.

    The frame comes from any of the person's takes: a frame of the same take shows the expression that is to
    be drawn, and a model that learns to copy it has to unlearn that as soon as expressions are asked for.

    Args:
        clips: uint8 `(clips, frames, size, size, 3)` at the model's frame rate; takes of a person in a row.
        autoencoder: trained and frozen.
        num_takes: clips per person.
        num_validation: how many of the last clips are never trained on.
        num_frames: window length.
        short_window_fraction: fraction of steps that see windows of `SHORT_WINDOW_FRAMES` frames of as many
            more people: faces are learned from many people, motion from long windows.
        sigma_log_mean: mean of the natural logarithm of the noise level.
        sigma_log_std: its standard deviation.
        seed: seed of batches.
        unet: the model to train.
        image_encoder: trained along.
    """

    validation_sigmas = (0.3, 1.0, 3.0, 10.0)

    def __init__(
        self,
        clips: np.ndarray,
        autoencoder: PatchAutoencoder,
        num_takes: int,
        num_validation: int,
        num_frames: int,
        short_window_fraction: float,
        sigma_log_mean: float,
        sigma_log_std: float,
        seed: int,
        unet: UNetSpatioTemporalConditionModel,
        image_encoder: CLIPVisionModelWithProjection,
    ) -> None:
        self.clips, self.num_takes, self.num_validation = clips, num_takes, num_validation
        self.num_frames, self.short_window_fraction, self.seed = num_frames, short_window_fraction, seed
        self.sigma_log_mean, self.sigma_log_std = sigma_log_mean, sigma_log_std
        self.unet, self.image_encoder = unet, image_encoder
        self.modules: dict[str, nn.Module] = {"unet": unet, "image_encoder": image_encoder}
        self.latents = encode_clips(autoencoder, clips)
        mean, std = torch.tensor(CLIP_MEAN), torch.tensor(CLIP_STD)
        self.clip_mean, self.clip_std = mean[:, None, None], std[:, None, None]

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """One group: everything at `lr`."""
        return [{"params": [p for m in self.modules.values() for p in m.parameters()], "lr": lr}]

    def loss(self, step: int, batch_size: int) -> tuple[Tensor, dict[str, float]]:
        """Return the mean squared error of the predicted velocity on a random batch."""
        rng = np.random.default_rng([self.seed, step])
        num_frames = self.num_frames
        if rng.random() < self.short_window_fraction:
            num_frames, batch_size = SHORT_WINDOW_FRAMES, batch_size * self.num_frames // SHORT_WINDOW_FRAMES
        clips = rng.integers(len(self.clips) - self.num_validation, size=batch_size)
        start = rng.integers(self.clips.shape[1] - num_frames + 1, size=batch_size)
        reference_clips = clips - clips % self.num_takes + rng.integers(self.num_takes, size=batch_size)
        reference = rng.integers(self.clips.shape[1], size=batch_size)
        sigma = np.exp(rng.normal(self.sigma_log_mean, self.sigma_log_std, size=batch_size))
        loss = self.velocity_error(
            clips, start, num_frames, reference_clips, reference, torch.from_numpy(sigma).float()
        )
        return loss, {}

    def validate(self, step: int) -> dict[str, float]:
        """Return the velocity error at fixed noise levels of unseen people, given a frame of another take."""
        count = min(32, self.num_validation)
        clips = np.arange(len(self.clips) - count, len(self.clips))
        reference_clips = clips - clips % self.num_takes + (clips + 1) % self.num_takes
        start, reference = np.zeros(count, int), np.full(count, self.clips.shape[1] - 1)
        return {
            f"loss_sigma_{sigma:g}": self.velocity_error(
                clips, start, self.num_frames, reference_clips, reference, torch.full((count,), sigma)
            ).item()
            for sigma in self.validation_sigmas
        }

    def velocity_error(
        self,
        clips: np.ndarray,
        start: np.ndarray,
        num_frames: int,
        reference_clips: np.ndarray,
        reference: np.ndarray,
        sigma: Tensor,
    ) -> Tensor:
        """Return the loss for chosen windows of `num_frames`; arrays have shape `(batch,)`."""
        frames = start[:, None] + np.arange(num_frames)
        target = self.latents[clips[:, None], frames].float()
        reference_latent = self.latents[reference_clips, reference].float()
        images = to_images(self.clips[reference_clips, reference])
        pixels = ((images + 1) / 2 - self.clip_mean) / self.clip_std
        image_embedding = self.image_encoder(pixels).image_embeds[:, None]
        sigma = sigma[:, None, None, None, None]
        noise = torch.randn_like(target)
        noisy = target + sigma * noise
        scale = (sigma.square() + 1).sqrt()
        model_input = torch.cat([noisy / scale, reference_latent[:, None].expand_as(noisy)], dim=2)
        time_ids = torch.tensor(ADDED_TIME_IDS).expand(len(clips), -1)
        velocity = self.unet(model_input, 0.25 * sigma.flatten().log(), image_embedding, time_ids).sample
        # denoised = noisy / (sigma^2 + 1) - velocity * sigma / sqrt(sigma^2 + 1), solved for the velocity.
        return F.mse_loss(velocity.float(), (noise - sigma * target) / scale)


@torch.no_grad()
def encode_clips(autoencoder: PatchAutoencoder, clips: np.ndarray) -> Tensor:
    """Return float16 latents `(clips, frames, channels, height / 8, width / 8)`."""
    return torch.stack(
        [
            autoencoder.encode(to_images(clip)).latent_dist.mode().half()
            for clip in track(clips, "encode clips")
        ]
    )
