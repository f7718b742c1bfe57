"""diffusers' spatio-temporal transformer with conditions of any kind in place of one tensor of tokens."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel
from torch import nn


class ConditionedTransformer(TransformerSpatioTemporalModel):
    """The same weights and the same result; `encoder_hidden_states` goes on untouched.

    diffusers' own forward pass picks the first frame's tokens and repeats them for each pixel before its
    temporal blocks, which works on tensors alone.
    """

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: Any,
        image_only_indicator: torch.Tensor,
        return_dict: bool = False,
    ) -> tuple[torch.Tensor]:
        """Attend in the pictures and along time.

        Args:
            hidden_states: `(batch * frames, channels, height, width)`.
            encoder_hidden_states: what the blocks' cross-attention takes.
            image_only_indicator: `(batch, frames)`, see diffusers.
            return_dict: ignored, a tuple comes back as diffusers' blocks ask for.

        Returns:
            One tensor in the shape of `hidden_states`.
        """
        # 1. Input: pixels as a sequence, and an embedding of each frame's number
        rows, channels, height, width = hidden_states.shape
        batch, frames = image_only_indicator.shape
        residual = hidden_states
        hidden = self.norm(hidden_states).permute(0, 2, 3, 1).reshape(rows, height * width, channels)
        hidden = self.proj_in(hidden)
        numbers = torch.arange(frames, device=hidden.device).repeat(batch)
        positions = self.time_pos_embed(self.time_proj(numbers).to(hidden.dtype))[:, None]

        # 2. Blocks; diffusers computes only the spatial ones again in the backward pass
        again = torch.is_grad_enabled() and self.gradient_checkpointing
        for block, temporal_block in zip(
            self.transformer_blocks, self.temporal_transformer_blocks, strict=True
        ):
            if again:
                hidden = self._gradient_checkpointing_func(block, hidden, None, encoder_hidden_states)
            else:
                hidden = block(hidden, encoder_hidden_states=encoder_hidden_states)
            inputs = hidden + positions, frames, encoder_hidden_states
            if again:
                mixed = self._gradient_checkpointing_func(temporal_block, *inputs)
            else:
                mixed = temporal_block(*inputs)
            hidden = self.time_mixer(
                x_spatial=hidden, x_temporal=mixed, image_only_indicator=image_only_indicator
            )

        # 3. Output
        hidden = self.proj_out(hidden)
        hidden = hidden.reshape(rows, height, width, channels).permute(0, 3, 1, 2).contiguous()
        return (hidden + residual,)


def pass_conditions_on(model: nn.Module) -> None:
    """Let all spatio-temporal transformers of `model` take any conditions, in place."""
    for layer in model.modules():
        if type(layer) is TransformerSpatioTemporalModel:
            layer.__class__ = ConditionedTransformer
