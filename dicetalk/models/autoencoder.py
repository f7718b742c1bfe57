"""The demo backbone's image autoencoder: a linear patch transform that small convolutions refine.

A convolutional autoencoder trained for minutes gets the colours of unseen faces wrong, while a linear map of
patches is right at once but soft. Here the linear path carries colour and layout, and zero-initialised
convolutions add the rest. Same interface as diffusers' `AutoencoderKL`, so the pipeline takes either. The
paper profile uses SVD's autoencoder.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn


class PointDistribution:
    """A latent distribution without variance: the interface of `DiagonalGaussianDistribution`."""

    def __init__(self, value: Tensor) -> None:
        self.value = value

    def mode(self) -> Tensor:
        """Return the latent."""
        return self.value

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Return the latent: there is nothing to draw."""
        return self.value


@dataclass
class EncoderOutput(BaseOutput):
    """`latent_dist.mode()` has shape `(batch, latent_channels, height / patch, width / patch)`."""

    latent_dist: PointDistribution


@dataclass
class DecoderOutput(BaseOutput):
    """`sample` has shape `(batch, 3, height, width)`, about `[-1, 1]`."""

    sample: Tensor


class PatchAutoencoder(ModelMixin, ConfigMixin):
    """Encodes 8x8 patches to `latent_channels` numbers each and back.

    Args:
        latent_channels: numbers per patch; 16 linear components keep about 27 dB on drawn faces.
        channels: widths of the refining convolutions at 1/2, 1/4 and 1/8 resolution.
        scaling_factor: latents are multiplied by it for diffusion, as in diffusers; 1 because latents are
            normalised.
    """

    patch_size = 8

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 16,
        channels: tuple[int, int, int] = (24, 48, 96),
        scaling_factor: float = 1.0,
    ) -> None:
        super().__init__()
        patch = self.patch_size
        self.patch_in = nn.Conv2d(3, latent_channels, patch, stride=patch)
        self.patch_out = nn.ConvTranspose2d(latent_channels, 3, patch, stride=patch)
        half, quarter, eighth = channels
        self.refine_in = nn.Sequential(
            nn.Conv2d(3, half, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(half, quarter, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(quarter, eighth, 4, stride=2, padding=1),
            ResidualBlock(eighth),
            nn.SiLU(),
            _zero(nn.Conv2d(eighth, latent_channels, 3, padding=1)),
        )
        self.refine_out = nn.Sequential(
            nn.Conv2d(latent_channels, eighth, 3, padding=1),
            ResidualBlock(eighth),
            ResidualBlock(eighth),
            Upsample(eighth, quarter),
            ResidualBlock(quarter),
            Upsample(quarter, half),
            ResidualBlock(half),
            nn.SiLU(),
            _zero(nn.Conv2d(half, 3 * 4, 3, padding=1)),
            nn.PixelShuffle(2),
        )
        self.register_buffer("latent_mean", torch.zeros(1, latent_channels, 1, 1))
        self.register_buffer("latent_std", torch.ones(1, latent_channels, 1, 1))

    @apply_forward_hook
    def encode(self, sample: Tensor) -> EncoderOutput:
        """Encode images `(batch, 3, height, width)` in `[-1, 1]`; sides must be multiples of 8."""
        latent = self.patch_in(sample) + self.refine_in(sample)
        return EncoderOutput(latent_dist=PointDistribution((latent - self.latent_mean) / self.latent_std))

    @apply_forward_hook
    def decode(self, latent: Tensor) -> DecoderOutput:
        """Decode latents `(batch, latent_channels, height / 8, width / 8)` to images."""
        latent = latent * self.latent_std + self.latent_mean
        return DecoderOutput(sample=self.patch_out(latent) + self.refine_out(latent))

    def forward(self, sample: Tensor) -> DecoderOutput:
        """Return the reconstruction of images `(batch, 3, height, width)`."""
        return self.decode(self.encode(sample).latent_dist.mode())

    @torch.no_grad()
    def fit_linear(self, images: Tensor) -> None:
        """Start the linear path from the principal components of the patches of images.

        Components are divided by the square root of their standard deviation: halfway to white, so that
        brightness and colour, which the eye judges first, keep more weight in the diffusion loss than fine
        detail.

        Args:
            images: `(batch, 3, height, width)` in [-1, 1].
        """
        patches = F.unfold(images, self.patch_size, stride=self.patch_size)
        patches = patches.transpose(1, 2).flatten(0, 1).double()
        mean = patches.mean(0)
        variance, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
        order = variance.argsort(descending=True)[: self.config.latent_channels]
        # The sign of an eigenvector is arbitrary, and libraries differ: make its largest entry positive.
        basis = vectors[:, order]
        basis = basis * basis.gather(0, basis.abs().argmax(0, keepdim=True)).sign()
        scale = variance[order].clamp_min(1e-8) ** 0.25
        self.patch_in.weight.copy_((basis / scale).T.reshape(self.patch_in.weight.shape))
        self.patch_in.bias.copy_(-(mean @ basis) / scale)
        self.patch_out.weight.copy_((basis * scale).T.reshape(self.patch_out.weight.shape))
        # The mean patch differs per pixel, but a transposed convolution has one bias per colour: keep that.
        self.patch_out.bias.copy_(mean.reshape(3, -1).mean(1))

    @torch.no_grad()
    def normalise_latents(self, images: Tensor) -> None:
        """Set the statistics so that latents of `images` have zero channel means and common variance 1."""
        latents = self.encode(images).latent_dist.mode() * self.latent_std + self.latent_mean
        self.latent_mean.copy_(latents.mean((0, 2, 3), keepdim=True))
        self.latent_std.fill_((latents - self.latent_mean).square().mean().sqrt().item())


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut, without normalisation so that brightness survives."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = _zero(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, hidden: Tensor) -> Tensor:
        """Map `(batch, channels, height, width)` to the same shape."""
        return hidden + self.conv2(F.silu(self.conv1(F.silu(hidden))))


class Upsample(nn.Module):
    """Doubles the resolution by a sub-pixel convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 4 * out_channels, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map `(batch, in_channels, height, width)` to `(batch, out_channels, 2 height, 2 width)`."""
        return F.pixel_shuffle(self.conv(F.silu(hidden)), 2)


def _zero(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv
