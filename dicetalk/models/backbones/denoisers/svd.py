"""Stable Video Diffusion under the denoiser contract."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from torch import Tensor, nn

from dicetalk.models import sampling
from dicetalk.models.backbones.denoisers.base import Conditions, Denoiser, Prediction
from dicetalk.models.backbones.files.svd import SvdFiles
from dicetalk.models.unet import DiceTalkUNet


class EdmNoise:
    """EDM preconditioning with velocity prediction, see `dicetalk.models.sampling`."""

    def input(self, clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """Return `c_in * (clean + sigma * noise)`; `sigma` is `(batch,)`, as everywhere in training."""
        c_in = sampling.precondition(sigma).c_in
        return sampling.add_noise(clean, noise, sigma) * c_in[(...,) + (None,) * (clean.ndim - 1)]

    def target(self, clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """Return the velocity."""
        return sampling.velocity_target(clean, noise, sigma)

    def scheduler(self, sigma_min: float = 0.002, sigma_max: float = 700.0) -> EulerDiscreteScheduler:
        """Return SVD-XT's sampler."""
        return sampling.make_scheduler(sigma_min, sigma_max)

    def start(self, clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """Return `clean + sigma * noise`."""
        return sampling.add_noise(clean, noise, sigma)

    def state_input(self, scheduler: EulerDiscreteScheduler, state: Tensor, timestep: Tensor) -> Tensor:
        """Return the noisy latents times `c_in`."""
        return scheduler.scale_model_input(state, timestep)


class SvdDenoiser(Denoiser):
    """`DiceTalkUNet`: the portrait's latent joins each frame's channels, its embedding is attended to."""

    files = SvdFiles()
    network_class = DiceTalkUNet
    noise = EdmNoise()

    @classmethod
    def from_pretrained(cls, network: UNetSpatioTemporalConditionModel) -> SvdDenoiser:
        """Start from a stock SVD UNet; raises as `DiceTalkUNet.from_svd`."""
        return cls(DiceTalkUNet.from_svd(network))

    def inputs(self, scaled: Tensor, sigma: Tensor, conditions: Conditions) -> dict[str, Any]:
        """Return the arguments of `DiceTalkUNet.forward`."""
        portrait = conditions.portrait[:, None].expand(-1, scaled.shape[1], -1, -1, -1)
        audio_tokens, emotion_tokens, *further_tokens = conditions.adapted
        return {
            "sample": torch.cat([scaled, portrait.to(scaled.dtype)], dim=2),
            "timestep": sampling.precondition(sigma).c_noise,
            "encoder_hidden_states": conditions.image,
            "added_time_ids": conditions.motion,
            "audio_tokens": audio_tokens,
            "emotion_tokens": emotion_tokens,
            "further_tokens": tuple(further_tokens),
            "face_mask": conditions.face_mask,
            "pose_feature": conditions.pose,
        }

    def read(self, output: Any) -> Prediction:
        """Return velocity and mid-block features."""
        return Prediction(output.sample, output.features)

    def adapter_parameters(self) -> list[nn.Parameter]:
        """Return the keys and values of audio and emotion."""
        return self.network.adapter_parameters()

    def unused_parameters(self) -> list[nn.Parameter]:
        """Return the image's keys: softmax over one image token ignores its key."""
        layers = self.network.named_cross_attentions()
        return [weight for _, attention in layers for weight in attention.to_k.parameters()]

    def blocks(self) -> list[nn.Module]:
        """Return the blocks of the UNet's levels."""
        return [*self.network.down_blocks, self.network.mid_block, *self.network.up_blocks]

    def adapter_width(self) -> int:
        """Return the widths of the spatial layers; temporal ones see means, which differ by window."""
        return self.network.spatial_adapter_dims()
