"""From a portrait and a face box to the image, mask and crop the model expects."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from dicetalk.models.boxes import mask_rectangle

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
    left, top, right, bottom = mask_rectangle(np.asarray(box_xywh), area, *image_size)
    mask = np.zeros(image_size[::-1], np.uint8)
    mask[top:bottom, left:right] = 255
    resized = Image.fromarray(mask).resize(mask_size, Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(resized, dtype=np.float32))[None] / 255
