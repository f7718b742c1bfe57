"""From any picture of a person to the face crop and mask the model was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dicetalk.errors import DicetalkError


@dataclass(frozen=True)
class Portrait:
    """A reference image.

    Attributes:
        pixels: uint8 RGB `(size, size, 3)`.
        mask_box: left, top, width, height of the face mask in pixels.
    """

    pixels: np.ndarray
    mask_box: tuple[int, int, int, int]


def read_portrait(
    path: Path, size_px: int, crop_margin: float, mask_area: float, min_face_score: float
) -> Portrait:
    """Find the largest face of a picture and crop it by the rules of preprocessing.

    Args:
        path: any picture Pillow reads; its orientation tag is applied.
        size_px: side of the crop.
        crop_margin: see `preprocess.crop_margin`.
        mask_area: see `preprocess.mask_area`.
        min_face_score: see `preprocess.min_face_score`.

    Raises:
        DicetalkError: when the file is no picture or shows no face.
    """
    import cv2
    from PIL import Image, ImageOps, UnidentifiedImageError

    from dicetalk.data.faces import FaceDetector, FaceMesh
    from dicetalk.data.landmarks import box_of_landmarks
    from dicetalk.models.boxes import mask_rectangle, square_crop

    try:
        with Image.open(path) as image:
            frame = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise DicetalkError(f"{path} cannot be read as a picture: {error}") from error
    faces = FaceDetector(min_face_score).detect(frame)
    if not faces:
        raise DicetalkError(f"{path} shows no face; use a picture with one clearly visible face.")
    points, score = FaceMesh().landmarks(frame, faces[0])
    if score < min_face_score:
        raise DicetalkError(
            f"{path}: the largest face is not clear enough (score {score:.2f}); use another picture."
        )

    height, width = frame.shape[:2]
    box = box_of_landmarks(points)
    x, y, side = square_crop(np.append(box[:2], box[:2] + box[2:]), crop_margin, width, height)
    interpolation = cv2.INTER_AREA if side > size_px else cv2.INTER_CUBIC
    pixels = cv2.resize(frame[y : y + side, x : x + side], (size_px, size_px), interpolation=interpolation)
    scaled = np.concatenate([box[:2] - (x, y), box[2:]]) * (size_px / side)
    left, top, right, bottom = mask_rectangle(scaled, mask_area, size_px, size_px)
    return Portrait(pixels, (left, top, right - left, bottom - top))
