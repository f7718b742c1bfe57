"""A second in-domain opinion on emotion, of another architecture, and how strong the expression is.

The first emotion network sees colours through convolutions. This one sees no colour at all, only which way
brightness changes in small cells of the crop (histograms of oriented gradients: Dalal and Triggs 2005), as
tokens of a transformer. What both agree on is not an accident of one network, nor of skin colour.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dicetalk.evaluation.networks import SIZE_PX
from dicetalk.labels import EMOTIONS

LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601
NUM_DIRECTIONS, CELL_PX, TOKEN_CELLS = 8, 4, 2  # a token covers 2 x 2 cells
NUM_TOKENS = (SIZE_PX // CELL_PX // TOKEN_CELLS) ** 2
TOKEN_CHANNELS = NUM_DIRECTIONS * TOKEN_CELLS**2
ROOT_OFFSET = 1e-4  # the root of a flat cell must have a gradient


def oriented_gradients(frames: Tensor) -> Tensor:
    """Describe each 8 x 8 px patch by how strongly brightness rises in 8 directions in its 4 cells.

    Args:
        frames: `(frames, 3, 64, 64)` in [-1, 1].

    Returns:
        `(frames, 64, 32)`, each patch brought to mean 0 and variance 1, so that contrast does not count.
    """
    grey = (frames * frames.new_tensor(LUMINANCE)[:, None, None]).sum(dim=1, keepdim=True)
    padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    across = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    down = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    angles = torch.arange(NUM_DIRECTIONS, device=frames.device) * (2 * math.pi / NUM_DIRECTIONS)
    directions = angles[:, None, None]
    rising = (across * directions.cos() + down * directions.sin()).relu()
    cells = F.avg_pool2d(rising, CELL_PX)
    patches = F.unfold(cells, TOKEN_CELLS, stride=TOKEN_CELLS).transpose(1, 2)
    return F.layer_norm((patches + ROOT_OFFSET).sqrt(), (TOKEN_CHANNELS,))


class GradientEmotionNet(nn.Module):
    """Which of the eight emotions does a frame show, and how strongly?

    Strength is in intensity levels: 0 is neutral, 1 to 3 are MEAD's levels, as labelled in training clips.

    Args:
        dim: width of the tokens.
        depth: transformer layers.
        dropout: inside of them.
    """

    name = "in-domain-emotion-gradients"

    def __init__(self, dim: int = 64, depth: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        self.config = {"dim": dim, "depth": depth, "dropout": dropout}
        self.embed = nn.Linear(TOKEN_CHANNELS, dim)
        self.positions = nn.Parameter(0.02 * torch.randn(NUM_TOKENS, dim))
        layer = nn.TransformerEncoderLayer(
            dim, 4, 2 * dim, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, depth, nn.LayerNorm(dim), enable_nested_tensor=False)
        # Where a patch lies matters in a face crop, so patches are joined, not averaged.
        self.join = nn.Sequential(
            nn.Linear(dim, 16), nn.Flatten(), nn.Linear(16 * NUM_TOKENS, dim), nn.GELU(), nn.Dropout(0.3)
        )
        self.emotion, self.strength = nn.Linear(dim, len(EMOTIONS)), nn.Linear(dim, 1)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Map `(frames, 3, 64, 64)` in [-1, 1] to logits `(frames, 8)` and strengths `(frames,)`."""
        tokens = self.embed(oriented_gradients(frames)) + self.positions
        features = self.join(self.encoder(tokens))
        return self.emotion(features), self.strength(features).squeeze(-1)
