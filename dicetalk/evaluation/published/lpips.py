"""LPIPS (Zhang et al. 2018), version 0.1 with AlexNet: distance of pictures in the features of a network.

Tensor names of the features are those of torchvision's `alexnet-owt-7be5be79.pth`. The five learned
weightings are small and come with torchmetrics, which itself loads LPIPS only together with torchvision.
"""

from __future__ import annotations

from importlib.resources import as_file, files

import torch
from torch import Tensor, nn

from dicetalk.evaluation.published.states import read_state

CHANNELS = (64, 192, 384, 256, 256)
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
EPSILON = 1e-8


class Lpips(nn.Module):
    """Pairs of pictures to distances; 0 for equal ones."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
        )
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None], persistent=False)
        for index, weights in enumerate(_weightings()):
            self.register_buffer(f"weighting{index}", weights, persistent=False)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Map two times `(pictures, 3, height, width)` RGB in [-1, 1], at least 64 px, to `(pictures,)`."""
        total = torch.zeros(len(first))
        both = (torch.cat([first, second]) - self.shift) / self.scale
        layer = 0
        for module in self.features:
            both = module(both)
            if isinstance(module, nn.ReLU):
                a, b = (both / (both.square().sum(dim=1, keepdim=True) + EPSILON).sqrt()).chunk(2)
                weighted = (a - b).square() * getattr(self, f"weighting{layer}")
                total = total + weighted.sum(dim=1).mean(dim=(1, 2))
                layer += 1
        return total


def _weightings() -> list[Tensor]:
    """Return the weight of each channel of each layer `(1, channels, 1, 1)`."""
    source = files("torchmetrics.functional.image") / "lpips_models" / "alex.pth"
    with as_file(source) as path:
        state = read_state(path)
    weights = [state[f"lin{index}.model.1.weight"] for index in range(len(CHANNELS))]
    assert [value.shape[1] for value in weights] == list(CHANNELS)
    return weights
