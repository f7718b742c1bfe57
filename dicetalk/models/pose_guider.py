"""Where the face is: the face mask, encoded to be added after the UNet's first convolution."""

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn import functional as F


class PoseGuider(ModelMixin, ConfigMixin):
    """Small convolutional encoder of the face mask (official `PoseGuider`, `pose_guider.pth`).

    Args:
        conditioning_embedding_channels: channels of the UNet's `conv_in`.
        conditioning_channels: image channels of the mask; the official mask repeats one plane three times.
        block_out_channels: widths; each step after the first halves the resolution, so their number must fit
            the autoencoder (four for a factor of 8).
    """

    @register_to_config
    def __init__(
        self,
        conditioning_embedding_channels: int = 320,
        conditioning_channels: int = 3,
        block_out_channels: tuple[int, ...] = (16, 32, 96, 256),
    ):
        super().__init__()
        self.conv_in = nn.Conv2d(conditioning_channels, block_out_channels[0], kernel_size=3, padding=1)
        self.blocks = nn.ModuleList()
        for narrow, wide in zip(block_out_channels, block_out_channels[1:], strict=False):
            self.blocks.append(nn.Conv2d(narrow, narrow, kernel_size=3, padding=1))
            self.blocks.append(nn.Conv2d(narrow, wide, kernel_size=3, padding=1, stride=2))
        self.conv_out = nn.Conv2d(
            block_out_channels[-1], conditioning_embedding_channels, kernel_size=3, padding=1
        )
        # Zero, so that training starts from the unguided backbone
        for parameter in self.conv_out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, face_mask: torch.Tensor) -> torch.Tensor:
        """Encode masks.

        Args:
            face_mask: `(batch, 1 or conditioning_channels, height, width)` in [0, 1]; a single plane is
                repeated.

        Returns:
            Pose feature `(batch, conditioning_embedding_channels, height / 8, width / 8)` (8: four widths).
        """
        hidden = face_mask.expand(-1, self.config.conditioning_channels, -1, -1)
        hidden = F.silu(self.conv_in(hidden))
        for block in self.blocks:
            hidden = F.silu(block(hidden))
        return self.conv_out(hidden)
