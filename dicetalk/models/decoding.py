"""From latents to frames, a few frames and, where memory is short, a part of the picture at a time."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from diffusers.models.modeling_utils import ModelMixin


def decode_video(vae: ModelMixin, latents: torch.Tensor, chunk_size: int, tile: int | None) -> torch.Tensor:
    """Decode the unscaled latents of one clip `(frames, channels, h, w)` to `(frames, 3, height, width)`.

    Args:
        vae: image or video autoencoder.
        latents: in the autoencoder's dtype.
        chunk_size: frames at once; a video decoder mixes the frames of a chunk, its result depends on this.
        tile: side of a part in latents; None: the whole picture at once.
    """
    takes_num_frames = "num_frames" in inspect.signature(vae.forward).parameters

    def decode(part: torch.Tensor) -> torch.Tensor:
        return vae.decode(part, **({"num_frames": len(part)} if takes_num_frames else {})).sample.float()

    chunks = latents.split(chunk_size)
    if tile is None:
        return torch.cat([decode(chunk) for chunk in chunks])
    return torch.cat([decode_tiled(decode, chunk, tile) for chunk in chunks])


def decode_tiled(
    decode: Callable[[torch.Tensor], torch.Tensor], latents: torch.Tensor, tile: int
) -> torch.Tensor:
    """Decode overlapping square parts and blend them: memory depends on the part, not on the picture.

    A part does not see the rest of the picture: normalisation statistics and borders differ, so the result is
    close to that of one piece, not equal.

    Args:
        decode: `(frames, channels, h, w)` to `(frames, 3, factor * h, factor * w)`.
        latents: `(frames, channels, h, w)`.
        tile: side of a part in latents; neighbours share a quarter of it.
    """
    height, width = latents.shape[-2:]
    result: torch.Tensor | None = None
    for top in _starts(height, tile):
        for left in _starts(width, tile):
            part = decode(latents[..., top : top + tile, left : left + tile])
            factor = part.shape[-1] // min(tile, width)
            if result is None:
                result = part.new_zeros(*part.shape[:2], factor * height, factor * width)
                weight = part.new_zeros(factor * height, factor * width)
            ramp = _ramp(part.shape[-2], factor * tile)[:, None] * _ramp(part.shape[-1], factor * tile)
            ramp = ramp.to(part)
            rows = slice(factor * top, factor * top + part.shape[-2])
            columns = slice(factor * left, factor * left + part.shape[-1])
            result[..., rows, columns] += ramp * part
            weight[rows, columns] += ramp
    assert result is not None  # there is at least one part
    return result / weight


def _starts(length: int, tile: int) -> list[int]:
    """Return where parts begin: a quarter of overlap, the last one ends with the picture."""
    stride = max(tile - tile // 4, 1)
    starts = list(range(0, max(length - tile, 0), stride))
    return [*starts, max(length - tile, 0)]


def _ramp(length: int, tile: int) -> torch.Tensor:
    """Return weights that fall linearly towards both ends over the width of the overlap and never reach 0."""
    distance = torch.arange(length, dtype=torch.float32) + 0.5
    distance = torch.minimum(distance, length - distance)
    return (distance / max(tile // 4, 1)).clamp(max=1)
