"""How close are the frames themselves to the real ones? PSNR, SSIM and LPIPS, where there is ground truth.

They ask for the same picture, not for a good one: a head that moves otherwise than the real one scores badly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from dicetalk.config import Evaluate
from dicetalk.errors import DicetalkError
from dicetalk.evaluation.systems import find_system
from dicetalk.evaluation.trial import Trial

if TYPE_CHECKING:
    from torch import Tensor

MIN_PX = 32  # SSIM's window and AlexNet's poolings need as much


def measure(trial: Trial, settings: Evaluate) -> dict[str, float]:
    """Return `psnr`, `ssim` and `lpips`, which were computed while both videos were in memory."""
    if not find_system(trial.system).has_ground_truth:
        return {}
    return {name: float(trial.shown[name]) for name in ("psnr", "ssim", "lpips") if name in trial.shown}


def compare_pixels(
    generated: np.ndarray,
    real: np.ndarray,
    stride: int,
    perceptual: Callable[[Tensor, Tensor], float] | None = None,
) -> dict[str, np.ndarray]:
    """Compare the frames two videos have in common, generated ones scaled to the real size.

    PSNR is that of the mean squared error of the whole clip; SSIM (Gaussian window of 11, sigma 1.5) and
    LPIPS are means over frames.

    Args:
        generated: uint8 RGB `(frames, height, width, 3)`.
        real: the same moments of the real video, of any size.
        stride: every n-th frame is compared.
        perceptual: LPIPS of two pictures `(1, 3, height, width)` in [-1, 1], if its network is here.

    Returns:
        `psnr` in dB, unless all frames are equal and it is infinite, `ssim` and, with its network, `lpips`:
        single numbers.

    Raises:
        DicetalkError: when frames are smaller than 32 px.
    """
    import cv2
    import torch
    from torchmetrics.functional.image import structural_similarity_index_measure

    count = min(len(generated), len(real))
    height, width = real.shape[1:3]
    if min(height, width) < MIN_PX:
        raise DicetalkError(f"frames of {width} x {height} px are too small to compare, at least {MIN_PX} px")
    squared, similarities, distances = [], [], []
    with torch.inference_mode():
        for shown, wanted in zip(generated[:count:stride], real[:count:stride], strict=True):
            if shown.shape != wanted.shape:
                smaller = shown.shape[0] > height
                shown = cv2.resize(
                    shown, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
                )
            a, b = (torch.from_numpy(frame).permute(2, 0, 1)[None].float() for frame in (shown, wanted))
            squared.append(float(np.square(shown.astype(np.float64) - wanted).mean()))
            similarities.append(float(structural_similarity_index_measure(a, b, data_range=255.0)))  # type: ignore[arg-type]
            if perceptual is not None:
                distances.append(perceptual(a / 127.5 - 1, b / 127.5 - 1))
    compared = {"ssim": np.array(np.mean(similarities))}
    if any(squared):
        compared["psnr"] = np.array(10 * np.log10(255.0**2 / np.mean(squared)))
    return compared | ({"lpips": np.array(np.mean(distances))} if distances else {})
