"""Training of the demo backbone's autoencoder on frames of procedural heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dicetalk.models.autoencoder import PatchAutoencoder


class AutoencoderObjective:
    """Pixel and edge error of reconstructions from slightly noisy latents.

    Args:
        clips: uint8 `(clips, frames, size, size, 3)`.
        num_validation: how many of the last clips are never trained on.
        seed: seed of batch selection.
        latent_channels: numbers per 8x8 patch.
        latent_noise: standard deviation of noise on the unit-variance latents, so that decoding forgives
            small errors.
        edge_weight: weight of the error of finite differences, which keeps eyes and lips sharp.
    """

    linear_start_frames = 1024

    def __init__(
        self,
        clips: np.ndarray,
        num_validation: int,
        seed: int,
        latent_channels: int,
        latent_noise: float,
        edge_weight: float,
    ) -> None:
        self.train_clips, self.validation_clips = clips[:-num_validation], clips[-num_validation:]
        self.seed, self.latent_noise, self.edge_weight = seed, latent_noise, edge_weight
        torch.manual_seed(seed)
        self.autoencoder = PatchAutoencoder(latent_channels)
        start = self.frames(np.random.default_rng(seed), self.linear_start_frames)
        self.autoencoder.fit_linear(start)
        self.autoencoder.normalise_latents(start)
        self.modules: dict[str, nn.Module] = {"vae": self.autoencoder}

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """One group: everything at `lr`."""
        return [{"params": list(self.autoencoder.parameters()), "lr": lr}]

    def frames(self, rng: np.random.Generator, count: int) -> Tensor:
        """Return `count` random training frames `(count, 3, size, size)` in `[-1, 1]`."""
        clip = rng.integers(len(self.train_clips), size=count)
        frame = rng.integers(self.train_clips.shape[1], size=count)
        return to_images(self.train_clips[clip, frame])

    def loss(self, step: int, batch_size: int) -> tuple[Tensor, dict[str, float]]:
        """Return the reconstruction loss of a random batch."""
        images = self.frames(np.random.default_rng([self.seed, step]), batch_size)
        latents = self.autoencoder.encode(images).latent_dist.mode()
        decoded = self.autoencoder.decode(latents + self.latent_noise * torch.randn_like(latents)).sample
        # Keeps the scale of the latents, which the noise level refers to, near the variance they start with.
        spread = (latents.square().mean() - 1.0).square()
        pixel, edge = F.l1_loss(decoded, images), edge_error(decoded, images)
        return pixel + self.edge_weight * edge + spread, {"pixel": pixel.item(), "edge": edge.item()}

    def validate(self, step: int) -> dict[str, float]:
        """Return the mean peak signal-to-noise ratio of unseen identities in dB (data range 2)."""
        frames = self.validation_clips[:, :: max(1, self.validation_clips.shape[1] // 2)]
        images = to_images(frames.reshape(-1, *frames.shape[2:]))
        error = torch.cat(
            [
                (self.autoencoder(part).sample.clamp(-1, 1) - part).square().mean((1, 2, 3))
                for part in images.split(64)
            ]
        )
        return {"psnr_db": (10 * torch.log10(4.0 / error)).mean().item()}


def edge_error(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean absolute difference of two image batches' horizontal and vertical differences."""
    difference = first - second
    return difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()


def to_images(frames: np.ndarray) -> Tensor:
    """Map uint8 frames `(..., height, width, 3)` to float images `(..., 3, height, width)` in `[-1, 1]`."""
    return torch.from_numpy(np.ascontiguousarray(frames)).movedim(-1, -3).float() / 127.5 - 1.0
