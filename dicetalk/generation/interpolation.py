"""From the model's frame rate to the video's: the frames between the generated ones.

`to_output_rate` is the only entry; an `Interpolator` says what goes between two frames. The result keeps the
generated frames and repeats the last one, so that it is as long as the sound. (The official code leaves out
that last frame and ends one frame before the sound.)
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
import torch

from dicetalk import weights
from dicetalk.errors import DicetalkError
from dicetalk.models.rife import IFNet, load_rife
from dicetalk.progress import log

RIFE_WEIGHTS = "rife-hdv3"
PAIRS_PER_BATCH = 4  # at 512 px RIFE needs about 100 MB per pair of frames in float32


class Interpolator(Protocol):
    """Makes the frames between neighbours.

    Attributes:
        name: what it is, for the metadata of videos.
    """

    name: str

    def between(self, first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
        """Return the frames at `share` of the way from `first` to `second`.

        Args:
            first: float32 `(pairs, height, width, 3)` in [0, 1].
            second: likewise.
            share: in (0, 1).
        """
        ...


class LinearInterpolator:
    """A plain filter: the weighted mean of both neighbours. Moving edges show twice."""

    name = "linear interpolations"

    def between(self, first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
        """Blend as documented in `Interpolator`."""
        return np.float32(1 - share) * first + np.float32(share) * second


class RifeInterpolator:
    """Motion-compensated interpolation with RIFE, as in the official release.

    Args:
        model: the network, on the device to compute on.
    """

    name = "interpolated by RIFE (IFNet HDv3)"

    def __init__(self, model: IFNet) -> None:
        self.model = model

    def between(self, first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
        """Interpolate as documented in `Interpolator`; halves the way again and again to reach `share`.

        Raises:
            DicetalkError: when `share` is not a multiple of 1/16.
        """
        if share * 16 != int(share * 16):
            raise DicetalkError(
                f"RIFE halves the time between frames; {share:.3f} of it cannot be reached. Use a frame "
                "stride that is a power of two, or `generate.interpolation: linear`."
            )
        low, high = (self._tensor(frames) for frames in (first, second))
        begin, end = 0.0, 1.0
        while True:
            middle, time = self.model.middle(low, high), (begin + end) / 2
            if time == share:
                return middle.permute(0, 2, 3, 1).cpu().numpy()
            low, high = (low, middle) if share < time else (middle, high)
            begin, end = (begin, time) if share < time else (time, end)

    def _tensor(self, frames: np.ndarray) -> torch.Tensor:
        device = next(self.model.parameters()).device
        return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).to(device)


def load_interpolator(wanted: Literal["rife", "linear"], device: torch.device | str = "cpu") -> Interpolator:
    """Return the interpolator of `generate.interpolation`; a plain filter where RIFE's weights cannot be had.

    Args:
        wanted: `rife` or `linear`.
        device: where RIFE computes.
    """
    if wanted == "linear":
        return LinearInterpolator()
    try:
        path = weights.resolve(RIFE_WEIGHTS)
    except DicetalkError as error:
        log(f"{error}\nFrames between the model's will be {LinearInterpolator.name}.")
        return LinearInterpolator()
    return RifeInterpolator(load_rife(path).to(device))


def to_output_rate(frames: np.ndarray, stride: int, interpolator: Interpolator | None = None) -> np.ndarray:
    """Put `stride - 1` frames between neighbours; the last frame is repeated.

    Works through the video in batches, so memory beyond the result does not grow with its length.

    Args:
        frames: float32 `(frames, height, width, 3)` in [0, 1].
        stride: output frames per input frame.
        interpolator: default: linear.

    Returns:
        uint8 `(stride * frames, height, width, 3)`.
    """
    interpolator = interpolator or LinearInterpolator()
    count = len(frames)
    result = np.empty((stride * count, *frames[0].shape), np.uint8)
    for start in range(0, count, PAIRS_PER_BATCH):
        batch = frames[start : start + PAIRS_PER_BATCH + 1]
        kept, pairs = batch[:PAIRS_PER_BATCH], len(batch) - 1
        place = stride * start
        result[place : place + stride * len(kept) : stride] = _to_uint8(kept)
        for step in range(1, stride if pairs else 1):
            between = interpolator.between(batch[:-1], batch[1:], step / stride)
            result[place + step : place + stride * pairs : stride] = _to_uint8(between)
    result[stride * (count - 1) :] = result[stride * (count - 1)]
    return result


def _to_uint8(pictures: np.ndarray) -> np.ndarray:
    return np.round(pictures.clip(0, 1) * 255).astype(np.uint8)
