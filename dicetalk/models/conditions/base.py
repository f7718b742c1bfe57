"""What a condition says about itself; training, sampling, guidance and plans go by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from dicetalk.models.widths import Widths


@dataclass(frozen=True)
class Condition:
    """A condition that is dropped in training and guided in sampling.

    Dropped means zeros in place of its input. Guidance evaluates the network with the first k conditions of
    the table's order of guidance, for every k, and follows condition k by its scale times what it changes.

    Attributes:
        name: its key in `train_diffusion.condition_dropout`.
        guidance_rank: place in the order of guidance, from 1.
        dropout: chance of dropping it in training where `condition_dropout` has no such key.
        scale: its guidance scale where a sampling names none.
    """

    name: str
    guidance_rank: int
    dropout: float = 0.05
    scale: float = 1.0


@dataclass(frozen=True)
class AdaptedCondition(Condition):
    """A condition whose tokens the backbone's layers attend to through adapters of their own.

    Its cost follows from `tokens`: each layer projects every token to a key and a value and attends to it.

    Attributes:
        network: name of its network among those that are trained and saved.
        source: what of a training batch it reads, `audio_windows`, `priors` or another field of
            `dicetalk.data.dataset.DiffusionBatch`; its first axis is the batch.
        tokens: from its network and input to tokens `(batch, frames or 1, tokens, Widths.tokens)`.
        build: makes its untrained network, a diffusers model with `null_tokens()`, the tokens `(1, 1, tokens,
            Widths.tokens)` of zeros; None where parameters size it, in `dicetalk.models.build`.
    """

    network: str = ""
    source: str = ""
    tokens: Callable[[Any, Tensor], Tensor] = lambda network, values: network(values)
    build: Callable[[Widths], nn.Module] | None = None
