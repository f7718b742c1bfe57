"""RIFE's intermediate flow network (IFNet HDv3, arXiv 2011.06294): the frame halfway between two frames.

Own definition under the tensor names of the published `flownet.pkl`, so that file loads. Of its four blocks
the last, `block_tea`, is the teacher of RIFE's training; it is kept for the names and never run.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dicetalk.models.state_files import load_strictly, read_state_dict

SCALES = (4, 2, 1)  # each block sees the pictures shrunk by this factor: large motion first
# Of both sides. The coarsest block shrinks pictures by 4, its convolutions by 4 again; RIFE pads to 32.
SIZE_MULTIPLE = 32
PREFIX = "module."  # the file was saved from a data-parallel wrapper


class Interpolation(NamedTuple):
    """What IFNet finds between two pictures.

    Attributes:
        middle: picture at half time `(batch, 3, height, width)`.
        flow: motion in pixels from half time to the first (x, y) and to the second picture (x, y)
            `(batch, 4, height, width)`.
        mask: share of the first picture `(batch, 1, height, width)` in [0, 1].
    """

    middle: Tensor
    flow: Tensor
    mask: Tensor


class IFNet(nn.Module):
    """Three coarse-to-fine blocks that refine a pair of flows and a blending mask.

    Args:
        channels: width of the blocks; 90 in the published weights.
    """

    def __init__(self, channels: int = 90) -> None:
        super().__init__()
        pair, mask, flow, truth = 6, 1, 4, 3
        self.block0 = FlowBlock(pair + mask + flow, channels)
        self.block1 = FlowBlock(pair + mask + flow, channels)
        self.block2 = FlowBlock(pair + mask + flow, channels)
        self.block_tea = FlowBlock(pair + mask + flow + truth, channels)

    def forward(self, first: Tensor, second: Tensor) -> Interpolation:
        """Interpolate between pictures `(batch, 3, height, width)` in [0, 1]; sides must be multiples of 16.

        Each block is run in both directions of time and the two answers are averaged, so exchanging the
        pictures exchanges the flows and changes nothing else.
        """
        batch, _, height, width = first.shape
        flow = first.new_zeros(batch, 4, height, width)
        logits = first.new_zeros(batch, 1, height, width)
        warped = first, second
        for block, scale in zip((self.block0, self.block1, self.block2), SCALES, strict=True):
            forth, forth_logits = block(torch.cat([*warped, logits], 1), flow, scale)
            back, back_logits = block(torch.cat([*warped[::-1], -logits], 1), _exchanged(flow), scale)
            flow = flow + (forth + _exchanged(back)) / 2
            logits = logits + (forth_logits - back_logits) / 2
            warped = warp(first, flow[:, :2]), warp(second, flow[:, 2:])
        mask = logits.sigmoid()
        return Interpolation(warped[0] * mask + warped[1] * (1 - mask), flow, mask)

    @torch.no_grad()
    def middle(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the picture halfway between two of any size `(batch, 3, height, width)`, all in [0, 1]."""
        height, width = first.shape[-2:]
        padding = (0, -width % SIZE_MULTIPLE, 0, -height % SIZE_MULTIPLE)
        first, second = (F.pad(picture, padding, mode="replicate") for picture in (first, second))
        return self(first, second).middle[..., :height, :width].clamp(0, 1)


class FlowBlock(nn.Module):
    """Corrects flow and mask at one resolution.

    Args:
        in_channels: pictures, mask logit and flow together.
        channels: width.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv0 = nn.Sequential(_conv(in_channels, half, 2), _conv(half, channels, 2))
        self.convblock0 = nn.Sequential(_conv(channels, channels), _conv(channels, channels))
        self.convblock1 = nn.Sequential(_conv(channels, channels), _conv(channels, channels))
        self.convblock2 = nn.Sequential(_conv(channels, channels), _conv(channels, channels))
        self.convblock3 = nn.Sequential(_conv(channels, channels), _conv(channels, channels))
        self.conv1 = _upsample(channels, half, 4)
        self.conv2 = _upsample(channels, half, 1)

    def forward(self, pictures: Tensor, flow: Tensor, scale: int) -> tuple[Tensor, Tensor]:
        """Return corrections of the flow (4 channels) and of the mask's logit (1 channel).

        Args:
            pictures: warped pictures and mask logit `(batch, 7, height, width)`.
            flow: in pixels `(batch, 4, height, width)`.
            scale: the block works at 1 / `scale` of the resolution.
        """
        pictures, flow = _resize(pictures, 1 / scale), _resize(flow, 1 / scale) / scale
        hidden = self.conv0(torch.cat([pictures, flow], 1))
        for convs in (self.convblock0, self.convblock1, self.convblock2, self.convblock3):
            hidden = hidden + convs(hidden)
        return _resize(self.conv1(hidden), scale) * scale, _resize(self.conv2(hidden), scale)


def warp(picture: Tensor, flow: Tensor) -> Tensor:
    """Fetch each pixel from where the flow points; beyond the border the border's pixel counts.

    Args:
        picture: `(batch, channels, height, width)`.
        flow: x and y offset in pixels `(batch, 2, height, width)`.
    """
    height, width = picture.shape[-2:]
    options = {"device": flow.device, "dtype": flow.dtype}
    # grid_sample's range: -1 and 1 are the centres of the outermost pixels
    rows, columns = torch.linspace(-1, 1, height, **options), torch.linspace(-1, 1, width, **options)
    x = columns + flow[:, 0] * (2 / max(width - 1, 1))
    y = rows[:, None] + flow[:, 1] * (2 / max(height - 1, 1))
    grid = torch.stack([x, y], dim=-1)
    return F.grid_sample(picture, grid, mode="bilinear", padding_mode="border", align_corners=True)


def load_rife(path: Path) -> IFNet:
    """Load the published `flownet.pkl`, in eval mode, without running code stored in it.

    Raises:
        DicetalkError: when the file is not one of plain tensors or belongs to another network.
    """
    model = IFNet()
    state = {name.removeprefix(PREFIX): value for name, value in read_state_dict(path).items()}
    load_strictly(model, state, str(path))
    return model.eval()


def _exchanged(flow: Tensor) -> Tensor:
    return torch.cat([flow[:, 2:], flow[:, :2]], 1)


def _resize(tensor: Tensor, factor: float) -> Tensor:
    if factor == 1:
        return tensor
    return F.interpolate(
        tensor, scale_factor=factor, mode="bilinear", align_corners=False, recompute_scale_factor=False
    )


def _conv(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1), nn.PReLU(out_channels)
    )


def _upsample(in_channels: int, hidden: int, out_channels: int) -> nn.Sequential:
    """Fourfold resolution, the inverse of `conv0`'s two strides."""
    return nn.Sequential(
        nn.ConvTranspose2d(in_channels, hidden, 4, stride=2, padding=1),
        nn.PReLU(hidden),
        nn.ConvTranspose2d(hidden, out_channels, 4, stride=2, padding=1),
    )
