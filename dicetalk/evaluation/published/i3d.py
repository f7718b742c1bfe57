"""Inflated 3D Inception-v1 (Carreira & Zisserman 2017), the video network of FVD (Unterthiner et al. 2018).

Tensor names are those of `i3d_pretrained_400.pt`, the conversion of the Kinetics-400 weights that PyTorch
implementations of FVD load. FVD compares the 400 logits. Every convolution and pooling pads as TensorFlow's
"SAME" does: as much as its input's size needs, the odd voxel at the end.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

INPUT_PX = 224
NUM_CLASSES = 400

Size = tuple[int, int, int]


class Unit(nn.Module):
    """Convolution over time and space; batch normalisation and ReLU except in the classifier."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, classifier: bool = False
    ) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(in_channels, out_channels, kernel, stride, bias=classifier)
        self.bn = None if classifier else nn.BatchNorm3d(out_channels, eps=1e-5)
        self.kernel, self.stride = (kernel,) * 3, (stride,) * 3

    def forward(self, x: Tensor) -> Tensor:
        """Map `(clips, in_channels, frames, height, width)` to `(clips, out_channels, ...)`."""
        x = self.conv3d(_pad_same(x, self.kernel, self.stride))
        return x if self.bn is None else F.relu(self.bn(x), inplace=True)


class Mixed(nn.Module):
    """Inception block: 1x1x1, two 3x3x3 and a pooled branch of `channels` (six widths)."""

    def __init__(self, in_channels: int, channels: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        single, inner, wide, thin_inner, thin, pooled = channels
        self.b0 = Unit(in_channels, single)
        self.b1a, self.b1b = Unit(in_channels, inner), Unit(inner, wide, 3)
        self.b2a, self.b2b = Unit(in_channels, thin_inner), Unit(thin_inner, thin, 3)
        self.b3b = Unit(in_channels, pooled)

    def forward(self, x: Tensor) -> Tensor:
        """Map `(clips, in_channels, frames, height, width)` to as many pixels of the four branches' width."""
        pooled = _max_pool(x, (3, 3, 3), (1, 1, 1))
        branches = [self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)]
        return torch.cat(branches, 1)


class FvdI3D(nn.Module):
    """Clips to the 400 logits of Kinetics classes."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64, 7, 2)
        self.Conv3d_2b_1x1 = Unit(64, 64)
        self.Conv3d_2c_3x3 = Unit(64, 192, 3)
        self.Mixed_3b = Mixed(192, (64, 96, 128, 16, 32, 32))
        self.Mixed_3c = Mixed(256, (128, 128, 192, 32, 96, 64))
        self.Mixed_4b = Mixed(480, (192, 96, 208, 16, 48, 64))
        self.Mixed_4c = Mixed(512, (160, 112, 224, 24, 64, 64))
        self.Mixed_4d = Mixed(512, (128, 128, 256, 24, 64, 64))
        self.Mixed_4e = Mixed(512, (112, 144, 288, 32, 64, 64))
        self.Mixed_4f = Mixed(528, (256, 160, 320, 32, 128, 128))
        self.Mixed_5b = Mixed(832, (256, 160, 320, 32, 128, 128))
        self.Mixed_5c = Mixed(832, (384, 192, 384, 48, 128, 128))
        self.logits = Unit(1024, NUM_CLASSES, classifier=True)

    def forward(self, clips: Tensor) -> Tensor:
        """Map `(clips, 3, frames, 224, 224)` RGB in [-1, 1] to logits `(clips, 400)`, averaged over time."""
        x = _max_pool(self.Conv3d_1a_7x7(clips), (1, 3, 3), (1, 2, 2))
        x = _max_pool(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)), (1, 3, 3), (1, 2, 2))
        x = _max_pool(self.Mixed_3c(self.Mixed_3b(x)), (3, 3, 3), (2, 2, 2))
        x = self.Mixed_4f(self.Mixed_4e(self.Mixed_4d(self.Mixed_4c(self.Mixed_4b(x)))))
        x = self.Mixed_5c(self.Mixed_5b(_max_pool(x, (2, 2, 2), (2, 2, 2))))
        x = F.avg_pool3d(x, (2, 7, 7), stride=1)
        return self.logits(x).flatten(2).mean(dim=2)


def _max_pool(x: Tensor, kernel: Size, stride: Size) -> Tensor:
    # Padded with zeros, as the conversion does: all inputs are behind a ReLU.
    return F.max_pool3d(_pad_same(x, kernel, stride), kernel, stride)


def _pad_same(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    padding: list[int] = []
    for size, width, step in zip(x.shape[2:], kernel, stride, strict=True):
        missing = max(width - (size % step or step), 0)
        padding = [missing // 2, missing - missing // 2, *padding]  # F.pad takes the last axis first
    return F.pad(x, padding)
