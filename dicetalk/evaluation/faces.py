"""What metric networks look at: the face of each frame, cut out by the rules their publishers used.

Faces are found with BlazeFace and FaceMesh, whatever detector the publisher used; the protocol says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import cv2
import numpy as np

from dicetalk.errors import DicetalkError
from dicetalk.evaluation.landmarks import MIN_FOUND, LandmarkReader

# Where published networks expect a face, in fractions of the crop's side.
# ArcFace: both eye centres, nose tip, mouth corners, of a crop of 112 px (InsightFace).
ARCFACE_TEMPLATE = (
    np.array(
        [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
    )
    / 112
)
ARCFACE_POINTS = [(33, 133), (362, 263), (1,), (61,), (291,)]
# dlib's five-point chips with padding 0.25: outer and inner corner of both eyes, base of the nose.
DLIB_TEMPLATE = (
    np.array(
        [
            [0.8595674595992, 0.2134981538014],
            [0.6460604764104, 0.2289674387677],
            [0.1205750620789, 0.2137274526848],
            [0.3340850613712, 0.2290642403242],
            [0.4901123135679, 0.6277975316475],
        ]
    )
    + 0.25
) / 1.5
DLIB_POINTS = [(263,), (362,), (33,), (133,), (2,)]
SYNCNET_MARGIN, SYNCNET_SMOOTHING_FRAMES, SYNCNET_GREY = 0.4, 13, 110  # SyncNet's own pipeline


class Video:
    """The frames of one video, with its face found at most once.

    Args:
        frames: `(frames, height, width, 3)` uint8 RGB.
        finder: places landmarks; one per thread.
    """

    def __init__(self, frames: np.ndarray, finder: LandmarkReader) -> None:
        self.frames, self.finder = frames, finder

    @cached_property
    def mesh(self) -> np.ndarray:
        """The 468 points of FaceMesh in pixels `(frames, 468, 2)`, NaN where no face was found."""
        return self.finder.mesh(self.frames)

    @property
    def found(self) -> np.ndarray:
        """Indices of the frames with a face; refuses a video in which it is lost most of the time."""
        found = np.isfinite(self.mesh[:, 0, 0])
        if found.mean() < MIN_FOUND:
            raise DicetalkError(f"a face was found in {found.sum()} of {len(found)} frames")
        return np.flatnonzero(found)


def face_boxes(video: Video, stride: int, size_px: int, interpolation: int) -> np.ndarray:
    """Cut out the bounding boxes of the landmarks, scaled: uint8 `(faces, size_px, size_px, 3)`."""
    height, width = video.frames.shape[1:3]
    faces = []
    for index in video.found[::stride]:
        low, high = video.mesh[index].min(axis=0), video.mesh[index].max(axis=0)
        left, top = (int(value) for value in np.maximum(np.floor(low), 0))
        right, bottom = min(width - 1, int(high[0])), min(height - 1, int(high[1]))
        if right - left < 2 or bottom - top < 2:
            raise DicetalkError(f"the face leaves the picture at frame {index}")
        crop = video.frames[index, top:bottom, left:right]
        faces.append(cv2.resize(crop, (size_px, size_px), interpolation=interpolation))
    return np.stack(faces)


def aligned_faces(
    video: Video, stride: int, size_px: int, points: Sequence[tuple[int, ...]], template: np.ndarray
) -> np.ndarray:
    """Turn, scale and move faces so that `points` fall on a template: `(faces, size_px, size_px, 3)`.

    Args:
        video: the frames.
        stride: every n-th frame with a face is taken.
        size_px: side of the crops.
        points: for each point of the template, the mesh vertices whose mean it is.
        template: `(points, 2)` in fractions of the crop's side.
    """
    faces = []
    for index in video.found[::stride]:
        placed = np.stack([video.mesh[index, list(vertices)].mean(axis=0) for vertices in points])
        matrix = similarity(placed, template * size_px)
        faces.append(cv2.warpAffine(video.frames[index], matrix, (size_px, size_px), flags=cv2.INTER_LINEAR))
    return np.stack(faces)


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return turn, scale and shift `(2, 3)` that move points `(n, 2)` closest to others (Umeyama 1991)."""
    source_centre, target_centre = source.mean(axis=0), target.mean(axis=0)
    from_centre, to_centre = source - source_centre, target - target_centre
    # As complex numbers, the least-squares turn and scale is one quotient.
    a, b = from_centre @ [1, 1j], to_centre @ [1, 1j]
    factor = np.vdot(a, b) / np.vdot(a, a)
    turn = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    return np.column_stack([turn, target_centre - turn @ source_centre])


def syncnet_faces(video: Video, size_px: int) -> np.ndarray:
    """Cut out face and chin as SyncNet's pipeline does: `(frames, size_px, size_px, 3)` uint8.

    Boxes are median-filtered over 13 frames and grown by 0.4 of the half side, more below than above; what
    lies outside of the picture is grey. Frames without a face take the box of their neighbours.
    """
    from scipy.signal import medfilt

    frames = np.arange(len(video.frames))
    known = video.found
    low, high = video.mesh[known].min(axis=1), video.mesh[known].max(axis=1)
    half_sides, centres = (high - low).max(axis=1) / 2, (low + high) / 2
    tracks = [np.interp(frames, known, values) for values in (half_sides, centres[:, 0], centres[:, 1])]
    faces = []
    for frame, half, x, y in zip(
        video.frames, *(medfilt(track, SYNCNET_SMOOTHING_FRAMES) for track in tracks), strict=True
    ):
        reach = int(half * (1 + 2 * SYNCNET_MARGIN))
        padded = cv2.copyMakeBorder(
            frame, reach, reach, reach, reach, cv2.BORDER_CONSTANT, value=(SYNCNET_GREY,) * 3
        )
        x, y = x + reach, y + reach
        side = half * (1 + SYNCNET_MARGIN)
        crop = padded[max(0, int(y - half)) : int(y + reach), max(0, int(x - side)) : int(x + side)]
        faces.append(cv2.resize(crop, (size_px, size_px)))
    return np.stack(faces)
