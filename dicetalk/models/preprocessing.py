"""From a portrait and a face box to the image, mask and crop the model expects."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def model_size(width: int, height: int, short_side: int = 512, multiple: int = 64) -> tuple[int, int]:
    """Return the `(width, height)` an image is resized to.

    The short side becomes about `short_side`, both sides multiples of `multiple`. The aspect ratio is kept
    only as far as the multiples allow, as in the official code.
    """
    scale = short_side / min(width, height)
    return round(width * scale / multiple) * multiple, round(height * scale / multiple) * multiple


def image_to_tensor(image: Image.Image) -> torch.Tensor:
    """Return an RGB image as `(3, height, width)` in [-1, 1], not resized."""
    pixels = torch.from_numpy(np.array(image.convert("RGB"), dtype=np.float32))
    return pixels.permute(2, 0, 1) / 127.5 - 1


def tensor_to_image(pixels: torch.Tensor) -> Image.Image:
    """Return `(3, height, width)` in [-1, 1] as an RGB image."""
    pixels = ((pixels.float().cpu() + 1) * 127.5).round().clamp(0, 255).byte()
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def clip_pixels(
    image: Image.Image,
    size: int = 224,
    mean: tuple[float, float, float] = CLIP_MEAN,
    std: tuple[float, float, float] = CLIP_STD,
) -> torch.Tensor:
    """Return CLIP's input `(3, size, size)`: the whole image squashed to a square and normalised."""
    pixels = (image_to_tensor(image.convert("RGB").resize((size, size), Image.Resampling.LANCZOS)) + 1) / 2
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def face_mask(
    box_xywh: tuple[float, float, float, float],
    image_size: tuple[int, int],
    mask_size: tuple[int, int],
    area: float = 1.1,
) -> torch.Tensor:
    """Return the face's place as a filled rectangle.

    Args:
        box_xywh: face box in pixels of the source image.
        image_size: `(width, height)` of the source image.
        mask_size: `(width, height)` of the model's input, see `model_size`.
        area: enlargement of the box's width and height around its centre.

    Returns:
        `(1, height, width)` in [0, 1], with the soft edges of a LANCZOS resize.
    """
    x, y, width, height = box_xywh
    left, right = _span(x, width, area, image_size[0])
    top, bottom = _span(y, height, area, image_size[1])
    mask = np.zeros(image_size[::-1], np.uint8)
    mask[top:bottom, left:right] = 255
    resized = Image.fromarray(mask).resize(mask_size, Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(resized, dtype=np.float32))[None] / 255


def square_crop(
    box_xyxy: tuple[float, float, float, float], expand_ratio: float, width: int, height: int
) -> tuple[int, int, int, int]:
    """Return a square `(left, top, right, bottom)` around a face box, inside the image.

    The box grows by `expand_ratio` of its size on each side and is clipped; the longer side of what is left
    shrinks to the shorter one around the face (official `process_bbox`).
    """
    left, top, right, bottom = box_xyxy
    dx, dy = (right - left) * expand_ratio, (bottom - top) * expand_ratio
    x0, x1 = int(max(left - dx, 0)), int(min(right + dx, width))
    y0, y1 = int(max(top - dy, 0)), int(min(bottom + dy, height))
    side = min(x1 - x0, y1 - y0)
    if x1 - x0 > side:
        x0 = _centred(int((left + right) / 2), side, width)
    else:
        y0 = _centred(int((top + bottom) / 2), side, height)
    return x0, y0, x0 + side, y0 + side


def _span(start: float, length: float, area: float, limit: int) -> tuple[int, int]:
    """Return the enlarged interval, rounded as the official code does: floor division, then truncation."""
    centre, half = (2 * start + length) // 2, length * area // 2
    return int(max(centre - half, 0)), int(min(centre + half, limit))


def _centred(centre: int, side: int, limit: int) -> int:
    """Return the start of an interval of length `side` around `centre`, moved inside [0, limit]."""
    return min(max(centre - side // 2, 0), limit - side)
