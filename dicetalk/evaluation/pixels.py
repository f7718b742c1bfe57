"""How close are the frames themselves to the real ones? PSNR, SSIM and LPIPS, where there is ground truth.

They ask for the same picture, not for a good one: a head that moves otherwise than the real one scores badly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from dicetalk.errors import DicetalkError

if TYPE_CHECKING:
    from dicetalk.evaluation.protocol import Definition
    from dicetalk.evaluation.reader import Reader

MIN_PX = 32  # SSIM's window and AlexNet's poolings need as much


@torch.inference_mode()
def compare_pixels(
    generated: np.ndarray, real: np.ndarray, definition: Definition, perceptual: Reader | None = None
) -> dict[str, np.ndarray]:
    """Compare the frames two videos have in common, generated ones scaled to the real size.

    PSNR is that of the mean squared error of the whole clip; SSIM (Gaussian window of 11, sigma 1.5) and
    LPIPS are means over frames.

    Args:
        generated: uint8 RGB `(frames, height, width, 3)`.
        real: the same moments of the real video, of any size.
        definition: the protocol; names the stride.
        perceptual: the network of LPIPS, if it is here.

    Returns:
        `psnr` in dB, unless all frames are equal and it is infinite, `ssim` and, with its network, `lpips`:
        single numbers.

    Raises:
        DicetalkError: when frames are smaller than 32 px.
    """
    import cv2
    from torchmetrics.functional.image import structural_similarity_index_measure

    count, stride = min(len(generated), len(real)), definition.readers["pixels"].stride
    height, width = real.shape[1:3]
    if min(height, width) < MIN_PX:
        raise DicetalkError(f"frames of {width} x {height} px are too small to compare, at least {MIN_PX} px")
    squared, similarities, distances = [], [], []
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
            distances.append(perceptual.compare(a / 127.5 - 1, b / 127.5 - 1))
    compared = {"ssim": np.array(np.mean(similarities))}
    if any(squared):
        compared["psnr"] = np.array(10 * np.log10(255.0**2 / np.mean(squared)))
    return compared | ({"lpips": np.array(np.mean(distances))} if distances else {})
