"""The pipeline's networks: encoding what a user gives, decoding what comes out."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import torch
from diffusers import DiffusionPipeline, EulerDiscreteScheduler
from diffusers.models.modeling_utils import ModelMixin
from PIL import Image
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from dicetalk.errors import DicetalkError
from dicetalk.models import autoencoder  # noqa: F401  # diffusers loads only classes of imported modules
from dicetalk.models.backbones.denoisers.base import Denoiser
from dicetalk.models.backbones.denoisers.table import denoiser_of
from dicetalk.models.backbones.files.base import Geometry
from dicetalk.models.conditions.base import AdaptedCondition
from dicetalk.models.conditions.table import adapted
from dicetalk.models.decoding import decode_video
from dicetalk.models.denoising import ConditionTokens
from dicetalk.models.emotion import EmotionModel
from dicetalk.models.pipeline_io import check_image
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
from dicetalk.models.unet import DiceTalkUNet


class DiceTalkNetworks(DiffusionPipeline):
    """All parts of `DiceTalkPipeline` but its call.

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
        further: networks of further conditions, see `dicetalk.models.conditions`.
    """

    model_cpu_offload_seq = "audio_projection->emotion_model->image_encoder->pose_guider->unet->vae"
    _optional_components = ["feature_extractor"]
    # Its bank is read as a weight, not called, so layer-wise offloading must leave it on the device
    _exclude_from_cpu_offload = ["emotion_model"]

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
        **further: ModelMixin,
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
            **further,
        )
        self.register_to_config(image_size=image_size, size_multiple=size_multiple)
        # The pose guider shrinks the mask as often as the autoencoder shrinks the image
        self._vae_factor = 2 ** (len(pose_guider.config["block_out_channels"]) - 1)
        self._vae_tile: int | None = None

    @property
    def denoiser(self) -> Denoiser:
        """The UNet under the denoiser contract."""
        return denoiser_of(self.unet)

    @property
    def geometry(self) -> Geometry:
        """How video becomes latents."""
        return self.denoiser.geometry(self._vae_factor)

    def prepare_images(self, image: Image.Image | list[Image.Image] | torch.Tensor) -> torch.Tensor:
        """Return portraits as `(batch, 3, height, width)` in [-1, 1], resized if they are PIL images."""
        if isinstance(image, torch.Tensor):
            check_image(image, self.config.size_multiple)
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

    @torch.no_grad()
    def encode_tokens(
        self,
        pixels: torch.Tensor,
        audio_windows: torch.Tensor,
        emotion_prior: torch.Tensor,
        further: Mapping[str, torch.Tensor] | None = None,
    ) -> ConditionTokens:
        """Encode portrait, speech, emotion and what else there is once; several calls can share the result.

        Args:
            pixels: `(batch, 3, height, width)` in [-1, 1].
            audio_windows: `(batch, frames, window, layers, channels)`.
            emotion_prior: `(batch, frames or 1, prior_dim)`.
            further: inputs of further conditions by name; one that is missing is dropped.
        """
        device = self._execution_device
        windows = audio_windows.to(device, self.audio_projection.dtype)
        audio, null_audio = (
            self.audio_projection(windows),
            self.audio_projection(torch.zeros_like(windows[:1, :1])),
        )
        # One call for all priors and the null prior: in whole-bank mode the bank is projected once
        prior = emotion_prior.to(device, self.emotion_model.dtype).flatten(0, 1)
        prior = torch.cat([torch.zeros_like(prior[:1]), prior])
        emotion = self.emotion_model(prior[None]).tokens
        return ConditionTokens(
            image_tokens=self.embed_images(pixels)[:, None],
            audio_tokens=audio,
            emotion_tokens=emotion[0, 1:].unflatten(0, emotion_prior.shape[:2]),
            null_audio_tokens=null_audio,
            null_emotion_tokens=emotion[:, :1],
            further_tokens={
                condition.name: self._further_tokens(condition, len(pixels), further or {})
                for condition in adapted()
                if condition.build is not None
            },
        )

    def _further_tokens(
        self, condition: AdaptedCondition, batch: int, inputs: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a condition's tokens `(batch, frames or 1, tokens, dim)` and null tokens."""
        network = getattr(self, condition.network)
        null = network.null_tokens()
        if condition.name not in inputs:
            return null.expand(batch, -1, -1, -1), null
        values = inputs[condition.name].to(self._execution_device, network.dtype)
        return condition.tokens(network, values), null

    def decode_latents(self, latents: torch.Tensor, chunk_size: int) -> torch.Tensor:
        """Decode scaled latents `(batch, frames, channels, h, w)` to frames in about [-1, 1].

        A video decoder mixes the frames of a chunk, so its result depends on `chunk_size`.

        Returns:
            Frames `(batch, frames, 3, height, width)`.
        """
        latents = (latents / self.vae.config.scaling_factor).to(self.vae.dtype)
        return torch.stack([decode_video(self.vae, clip, chunk_size, self._vae_tile) for clip in latents])

    def enable_vae_tiling(self, tile_px: int = 256) -> None:
        """Decode pictures in overlapping parts of `tile_px` from now on: less memory, nearly the same frames.

        For less memory at exactly the same frames of an image autoencoder lower `decode_chunk_size`.

        Raises:
            DicetalkError: when `tile_px` is not a multiple of `size_multiple`.
        """
        if tile_px < 1 or tile_px % self.config.size_multiple:
            raise DicetalkError(f"tile_px is {tile_px}; expected a multiple of {self.config.size_multiple}.")
        self._vae_tile = tile_px // self._vae_factor

    def disable_vae_tiling(self) -> None:
        """Decode whole pictures again."""
        self._vae_tile = None


def networks_signature() -> inspect.Signature:
    """Return the constructor's signature with each network of a further condition as an argument of its own.

    diffusers saves, loads and moves what the signature names.
    """
    signature = inspect.signature(inspect.unwrap(DiceTalkNetworks.__init__), follow_wrapped=False)
    known = [p for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    names = [condition.network for condition in adapted() if condition.build is not None]
    further = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, annotation=ModelMixin) for n in names]
    return signature.replace(parameters=[*known, *further])


DiceTalkNetworks.__init__.__signature__ = networks_signature()  # type: ignore[attr-defined]
