"""Random models of the sizes that are measured."""

from __future__ import annotations

import torch

from dicetalk.models.pose_guider import PoseGuider
from dicetalk.models.unet import DiceTalkUNet

TOKENS, TOKEN_DIM = 32, 1024


def mid_size_unet(block_out_channels: tuple[int, ...] = (64, 128, 256, 256)) -> DiceTalkUNet:
    """SVD's four levels at a fifth of its width; its tokens are full size."""
    torch.manual_seed(0)
    return DiceTalkUNet(
        block_out_channels=block_out_channels,
        num_attention_heads=tuple(max(width // 32, 1) for width in block_out_channels),
        cross_attention_dim=TOKEN_DIM,
    ).eval()


def pose_guider(unet: DiceTalkUNet) -> PoseGuider:
    """Full-size guider with a non-zero last layer, so that its output counts."""
    guider = PoseGuider(conditioning_embedding_channels=unet.config.block_out_channels[0]).eval()
    torch.nn.init.normal_(guider.conv_out.weight, std=0.02)
    return guider


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def face_mask(size_px: int) -> torch.Tensor:
    """A rectangle with soft edges `(1, 1, size_px, size_px)`."""
    mask = torch.zeros(1, 1, size_px, size_px)
    mask[..., size_px // 5 : -size_px // 5, size_px // 4 : -size_px // 4] = 1
    return torch.nn.functional.avg_pool2d(mask, 3, stride=1, padding=1)
