"""The denoising loop over clips, windows and guidance branches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
from diffusers import EulerDiscreteScheduler

from dicetalk.models.guidance import Branch, Guidance
from dicetalk.models.token_sets import TokenSets, fits_cache
from dicetalk.models.unet import DiceTalkUNet
from dicetalk.models.windows import WindowPlan


@dataclass
class ConditionTokens:
    """What the UNet's cross-attention sees of portrait, speech and emotion, for clips of equal length.

    Args:
        image_tokens: image embedding `(batch, 1, dim)`.
        audio_tokens: `(batch, frames, tokens, dim)`.
        emotion_tokens: `(batch, frames or 1, tokens, dim)`.
        null_audio_tokens: `(1, 1, tokens, dim)`.
        null_emotion_tokens: `(1, 1, tokens, dim)`.
    """

    image_tokens: torch.Tensor
    audio_tokens: torch.Tensor
    emotion_tokens: torch.Tensor
    null_audio_tokens: torch.Tensor
    null_emotion_tokens: torch.Tensor


@dataclass
class ClipConditions(ConditionTokens):
    """Everything that steers a batch of clips of equal length.

    Args:
        image_latents: latent of the reference image, not scaled, `(batch, channels, height, width)`.
        added_time_ids: fps, motion bucket, expression bucket `(batch, 3)`.
        face_mask: `(batch, 1, height, width)` in [0, 1] at any resolution.
        pose_feature: `(batch, channels, height, width)` at latent resolution.
        num_padding_frames: unconditional frames after the clip's own.
    """

    image_latents: torch.Tensor
    added_time_ids: torch.Tensor
    face_mask: torch.Tensor
    pose_feature: torch.Tensor

    num_padding_frames: int = 0

    def padded(self, num_padding_frames: int) -> ClipConditions:
        """Return conditions with unconditional frames appended, as the official ring of windows needs."""
        return replace(self, num_padding_frames=num_padding_frames)

    def audio_sets(self, inner_dims: int) -> TokenSets:
        """Return the unconditional audio tokens (set 0) and those of every frame of every clip."""
        return _sets(self.null_audio_tokens, self.audio_tokens, inner_dims)

    def emotion_sets(self, inner_dims: int) -> TokenSets:
        """Return the unconditional emotion tokens (set 0) and those of every clip, or of its every frame."""
        return _sets(self.null_emotion_tokens, self.emotion_tokens, inner_dims)

    def set_index(self, tokens: torch.Tensor, clip: int, frames: torch.Tensor) -> torch.Tensor:
        """Return which set each of a clip's `frames` attends to; padding frames: the unconditional one."""
        num_sets = tokens.shape[1]
        own = 1 + clip * num_sets + frames.clamp(max=num_sets - 1)
        return torch.where(frames < self.audio_tokens.shape[1], own, 0)

    def unet_inputs(self, clip: int, frames: torch.Tensor, branch: Branch) -> dict[str, torch.Tensor]:
        """Return one sample's UNet inputs, without batch axis: one clip, one window of frames, one branch.

        In place of audio and emotion tokens there are indices into `audio_sets` and `emotion_sets`.
        """
        with_image, with_audio, with_emotion = branch.value
        image_latent, image_token = self.image_latents[clip], self.image_tokens[clip]
        audio, emotion = (
            self.set_index(tokens, clip, frames) for tokens in (self.audio_tokens, self.emotion_tokens)
        )
        return {
            "image_latents": image_latent if with_image else torch.zeros_like(image_latent),
            "encoder_hidden_states": image_token if with_image else torch.zeros_like(image_token),
            "audio_tokens": audio if with_audio else torch.zeros_like(audio),
            "emotion_tokens": emotion if with_emotion else torch.zeros_like(emotion),
            "added_time_ids": self.added_time_ids[clip],
            "face_mask": self.face_mask[clip],
            "pose_feature": self.pose_feature[clip],
        }


@torch.no_grad()
def denoise(
    unet: DiceTalkUNet,
    scheduler: EulerDiscreteScheduler,
    latents: torch.Tensor,
    conditions: ClipConditions,
    guidance: Guidance,
    windows: WindowPlan,
    max_batch: int | None = None,
    first_step: int = 0,
    on_step: Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """Denoise a batch of clips.

    The velocities of all windows and branches are combined before the Euler step. The official code averages
    the windows' results after the step; the step is linear in the velocity, so both are the same.

    Args:
        unet: the network; its dtype decides the precision of the forward passes.
        scheduler: with `set_timesteps` already called.
        latents: noisy latents at the first step's noise level `(batch, frames, channels, height, width)`,
            padding frames included; float32 is recommended, at sigma 700 half precision is coarser than the
            signal.
        conditions: for the same frames, see `ClipConditions.padded`.
        guidance: scales of the conditions.
        windows: how frames are grouped.
        max_batch: most samples (clip x window x branch) in one forward pass; `None`: all of them.
        first_step: step of the schedule to start from, for a start below the highest noise level.
        on_step: called after each step with its number, its timestep and the latents; returns the latents to
            go on with.

    Returns:
        Clean latents, scaled, in the shape of `latents`.
    """
    timesteps = scheduler.timesteps[first_step:]
    scheduler.set_begin_index(first_step)
    batch, num_frames = latents.shape[:2]
    # Adapters' keys and values depend neither on the step nor on the noise: each set is projected once
    inner_dims = unet.spatial_adapter_dims()
    audio, emotion = conditions.audio_sets(inner_dims), conditions.emotion_sets(inner_dims)
    for step, timestep in enumerate(timesteps):
        # 1. This step's samples
        weights = guidance.branch_weights(step, len(timesteps), scheduler.sigmas[first_step + step].item())
        frame_indices = windows.frame_indices(num_frames, step).to(latents.device)
        samples = list(product(range(batch), frame_indices, weights))
        noisy = scheduler.scale_model_input(latents, timestep).to(unet.dtype)

        # 2. Velocities, summed over branches and windows
        velocity = torch.zeros_like(latents, dtype=torch.float32)
        chunk_size = max_batch or len(samples)
        for start in range(0, len(samples), chunk_size):
            chunk = samples[start : start + chunk_size]
            inputs = _stack(noisy, conditions, chunk)
            inputs["audio_tokens"] = audio.at(inputs["audio_tokens"])
            inputs["emotion_tokens"] = emotion.at(inputs["emotion_tokens"])
            predictions = unet(timestep=timestep, **inputs).sample.float()
            for (clip, frames, branch), prediction in zip(chunk, predictions, strict=True):
                velocity[clip, frames] += weights[branch] * prediction

        # 3. Average where windows overlap, then one Euler step
        counts = frame_indices.flatten().bincount(minlength=num_frames)
        velocity /= counts[:, None, None, None]
        latents = scheduler.step(velocity, timestep, latents).prev_sample
        if on_step is not None:
            latents = on_step(step, timestep, latents)
    return latents


def _stack(
    noisy: torch.Tensor, conditions: ClipConditions, chunk: list[tuple[int, torch.Tensor, Branch]]
) -> dict[str, Any]:
    """Batch the UNet inputs of `(clip, frames, branch)` samples."""
    inputs = [conditions.unet_inputs(*sample) for sample in chunk]
    stacked = {name: torch.stack([item[name] for item in inputs]) for name in inputs[0]}
    windows = torch.stack([noisy[clip, frames] for clip, frames, _ in chunk])
    image_latents = stacked.pop("image_latents")[:, None].expand(-1, windows.shape[1], -1, -1, -1)
    return {"sample": torch.cat([windows, image_latents.to(windows.dtype)], dim=2), **stacked}


def _sets(null_tokens: torch.Tensor, tokens: torch.Tensor, inner_dims: int) -> TokenSets:
    """Put `(1, 1, tokens, dim)` in front of all sets of `(batch, frames or 1, tokens, dim)`."""
    sets = torch.cat([null_tokens[0], tokens.flatten(0, 1)])
    return TokenSets(sets, torch.zeros(1, 1, dtype=torch.long), keep=fits_cache(sets, inner_dims))
