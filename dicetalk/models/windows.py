"""Which frames the UNet sees together at each denoising step of a video longer than its window."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dicetalk.errors import DicetalkError


@dataclass(frozen=True)
class WindowPlan:
    """Windows over the frames, shifted from step to step so that their borders never settle.

    Args:
        size: frames per window, the number the UNet was trained with.
        overlap: frames shared by neighbouring windows of one step.
        shift: frames the windows move per step.
        ring: the official scheme, windows on a ring that needs `size` extra unconditional frames to keep the
            end apart from the start. False keeps the first and last window inside the clip, which costs no
            extra frames.

    Raises:
        DicetalkError: when `overlap` leaves no progress from window to window.
    """

    size: int = 25
    overlap: int = 0
    shift: int = 7
    ring: bool = False

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= self.overlap < self.size:
            raise DicetalkError(
                f"Windows of {self.size} frames cannot overlap by {self.overlap}; "
                "the overlap must be at least 0 and smaller than the window."
            )

    @property
    def num_padding_frames(self) -> int:
        """Extra frames to denoise after the clip's own."""
        return self.size if self.ring else 0

    def frame_indices(self, num_frames: int, step: int) -> torch.Tensor:
        """Return the frames of each window at one step, `(windows, frames)`.

        Args:
            num_frames: frames to denoise, padding included.
            step: denoising step, counted from 0.
        """
        size, stride = min(self.size, num_frames), self.size - self.overlap
        shift = step * self.shift % self.size
        if self.ring:
            starts = torch.arange(0, num_frames, stride) - shift
        else:
            # The range reaches past the end, clamping pulls the outer windows inside
            starts = torch.arange(-shift, num_frames, stride).clamp(0, num_frames - size).unique()
        return (starts[:, None] + torch.arange(size)) % num_frames
