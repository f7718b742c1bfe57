"""What the pipeline takes and returns, and which inputs it refuses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image

from dicetalk.errors import DicetalkError
from dicetalk.models.denoising import ConditionTokens
from dicetalk.models.guidance import Scale

OUTPUT_TYPES = ("pt", "np", "pil", "latent")
RANGE_TOLERANCE = 1e-3  # rounding on the way to an image tensor


@dataclass
class DiceTalkPipelineOutput(BaseOutput):
    """Generated videos.

    Args:
        frames: `pt`: tensor `(batch, frames, 3, height, width)` in [0, 1]; `np`: array
            `(batch, frames, height, width, 3)` in [0, 1]; `pil`: a list of images per video; `latent`: scaled
            latents `(batch, frames, channels, height, width)`.
    """

    frames: torch.Tensor | np.ndarray | list[list[Image.Image]]


def to_output(frames: torch.Tensor, output_type: str) -> torch.Tensor | np.ndarray | list[list[Image.Image]]:
    """Return frames `(batch, frames, 3, height, width)` in [0, 1] as `pt`, `np` or `pil`."""
    if output_type == "pt":
        return frames
    videos: np.ndarray = frames.permute(0, 1, 3, 4, 2).cpu().numpy()
    if output_type == "np":
        return videos
    return [[Image.fromarray(frame) for frame in (video * 255).round().astype(np.uint8)] for video in videos]


def check_options(
    num_inference_steps: int,
    strength: float,
    noise_aug_strength: float,
    fps: float,
    scales: dict[str, Scale],
    max_batch: int | None,
    decode_chunk_size: int,
    output_type: str,
    callback_tensors: Sequence[str],
) -> None:
    """Raise a `DicetalkError` for an option of the pipeline that is out of range."""
    if num_inference_steps < 1:
        raise DicetalkError(f"num_inference_steps is {num_inference_steps}; expected 1 or more.")
    if not 0 < strength <= 1:
        raise DicetalkError(f"strength is {strength}; expected a number above 0 and at most 1.")
    if int(num_inference_steps * strength) < 1:
        raise DicetalkError(
            f"strength {strength} leaves no step of {num_inference_steps}; raise num_inference_steps."
        )
    if not 0 <= noise_aug_strength < math.inf:
        raise DicetalkError(f"noise_aug_strength is {noise_aug_strength}; expected 0 or more.")
    if not 0 < fps < math.inf:
        raise DicetalkError(f"fps is {fps}; expected a positive number.")
    for name, scale in scales.items():
        ends = scale if isinstance(scale, tuple) else (scale, scale)
        if len(ends) != 2 or not all(math.isfinite(end) for end in ends):
            raise DicetalkError(f"{name} is {scale}; expected a number or a pair (first step, last step).")
    for name, value in {"max_batch": max_batch, "decode_chunk_size": decode_chunk_size}.items():
        if value is not None and value < 1:
            raise DicetalkError(f"{name} is {value}; expected 1 or more.")
    if output_type not in OUTPUT_TYPES:
        raise DicetalkError(f"output_type is {output_type!r}; expected one of {', '.join(OUTPUT_TYPES)}.")
    if set(callback_tensors) - {"latents"}:
        raise DicetalkError(
            f"callback_on_step_end_tensor_inputs is {list(callback_tensors)}; expected ['latents']."
        )


def check_sources(
    audio_windows: torch.Tensor | None,
    emotion_prior: torch.Tensor | None,
    tokens: ConditionTokens | None,
    window_shape: tuple[int, int, int],
    prior_dim: int,
) -> None:
    """Raise a `DicetalkError` unless speech and emotion are given once, in the widths of the networks.

    Args:
        audio_windows: `([batch,] frames, window, layers, channels)`.
        emotion_prior: `(..., prior_dim)`.
        tokens: what replaces both.
        window_shape: window, layers, channels of the audio projection.
        prior_dim: of the emotion model.
    """
    given = audio_windows is not None, emotion_prior is not None
    if tokens is not None:
        if any(given):
            raise DicetalkError("Give either audio_windows and emotion_prior or tokens, not both.")
        return
    if audio_windows is None or emotion_prior is None:
        missing = "audio_windows" if audio_windows is None else "emotion_prior"
        raise DicetalkError(f"{missing} is missing; give audio_windows and emotion_prior, or tokens.")
    if audio_windows.ndim not in (4, 5) or tuple(audio_windows.shape[-3:]) != tuple(window_shape):
        raise DicetalkError(
            f"audio_windows has shape {tuple(audio_windows.shape)}; expected ([batch,] frames, "
            f"{', '.join(map(str, window_shape))}), the features this model was trained on."
        )
    if emotion_prior.shape[-1] != prior_dim:
        raise DicetalkError(
            f"emotion_prior has shape {tuple(emotion_prior.shape)}; its last axis must be {prior_dim}."
        )
    check_range("audio_windows", audio_windows)
    check_range("emotion_prior", emotion_prior)


def check_range(name: str, value: torch.Tensor, low: float = -math.inf, high: float = math.inf) -> None:
    """Raise a `DicetalkError` unless all values are finite and in [low, high]."""
    if not value.isfinite().all():
        raise DicetalkError(f"{name} has NaN or infinite values.")
    if value.numel() and (value.min() < low - RANGE_TOLERANCE or value.max() > high + RANGE_TOLERANCE):
        raise DicetalkError(
            f"{name} has values from {float(value.min()):.3g} to {float(value.max()):.3g}; "
            f"expected [{low:g}, {high:g}]."
        )


def check_image(pixels: torch.Tensor, size_multiple: int) -> None:
    """Raise a `DicetalkError` unless portraits are `(batch, 3, height, width)` in [-1, 1] of a legal size."""
    if pixels.ndim != 4 or pixels.shape[1] != 3:
        raise DicetalkError(f"image has shape {tuple(pixels.shape)}; expected (batch, 3, height, width).")
    if any(side % size_multiple or not side for side in pixels.shape[-2:]):
        raise DicetalkError(
            f"image has {pixels.shape[-1]} x {pixels.shape[-2]} pixels; both must be multiples of "
            f"{size_multiple}. A PIL image is resized."
        )
    check_range("image", pixels, -1, 1)


def check_shapes(
    pixels: torch.Tensor, audio: torch.Tensor, emotion: torch.Tensor, face_mask: torch.Tensor
) -> None:
    """Raise a `DicetalkError` unless batch sizes, frame counts and image sizes fit each other.

    Args:
        pixels: `(batch, 3, height, width)`.
        audio: windows or tokens `(batch, frames, ...)`.
        emotion: priors or tokens `(batch, frames or 1, ...)`.
        face_mask: `(batch, 1, height, width)`.
    """
    batches = [len(pixels), len(audio), len(emotion), len(face_mask)]
    if len(set(batches)) > 1:
        raise DicetalkError(f"Batch sizes of image, audio, emotion and face mask differ: {batches}.")
    num_frames, num_priors = audio.shape[1], emotion.shape[1]
    if not num_frames:
        raise DicetalkError("The audio has no frame; speech of 0.08 s gives one.")
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
    check_range("face_mask", face_mask, 0, 1)


def check_noise(
    latents: torch.Tensor | None,
    shape: tuple[int, ...],
    generator: torch.Generator | list[torch.Generator] | None,
) -> None:
    """Raise a `DicetalkError` unless given noise has the shape and generators are one or one per clip."""
    if latents is not None and tuple(latents.shape) != shape:
        raise DicetalkError(
            f"latents have shape {tuple(latents.shape)}; expected {shape}, "
            "padding frames of windows included."
        )
    if isinstance(generator, list) and len(generator) not in (1, shape[0]):
        raise DicetalkError(f"There are {len(generator)} generators for {shape[0]} clips.")
