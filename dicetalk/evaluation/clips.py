"""The clips that metrics compare: frames, sound, label and landmarks of one video in memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dicetalk.errors import DicetalkError


@dataclass(frozen=True)
class Clip:
    """One video with its sound.

    Attributes:
        clip_id: name of the clip.
        identity: who is seen.
        emotion: one of `dicetalk.labels.EMOTIONS`, or None in data without emotion labels.
        level: 1 to 3; 0 without label.
        frames: face crops `(frames, height, width, 3)` uint8 RGB at 25 fps.
        audio: sound `(samples,)` float32 in [-1, 1] at 16 kHz.
        landmarks: 68 points `(frames, 68, 2)` as fractions of the crop's sides, or None.
    """

    clip_id: str
    identity: str
    emotion: str | None
    level: int
    frames: np.ndarray
    audio: np.ndarray
    landmarks: np.ndarray | None = None

    def cut(self, num_frames: int) -> Clip:
        """Return the first `num_frames` frames; raises `DicetalkError` when there are fewer."""
        if len(self.frames) < num_frames:
            raise DicetalkError(
                f"{self.clip_id} has {len(self.frames)} frames, the protocol compares {num_frames}"
            )
        landmarks = None if self.landmarks is None else self.landmarks[:num_frames]
        return replace(self, frames=self.frames[:num_frames], landmarks=landmarks)


def load_processed(folders: Iterable[Path], split: str, size_px: int | None = None) -> list[Clip]:
    """Decode the clips of one split of processed data sets into memory, scaled to `size_px` when given.

    Args:
        folders: `data/processed/<set>` folders.
        split: `train` or `test`.
        size_px: side of the square crops; the stored size when missing.

    Raises:
        DicetalkError: when a folder does not exist or nothing belongs to the split.
    """
    from dicetalk.data.shards import read_samples

    folders = [Path(folder) for folder in folders]
    clips = []
    for folder in folders:
        for sample in read_samples(folder):
            if sample.meta["split"] == split:
                clips.append(_from_sample(sample, size_px))
    if not clips:
        raise DicetalkError(
            f"No {split} clips in {', '.join(map(str, folders))}; check `index.*.test_identities`."
        )
    return clips


def resize(frames: np.ndarray, size_px: int) -> np.ndarray:
    """Scale uint8 frames `(frames, height, width, 3)` to `size_px` squares."""
    import cv2

    if frames.shape[1:3] == (size_px, size_px):
        return frames
    interpolation = cv2.INTER_AREA if frames.shape[1] > size_px else cv2.INTER_CUBIC
    return np.stack([cv2.resize(frame, (size_px, size_px), interpolation=interpolation) for frame in frames])


def _from_sample(sample, size_px: int | None) -> Clip:
    frames = sample.frames()
    height, width = frames.shape[1:3]
    emotion = sample.meta["emotion"]
    return Clip(
        clip_id=sample.clip_id,
        identity=sample.meta["identity"],
        emotion=emotion if isinstance(emotion, str) else None,
        level=int(sample.meta["level"] or 0),
        frames=frames if size_px is None else resize(frames, size_px),
        audio=sample.audio(),
        landmarks=sample.landmarks() / np.array([width, height], dtype=np.float32),
    )
