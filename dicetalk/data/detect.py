"""Face detection: MediaPipe's BlazeFace (short range) run by OpenCV.

Anchors and box decoding follow MediaPipe's published model: 896 anchors on a 16x16 grid (2 per cell) and an
8x8 grid (6 per cell), all offsets in units of the 128-px input.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dicetalk import weights
from dicetalk.data.geometry import overlap

INPUT_PX = 128
ANCHOR_LAYERS = ((16, 2), (8, 6))  # cells per side, anchors per cell
SUPPRESSION_OVERLAP = 0.3
TILE_FRACTIONS = (1.0, 0.5)  # side of the search tiles relative to the frame's short side

# The importer fills its table of operators at its first use; a second thread finds half of it and fails.
_LOADING = threading.Lock()


@dataclass(frozen=True)
class Face:
    """One detected face, in pixels of the frame.

    Attributes:
        box: left, top, width, height `(4,)`.
        score: in [0, 1].
        keypoints: the person's right eye, left eye, nose, mouth, right ear, left ear `(6, 2)`.
    """

    box: np.ndarray
    score: float
    keypoints: np.ndarray


def load_network(path: Path) -> cv2.dnn.Net:
    """Load a TFLite network into OpenCV; threads may do so at the same time."""
    # OpenCV 5's new engine exposes one output only; OpenCV 4 has one engine and no such argument.
    engine = {"engine": cv2.dnn.ENGINE_CLASSIC} if hasattr(cv2.dnn, "ENGINE_CLASSIC") else {}
    with _LOADING:
        return cv2.dnn.readNetFromTFLite(str(path), **engine)


class FaceDetector:
    """Finds faces of any size in a frame.

    The network sees 128 px and misses faces below about a seventh of the frame's long side. When it finds
    none in the whole frame, overlapping square tiles of the frame are searched, large ones first.

    Args:
        min_score: detections below are dropped.
    """

    def __init__(self, min_score: float = 0.5):
        self.min_score = min_score
        self._network = load_network(weights.resolve("blazeface-short-range"))
        self._anchors = _anchors()

    def detect(self, frame: np.ndarray) -> list[Face]:
        """Return the faces in an RGB uint8 frame `(height, width, 3)`, largest first."""
        return next(filter(None, self.searches(frame)), [])

    def searches(self, frame: np.ndarray) -> Iterator[list[Face]]:
        """Yield what ever closer looks at the frame find, largest face first: the whole frame, then tiles."""
        height, width = frame.shape[:2]
        yield _largest_first(self.detect_in(frame, 0, 0, max(height, width)))
        for fraction in TILE_FRACTIONS:
            found = [self.detect_in(frame, *tile) for tile in _tiles(width, height, fraction)]
            yield _largest_first(_suppress([face for faces in found for face in faces]))

    def detect_in(self, frame: np.ndarray, left: int, top: int, side: int) -> list[Face]:
        """Return the faces in one square of the frame; what lies outside the frame is black."""
        height, width = frame.shape[:2]
        x0, y0, x1, y1 = max(0, left), max(0, top), min(width, left + side), min(height, top + side)
        if x1 <= x0 or y1 <= y0:
            return []
        scale = INPUT_PX / side
        inside = frame[y0:y1, x0:x1]
        size = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        square = np.zeros((INPUT_PX, INPUT_PX, 3), np.uint8)
        at_x, at_y = int((x0 - left) * scale), int((y0 - top) * scale)
        patch = cv2.resize(inside, size, interpolation=interpolation)[: INPUT_PX - at_y, : INPUT_PX - at_x]
        square[at_y : at_y + patch.shape[0], at_x : at_x + patch.shape[1]] = patch
        self._network.setInput(cv2.dnn.blobFromImage(square, 1 / 127.5, mean=(127.5, 127.5, 127.5)))
        logits, values = self._network.forward(["classificators", "regressors"])
        values = values.reshape(len(self._anchors), 16)
        return _suppress(self._decode(logits.reshape(-1), values, left, top, side))

    def _decode(self, logits: np.ndarray, values: np.ndarray, left: int, top: int, side: int) -> list[Face]:
        scores = 1 / (1 + np.exp(-np.clip(logits, -50, 50)))
        faces = []
        for index in np.flatnonzero(scores >= self.min_score):
            points = values[index].reshape(8, 2) / INPUT_PX  # centre, size, six keypoints
            points[[0, 2, 3, 4, 5, 6, 7]] += self._anchors[index]
            size = points[1] * side
            origin = np.array([left, top])
            box = np.concatenate([points[0] * side - size / 2 + origin, size])
            faces.append(Face(box, float(scores[index]), points[2:] * side + origin))
        return faces


def _anchors() -> np.ndarray:
    """Return anchor centres `(896, 2)` in [0, 1], x before y, rows first."""
    layers = []
    for cells, per_cell in ANCHOR_LAYERS:
        centres = (np.arange(cells) + 0.5) / cells
        y, x = np.meshgrid(centres, centres, indexing="ij")
        layers.append(np.repeat(np.stack([x.ravel(), y.ravel()], axis=-1), per_cell, axis=0))
    return np.concatenate(layers)


def _suppress(faces: list[Face]) -> list[Face]:
    """Merge overlapping detections into their score-weighted mean, as BlazeFace was trained to be read."""
    waiting = sorted(faces, key=lambda face: -face.score)
    merged = []
    while waiting:
        best = waiting[0]
        near = [face is best or overlap(best.box, face.box) > SUPPRESSION_OVERLAP for face in waiting]
        group = [face for face, is_near in zip(waiting, near, strict=True) if is_near]
        waiting = [face for face, is_near in zip(waiting, near, strict=True) if not is_near]
        shares = np.array([face.score for face in group])
        shares /= shares.sum()
        box = sum(share * face.box for share, face in zip(shares, group, strict=True))
        keypoints = sum(share * face.keypoints for share, face in zip(shares, group, strict=True))
        merged.append(Face(box, best.score, keypoints))
    return merged


def _largest_first(faces: list[Face]) -> list[Face]:
    return sorted(faces, key=lambda face: -float(face.box[2] * face.box[3]))


def _tiles(width: int, height: int, fraction: float) -> Iterator[tuple[int, int, int]]:
    """Yield squares that cover the frame with at least half overlapping: left, top, side."""
    side = max(1, int(min(width, height) * fraction))
    for top in _starts(height, side):
        for left in _starts(width, side):
            yield left, top, side


def _starts(length: int, side: int) -> list[int]:
    count = 1 + int(np.ceil((length - side) / (side / 2)))
    return [round(start) for start in np.linspace(0, length - side, count)]
