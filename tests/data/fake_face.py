"""Clips with a bright square for a face and a tracker that finds it, so that rules can be tested alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from dicetalk.config import Preprocess, PreprocessCompute
from dicetalk.data.faces import TrackedFace
from dicetalk.data.media import write_video

RATE = 16000
WIDTH, HEIGHT, FACE = 160, 120, 40

COMPUTE = PreprocessCompute(scheduler="local", workers=1, clip_timeout_seconds=60.0)
SETTINGS = Preprocess(
    fps=25.0,
    sample_rate_hz=RATE,
    size_px=64,
    landmarks="facemesh",
    crop_source="face",
    crop_margin=0.5,
    mask_area=1.1,
    min_seconds=0.4,
    max_seconds=3.0,
    min_face_score=0.5,
    min_face_px=20,
    max_gap_frames=3,
    redetect_every_frames=5,
    rival_size=0.5,
    cut_brightness=30.0,
    cut_overlap=0.3,
    max_outside=0.1,
    min_complete=0.9,
    max_silent_tail_seconds=0.2,
    video_preset="medium",
    min_loudness_db=-60.0,
    clips_per_shard=2,
)


class SquareTracker:
    """Stands in for `FaceTracker`: the bounding box of what is brighter than 200 is the face."""

    num_faces = 1

    def __init__(self, *_):
        self.face_counts: list[int] = []

    def update(self, frame: np.ndarray) -> TrackedFace | None:
        rows, columns = np.nonzero(frame.mean(axis=-1) > 200)
        if not len(rows):
            return None
        self.face_counts.append(self.num_faces)
        low = np.array([columns.min(), rows.min()])
        high = np.array([columns.max(), rows.max()]) + 1.0
        grid = np.linspace(0, 1, 468)[:, None]
        points = np.concatenate([low + grid * (high - low), np.zeros((468, 1))], axis=1)
        return TrackedFace(points, np.concatenate([low, high - low]), 0.9)


def picture(x: int = 60, y: int = 40, side: int = FACE, level: int = 60) -> np.ndarray:
    """Return a grey frame with the square at `(x, y)`, cut at the border."""
    frame = np.full((HEIGHT, WIDTH, 3), level, np.uint8)
    frame[max(0, y) : y + side, max(0, x) : x + side] = 250
    return frame


def noise(seconds: float, amplitude: float = 0.2) -> np.ndarray:
    """Return sound of a loudness that counts as speech."""
    samples = np.random.default_rng(0).uniform(-amplitude, amplitude, round(seconds * RATE))
    return samples.astype(np.float32)


def write_clip(
    path: Path, draw: Callable[[int], np.ndarray] = lambda k: picture(), num_frames: int = 25, sound=None
) -> None:
    """Write frames `draw(0)`, `draw(1)`, ... with sound of the same length."""
    samples = noise(num_frames / 25) if sound is None else sound
    write_video(path, map(draw, range(num_frames)), 25, samples, RATE)


def row(**changes) -> dict:
    """Return an index row as plain values."""
    usual = {
        "clip_id": "clip", "dataset": "folder", "identity": "someone", "emotion": None, "level": 0,
        "sentence": None, "view": None, "video_path": "clip.mp4", "audio_path": "clip.mp4",
        "start_seconds": 0.0, "end_seconds": None, "crop_x": None, "crop_y": None, "crop_w": None,
        "crop_h": None, "split": "train",
    }  # fmt: skip
    return usual | changes
