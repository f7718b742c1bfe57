"""A small network that tells whether lips and sound belong together, after SyncNet (Chung & Zisserman, 2016).

Like SyncNet it compares 5 consecutive frames at 25 fps with the 0.2 s of 13 MFCC at 100 Hz that sound
during them. Unlike SyncNet it sees the lower half of the face crop only, in grey, and its embeddings have
length one, so distances lie in [0, 2].
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dicetalk.errors import DicetalkError
from dicetalk.evaluation.mfcc import NUM_COEFFICIENTS, RATE_HZ, SAMPLE_RATE_HZ, mfcc
from dicetalk.evaluation.networks import SIZE_PX, convolution

FPS = 25
WINDOW_FRAMES = 5
COLUMNS_PER_FRAME = RATE_HZ // FPS
WINDOW_COLUMNS = WINDOW_FRAMES * COLUMNS_PER_FRAME


class InDomainSyncNet(nn.Module):
    """Two towers into one space: windows of lips and windows of sound.

    Args:
        embedding_dim: length of the embeddings.
        mfcc_mean: mean of each coefficient over training sound, kept in the weights.
        mfcc_std: standard deviation of each coefficient over training sound, kept in the weights.
    """

    name = "in-domain-sync"

    def __init__(
        self, embedding_dim: int = 64, mfcc_mean: np.ndarray | None = None, mfcc_std: np.ndarray | None = None
    ) -> None:
        super().__init__()
        self.config = {"embedding_dim": embedding_dim}
        zeros, ones = np.zeros(NUM_COEFFICIENTS), np.ones(NUM_COEFFICIENTS)
        self.register_buffer(
            "mfcc_mean", torch.tensor(zeros if mfcc_mean is None else mfcc_mean, dtype=torch.float32)
        )
        self.register_buffer(
            "mfcc_std", torch.tensor(ones if mfcc_std is None else mfcc_std, dtype=torch.float32)
        )
        self.video = nn.Sequential(
            convolution(WINDOW_FRAMES, 32, kernel_size=5),
            convolution(32, 48),
            convolution(48, 64),
            convolution(64, 96),
            nn.Flatten(),
            nn.Linear(96 * 2 * 4, embedding_dim),
        )
        self.audio = nn.Sequential(
            convolution(1, 32, stride=1),
            convolution(32, 48),
            convolution(48, 64),
            nn.Flatten(),
            nn.Linear(64 * 4 * 5, embedding_dim),
        )

    def embed_video(self, windows: Tensor) -> Tensor:
        """Map lips `(windows, 5, 1, 32, 64)` in [-1, 1] to unit vectors `(windows, embedding_dim)`."""
        return F.normalize(self.video(windows.flatten(1, 2)), dim=-1)

    def embed_audio(self, windows: Tensor) -> Tensor:
        """Map MFCC windows `(windows, 20, 13)` to unit vectors `(windows, embedding_dim)`."""
        standardised = (windows - self.mfcc_mean) / self.mfcc_std
        return F.normalize(self.audio(standardised.movedim(-1, -2).unsqueeze(1)), dim=-1)


def mouth_region(frames: Tensor) -> Tensor:
    """Return the grey lower half `(..., 1, 32, 64)` of face crops `(..., 3, 64, 64)`: mouth and chin."""
    return frames[..., SIZE_PX // 2 :, :].mean(dim=-3, keepdim=True)


def video_windows(frames: Tensor) -> Tensor:
    """Cut frames `(frames, channels, height, width)` into `(frames - 4, 5, channels, height, width)`."""
    return frames.unfold(0, WINDOW_FRAMES, 1).movedim(-1, 1)


def audio_windows(samples: np.ndarray, num_frames: int) -> Tensor:
    """Return MFCC windows `(num_frames - 4, 20, 13)` of 16 kHz sound; window i starts at frame i.

    Raises:
        DicetalkError: when the sound ends before the frames do, by more than the last MFCC window.
    """
    needed = num_frames * COLUMNS_PER_FRAME
    columns = mfcc(samples)[:needed]
    missing = needed - len(columns)
    if missing > COLUMNS_PER_FRAME:
        seconds = len(samples) / SAMPLE_RATE_HZ
        raise DicetalkError(f"sound of {seconds:.2f} s is shorter than {num_frames} frames at {FPS} fps")
    columns = np.pad(columns, ((0, max(missing, 0)), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(columns, WINDOW_COLUMNS, axis=0)[::COLUMNS_PER_FRAME]
    return torch.from_numpy(np.ascontiguousarray(windows.swapaxes(1, 2), dtype=np.float32))
