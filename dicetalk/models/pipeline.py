"""One portrait, speech features and an emotion prior in, a talking video out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers import ModelMixin  # noqa: F401 - `from_pretrained` looks for it in this module
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image

from dicetalk.errors import DicetalkError
from dicetalk.models.batching import samples_within
from dicetalk.models.denoising import ClipConditions, ConditionTokens, denoise
from dicetalk.models.guidance import Guidance, Scale
from dicetalk.models.pipeline_io import (
    DiceTalkPipelineOutput,
    check_noise,
    check_options,
    check_shapes,
    check_sources,
    to_output,
)
from dicetalk.models.pipeline_networks import DiceTalkNetworks
from dicetalk.models.windows import WindowPlan


class DiceTalkPipeline(DiceTalkNetworks):
    """Talking-portrait generation; `save_pretrained` and `from_pretrained` use diffusers' directory layout.

    Its parts and the constructor's arguments are those of `DiceTalkNetworks`. diffusers' `to`, model and
    layer-wise CPU offload, attention slicing and progress bar work as in its own pipelines.
    """

    _callback_tensor_inputs = ["latents"]

    @torch.no_grad()
    def __call__(
        self,
        image: Image.Image | list[Image.Image] | torch.Tensor,
        audio_windows: torch.Tensor | None = None,
        emotion_prior: torch.Tensor | None = None,
        face_mask: torch.Tensor | None = None,
        num_inference_steps: int = 25,
        identity_scale: Scale = 3.0,
        audio_scale: Scale = 6.0,
        emotion_scale: Scale = 6.0,
        guidance_sigmas: Sequence[float] | None = None,
        windows: WindowPlan | None = None,
        strength: float = 1.0,
        noise_aug_strength: float = 0.0,
        fps: float = 12.5,
        motion_bucket_id: float = 8,
        expression_bucket_id: float = 16,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        max_batch: int | None = 3,
        memory_budget_gib: float | None = None,
        decode_chunk_size: int = 10,
        output_type: str = "pt",
        callback_on_step_end: Callable[..., dict] | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        tokens: ConditionTokens | None = None,
        further: Mapping[str, torch.Tensor] | None = None,
        further_scales: Mapping[str, Scale] | None = None,
        return_dict: bool = True,
    ) -> DiceTalkPipelineOutput | tuple[Any]:
        """Generate one video per portrait; all of the same number of frames.

        Args:
            image: portraits; PIL images are resized, a tensor `(batch, 3, height, width)` in [-1, 1] is used
                as it is.
            audio_windows: `(frames, window, layers, channels)`, or with a leading batch axis.
            emotion_prior: `(prior_dim,)` or `(frames, prior_dim)`, or with a leading batch axis if
                `audio_windows` has one.
            face_mask: `(batch, 1, height, width)` in [0, 1] at the model's input size; required.
            num_inference_steps: denoising steps.
            identity_scale: guidance towards the portrait; a pair is a ramp over the steps.
            audio_scale: guidance towards the speech.
            emotion_scale: guidance towards the emotion.
            guidance_sigmas: lowest and highest noise level at which the scales apply, see `Guidance`.
            windows: how long videos are cut; default: windows of the UNet's `num_frames`.
            strength: part of the schedule that is run; below 1 it starts from the noised portrait at a lower
                level.
            noise_aug_strength: noise on the conditioning image, in units of [-1, 1].
            fps: frame rate the UNet is told.
            motion_bucket_id: amount of head motion.
            expression_bucket_id: amount of facial motion.
            generator: source of the noise; a list gives each clip its own, so that results do not depend on
                batching.
            latents: unit noise `(batch, frames, channels, h, w)` to start from, padding frames of `windows`
                included.
            max_batch: most UNet samples per forward pass, see `denoise`.
            memory_budget_gib: instead of `max_batch`: as many samples as keep the UNet's activations below
                this.
            decode_chunk_size: frames the autoencoder decodes at once.
            output_type: `pt`, `np`, `pil` or `latent`.
            callback_on_step_end: called as `(pipeline, step, timestep, {"latents": ...})`, returns such a
                dictionary; also diffusers' callback objects.
            callback_on_step_end_tensor_inputs: what that dictionary holds.
            tokens: result of `encode_tokens`, in place of `audio_windows` and `emotion_prior`.
            further: inputs of further conditions of `dicetalk.models.conditions` by name, batch axis first.
            further_scales: guidance towards them by name; by default that of the table.
            return_dict: False returns a tuple.

        Returns:
            The generated frames.

        Raises:
            DicetalkError: when inputs do not fit each other or an option is out of range.
        """
        # 1. Inputs
        if isinstance(callback_on_step_end, (PipelineCallback, MultiPipelineCallbacks)):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        scales = {
            "identity_scale": identity_scale,
            "audio_scale": audio_scale,
            "emotion_scale": emotion_scale,
            **(further_scales or {}),
        }
        check_options(
            num_inference_steps,
            strength,
            noise_aug_strength,
            fps,
            scales,
            max_batch,
            decode_chunk_size,
            output_type,
            callback_on_step_end_tensor_inputs,
        )
        if face_mask is None:
            raise DicetalkError("face_mask is missing; `dicetalk.models.preprocessing.face_mask` draws one.")
        pixels = self.prepare_images(image)
        audio_windows, emotion_prior = self._with_batch(audio_windows, emotion_prior, tokens)
        if tokens is None:
            check_shapes(pixels, audio_windows, emotion_prior, face_mask)
        else:
            check_shapes(pixels, tokens.audio_tokens, tokens.emotion_tokens, face_mask)
        batch, num_frames = (audio_windows if tokens is None else tokens.audio_tokens).shape[:2]
        denoiser, geometry = self.denoiser, self.geometry
        windows = windows or WindowPlan(size=geometry.window_frames)
        total_frames = num_frames + windows.num_padding_frames
        latent_size = [side // geometry.space for side in pixels.shape[-2:]]
        latent_shape = (batch, total_frames, geometry.channels, *latent_size)
        check_noise(latents, latent_shape, generator)

        # 2. Noise; the image's is drawn even at strength 0, so that a seed gives the release's latents
        dtype, device = self.unet.dtype, self._execution_device
        image_noise = randn_tensor(pixels.shape, generator=generator, device=device)
        clean_latents = self.encode_images(pixels)
        image_latents = clean_latents
        if noise_aug_strength > 0:
            image_latents = self.encode_images(pixels.to(device) + noise_aug_strength * image_noise)
        if latents is None:
            latents = randn_tensor(latent_shape, generator=generator, device=device)

        # 3. Conditions
        if tokens is None:
            tokens = self.encode_tokens(pixels, audio_windows, emotion_prior, further)
        time_ids = torch.tensor([fps, motion_bucket_id, expression_bucket_id], dtype=dtype, device=device)
        conditions = ClipConditions(
            **tokens.to(device, dtype),
            image_latents=image_latents,
            face_mask=face_mask.to(device, dtype),
            pose_feature=self.pose_guider(face_mask.to(device, self.pose_guider.dtype)).to(dtype),
            added_time_ids=time_ids.expand(batch, -1),
        )

        # 4. Initial latents: the noised portrait
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        first_step = num_inference_steps - int(num_inference_steps * strength)
        sigma = self.scheduler.sigmas[first_step].to(device)
        start = self.vae.config.scaling_factor * clean_latents.float()[:, None]
        latents = denoiser.noise.start(start, latents.to(device).float(), sigma)

        # 5. Denoise
        if memory_budget_gib is not None:
            window, (height, width) = min(windows.size, total_frames), clean_latents.shape[-2:]
            num_tokens = max(tokens.shape[2] for tokens, _ in conditions.adapted().values())
            max_batch = samples_within(memory_budget_gib, denoiser, window, height, width, num_tokens)
        self._num_timesteps = num_inference_steps - first_step
        with self.progress_bar(total=self._num_timesteps) as progress:

            def on_step(step: int, timestep: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
                progress.update()
                if callback_on_step_end is None:
                    return latents
                return callback_on_step_end(self, step, timestep, {"latents": latents})["latents"]

            latents = denoise(
                denoiser,
                self.scheduler,
                latents,
                conditions.padded(windows.num_padding_frames),
                Guidance(identity_scale, audio_scale, emotion_scale, guidance_sigmas, further_scales or {}),
                windows,
                max_batch=max_batch,
                first_step=first_step,
                on_step=on_step,
            )

        # 6. Decode
        frames = latents[:, :num_frames]
        if output_type != "latent":
            frames = (self.decode_latents(frames, decode_chunk_size) / 2 + 0.5).clamp(0, 1)
        self.maybe_free_model_hooks()
        videos = frames if output_type == "latent" else to_output(frames, output_type)
        return DiceTalkPipelineOutput(videos) if return_dict else (videos,)

    @property
    def num_timesteps(self) -> int:
        """Denoising steps of the latest call."""
        return self._num_timesteps

    def _with_batch(
        self,
        audio_windows: torch.Tensor | None,
        emotion_prior: torch.Tensor | None,
        tokens: ConditionTokens | None,
    ) -> tuple[Any, Any]:
        """Return checked windows and priors, both with batch axis and the priors with a frames axis."""
        window_shape, prior_dim = self.audio_projection.window_shape, self.emotion_model.config.prior_dim
        check_sources(audio_windows, emotion_prior, tokens, window_shape, prior_dim)
        if audio_windows is None or emotion_prior is None:
            return None, None
        if audio_windows.ndim == 4:
            audio_windows, emotion_prior = audio_windows[None], emotion_prior[None]
        return audio_windows, emotion_prior[:, None] if emotion_prior.ndim == 2 else emotion_prior
