"""Layers that compute what diffusers' do, with the same weights and names, in less time or memory.

`docs/performance-log.md` has what they save.
"""

from __future__ import annotations

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention import FeedForward
from torch import nn
from torch.nn import functional as F

CPU_PIECE_BYTES, GPU_PIECE_BYTES = 2**20, 2**26
"""Size of a feed-forward layer's widest tensor: what a core's cache holds; enough to keep a GPU busy."""


class FrameConv(nn.Conv3d):
    """Convolution along frames alone, as a two-dimensional one over (frames, pixels).

    PyTorch's three-dimensional convolution unfolds its input in memory on the CPU; the two-dimensional one
    has a blocked kernel. With kernels of `(n, 1, 1)` both are the same sum.
    """

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Convolve `(batch, channels, frames, height, width)`."""
        size, padding = self.kernel_size[0], self.padding[0]
        weight = self.weight.reshape(*self.weight.shape[:2], size, 1)
        output = F.conv2d(hidden_states.flatten(3), weight, self.bias, padding=(padding, 0))
        return output.unflatten(3, hidden_states.shape[3:])


class SplitGEGLU(GEGLU):
    """GEGLU that projects value and gate apart: both are contiguous, and no gradients are concatenated."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map `(..., dim_in)` to `(..., dim_out)`."""
        (value, gate), bias = self.proj.weight.chunk(2), self.proj.bias
        value_bias, gate_bias = (None, None) if bias is None else bias.chunk(2)
        return F.linear(hidden_states, value, value_bias) * F.gelu(F.linear(hidden_states, gate, gate_bias))


class PiecewiseFeedForward(FeedForward):
    """Feed-forward layer that, without gradients, takes some rows after the other.

    Its inside is four times as wide as its input. In pieces it stays in the cache, and memory of that size is
    neither needed nor, on the CPU, fetched from the system page by page.
    """

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map `(..., dim_in)` to `(..., dim_out)`."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return super().forward(hidden_states)
        piece_bytes = CPU_PIECE_BYTES if hidden_states.device.type == "cpu" else GPU_PIECE_BYTES
        row_bytes = self.net[-1].in_features * hidden_states.element_size()
        pieces = hidden_states.flatten(0, -2).split(max(1, piece_bytes // row_bytes))
        output = torch.cat([FeedForward.forward(self, piece) for piece in pieces])
        return output.unflatten(0, hidden_states.shape[:-1])


def use_fast_layers(model: nn.Module) -> None:
    """Replace layers of `model` in place; parameters, their names and the random state stay as they are."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Conv3d and _along_frames(layer):
                setattr(parent, name, _like_conv(layer))
            elif type(layer) is GEGLU and type(layer.proj) is nn.Linear:
                setattr(parent, name, _like_geglu(layer))
            elif type(layer) is FeedForward and type(layer.net[-1]) is nn.Linear:
                layer.__class__ = PiecewiseFeedForward


def _along_frames(conv: nn.Conv3d) -> bool:
    """Whether the layer is a plain `(n, 1, 1)` convolution of stride 1 with zero padding."""
    return (
        conv.kernel_size[1:] == (1, 1)
        and conv.padding[1:] == (0, 0)
        and conv.stride == conv.dilation == (1, 1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
    )


def _like_conv(conv: nn.Conv3d) -> FrameConv:
    fast = FrameConv(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        padding=conv.padding,
        bias=conv.bias is not None,
        device="meta",
    )
    fast.weight, fast.bias = conv.weight, conv.bias
    return fast


def _like_geglu(layer: GEGLU) -> SplitGEGLU:
    with torch.device("meta"):
        fast = SplitGEGLU(1, 1)
    fast.proj = layer.proj
    return fast
