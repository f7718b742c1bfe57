"""Decoupled cross-attention: image, audio and emotion tokens each keep their own keys and values.

diffusers' spatio-temporal blocks hand their attention layers one tensor, `encoder_hidden_states`, which they
pass on untouched. In its place `DiceTalkUNet.forward` gives them a tuple of all that its layers need: plain
arguments, which gradient checkpointing and compilers see.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from diffusers.models.attention_processor import Attention
from torch import nn
from torch.nn import functional as F

from dicetalk.models.token_sets import TokenSets


class AttentionConditions(NamedTuple):
    """What the cross-attention layers of one forward pass attend to.

    Attributes:
        image_tokens: `(batch, frames or 1, tokens, dim)`.
        adapter_tokens: audio and emotion tokens, each `(batch, frames or 1, tokens, dim)` or picked from
            sets.
        image_mean: mean of the image tokens over the frames `(batch, 1, tokens, dim)`, for temporal layers.
        adapter_means: likewise of each adapter's tokens.
        scales: weight of each adapter; a scale of 0 skips it.
        face_masks: face mask per resolution `(batch or 1, 1, height * width, 1)`, by `height * width`; empty:
            no mask.
    """

    image_tokens: torch.Tensor
    adapter_tokens: tuple[torch.Tensor | TokenSets, ...]
    image_mean: torch.Tensor
    adapter_means: tuple[torch.Tensor, ...]
    scales: tuple[float, ...]
    face_masks: dict[int, torch.Tensor]

    @classmethod
    def of(
        cls,
        image_tokens: torch.Tensor,
        adapter_tokens: tuple[torch.Tensor | TokenSets, ...],
        scales: tuple[float, ...],
        face_masks: dict[int, torch.Tensor] | None = None,
    ) -> AttentionConditions:
        """Return the conditions with the means that temporal layers attend to."""
        means = (
            (tokens.gather() if isinstance(tokens, TokenSets) else tokens).mean(dim=1, keepdim=True)
            for tokens in adapter_tokens
        )
        image_mean = image_tokens.mean(dim=1, keepdim=True)
        return cls(image_tokens, adapter_tokens, image_mean, tuple(means), scales, face_masks or {})


class AdapterAttnProcessor(nn.Module):
    """Cross-attention on image tokens plus one adapter per further condition.

    output = to_out(attn(q, image) + mask * sum_i scale_i * attn(q, tokens_i))

    Spatial layers see the tokens of their own frame and gate the adapters by the face mask. Temporal layers
    see the window's mean tokens, ungated (official `IPAdapterAttnProcessor2_0` and transformer). Keys and
    values are projected once per sample or frame; in temporal layers the pixels fold into the query axis
    instead of repeating the tokens.

    Args:
        inner_dim: width of the attention.
        cross_attention_dim: width of the tokens.
        temporal: attention along time.
        num_adapters: audio and emotion.
    """

    def __init__(self, inner_dim: int, cross_attention_dim: int, temporal: bool, num_adapters: int = 2):
        super().__init__()
        self.temporal = temporal
        self.to_k_ip = nn.ModuleList(
            nn.Linear(cross_attention_dim, inner_dim, bias=False) for _ in range(num_adapters)
        )
        self.to_v_ip = nn.ModuleList(
            nn.Linear(cross_attention_dim, inner_dim, bias=False) for _ in range(num_adapters)
        )

    def forward(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: AttentionConditions,
        attention_mask: None = None,
    ) -> torch.Tensor:
        """Attend from `hidden_states` to the conditions.

        Args:
            attn: the layer this processor serves.
            hidden_states: `(batch * frames, pixels, channels)`, or in temporal layers
                `(batch * pixels, frames, channels)`.
            encoder_hidden_states: the conditions, see the module docstring.
            attention_mask: ignored, there is none.

        Returns:
            Same shape as `hidden_states`.
        """
        conditions = encoder_hidden_states
        batch = conditions.image_tokens.shape[0]
        groups = 1 if self.temporal else hidden_states.shape[0] // batch
        # All queries that share one set of tokens form one group: (batch, groups, queries, channels)
        grouped = hidden_states.reshape(batch, groups, -1, hidden_states.shape[-1])
        query: torch.Tensor | None = None

        # 1. Image: with one token the softmax is 1, so every query gets that token's value
        tokens = conditions.image_mean if self.temporal else conditions.image_tokens
        if tokens.shape[2] == 1:
            output = attn.to_v(tokens)
        else:
            query = attn.to_q(grouped)
            output = _attend(query, attn.to_k(tokens), attn.to_v(tokens), attn.heads)

        # 2. Adapters
        adapted: torch.Tensor | None = None
        adapter_tokens = conditions.adapter_means if self.temporal else conditions.adapter_tokens
        for adapter, scale, to_k, to_v in zip(
            adapter_tokens, conditions.scales, self.to_k_ip, self.to_v_ip, strict=True
        ):
            if scale == 0:
                continue
            query = attn.to_q(grouped) if query is None else query
            if isinstance(adapter, TokenSets):
                key, value = adapter.keys_values(id(self), to_k, to_v)
            else:
                key, value = to_k(adapter), to_v(adapter)
            term = _attend(query, key, value, attn.heads)
            term = term if scale == 1 else scale * term
            adapted = term if adapted is None else adapted + term
        if adapted is not None and not self.temporal and conditions.face_masks:
            output = torch.addcmul(output, adapted, conditions.face_masks[grouped.shape[2]])
        elif adapted is not None:
            output = output + adapted

        # 3. Output projection and dropout
        output = attn.to_out[1](attn.to_out[0](output))
        return output.expand_as(grouped).reshape(hidden_states.shape)

    def copy_from(self, attn: Attention) -> None:
        """Start all adapters from the layer's own key and value projections, as the official code does."""
        for to_k, to_v in zip(self.to_k_ip, self.to_v_ip, strict=True):
            to_k.load_state_dict(attn.to_k.state_dict())
            to_v.load_state_dict(attn.to_v.state_dict())


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Multi-head attention of `(batch, groups, queries, dim)` to `(batch, groups or 1, tokens, dim)`."""
    batch, groups = query.shape[:2]
    key, value = (x.expand(batch, groups, -1, -1) for x in (key, value))
    query, key, value = (
        x.flatten(0, 1).unflatten(-1, (num_heads, -1)).transpose(1, 2) for x in (query, key, value)
    )
    output = F.scaled_dot_product_attention(query, key, value)
    return output.transpose(1, 2).flatten(2).unflatten(0, (batch, groups))
