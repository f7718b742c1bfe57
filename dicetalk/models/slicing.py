"""Self-attention in several steps: less memory at once for queries, keys and values, the same numbers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers.models.attention_processor import Attention


class SlicedProcessor:
    """Runs another attention processor on parts of the batch, one after the other.

    diffusers' own sliced processor splits heads and writes the attention matrix out, which needs more memory
    than fused attention in one step.

    Args:
        processor: what computes each part.
        num_steps: most parts.
    """

    def __init__(self, processor: Callable[..., torch.Tensor], num_steps: int) -> None:
        self.processor, self.num_steps = processor, num_steps

    def __call__(self, attn: Attention, hidden_states: torch.Tensor, **kwargs: object) -> torch.Tensor:
        """Attend within each row of `hidden_states` `(batch, tokens, channels)`; same shape."""
        size = -(-len(hidden_states) // self.num_steps)
        return torch.cat([self.processor(attn, part, **kwargs) for part in hidden_states.split(size)])


def slice_self_attention(layers: list[Attention], num_steps: int | None) -> None:
    """Compute self-attention in at most `num_steps` steps from now on; None: in one, as at first."""
    for attn in layers:
        processor = attn.processor
        if isinstance(processor, SlicedProcessor):
            processor = processor.processor
        attn.set_processor(processor if num_steps is None else SlicedProcessor(processor, num_steps))
