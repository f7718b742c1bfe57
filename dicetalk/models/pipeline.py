"""One portrait, speech features and an emotion prior in, a talking video out."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np
import torch
from diffusers import DiffusionPipeline, EulerDiscreteScheduler
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from dicetalk.errors import DicetalkError
from dicetalk.models import autoencoder  # noqa: F401  # diffusers loads only classes of imported modules
from dicetalk.models.batching import samples_within
from dicetalk.models.denoising import ClipConditions, denoise
from dicetalk.models.emotion import EmotionModel
from dicetalk.models.guidance import Guidance, Scale
from dicetalk.models.pipeline_io import DiceTalkPipelineOutput, check_options, check_shapes
from dicetalk.models.pose_guider import PoseGuider
from dicetalk.models.preprocessing import (
    CLIP_MEAN,
    CLIP_STD,
    clip_pixels,
    image_to_tensor,
    model_size,
    tensor_to_image,
)
from dicetalk.models.projection import AudioProjection
from dicetalk.models.sampling import add_noise
from dicetalk.models.unet import DiceTalkUNet
from dicetalk.models.windows import WindowPlan


class DiceTalkPipeline(DiffusionPipeline):
    """Talking-portrait generation; `save_pretrained` and `from_pretrained` use diffusers' directory layout.

    Args:
        vae: image or video autoencoder, e.g. SVD's `AutoencoderKLTemporalDecoder`.
        image_encoder: CLIP vision model whose projection width is the UNet's `cross_attention_dim`.
        unet: the denoiser.
        scheduler: Euler over Karras sigmas with velocity prediction, see `sampling.make_scheduler`.
        audio_projection: speech features to tokens.
        emotion_model: emotion prior to tokens.
        pose_guider: face mask to pose feature.
        feature_extractor: its mean and standard deviation normalise CLIP's input; `None`: CLIP's own.
        image_size: short side that PIL images are resized to.
        size_multiple: sides are multiples of this: autoencoder factor times the UNet's downsampling.
    """

    model_cpu_offload_seq = "image_encoder->pose_guider->audio_projection->emotion_model->unet->vae"
    _optional_components = ["feature_extractor"]

    def __init__(
        self,
        vae: ModelMixin,
        image_encoder: CLIPVisionModelWithProjection,
        unet: DiceTalkUNet,
        scheduler: EulerDiscreteScheduler,
        audio_projection: AudioProjection,
        emotion_model: EmotionModel,
        pose_guider: PoseGuider,
        feature_extractor: CLIPImageProcessor | None = None,
        image_size: int = 512,
        size_multiple: int = 64,
    ):
        super().__init__()
        self.register_modules(
            vae=vae,
            image_encoder=image_encoder,
            unet=unet,
            scheduler=scheduler,
            audio_projection=audio_projection,
            emotion_model=emotion_model,
            pose_guider=pose_guider,
            feature_extractor=feature_extractor,
        )
        self.register_to_config(image_size=image_size, size_multiple=size_multiple)

    @torch.no_grad()
    def __call__(
        self,
        image: Image.Image | list[Image.Image] | torch.Tensor,
        audio_windows: torch.Tensor,
        emotion_prior: torch.Tensor,
        face_mask: torch.Tensor,
        num_inference_steps: int = 25,
        identity_scale: Scale = 3.0,
        audio_scale: Scale = 6.0,
        emotion_scale: Scale = 6.0,
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
        callback_on_step_end: Callable[..., dict] | None = None,
        return_dict: bool = True,
    ) -> DiceTalkPipelineOutput | tuple[torch.Tensor | np.ndarray]:
        """Generate one video per portrait; all of the same number of frames.

        Args:
            image: portraits; PIL images are resized, a tensor `(batch, 3, height, width)` in [-1, 1] is used
                as it is.
            audio_windows: `(frames, window, layers, channels)`, or with a leading batch axis.
            emotion_prior: `(prior_dim,)` or `(frames, prior_dim)`, or with a leading batch axis if
                `audio_windows` has one.
            face_mask: `(batch, 1, height, width)` in [0, 1] at the model's input size.
            num_inference_steps: denoising steps.
            identity_scale: guidance towards the portrait; a pair is a ramp over the steps.
            audio_scale: guidance towards the speech.
            emotion_scale: guidance towards the emotion.
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
            output_type: `pt`, `np` or `latent`.
            callback_on_step_end: called as `(pipeline, step, timestep, {"latents": ...})`, returns such a
                dictionary.
            return_dict: False returns a tuple.

        Returns:
            The generated frames.

        Raises:
            DicetalkError: when inputs do not fit each other or an option is out of range.
        """
        # 1. Inputs
        check_options(strength, output_type)
        pixels = self.prepare_images(image)
        if audio_windows.ndim == 4:
            audio_windows, emotion_prior = audio_windows[None], emotion_prior[None]
        emotion_prior = emotion_prior[:, None] if emotion_prior.ndim == 2 else emotion_prior
        batch, num_frames = audio_windows.shape[:2]
        check_shapes(pixels, audio_windows, emotion_prior, face_mask)
        windows = windows or WindowPlan(size=self.unet.config.num_frames)

        # 2. Noise; drawn for the image even at strength 0 so that a seed gives the official noise
        dtype, device = self.unet.dtype, self._execution_device
        image_noise = randn_tensor(pixels.shape, generator=generator, device=device)
        clean_latents = self.encode_images(pixels)
        image_latents = clean_latents
        if noise_aug_strength > 0:
            image_latents = self.encode_images(pixels.to(device) + noise_aug_strength * image_noise)
        total_frames = num_frames + windows.num_padding_frames
        if latents is None:
            shape = (batch, total_frames, *clean_latents.shape[1:])
            latents = randn_tensor(shape, generator=generator, device=device)

        # 3. Conditions
        encoded = self.encode_conditions(pixels, image_latents, audio_windows, emotion_prior, face_mask)
        time_ids = torch.tensor([fps, motion_bucket_id, expression_bucket_id], dtype=dtype, device=device)
        conditions = ClipConditions(**encoded, added_time_ids=time_ids.expand(batch, -1))

        # 4. Initial latents: the noised portrait
        self.scheduler.set_timesteps(num_inference_steps, device=device)
        first_step = num_inference_steps - int(num_inference_steps * strength)
        sigma = self.scheduler.sigmas[first_step].to(device)
        start = self.vae.config.scaling_factor * clean_latents.float()[:, None]
        latents = add_noise(start, latents.to(device).float(), sigma)

        # 5. Denoise
        if memory_budget_gib is not None:
            window, (height, width) = min(windows.size, total_frames), clean_latents.shape[-2:]
            num_tokens = conditions.audio_tokens.shape[2]
            max_batch = samples_within(memory_budget_gib, self.unet, window, height, width, num_tokens)
        with self.progress_bar(total=num_inference_steps - first_step) as progress:

            def on_step(step: int, timestep: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
                progress.update()
                if callback_on_step_end is None:
                    return latents
                return callback_on_step_end(self, step, timestep, {"latents": latents})["latents"]

            latents = denoise(
                self.unet,
                self.scheduler,
                latents,
                conditions.padded(windows.num_padding_frames),
                Guidance(identity_scale, audio_scale, emotion_scale),
                windows,
                max_batch=max_batch,
                first_step=first_step,
                on_step=on_step,
            )

        # 6. Decode
        frames = latents[:, :num_frames]
        if output_type != "latent":
            frames = (self.decode_latents(frames, decode_chunk_size) / 2 + 0.5).clamp(0, 1)
        videos = frames.permute(0, 1, 3, 4, 2).cpu().numpy() if output_type == "np" else frames
        self.maybe_free_model_hooks()
        return DiceTalkPipelineOutput(videos) if return_dict else (videos,)

    def prepare_images(self, image: Image.Image | list[Image.Image] | torch.Tensor) -> torch.Tensor:
        """Return portraits as `(batch, 3, height, width)` in [-1, 1], resized if they are PIL images."""
        if isinstance(image, torch.Tensor):
            return image
        images = [image] if isinstance(image, Image.Image) else image
        short_side, multiple = self.config.image_size, self.config.size_multiple
        sizes = [model_size(item.width, item.height, short_side, multiple) for item in images]
        if len(set(sizes)) > 1:
            raise DicetalkError(
                f"Portraits of one batch must have one size; these resize to {sorted(set(sizes))}."
            )
        images = [item.convert("RGB").resize(sizes[0], Image.Resampling.LANCZOS) for item in images]
        return torch.stack([image_to_tensor(item) for item in images])

    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the latents `(batch, channels, h, w)` of images in [-1, 1], not scaled."""
        dtype = self.vae.dtype
        # SVD's encoder overflows in half precision
        upcast = dtype == torch.float16 and getattr(self.vae.config, "force_upcast", False)
        if upcast:
            self.vae.to(torch.float32)
        latents = self.vae.encode(pixels.to(self._execution_device, self.vae.dtype)).latent_dist.mode()
        if upcast:
            self.vae.to(dtype)
        return latents.to(self.unet.dtype)

    def embed_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the CLIP embeddings `(batch, dim)` of images in [-1, 1]."""
        mean = getattr(self.feature_extractor, "image_mean", CLIP_MEAN)
        std = getattr(self.feature_extractor, "image_std", CLIP_STD)
        size = self.image_encoder.config.image_size
        inputs = torch.stack([clip_pixels(tensor_to_image(image), size, mean, std) for image in pixels])
        inputs = inputs.to(self._execution_device, self.image_encoder.dtype)
        return self.image_encoder(inputs).image_embeds.to(self.unet.dtype)

    def encode_conditions(
        self,
        pixels: torch.Tensor,
        image_latents: torch.Tensor,
        audio_windows: torch.Tensor,
        emotion_prior: torch.Tensor,
        face_mask: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Return the fields of `ClipConditions` that the networks compute; constants are computed once.

        Args:
            pixels: `(batch, 3, height, width)` in [-1, 1].
            image_latents: `(batch, channels, h, w)`.
            audio_windows: `(batch, frames, window, layers, channels)`.
            emotion_prior: `(batch, frames or 1, prior_dim)`.
            face_mask: `(batch, 1, height, width)` in [0, 1].

        Returns:
            Fields by name, all but `added_time_ids`.
        """
        dtype, device = self.unet.dtype, self._execution_device
        audio_tokens = self.audio_projection(audio_windows.to(device, self.audio_projection.dtype))
        # One call for all priors and the null prior: in whole-bank mode the bank is projected once
        prior = emotion_prior.to(device, self.emotion_model.dtype).flatten(0, 1)
        prior = torch.cat([torch.zeros_like(prior[:1]), prior])
        tokens = self.emotion_model(prior[None]).tokens
        conditions = {
            "image_tokens": self.embed_images(pixels)[:, None],
            "image_latents": image_latents,
            "audio_tokens": audio_tokens,
            "emotion_tokens": tokens[0, 1:].unflatten(0, emotion_prior.shape[:2]),
            "null_audio_tokens": self.audio_projection.null_tokens(),
            "null_emotion_tokens": tokens[:, :1],
            "face_mask": face_mask,
            "pose_feature": self.pose_guider(face_mask.to(device, self.pose_guider.dtype)),
        }
        return {name: value.to(device, dtype) for name, value in conditions.items()}

    def decode_latents(self, latents: torch.Tensor, chunk_size: int) -> torch.Tensor:
        """Decode scaled latents `(batch, frames, channels, h, w)` to frames in about [-1, 1].

        A video decoder mixes the frames of a chunk, so its result depends on `chunk_size`.

        Returns:
            Frames `(batch, frames, 3, height, width)`.
        """
        latents = (latents / self.vae.config.scaling_factor).to(self.vae.dtype)
        takes_num_frames = "num_frames" in inspect.signature(self.vae.forward).parameters
        videos = []
        for clip in latents:
            chunks = [
                self.vae.decode(chunk, **({"num_frames": len(chunk)} if takes_num_frames else {})).sample
                for chunk in clip.split(chunk_size)
            ]
            videos.append(torch.cat(chunks).float())
        return torch.stack(videos)
