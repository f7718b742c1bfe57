"""What each network says about a video: a reader turns frames or sound into the named arrays of its role."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dicetalk.evaluation.faces import Video

Parts = dict[str, np.ndarray]


class Reader:
    """A network with its name and the sha256 of its weights, which are reported next to its numbers.

    Attributes:
        name: of the network.
        sha256: of its weights; empty for a formula.
        emotions: what an emotion network can tell apart.
    """

    emotions: tuple[str, ...] = ()

    def __init__(self, name: str, sha256: str) -> None:
        self.name, self.sha256 = name, sha256

    def see(self, video: Video) -> Parts:
        """Return the parts of a video's frames; raises `DicetalkError` when they cannot be read."""
        raise NotImplementedError

    def hear(self, samples: np.ndarray, num_frames: int) -> Parts:
        """Return the parts of sound `(samples,)` during `num_frames` frames; only `sync` has any."""
        return {}

    def compare(self, first: Tensor, second: Tensor) -> float:
        """Return the distance of two pictures `(1, 3, height, width)`; only `perceptual` has one."""
        raise NotImplementedError


@torch.inference_mode()
def see(reader: Reader, video: Video) -> Parts:
    """Call `reader.see` without recording gradients."""
    return reader.see(video)


@torch.inference_mode()
def hear(reader: Reader, samples: np.ndarray, num_frames: int) -> Parts:
    """Call `reader.hear` without recording gradients."""
    return reader.hear(samples, num_frames)
