"""The denoising loop over clips, windows and guidance branches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import torch
from diffusers import EulerDiscreteScheduler

from dicetalk.models.backbones.denoisers.base import Conditions, Denoiser
from dicetalk.models.conditions.table import adapted
from dicetalk.models.guidance import Branch, Guidance
from dicetalk.models.token_sets import TokenSets, fits_cache
from dicetalk.models.windows import WindowPlan


@dataclass
class ConditionTokens:
    """What the network's cross-attention sees of portrait, speech and emotion, for clips of equal length.

    Args:
        image_tokens: image embedding `(batch, 1, dim)`.
        audio_tokens: `(batch, frames, tokens, dim)`.
        emotion_tokens: `(batch, frames or 1, tokens, dim)`.
        null_audio_tokens: `(1, 1, tokens, dim)`.
        null_emotion_tokens: `(1, 1, tokens, dim)`.
        further_tokens: of other conditions with adapters, tokens and null tokens by name.
    """

    image_tokens: torch.Tensor
    audio_tokens: torch.Tensor
    emotion_tokens: torch.Tensor
    null_audio_tokens: torch.Tensor
    null_emotion_tokens: torch.Tensor
    further_tokens: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict, kw_only=True)

    def adapted(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Return tokens and null tokens of all conditions with adapters, by name in the table's order."""
        known = {
            "audio": (self.audio_tokens, self.null_audio_tokens),
            "emotion": (self.emotion_tokens, self.null_emotion_tokens),
            **self.further_tokens,
        }
        return {condition.name: known[condition.name] for condition in adapted()}

    def to(self, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
        """Return all fields by name, on a device and in a precision."""
        further = {
            name: (tokens.to(device, dtype), null.to(device, dtype))
            for name, (tokens, null) in self.further_tokens.items()
        }
        fields = {name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)}
        moved = {name: value.to(device, dtype) for name, value in fields.items()}
        return {**moved, "further_tokens": further}


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

    def token_sets(self, inner_dims: int) -> dict[str, TokenSets]:
        """Return, for each adapter, the unconditional tokens (set 0) and those of every clip and frame."""
        return {name: _sets(null, tokens, inner_dims) for name, (tokens, null) in self.adapted().items()}

    def set_index(self, tokens: torch.Tensor, clip: int, frames: torch.Tensor) -> torch.Tensor:
        """Return which set each of a clip's `frames` attends to; padding frames: the unconditional one."""
        num_sets = tokens.shape[1]
        own = 1 + clip * num_sets + frames.clamp(max=num_sets - 1)
        return torch.where(frames < self.audio_tokens.shape[1], own, 0)

    def batch(
        self, samples: list[tuple[int, torch.Tensor, Branch]], sets: dict[str, TokenSets]
    ) -> Conditions:
        """Return the conditions of samples: a clip, a window of its frames and a branch each.

        Args:
            samples: with windows of equal length.
            sets: result of `token_sets`.
        """
        clips = [clip for clip, _, _ in samples]

        def kept(values: torch.Tensor) -> torch.Tensor:
            """Values of each sample's clip, zero where its branch drops the image."""
            dropped = torch.zeros_like(values[0])
            return torch.stack(
                [values[clip] if "image" in branch else dropped for clip, _, branch in samples]
            )

        def index(name: str, tokens: torch.Tensor) -> torch.Tensor:
            rows = [self.set_index(tokens, *sample[:2]) * (name in sample[2]) for sample in samples]
            return torch.stack(rows)

        return Conditions(
            portrait=kept(self.image_latents),
            image=kept(self.image_tokens),
            adapted=tuple(sets[name].at(index(name, tokens)) for name, (tokens, _) in self.adapted().items()),
            motion=self.added_time_ids[clips],
            face_mask=self.face_mask[clips],
            pose=self.pose_feature[clips],
        )


@torch.no_grad()
def denoise(
    denoiser: Denoiser,
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

    The predictions of all windows and branches are combined before the scheduler's step. The official code
    averages the windows' results after the step; the step is linear in the prediction, so both are the same.

    Args:
        denoiser: the network; its dtype decides the precision of the forward passes.
        scheduler: with `set_timesteps` already called.
        latents: the scheduler's state at the first step `(batch, frames, channels, height, width)`, padding
            frames included; float32 is recommended, at sigma 700 half precision is coarser than the signal.
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
    sets = conditions.token_sets(denoiser.adapter_width())
    for step, timestep in enumerate(timesteps):
        # 1. This step's samples
        sigma = scheduler.sigmas[first_step + step]
        weights = guidance.branch_weights(step, len(timesteps), sigma.item())
        frame_indices = windows.frame_indices(num_frames, step).to(latents.device)
        samples = list(product(range(batch), frame_indices, weights))
        scaled = denoiser.noise.state_input(scheduler, latents, timestep).to(denoiser.network.dtype)

        # 2. Predictions, summed over branches and windows
        combined = torch.zeros_like(latents, dtype=torch.float32)
        chunk_size = max_batch or len(samples)
        for start in range(0, len(samples), chunk_size):
            chunk = samples[start : start + chunk_size]
            inputs = torch.stack([scaled[clip, frames] for clip, frames, _ in chunk])
            predictions = denoiser.predict(inputs, sigma, conditions.batch(chunk, sets)).output.float()
            for (clip, frames, branch), prediction in zip(chunk, predictions, strict=True):
                combined[clip, frames] += weights[branch] * prediction

        # 3. Average where windows overlap, then one step of the scheduler
        counts = frame_indices.flatten().bincount(minlength=num_frames)
        combined /= counts[:, None, None, None]
        latents = scheduler.step(combined, timestep, latents).prev_sample
        if on_step is not None:
            latents = on_step(step, timestep, latents)
    return latents


def _sets(null_tokens: torch.Tensor, tokens: torch.Tensor, inner_dims: int) -> TokenSets:
    """Put `(1, 1, tokens, dim)` in front of all sets of `(batch, frames or 1, tokens, dim)`."""
    sets = torch.cat([null_tokens[0], tokens.flatten(0, 1)])
    return TokenSets(sets, torch.zeros(1, 1, dtype=torch.long), keep=fits_cache(sets, inner_dims))
