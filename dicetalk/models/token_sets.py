"""Condition tokens of a whole sampling: each distinct set once, with its keys and values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

KEY_VALUE_CACHE_BYTES = 2**30
"""Most memory that one condition's kept keys and values may take; about 27 s of speech at full size."""


@dataclass
class TokenSets:
    """Token sets that samples and frames of many forward passes pick from.

    Frames of different steps, windows and guidance branches share their speech tokens, and all of them share
    the few emotion tokens. An attention layer therefore projects each set once and keeps the result.

    Args:
        tokens: the distinct sets `(sets, tokens, dim)`; they must not change while this object is used.
        index: which set each frame of each sample attends to `(batch, frames or 1)`.
        keep: whether layers keep the projected sets for the next forward pass.
    """

    tokens: torch.Tensor
    index: torch.Tensor
    keep: bool
    _projected: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def at(self, index: torch.Tensor) -> TokenSets:
        """Return the same sets, and what layers kept, for other samples."""
        return replace(self, index=index)

    def gather(self) -> torch.Tensor:
        """Return the tokens `(batch, frames or 1, tokens, dim)` of all samples."""
        return self.tokens[self.index]

    def keys_values(
        self,
        layer: int,
        to_key: Callable[[torch.Tensor], torch.Tensor],
        to_value: Callable[[torch.Tensor], torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values `(batch, frames or 1, tokens, inner_dim)`.

        Args:
            layer: identifies the layer among those that use this object.
            to_key: its projection to keys.
            to_value: its projection to values.
        """
        if not self.keep:
            tokens = self.gather()
            return to_key(tokens), to_value(tokens)
        if layer not in self._projected:
            self._projected[layer] = to_key(self.tokens), to_value(self.tokens)
        key, value = self._projected[layer]
        return key[self.index], value[self.index]


def fits_cache(tokens: torch.Tensor, inner_dims: int) -> bool:
    """Whether keys and values of sets `(sets, tokens, dim)` may be kept by layers of this total width."""
    count = tokens.shape[0] * tokens.shape[1] * inner_dims * 2
    return count * tokens.element_size() <= KEY_VALUE_CACHE_BYTES
