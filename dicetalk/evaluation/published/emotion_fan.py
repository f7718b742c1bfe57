"""Emotion-FAN (Meng et al. 2019): ResNet-18 features of frames, weighted by self- and relation-attention.

The eight-class network that EAT (Gan et al. 2023) fine-tuned on MEAD and that later papers call emotion
accuracy. Tensor names are those of its checkpoint's `state_dict`, without `module.`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

INPUT_PX = 224
CLASSES = ("happy", "angry", "disgusted", "fear", "sad", "neutral", "surprised", "contempt")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, as in torchvision's ResNet-18."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        same = stride == 1 and in_channels == out_channels
        self.downsample = (
            nn.Identity()
            if same
            else nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `(images, in_channels, height, width)` to `(images, out_channels, ...)`."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.downsample(x))


class EmotionFan(nn.Module):
    """Frames of one video to eight emotions, in the order of `CLASSES`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(BasicBlock(64, 64, 1), BasicBlock(64, 64, 1))
        self.layer2 = nn.Sequential(BasicBlock(64, 128, 2), BasicBlock(128, 128, 1))
        self.layer3 = nn.Sequential(BasicBlock(128, 256, 2), BasicBlock(256, 256, 1))
        self.layer4 = nn.Sequential(BasicBlock(256, 512, 2), BasicBlock(512, 512, 1))
        self.alpha = nn.Sequential(nn.Linear(512, 1), nn.Sigmoid())
        self.beta = nn.Sequential(nn.Linear(1024, 1), nn.Sigmoid())
        self.pred_fc1 = nn.Linear(
            512, len(CLASSES)
        )  # of the variant without relations; in the file, not used
        self.pred_fc2 = nn.Linear(1024, len(CLASSES))

    def features(self, faces: Tensor) -> Tensor:
        """Map `(frames, 3, 224, 224)` RGB in [0, 1], not normalised further, to `(frames, 512)`."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(faces))), 3, stride=2, padding=1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean(dim=(2, 3))

    def judge(self, features: Tensor) -> Tensor:
        """Map the features `(frames, 512)` of all frames of one video to its logits `(8,)`."""
        attention = self.alpha(features)
        video = (features * attention).sum(dim=0) / attention.sum()
        related = torch.cat([features, video.expand_as(features)], dim=1)
        relation = self.beta(related)
        # As published, features are weighted by the first attention and divided by the sum of both's product.
        return self.pred_fc2((related * attention).sum(dim=0) / (attention * relation).sum())
