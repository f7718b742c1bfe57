"""ArcFace's IResNet-50 (Deng et al. 2019; residual units of Duta et al. 2020): faces to 512 numbers.

Tensor names are those of InsightFace's `backbone.pth` for r50, e.g. of `ms1mv3_arcface_r50_fp16`.
"""

from __future__ import annotations

from torch import Tensor, nn

INPUT_PX = 112
EMBEDDING_DIM = 512


class Unit(nn.Module):
    """Batch normalisation before, between and after two 3x3 convolutions, and a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.prelu = nn.PReLU(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = (
            nn.Identity()
            if stride == 1
            else nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `(images, in_channels, height, width)` to `(images, out_channels, ...)`."""
        y = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(y)) + self.downsample(x)


class ArcFaceR50(nn.Module):
    """Aligned faces to embeddings; their cosine compares two faces."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.prelu = nn.PReLU(64)
        self.layer1 = _stage(64, 64, 3)
        self.layer2 = _stage(64, 128, 4)
        self.layer3 = _stage(128, 256, 14)
        self.layer4 = _stage(256, 512, 3)
        self.bn2 = nn.BatchNorm2d(512)
        self.fc = nn.Linear(512 * 7 * 7, EMBEDDING_DIM)
        self.features = nn.BatchNorm1d(EMBEDDING_DIM)

    def forward(self, faces: Tensor) -> Tensor:
        """Map aligned faces `(faces, 3, 112, 112)` RGB in [-1, 1] to `(faces, 512)`, not normalised."""
        x = self.prelu(self.bn1(self.conv1(faces)))
        x = self.bn2(self.layer4(self.layer3(self.layer2(self.layer1(x)))))
        return self.features(self.fc(x.flatten(1)))


def _stage(in_channels: int, out_channels: int, units: int) -> nn.Sequential:
    first = Unit(in_channels, out_channels, 2)
    return nn.Sequential(first, *(Unit(out_channels, out_channels, 1) for _ in range(units - 1)))
