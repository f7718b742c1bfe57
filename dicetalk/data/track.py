"""The one face of a clip in every frame: short gaps bridged, everything that rules the clip out named."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from dicetalk.config import Preprocess
from dicetalk.data.faces import MEDIAPIPE_TO_68, FaceDetector, FaceMesh, FaceTracker, TrackedFace
from dicetalk.data.fan import FanLandmarks
from dicetalk.data.geometry import overlap
from dicetalk.data.media import read_video
from dicetalk.data.reasons import RejectionError

THUMBNAIL_PX = 32


@dataclass(frozen=True)
class Track:
    """The face in every frame of a clip, gaps bridged.

    Attributes:
        landmarks: `(num_frames, 68, 2)` in pixels of the frame.
        boxes: left, top, width, height `(num_frames, 4)`.
        frame_size: `(width, height)` of the frames.
        min_score: lowest mesh score of any frame.
        num_bridged: frames without a face whose landmarks are interpolated.
    """

    landmarks: np.ndarray
    boxes: np.ndarray
    frame_size: tuple[int, int]
    min_score: float
    num_bridged: int


@lru_cache(maxsize=1)
def networks(landmarks: str) -> tuple[FaceDetector, FaceMesh, FanLandmarks | None]:
    """Return what finds faces and their points; loaded once per process.

    Args:
        landmarks: `preprocess.landmarks`.

    Raises:
        DicetalkError: when weights or a package are missing.
    """
    return FaceDetector(), FaceMesh(), FanLandmarks() if landmarks == "face_alignment" else None


def follow_face(video: Path, start: float, end: float, row: dict[str, Any], settings: Preprocess) -> Track:
    """Follow the face through the clip; stops reading at the first thing that rules the clip out.

    Args:
        video: the file.
        start: seconds on the file's clock.
        end: seconds on the file's clock.
        row: of the index; `crop_*` say where the person is.
        settings: section `preprocess` of the parameters.

    Raises:
        RejectionError: `no_face`, `face_lost`, `shot_cut` or `several_faces`.
        DicetalkError: when the video cannot be read.
    """
    detector, mesh, fan = networks(settings.landmarks)
    tracker = FaceTracker(
        detector, mesh, settings.min_face_score, settings.redetect_every_frames, settings.rival_size
    )
    x, y = row["crop_x"] or 0, row["crop_y"] or 0
    faces: dict[int, TrackedFace] = {}
    points: list[np.ndarray] = []
    last: tuple[np.ndarray, np.ndarray] | None = None
    num_frames, gap, frame_size = 0, 0, (0, 0)
    for frame in read_video(video, settings.fps, start, end):
        frame_size = (frame.shape[1], frame.shape[0])
        region = frame if row["crop_w"] is None else frame[y : y + row["crop_h"], x : x + row["crop_w"]]
        face = tracker.update(region)
        gap = 0 if face is not None else gap + 1
        if gap > settings.max_gap_frames:
            code = "face_lost" if faces else "no_face"
            raise RejectionError(code, f"no face from {(num_frames + 1 - gap) / settings.fps:.2f} s on")
        if face is not None:
            faces[num_frames] = face
            previous, last = last, (face.box, _thumbnail(region))
            if previous is not None and _is_cut(previous, last, settings):
                raise RejectionError("shot_cut", f"at {num_frames / settings.fps:.2f} s")
            points.append(
                face.landmarks[MEDIAPIPE_TO_68, :2] if fan is None else fan.points(region, face.box)
            )
        num_frames += 1
    if not faces:
        raise RejectionError("no_face", f"in none of {num_frames} frames")
    if np.median(tracker.face_counts) >= 2:
        raise RejectionError("several_faces", f"{tracker.face_counts} faces at the checks")

    found = np.array(list(faces))
    shift = np.array([x, y])
    boxes = np.stack([face.box + np.append(shift, [0, 0]) for face in faces.values()])
    return Track(
        landmarks=_bridge((np.stack(points) + shift).reshape(len(found), -1), found, num_frames).reshape(
            -1, 68, 2
        ),
        boxes=_bridge(boxes, found, num_frames),
        frame_size=frame_size,
        min_score=min(face.score for face in faces.values()),
        num_bridged=num_frames - len(found),
    )


def _is_cut(
    before: tuple[np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray], settings: Preprocess
) -> bool:
    """Compare face box and thumbnail of two frames that show a face."""
    jumps = overlap(before[0], after[0]) < settings.cut_overlap
    return bool(jumps or np.abs(before[1] - after[1]).mean() > settings.cut_brightness)


def _thumbnail(frame: np.ndarray) -> np.ndarray:
    step_y, step_x = (max(1, length // THUMBNAIL_PX) for length in frame.shape[:2])
    return frame[::step_y, ::step_x].mean(axis=-1, dtype=np.float32)


def _bridge(values: np.ndarray, found: np.ndarray, num_frames: int) -> np.ndarray:
    """Interpolate `(len(found), channels)` linearly to all frames; ends repeat the nearest found one."""
    frames = np.arange(num_frames)
    return np.stack([np.interp(frames, found, channel) for channel in values.T], axis=-1)
