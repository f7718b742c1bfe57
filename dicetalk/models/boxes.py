"""Boxes around faces: the square crop and the mask rectangle, by the rules of the released inference code."""

from __future__ import annotations

import numpy as np


def square_crop(box_xyxy: np.ndarray, margin: float, width: int, height: int) -> tuple[int, int, int]:
    """Return the square `(x, y, side)` around a face, in whole pixels and inside the image.

    The box grows by `margin` of its size on every side and is clipped to the image; the square's side is the
    shorter side of that, centred on the face and shifted into the image (official `process_bbox`).

    Args:
        box_xyxy: face box `(4,)`, left, top, right, bottom in pixels.
        margin: the released code uses 0.5.
        width: of the image in pixels.
        height: of the image in pixels.
    """
    left, top, right, bottom = (float(value) for value in box_xyxy)
    grow_x, grow_y = (right - left) * margin, (bottom - top) * margin
    grown_width = int(min(width, right + grow_x)) - int(max(0, left - grow_x))
    grown_height = int(min(height, bottom + grow_y)) - int(max(0, top - grow_y))
    side = min(grown_width, grown_height)
    x = int((left + right) / 2) - side // 2
    y = int((top + bottom) / 2) - side // 2
    return min(max(0, x), width - side), min(max(0, y), height - side), side


def mask_rectangle(box_xywh: np.ndarray, area: float, width: int, height: int) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of the face mask in whole pixels, inside the image.

    Width and height of the face box are scaled by `area` around its centre; the halves are rounded down
    (official `image_audio_emo_to_tensor`).

    Args:
        box_xywh: face box `(4,)`, left, top, width, height in pixels.
        area: the released code uses 1.1.
        width: of the image in pixels.
        height: of the image in pixels.
    """
    x, y, box_width, box_height = (float(value) for value in box_xywh)
    centre_x, centre_y = (2 * x + box_width) // 2, (2 * y + box_height) // 2
    half_width, half_height = box_width * area // 2, box_height * area // 2
    return (
        int(max(0, centre_x - half_width)),
        int(max(0, centre_y - half_height)),
        int(min(width, centre_x + half_width)),
        int(min(height, centre_y + half_height)),
    )
