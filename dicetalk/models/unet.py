"""Stable Video Diffusion's UNet with audio and emotion adapters and a pose feature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import (
    ModelMixin,  # noqa: F401 - `DiffusionPipeline.from_pretrained` looks for it in this module
    UNetSpatioTemporalConditionModel,
)
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention_processor import Attention
from diffusers.utils import BaseOutput
from torch import nn
from torch.nn import functional as F

from dicetalk.errors import DicetalkError
from dicetalk.models.adapters import (
    AdapterAttnProcessor,
    Conditions,
    checkpoint_with_conditions,
    current_conditions,
    use_conditions,
)
from dicetalk.models.fast_layers import use_fast_layers
from dicetalk.models.slicing import slice_self_attention
from dicetalk.models.token_sets import TokenSets


@dataclass
class DiceTalkUNetOutput(BaseOutput):
    """Result of the UNet.

    Args:
        sample: predicted velocity `(batch, frames, out_channels, height, width)`.
        features: mid-block features `(batch, frames, block_out_channels[-1], height / 8, width / 8)`, the
            input of the emotion discriminator.
    """

    sample: torch.Tensor
    features: torch.Tensor


class DiceTalkUNet(UNetSpatioTemporalConditionModel):
    """SVD's UNet conditioned on image, audio and emotion tokens and on the place of the face.

    The constructor's arguments are those of `UNetSpatioTemporalConditionModel`. State-dict names and shapes
    are those of the official `unet.pth`: the stock names plus `<attn2>.processor.to_{k,v}_ip.{0,1}.weight` (0
    audio, 1 emotion). With the usual single image token `attn2.to_k` receives no gradient; freeze it where
    unused parameters are an error.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int | None = None,
        in_channels: int = 8,
        out_channels: int = 4,
        down_block_types: tuple[str, ...] = (
            "CrossAttnDownBlockSpatioTemporal",
            "CrossAttnDownBlockSpatioTemporal",
            "CrossAttnDownBlockSpatioTemporal",
            "DownBlockSpatioTemporal",
        ),
        up_block_types: tuple[str, ...] = (
            "UpBlockSpatioTemporal",
            "CrossAttnUpBlockSpatioTemporal",
            "CrossAttnUpBlockSpatioTemporal",
            "CrossAttnUpBlockSpatioTemporal",
        ),
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        addition_time_embed_dim: int = 256,
        projection_class_embeddings_input_dim: int = 768,
        layers_per_block: int | tuple[int, ...] = 2,
        cross_attention_dim: int | tuple[int, ...] = 1024,
        transformer_layers_per_block: int | tuple[int, ...] = 1,
        num_attention_heads: int | tuple[int, ...] = (5, 10, 20, 20),
        num_frames: int = 25,
    ):
        super().__init__(
            sample_size=sample_size,
            in_channels=in_channels,
            out_channels=out_channels,
            down_block_types=down_block_types,
            up_block_types=up_block_types,
            block_out_channels=block_out_channels,
            addition_time_embed_dim=addition_time_embed_dim,
            projection_class_embeddings_input_dim=projection_class_embeddings_input_dim,
            layers_per_block=layers_per_block,
            cross_attention_dim=cross_attention_dim,
            transformer_layers_per_block=transformer_layers_per_block,
            num_attention_heads=num_attention_heads,
            num_frames=num_frames,
        )
        use_fast_layers(self)
        for name, attn in self.named_cross_attentions():
            temporal = "temporal_transformer_blocks" in name
            attn.set_processor(AdapterAttnProcessor(attn.inner_dim, attn.cross_attention_dim, temporal))
        self.conv_in.register_forward_hook(_add_pose_feature)
        self.mid_block.register_forward_hook(_keep_mid_features)

    @classmethod
    def from_svd(cls, unet: UNetSpatioTemporalConditionModel) -> DiceTalkUNet:
        """Build from a stock SVD UNet; adapters start as copies of its cross-attention.

        Raises:
            DicetalkError: when the weights of `unet` do not fit its own config.
        """
        model = cls.from_config(unet.config)
        missing, unexpected = model.load_state_dict(unet.state_dict(), strict=False)
        missing = [key for key in missing if ".processor.to_" not in key]
        if missing or unexpected:
            raise DicetalkError(f"Not an SVD UNet: it lacks {missing[:3]} and has unknown {unexpected[:3]}.")
        for _, attn in model.named_cross_attentions():
            attn.processor.copy_from(attn)
        return model.to(dtype=unet.dtype)

    def named_cross_attentions(self) -> list[tuple[str, Attention]]:
        """Return name and module of each cross-attention layer (`attn2`), spatial and temporal."""
        return [
            (name, module)
            for name, module in self.named_modules()
            if name.endswith(".attn2") and isinstance(module, Attention)
        ]

    def use_channels_last(self) -> DiceTalkUNet:
        """Lay convolution weights out channels-last, which GPUs prefer in half precision; returns the model.

        `to(memory_format=...)` cannot: it has no such format for the five-dimensional temporal weights.
        """
        for weight in self.parameters():
            if weight.ndim == 4:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        return self

    def spatial_adapter_dims(self) -> int:
        """Return the widths of all spatial cross-attention layers, added up."""
        layers = self.named_cross_attentions()
        return sum(attn.inner_dim for _, attn in layers if not attn.processor.temporal)

    def adapter_parameters(self) -> list[nn.Parameter]:
        """Return the weights that the stock UNet does not have."""
        return [weight for _, attn in self.named_cross_attentions() for weight in attn.processor.parameters()]

    def set_attention_slice(self, slice_size: str | int | None = "auto") -> None:
        """Compute self-attention in several steps; `DiffusionPipeline.enable_attention_slicing` calls this.

        Args:
            slice_size: most steps; `auto`: 2, `max`: 64, None: one. Cross-attention has few keys and stays
                whole.

        Raises:
            DicetalkError: for anything else.
        """
        steps = {"auto": 2, "max": 64}.get(slice_size) if isinstance(slice_size, str) else slice_size
        if (steps is None and slice_size is not None) or (steps is not None and steps < 1):
            raise DicetalkError(
                f"slice_size is {slice_size!r}; expected auto, max, a number of steps or None."
            )
        layers = [
            m for name, m in self.named_modules() if name.endswith(".attn1") and isinstance(m, Attention)
        ]
        slice_self_attention(layers, steps)

    def enable_gradient_checkpointing(self, gradient_checkpointing_func: Callable | None = None) -> None:
        """Recompute activations in the backward pass instead of storing them."""
        super().enable_gradient_checkpointing(gradient_checkpointing_func or checkpoint_with_conditions)

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float,
        encoder_hidden_states: torch.Tensor,
        added_time_ids: torch.Tensor,
        audio_tokens: torch.Tensor | TokenSets,
        emotion_tokens: torch.Tensor | TokenSets,
        face_mask: torch.Tensor | None = None,
        pose_feature: torch.Tensor | None = None,
        adapter_scales: tuple[float, float] = (1.0, 1.0),
        return_dict: bool = True,
    ) -> DiceTalkUNetOutput | tuple[torch.Tensor, torch.Tensor]:
        """Predict the velocity of noisy video latents.

        Args:
            sample: scaled noisy latents and image latent on channels `(batch, frames, in_channels, h, w)`.
            timestep: `0.25 * ln(sigma)`, a scalar or `(batch,)`.
            encoder_hidden_states: image embedding tokens `(batch, tokens, dim)` or per frame
                `(batch, frames, tokens, dim)`.
            added_time_ids: fps, motion bucket, expression bucket `(batch, 3)`.
            audio_tokens: `(batch, frames, tokens, dim)`; a frames axis of 1 means the same for all frames. Or
                picked from sets that layers project once for many forward passes.
            emotion_tokens: likewise.
            face_mask: `(batch or 1, 1, height, width)` in [0, 1] at any resolution; gates the spatial
                adapters. `None`: no gate.
            pose_feature: `(batch, channels, h, w)` or per frame `(batch, frames, channels, h, w)`.
            adapter_scales: weights of the audio and the emotion adapter; 0 skips one.
            return_dict: False returns `(sample, features)`.

        Returns:
            Velocity and mid-block features.
        """
        batch, frames = sample.shape[:2]

        # 1. Conditions of every layer
        masks = {}
        if face_mask is not None:
            levels, (height, width) = len(self.config.down_block_types), sample.shape[-2:]
            masks = self.level_masks(face_mask.to(sample.dtype), height, width, levels)
        conditions = Conditions(
            num_frames=frames,
            image_tokens=_with_frames(encoder_hidden_states, 4),
            adapter_tokens=(audio_tokens, emotion_tokens),
            scales=tuple(adapter_scales),
            face_masks=masks,
            pose_feature=_with_frames(pose_feature, 5) if pose_feature is not None else None,
        )

        # 2. Stock UNet; its blocks only pass the placeholder on, the processors read the conditions
        placeholder = sample.new_zeros(batch, 1, 1)
        with use_conditions(conditions):
            (velocity,) = super().forward(sample, timestep, placeholder, added_time_ids, return_dict=False)

        # 3. Features
        assert conditions.mid_features is not None  # the mid block's hook has run
        features = conditions.mid_features.unflatten(0, (batch, frames))
        return DiceTalkUNetOutput(velocity, features) if return_dict else (velocity, features)

    @staticmethod
    def level_masks(
        face_mask: torch.Tensor, height: int, width: int, num_levels: int
    ) -> dict[int, torch.Tensor]:
        """Resize the mask to each level's resolution (bicubic without antialias, as the official code).

        Args:
            face_mask: `(batch or 1, 1, any, any)`.
            height: of the latents.
            width: of the latents.
            num_levels: resolutions of the UNet, each half of the one before.

        Returns:
            `(batch or 1, 1, height * width, 1)` by `height * width`; values can leave [0, 1] a little.
        """
        masks = {}
        for _ in range(num_levels):
            resized = F.interpolate(face_mask, size=(height, width), mode="bicubic", align_corners=False)
            masks[height * width] = resized.flatten(2)[..., None]
            height, width = (height + 1) // 2, (width + 1) // 2
        return masks


def _with_frames(condition: torch.Tensor, num_dims: int) -> torch.Tensor:
    """Insert a frames axis of 1 after the batch axis of a condition that has none."""
    return condition if condition.ndim == num_dims else condition[:, None]


def _add_pose_feature(conv_in: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
    """Forward hook of `conv_in`."""
    conditions = current_conditions()
    if conditions.pose_feature is None:
        return output
    return (output.unflatten(0, (-1, conditions.num_frames)) + conditions.pose_feature).flatten(0, 1)


def _keep_mid_features(mid_block: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
    """Forward hook of `mid_block`."""
    current_conditions().mid_features = output
