"""In-domain networks for emotion and identity metrics: small, trained on real clips, named as such.

They judge demo videos, which published networks were never trained on. Numbers read through them compare
systems inside one run; they do not compare with numbers read through the published networks.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dicetalk.evaluation.clips import resize
from dicetalk.labels import EMOTIONS

SIZE_PX = 64
FACE_MARGIN_PX = 10  # `preprocess` leaves this much around the face box: hair, clothes, background


def to_input(frames: np.ndarray, size_px: int = SIZE_PX) -> Tensor:
    """Turn uint8 frames `(frames, height, width, 3)` into input `(frames, 3, size_px, size_px)`."""
    return normalise(torch.from_numpy(np.ascontiguousarray(resize(frames, size_px))))


def normalise(frames: Tensor) -> Tensor:
    """Turn uint8 frames `(..., height, width, 3)` into float32 `(..., 3, height, width)` in [-1, 1]."""
    return frames.movedim(-1, -3).float() / 127.5 - 1.0


def convolution(
    in_channels: int, out_channels: int, kernel_size: int = 3, stride: int | tuple[int, int] = 2
) -> nn.Module:
    """Convolution, group normalisation, SiLU.

    Group instead of batch normalisation: generated frames are then scored independently of what else is in
    the batch and of statistics of real frames.
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2),
        nn.GroupNorm(8, out_channels),
        nn.SiLU(),
    )


class FrameTrunk(nn.Module):
    """Frame to feature vector; the last 4 x 4 map is flattened because position matters in a face crop."""

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            convolution(3, 24, kernel_size=5), convolution(24, 48), convolution(48, 64), convolution(64, 96)
        )
        self.project = nn.Linear(96 * 4 * 4, feature_dim)

    def forward(self, frames: Tensor) -> Tensor:
        """Map `(frames, 3, 64, 64)` in [-1, 1] to `(frames, feature_dim)`."""
        return self.project(self.convolutions(frames).flatten(1))


class FrameEmotionNet(nn.Module):
    """Which of the eight emotions does a frame show? The logits of a video are the mean over its frames."""

    name = "in-domain-emotion"

    def __init__(self, feature_dim: int = 64, dropout: float = 0.3) -> None:
        super().__init__()
        self.config = {"feature_dim": feature_dim, "dropout": dropout}
        self.trunk = FrameTrunk(feature_dim)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(feature_dim, len(EMOTIONS))

    def features(self, frames: Tensor) -> Tensor:
        """Map `(frames, 3, 64, 64)` in [-1, 1] to features `(frames, feature_dim)`."""
        return F.silu(self.trunk(frames))

    def forward(self, frames: Tensor) -> Tensor:
        """Map `(frames, 3, 64, 64)` in [-1, 1] to logits `(frames, 8)` in the order of `EMOTIONS`."""
        return self.head(self.dropout(self.features(frames)))


class IdentityNet(nn.Module):
    """Who is it? Unit vectors whose cosine compares two faces, trained as a cosine softmax.

    Only the middle of the crop is seen: clothes and background would give the person away without the face.

    Args:
        num_identities: training identities.
        feature_dim: length of the embedding.
        scale: inverse temperature of the cosine softmax (about 10-30 for few classes; CosFace uses 64 for
            thousands).
    """

    name = "in-domain-identity"

    def __init__(self, num_identities: int, feature_dim: int = 64, scale: float = 16.0) -> None:
        super().__init__()
        self.config = {"num_identities": num_identities, "feature_dim": feature_dim, "scale": scale}
        self.trunk = FrameTrunk(feature_dim)
        self.centres = nn.Parameter(torch.randn(num_identities, feature_dim))
        self.scale = scale

    def embed(self, frames: Tensor) -> Tensor:
        """Map `(frames, 3, 64, 64)` in [-1, 1] to unit vectors `(frames, feature_dim)`."""
        inner = slice(FACE_MARGIN_PX, SIZE_PX - FACE_MARGIN_PX)
        face = F.interpolate(
            frames[..., inner, inner], size=(SIZE_PX, SIZE_PX), mode="bilinear", align_corners=False
        )
        return F.normalize(self.trunk(face), dim=-1)

    def forward(self, frames: Tensor) -> Tensor:
        """Map `(frames, 3, 64, 64)` in [-1, 1] to logits `(frames, num_identities)`."""
        return self.scale * self.embed(frames) @ F.normalize(self.centres, dim=-1).T
