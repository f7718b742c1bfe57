"""Following one face through a video: landmarks lead from frame to frame, detection helps where needed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dicetalk.data.detect import Face, FaceDetector
from dicetalk.data.geometry import overlap
from dicetalk.data.landmarks import MEDIAPIPE_TO_68, FaceMesh, Roi, box_of_landmarks, roi_of_landmarks

__all__ = ["MEDIAPIPE_TO_68", "Face", "FaceDetector", "FaceMesh", "FaceTracker", "TrackedFace"]

SAME_FACE_OVERLAP = 0.2
WINDOW_SCALE = 3.0  # the neighbourhood searched for a small face, relative to its box


@dataclass(frozen=True)
class TrackedFace:
    """The followed face in one frame.

    Attributes:
        landmarks: `(468, 3)`, see `FaceMesh.landmarks`.
        box: left, top, width, height of the landmarks' bounding box `(4,)`.
        score: chance that this is a face, in [0, 1].
    """

    landmarks: np.ndarray
    box: np.ndarray
    score: float


class FaceTracker:
    """Follows the largest face of a video.

    The detector runs on the first frame, whenever the face is lost, and every `redetect_every_frames` frames
    to count faces and to notice landmarks that have drifted off the face. A detection counts as a face only
    when the mesh agrees.

    Args:
        detector: finds faces.
        mesh: places landmarks.
        min_score: of the mesh; below, there is no face.
        redetect_every_frames: interval of the check.
        rival_size: a second face counts when its side is at least this fraction of the followed one's.

    Attributes:
        face_counts: number of faces of comparable size in each frame where the detector ran and found any.
    """

    def __init__(
        self,
        detector: FaceDetector,
        mesh: FaceMesh,
        min_score: float = 0.5,
        redetect_every_frames: int = 25,
        rival_size: float = 0.5,
    ):
        self.detector, self.mesh = detector, mesh
        self.min_score, self.redetect_every_frames = min_score, redetect_every_frames
        self.rival_size = rival_size
        self.face_counts: list[int] = []
        self._previous: TrackedFace | None = None
        self._since_detection = 0

    def update(self, frame: np.ndarray) -> TrackedFace | None:
        """Return the face in the next frame, RGB uint8 `(height, width, 3)`, or None when there is none."""
        face = None
        if self._previous is not None and self._since_detection < self.redetect_every_frames:
            face = self._place(frame, roi_of_landmarks(self._previous.landmarks))
        if face is None:
            face = (self._find_again(frame, self._previous) if self._previous else None) or self._find(frame)
            self._since_detection = 0
        self._since_detection += 1
        self._previous = face
        return face

    def _find(self, frame: np.ndarray) -> TrackedFace | None:
        """Return the largest face of the frame."""
        for found in self.detector.searches(frame):
            if faces := self._place_all(frame, found):
                self._count(faces[0], faces)
                return faces[0]
        return None

    def _find_again(self, frame: np.ndarray, previous: TrackedFace) -> TrackedFace | None:
        """Return the face that overlaps the previous one, sought in the whole frame, then close to it."""
        side = int(previous.box[2:].max() * WINDOW_SCALE)
        left, top = (previous.box[:2] + previous.box[2:] / 2 - side / 2).astype(int)
        for square in ((0, 0, max(frame.shape[:2])), (int(left), int(top), side)):
            faces = self._place_all(frame, self.detector.detect_in(frame, *square))
            same = [face for face in faces if overlap(face.box, previous.box) >= SAME_FACE_OVERLAP]
            if same:
                self._count(same[0], faces)
                return same[0]
        return None

    def _place(self, frame: np.ndarray, where: Face | Roi) -> TrackedFace | None:
        points, score = self.mesh.landmarks(frame, where)
        return TrackedFace(points, box_of_landmarks(points), score) if score >= self.min_score else None

    def _place_all(self, frame: np.ndarray, found: list[Face]) -> list[TrackedFace]:
        return [face for detection in found if (face := self._place(frame, detection)) is not None]

    def _count(self, main: TrackedFace, faces: list[TrackedFace]) -> None:
        smallest = self.rival_size * main.box[2:].max()
        self.face_counts.append(sum(bool(face.box[2:].max() >= smallest) for face in faces))
