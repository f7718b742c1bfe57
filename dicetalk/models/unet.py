"""Stable Video Diffusion's UNet with audio and emotion adapters and a pose feature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
from dicetalk.models.adapters import AdapterAttnProcessor, AttentionConditions
from dicetalk.models.conditioned_transformer import pass_conditions_on
from dicetalk.models.conditions.table import adapted
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
    audio, 1 emotion; further conditions with adapters follow). With the usual single image token `attn2.to_k`
    receives no gradient; freeze it where unused parameters are an error.
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
        pass_conditions_on(self)
        for name, attn in self.named_cross_attentions():
            temporal = "temporal_transformer_blocks" in name
            widths = attn.inner_dim, attn.cross_attention_dim
            attn.set_processor(AdapterAttnProcessor(*widths, temporal, num_adapters=len(adapted())))

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
        adapter_scales: tuple[float, ...] = (1.0, 1.0),
        further_tokens: tuple[torch.Tensor | TokenSets, ...] = (),
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
            further_tokens: of other conditions with adapters, in the order of the table of conditions.
            return_dict: False returns `(sample, features)`.

        Returns:
            Velocity and mid-block features.
        """
        batch, frames, _, height, width = sample.shape

        # 1. Conditions of every layer
        masks = {}
        if face_mask is not None:
            levels = len(self.config.down_block_types)
            masks = self.level_masks(face_mask.to(sample.dtype), height, width, levels)
        conditions = AttentionConditions.of(
            _with_frames(encoder_hidden_states, 4),
            (audio_tokens, emotion_tokens, *further_tokens),
            (*adapter_scales, *(1.0 for _ in further_tokens)),
            masks,
        )

        # 2. Time: noise level, and frame rate with the motion buckets
        timesteps = torch.as_tensor(timestep, device=sample.device).expand(batch)
        embedding = self.time_embedding(self.time_proj(timesteps).to(sample.dtype))
        ids = self.add_time_proj(added_time_ids.flatten()).reshape(batch, -1)
        embedding = embedding + self.add_embedding(ids.to(embedding.dtype))
        embedding = embedding.repeat_interleave(frames, dim=0, output_size=batch * frames)

        # 3. Pre-process: frames go through as a batch; the pose joins
        hidden = self.conv_in(sample.flatten(0, 1))
        if pose_feature is not None:
            hidden = (hidden.unflatten(0, (batch, frames)) + _with_frames(pose_feature, 5)).flatten(0, 1)
        image_only = hidden.new_zeros(batch, frames)

        # 4. Down
        skips: tuple[torch.Tensor, ...] = (hidden,)
        for block in self.down_blocks:
            hidden, more = _run(block, conditions, hidden, temb=embedding, image_only_indicator=image_only)
            skips += more

        # 5. Mid
        hidden = self.mid_block(
            hidden, temb=embedding, encoder_hidden_states=conditions, image_only_indicator=image_only
        )
        features = hidden.unflatten(0, (batch, frames))

        # 6. Up; where a side was odd on the way down, the size it had is told
        odd = any(side % 2**self.num_upsamplers for side in (height, width))
        for number, block in enumerate(self.up_blocks):
            skips, own = skips[: -len(block.resnets)], skips[-len(block.resnets) :]
            last = number + 1 == len(self.up_blocks)
            hidden = _run(
                block,
                conditions,
                hidden,
                res_hidden_states_tuple=own,
                temb=embedding,
                image_only_indicator=image_only,
                upsample_size=skips[-1].shape[2:] if odd and not last else None,
            )

        # 7. Post-process
        hidden = self.conv_out(self.conv_act(self.conv_norm_out(hidden)))
        velocity = hidden.unflatten(0, (batch, frames))
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


def _run(block: nn.Module, conditions: AttentionConditions, hidden: torch.Tensor, **inputs: Any) -> Any:
    """Run a block of the way down or up; not all of them attend."""
    if getattr(block, "has_cross_attention", False):
        inputs["encoder_hidden_states"] = conditions
    return block(hidden, **inputs)
