"""SyncNet (Chung & Zisserman 2016) with the tensor names of `syncnet_v2.model`.

Five frames of 224 px (BGR, 0 to 255, as OpenCV reads them) against the 20 MFCC columns that sound during
them.
"""

from __future__ import annotations

from torch import Tensor, nn

INPUT_PX = 224
WINDOW_FRAMES = 5
EMBEDDING_DIM = 1024


def _audio_layer(
    in_channels: int, out_channels: int, kernel: tuple[int, int] = (3, 3), padding: int = 1
) -> list:
    return [
        nn.Conv2d(in_channels, out_channels, kernel, padding=padding),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    ]


def _lip_layer(
    in_channels: int, out_channels: int, kernel: tuple[int, int, int], stride: int = 1, padding: int = 0
) -> list:
    return [
        nn.Conv3d(in_channels, out_channels, kernel, (1, stride, stride), (0, padding, padding)),
        nn.BatchNorm3d(out_channels),
        nn.ReLU(),
    ]


def _shrink(padding: int = 0) -> nn.Module:
    return nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, padding, padding))


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, EMBEDDING_DIM))


class SyncNetV2(nn.Module):
    """Two towers into one space."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_audio_layer(1, 64),
            nn.Identity(),  # a pooling of 1 x 1 in the published network; it holds a place in the numbering
            *_audio_layer(64, 192),
            nn.MaxPool2d((3, 3), (1, 2)),
            *_audio_layer(192, 384),
            *_audio_layer(384, 256),
            *_audio_layer(256, 256),
            nn.MaxPool2d((3, 3), (2, 2)),
            *_audio_layer(256, 512, (5, 4), padding=0),
        )
        self.netcnnlip = nn.Sequential(
            *_lip_layer(3, 96, (5, 7, 7), stride=2),
            _shrink(),
            *_lip_layer(96, 256, (1, 5, 5), stride=2, padding=1),
            _shrink(padding=1),
            *_lip_layer(256, 256, (1, 3, 3), padding=1),
            *_lip_layer(256, 256, (1, 3, 3), padding=1),
            *_lip_layer(256, 256, (1, 3, 3), padding=1),
            _shrink(),
            *_lip_layer(256, 512, (1, 6, 6)),
        )
        self.netfcaud, self.netfclip = _head(), _head()

    def embed_video(self, windows: Tensor) -> Tensor:
        """Map `(windows, 3, 5, 224, 224)` BGR in [0, 255] to `(windows, 1024)`."""
        return self.netfclip(self.netcnnlip(windows).flatten(1))

    def embed_audio(self, windows: Tensor) -> Tensor:
        """Map MFCC `(windows, 1, 13, 20)`, coefficients by time, to `(windows, 1024)`."""
        return self.netfcaud(self.netcnnaud(windows).flatten(1))
