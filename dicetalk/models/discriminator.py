"""Emotion discrimination: which (emotion, level) do the UNet's deep features show?"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class EmotionDiscriminator(nn.Module):
    """Global average pooling and a three-layer classifier (official `Classifier` inside the emotion model).

    Args:
        in_channels: channels of the UNet features (1280 for SVD's mid block).
        num_classes: 22 = 7 emotions x 3 levels + neutral, in the order of `dicetalk.labels`.
        dropout: dropout probability after each hidden layer.
    """

    def __init__(self, in_channels: int = 1280, num_classes: int = 22, dropout: float = 0.1):
        super().__init__()
        self.fc1 = nn.Linear(in_channels, 512)
        self.fc2 = nn.Linear(512, 256)
        self.fc3 = nn.Linear(256, num_classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Classify features `(..., channels, height, width)` into logits `(..., num_classes)`."""
        hidden = features.mean(dim=(-2, -1))
        hidden = self.dropout(F.relu(self.fc1(hidden)))
        hidden = self.dropout(F.relu(self.fc2(hidden)))
        return self.fc3(hidden)
