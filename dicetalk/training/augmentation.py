"""Random changes of training frames that leave the label valid and cover what generated video looks like.

Generated frames are softer and noisier than real ones, and sit a little differently in the crop. Metric
networks must judge emotion, identity and lips in spite of it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_SHIFT = 0.06  # of half the crop's side, about 2 px of 64
MAX_STRETCH = 0.08  # of width and height apart: faces differ in shape as well
MAX_ROTATION = 0.05  # radians
MAX_BRIGHTNESS, MAX_CONTRAST = 0.2, 0.25
MAX_NOISE = 0.04


def augment(frames: Tensor, tint: float = 0.0) -> Tensor:
    """Shift, stretch, rotate, recolour, soften and disturb frames; the same way for all frames of a window.

    Draws from torch's global generator, which the training loop seeds for every step.

    Args:
        frames: `(batch, frames, channels, height, width)` in [-1, 1].
        tint: largest gain of a colour channel; 0 where skin or hair colour is evidence.

    Returns:
        Frames of the same shape, roughly in [-1, 1].
    """
    frames = _move(frames)
    frames = _recolour(frames, tint)
    frames = _soften(frames)
    return frames + MAX_NOISE * _uniform(frames, 0, 1) * _blotchy_noise(frames)


def _uniform(frames: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(len(frames), 1, 1, 1, 1)


def _move(frames: Tensor) -> Tensor:
    batch = len(frames)
    limits = (MAX_ROTATION, MAX_STRETCH, MAX_STRETCH, MAX_SHIFT, MAX_SHIFT)
    angle, wider, taller, x, y = (limit * (2 * torch.rand(batch) - 1) for limit in limits)
    cos, sin, wider, taller = torch.cos(angle), torch.sin(angle), 1 + wider, 1 + taller
    rows = (torch.stack([cos * wider, -sin * taller, x], 1), torch.stack([sin * wider, cos * taller, y], 1))
    matrices = torch.stack(rows, dim=1)
    stacked = frames.flatten(1, 2)  # frames of a window move together
    grid = F.affine_grid(matrices, list(stacked.shape), align_corners=False)
    moved = F.grid_sample(stacked, grid, padding_mode="border", align_corners=False)
    return moved.view_as(frames)


def _recolour(frames: Tensor, tint: float) -> Tensor:
    contrast = 1 + _uniform(frames, -MAX_CONTRAST, MAX_CONTRAST)
    gains = 1 + tint * (2 * torch.rand(len(frames), 1, frames.shape[2], 1, 1) - 1)
    return frames * contrast * gains + _uniform(frames, -MAX_BRIGHTNESS, MAX_BRIGHTNESS)


def _soften(frames: Tensor) -> Tensor:
    """Mix half of the samples with a copy of half the resolution."""
    stacked = frames.flatten(0, 1)
    coarse = F.interpolate(stacked, scale_factor=0.5, mode="area")
    soft = F.interpolate(coarse, size=frames.shape[-2:], mode="bilinear", align_corners=False)
    return torch.lerp(frames, soft.view_as(frames), _uniform(frames, -1, 1).clamp(min=0))


def _blotchy_noise(frames: Tensor) -> Tensor:
    """Return noise with the coarse grain that compression and latent decoding leave."""
    batch, num_frames, channels, height, width = frames.shape
    fine = torch.randn(batch * num_frames, channels, height, width)
    coarse = torch.randn(batch * num_frames, channels, height // 4, width // 4)
    coarse = F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
    return (fine + 2 * coarse).unflatten(0, (batch, num_frames))
