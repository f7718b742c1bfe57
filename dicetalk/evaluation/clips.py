"""The clips that metrics compare: frames, sound, label and landmarks of one video in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dicetalk.errors import DicetalkError

if TYPE_CHECKING:
    from dicetalk.data.shards import Sample

FPS = 25.0
SAMPLE_RATE_HZ = 16000


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


def load_processed(folders: Iterable[Path], split: str, size_px: int) -> list[Clip]:
    """Decode the clips of one split of processed data sets into memory, scaled to `size_px`.

    Raises:
        DicetalkError: when a folder holds no shards or nothing belongs to the split.
    """
    from dicetalk.data.shards import read_samples

    folders = [Path(folder) for folder in folders]
    samples = (sample for folder in folders for sample in read_samples(folder))
    clips = [_from_sample(sample, size_px) for sample in samples if sample.meta["split"] == split]
    if not clips:
        names = ", ".join(map(str, folders))
        raise DicetalkError(f"No {split} clips in {names}; check `index.*.test_identities`.")
    return clips


def samples_of(folder: Path, split: str, clip_ids: Collection[str]) -> Mapping[str, Callable[[], Clip]]:
    """Return functions that decode the wanted clips of a processed data set.

    Raises:
        DicetalkError: when a clip is not in that split of the folder.
    """
    from dicetalk.data.shards import read_samples

    loaders = {
        sample.clip_id: partial(_from_sample, sample)
        for sample in read_samples(folder)
        if sample.clip_id in clip_ids and sample.meta["split"] == split
    }
    if missing := sorted(set(clip_ids) - loaders.keys()):
        raise DicetalkError(
            f"{folder} has no {split} clip {', '.join(missing[:5])}; generate the videos again."
        )
    return loaders


def read_clip(
    path: Path, clip_id: str | None = None, identity: str = "", emotion: str | None = None, level: int = 0
) -> Clip:
    """Read a video file of a face crop with its sound at 25 fps and 16 kHz.

    Raises:
        DicetalkError: when it cannot be read, has no sound, or is not square.
    """
    from dicetalk.data.media import read_audio, read_video

    frames = np.stack(list(read_video(path, FPS)))
    height, width = frames.shape[1:3]
    if height != width:
        raise DicetalkError(
            f"{path} is {width} x {height} px; metrics read square face crops as `preprocess` makes."
        )
    return Clip(clip_id or path.stem, identity, emotion, level, frames, read_audio(path, SAMPLE_RATE_HZ))


def resize(frames: np.ndarray, size_px: int) -> np.ndarray:
    """Scale uint8 frames `(frames, height, width, 3)` to `size_px` squares."""
    import cv2

    if frames.shape[1:3] == (size_px, size_px):
        return frames
    interpolation = cv2.INTER_AREA if frames.shape[1] > size_px else cv2.INTER_CUBIC
    return np.stack([cv2.resize(frame, (size_px, size_px), interpolation=interpolation) for frame in frames])


def _from_sample(sample: Sample, size_px: int | None = None) -> Clip:
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
