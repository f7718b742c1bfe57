"""What the pipeline returns and which inputs it refuses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from diffusers.utils import BaseOutput

from dicetalk.errors import DicetalkError

OUTPUT_TYPES = ("pt", "np", "latent")


@dataclass
class DiceTalkPipelineOutput(BaseOutput):
    """Generated videos.

    Args:
        frames: `pt`: tensor `(batch, frames, 3, height, width)` in [0, 1]; `np`: array
            `(batch, frames, height, width, 3)` in [0, 1]; `latent`: scaled latents
            `(batch, frames, channels, height, width)`.
    """

    frames: torch.Tensor | np.ndarray


def check_options(strength: float, output_type: str) -> None:
    """Raise a `DicetalkError` for a strength outside (0, 1] or an unknown output type."""
    if not 0 < strength <= 1:
        raise DicetalkError(f"strength is {strength}; expected a number above 0 and at most 1.")
    if output_type not in OUTPUT_TYPES:
        raise DicetalkError(f"output_type is {output_type!r}; expected one of {', '.join(OUTPUT_TYPES)}.")


def check_shapes(
    pixels: torch.Tensor, audio_windows: torch.Tensor, emotion_prior: torch.Tensor, face_mask: torch.Tensor
) -> None:
    """Raise a `DicetalkError` unless batch sizes, frame counts and image sizes fit each other.

    Args:
        pixels: `(batch, 3, height, width)`.
        audio_windows: `(batch, frames, window, layers, channels)`.
        emotion_prior: `(batch, frames or 1, prior_dim)`.
        face_mask: `(batch, 1, height, width)`.
    """
    batches = [len(pixels), len(audio_windows), len(emotion_prior), len(face_mask)]
    if len(set(batches)) > 1:
        raise DicetalkError(f"Batch sizes of image, audio, emotion and face mask differ: {batches}.")
    num_frames, num_priors = audio_windows.shape[1], emotion_prior.shape[1]
    if num_priors not in (1, num_frames):
        raise DicetalkError(
            f"There are {num_priors} emotion priors for {num_frames} frames of audio; "
            "expected one prior per clip or one per frame."
        )
    if face_mask.shape[1:] != (1, *pixels.shape[-2:]):
        raise DicetalkError(
            f"The face mask has shape {tuple(face_mask.shape)}; expected (batch, 1, {pixels.shape[-2]}, "
            f"{pixels.shape[-1]}), the size of the portrait after resizing."
        )
