"""Layers that compute what diffusers' do, with the same weights and names, in less time.

`docs/performance.md` has what they save.
"""

from __future__ import annotations

import torch
from diffusers.models.activations import GEGLU
from torch import nn
from torch.nn import functional as F


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


def use_fast_layers(model: nn.Module) -> None:
    """Replace layers of `model` in place; parameters, their names and the random state stay as they are."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Conv3d and _along_frames(layer):
                setattr(parent, name, _like_conv(layer))
            elif type(layer) is GEGLU and type(layer.proj) is nn.Linear:
                setattr(parent, name, _like_geglu(layer))


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
