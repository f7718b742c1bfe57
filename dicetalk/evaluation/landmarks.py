"""Landmarks of the face: MediaPipe's FaceMesh, also reduced to the 68 iBUG points."""

from __future__ import annotations

import numpy as np

from dicetalk.evaluation.clips import resize

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
