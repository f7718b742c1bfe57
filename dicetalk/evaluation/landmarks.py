"""Do lips take the shapes they take in the real clip? Distance of mouth landmarks (LMD, also M-LMD).

Landmarks are MediaPipe's FaceMesh, reduced to the 68 iBUG points. Both mouths are moved to their own
centre, so that the place of the head does not count, and distances are divided by the real face's distance
of outer eye corners, so that numbers do not depend on resolution. Papers measure LMD in pixels of a stated
crop with another landmark network.
"""

from __future__ import annotations

import numpy as np

from dicetalk.errors import DicetalkError
from dicetalk.evaluation.clips import resize

MOUTH, FACE = slice(48, 68), slice(0, 68)
RIGHT_EYE_OUTER, LEFT_EYE_OUTER = 36, 45
MESH_PX = 256  # small frames are enlarged: the mesh reads a region of 192 px
MIN_FOUND = 0.5


class LandmarkReader:
    """Finds the 68 points of the face in the frames of a crop; one reader per thread."""

    def __init__(self) -> None:
        from dicetalk.data.faces import FaceDetector, FaceMesh

        self._detector, self._mesh = FaceDetector(), FaceMesh()

    def read(self, frames: np.ndarray) -> np.ndarray:
        """Return points `(frames, 68, 2)` as fractions of the crop's sides; NaN where no face was found.

        Args:
            frames: `(frames, height, width, 3)` uint8 RGB of one video in order.
        """
        from dicetalk.data.faces import MEDIAPIPE_TO_68, FaceTracker

        tracker = FaceTracker(self._detector, self._mesh)
        points = np.full((len(frames), 68, 2), np.nan, dtype=np.float32)
        for index, frame in enumerate(resize(frames, MESH_PX)):
            if (face := tracker.update(frame)) is not None:
                points[index] = face.landmarks[MEDIAPIPE_TO_68, :2] / MESH_PX
        return points

    def mesh(self, frames: np.ndarray) -> np.ndarray:
        """Return all points `(frames, 468, 2)` in pixels; NaN where no face was found.

        Args:
            frames: `(frames, height, width, 3)` uint8 RGB of one video in order, of any shape.
        """
        import cv2

        from dicetalk.data.faces import FaceTracker
        from dicetalk.data.landmarks import NUM_POINTS

        tracker = FaceTracker(self._detector, self._mesh)
        points = np.full((len(frames), NUM_POINTS, 2), np.nan, dtype=np.float32)
        scale = max(1.0, MESH_PX / min(frames.shape[1:3]))
        for index, frame in enumerate(frames):
            if scale > 1:
                frame = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
            if (face := tracker.update(frame)) is not None:
                points[index] = face.landmarks[:, :2] / scale
        return points


def pixel_distance(generated: np.ndarray, real: np.ndarray, part: slice) -> float:
    """Return the mean distance of points after moving their centres together, in their own unit.

    The mouth (M-LMD) or all points (F-LMD) of EAT's evaluation, whose unit is the pixel of a crop of 256.

    Args:
        generated: `(frames, 68, 2)`, NaN where no face was found; these frames are left out.
        real: `(frames, 68, 2)` of the same moments.
        part: which of the 68 points.

    Raises:
        DicetalkError: when less than half of the frames can be compared.
    """
    found = _comparable(generated, real)
    difference = _centred(generated[found, part]) - _centred(real[found, part])
    return float(np.linalg.norm(difference, axis=-1).mean(dtype=np.float64))


def mouth_distance(generated: np.ndarray, real: np.ndarray) -> float:
    """Return the mean distance of mouth points in units of the eye distance; 0 is a perfect match.

    Args:
        generated: `(frames, 68, 2)`, NaN where no face was found; these frames are left out.
        real: `(frames, 68, 2)` of the same moments.

    Raises:
        DicetalkError: when less than half of the frames can be compared.
    """
    found = _comparable(generated, real)
    generated, real = generated[found], real[found]
    eye_distance = np.linalg.norm(real[:, RIGHT_EYE_OUTER] - real[:, LEFT_EYE_OUTER], axis=-1)
    difference = _centred(generated[:, MOUTH]) - _centred(real[:, MOUTH])
    distances = np.linalg.norm(difference, axis=-1).mean(axis=1) / eye_distance
    return float(distances.mean(dtype=np.float64))


def _comparable(generated: np.ndarray, real: np.ndarray) -> np.ndarray:
    found = np.isfinite(generated).all(axis=(1, 2)) & np.isfinite(real).all(axis=(1, 2))
    if found.mean() < MIN_FOUND:
        raise DicetalkError(f"a face was found in {found.sum()} of {len(found)} frames")
    return found


def _centred(points: np.ndarray) -> np.ndarray:
    return points - points.mean(axis=1, keepdims=True)
