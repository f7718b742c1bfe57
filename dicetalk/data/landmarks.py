"""Facial landmarks: MediaPipe's FaceMesh (468 points) run by OpenCV, and the 68 nearest to iBUG's points."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from dicetalk import weights
from dicetalk.data.detect import Face, load_network

INPUT_PX = 192
NUM_POINTS = 468
ROI_SCALE = 1.5  # side of the crop relative to the box of the face, as the network was trained
RIGHT_EYE_OUTER, LEFT_EYE_OUTER = 33, 263

# Mesh vertices in the order of the 68 iBUG (300-W) points. Eyes, nose and mouth agree with detectors of true
# iBUG points within about 6 % of the eye distance; jaw line and brows are defined differently.
MEDIAPIPE_TO_68 = np.array(
    [162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389]  # jaw, right to left
    + [71, 63, 105, 66, 107, 336, 296, 334, 293, 301]  # brows
    + [168, 197, 5, 4, 75, 97, 2, 326, 305]  # nose
    + [33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380]  # eyes
    + [61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181]  # outer lips
    + [78, 82, 13, 312, 308, 317, 14, 87]  # inner lips
)


@dataclass(frozen=True)
class Roi:
    """A rotated square around a face: centre and side in pixels, angle in radians (clockwise on screen)."""

    centre: np.ndarray
    side: float
    angle: float


def roi_of_face(face: Face) -> Roi:
    """Return the square in which to look for the landmarks of a detected face."""
    right_eye, left_eye = face.keypoints[:2]
    centre = face.box[:2] + face.box[2:] / 2
    return Roi(centre, float(face.box[2:].max()) * ROI_SCALE, _angle(right_eye, left_eye))


def roi_of_landmarks(points: np.ndarray) -> Roi:
    """Return the square in which to look for the same face in the next frame."""
    points = points[:, :2]
    angle = _angle(points[RIGHT_EYE_OUTER], points[LEFT_EYE_OUTER])
    cos, sin = np.cos(angle), np.sin(angle)
    upright = points @ np.array([[cos, -sin], [sin, cos]])
    low, high = upright.min(axis=0), upright.max(axis=0)
    centre = np.array([[cos, -sin], [sin, cos]]) @ ((low + high) / 2)
    return Roi(centre, float((high - low).max()) * ROI_SCALE, angle)


def box_of_landmarks(points: np.ndarray) -> np.ndarray:
    """Return left, top, width, height of the points' bounding box: forehead to chin, cheek to cheek."""
    low, high = points[..., :2].min(axis=-2), points[..., :2].max(axis=-2)
    return np.concatenate([low, high - low], axis=-1)


class FaceMesh:
    """Places 468 points on a face."""

    def __init__(self) -> None:
        self._network = load_network(weights.resolve("facemesh"))

    def landmarks(self, frame: np.ndarray, where: Face | Roi) -> tuple[np.ndarray, float]:
        """Return the points and the chance that the region shows a face.

        Args:
            frame: RGB uint8 `(height, width, 3)`.
            where: a detected face, or the region a previous frame suggests.

        Returns:
            float32 `(468, 3)`: x and y in pixels of the frame, z in the same unit; and a score in [0, 1].
        """
        roi = roi_of_face(where) if isinstance(where, Face) else where
        scale = roi.side / INPUT_PX
        cos, sin = np.cos(roi.angle) * scale, np.sin(roi.angle) * scale
        turn = np.array([[cos, -sin], [sin, cos]])
        to_frame = np.column_stack([turn, roi.centre - turn @ np.full(2, INPUT_PX / 2)])
        crop = cv2.warpAffine(
            frame, to_frame, (INPUT_PX, INPUT_PX), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        )
        self._network.setInput(cv2.dnn.blobFromImage(crop, 1 / 255))
        points, logit = self._network.forward(["conv2d_20", "conv2d_30"])
        points = points.reshape(NUM_POINTS, 3)
        placed = np.column_stack([points[:, :2] @ turn.T + to_frame[:, 2], points[:, 2] * scale])
        return placed.astype(np.float32), float(1 / (1 + np.exp(-np.clip(logit.item(), -50, 50))))


def _angle(right_eye: np.ndarray, left_eye: np.ndarray) -> float:
    """Return by how much the line through the eyes is turned; the person's right eye is on the left."""
    dx, dy = left_eye - right_eye
    return float(np.arctan2(dy, dx))
