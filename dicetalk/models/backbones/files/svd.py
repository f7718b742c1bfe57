"""Folders of Stable Video Diffusion, and of models of its kind such as the demo's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from dicetalk.models.autoencoder import PatchAutoencoder
from dicetalk.models.backbones.files.base import BackboneFiles, Geometry
from dicetalk.models.widths import Widths


class FrameCodec:
    """An image autoencoder: every frame is encoded alone, by the mode of its distribution."""

    def __init__(self, autoencoder: Any):
        self.autoencoder = autoencoder

    def encode(self, pixels: Tensor) -> Tensor:
        """Return the scaled latents `(frames, channels, h, w)` of `(frames, 3, height, width)` in [-1, 1]."""
        moved = pixels.to(self.autoencoder.device, self.autoencoder.dtype)
        return self.autoencoder.encode(moved).latent_dist.mode() * self.autoencoder.config.scaling_factor

    def portrait(self, latents: Tensor) -> Tensor:
        """Undo the scale: SVD is conditioned on the autoencoder's own latents."""
        return latents / self.autoencoder.config.scaling_factor


class SvdFiles(BackboneFiles):
    """`vae`, `image_encoder` and `unet` in diffusers' directory layout."""

    components = {
        "vae": (PatchAutoencoder, AutoencoderKLTemporalDecoder, AutoencoderKL),
        "image_encoder": (CLIPVisionModelWithProjection,),
        "unet": (UNetSpatioTemporalConditionModel,),
    }
    denoiser = "unet"

    def widths(self, config: Mapping[str, Any]) -> Widths:
        """Pose joins after the first convolution, features come from the middle block."""
        channels = config["block_out_channels"]
        return Widths(tokens=config["cross_attention_dim"], features=channels[-1], pose=channels[0])

    def geometry(self, config: Mapping[str, Any], space: int) -> Geometry:
        """One latent per frame; the UNet halves latents once less than it has levels."""
        halvings = len(config["block_out_channels"]) - 1
        return Geometry(
            channels=config["out_channels"],
            space=space,
            time=1,
            size_multiple=space * 2**halvings,
            window_frames=config["num_frames"],
        )

    def codec(self, autoencoder: Any) -> FrameCodec:
        """Frame by frame."""
        return FrameCodec(autoencoder)
