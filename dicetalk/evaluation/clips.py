"""The clips that metrics compare: frames, sound, label and landmarks of one video in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dicetalk.errors import DicetalkError
from dicetalk.files import sha256_file

if TYPE_CHECKING:
    from dicetalk.data.shards import Sample

FPS = 25.0
SAMPLE_RATE_HZ = 16000
MAX_FRAMES = 1500  # a video is held in memory while it is measured


@dataclass(frozen=True)
class Source:
    """A clip that has not been decoded yet.

    Attributes:
        load: decodes it; raises `DicetalkError` when it cannot be used.
        fingerprint: digest of its content, so that results are taken up again only for the same content.
    """

    load: Callable[[], Clip]
    fingerprint: Callable[[], str]


@dataclass(frozen=True)
class Clip:
    """One video with its sound.

    Attributes:
        clip_id: name of the clip.
        identity: who is seen.
        emotion: one of `dicetalk.labels.EMOTIONS`, or None in data without emotion labels.
        level: 1 to 3; 0 without label.
        frames: `(frames, height, width, 3)` uint8 RGB at 25 fps; face crops when they come from `preprocess`.
        audio: sound `(samples,)` float32 in [-1, 1] at 16 kHz; empty when the video has no sound.
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


def samples_of(folders: Sequence[Path], split: str, clip_ids: Collection[str]) -> Mapping[str, Source]:
    """Return the wanted clips of processed data sets, not decoded yet.

    Raises:
        DicetalkError: when a clip is not in that split of one of the folders.
    """
    from dicetalk.data.shards import read_samples

    sources = {
        sample.clip_id: Source(partial(_from_sample, sample), partial(_sample_digest, sample))
        for folder in folders
        for sample in read_samples(folder)
        if sample.clip_id in clip_ids and sample.meta["split"] == split
    }
    if missing := sorted(set(clip_ids) - sources.keys()):
        raise DicetalkError(
            f"{', '.join(map(str, folders))}: no {split} clip {', '.join(missing[:5])}; generate the videos "
            "again."
        )
    return sources


def video_source(
    path: Path, clip_id: str | None = None, identity: str = "", emotion: str | None = None, level: int = 0
) -> Source:
    """Return a video file with its labels, not decoded yet."""
    labels = (clip_id, identity, emotion, level)
    return Source(partial(read_clip, path, *labels), partial(_file_digest, path, labels))


def read_clip(
    path: Path, clip_id: str | None = None, identity: str = "", emotion: str | None = None, level: int = 0
) -> Clip:
    """Read a video file at 25 fps, and its sound, if it has one, at 16 kHz.

    Raises:
        DicetalkError: when it cannot be read, lasts more than a minute or changes its size.
    """
    from dicetalk.data.media import probe, read_audio, read_video

    pictures = list(islice(read_video(path, FPS), MAX_FRAMES + 1))
    if len(pictures) > MAX_FRAMES:
        raise DicetalkError(f"{path} lasts more than {MAX_FRAMES / FPS:.0f} s; cut it into clips.")
    if len({picture.shape for picture in pictures}) > 1:
        raise DicetalkError(f"{path} changes its size on the way.")
    frames = np.stack(pictures)
    audio = read_audio(path, SAMPLE_RATE_HZ) if probe(path).has_audio else np.zeros(0, np.float32)
    return Clip(clip_id or path.stem, identity, emotion, level, frames, audio)


def resize(frames: np.ndarray, size_px: int) -> np.ndarray:
    """Scale uint8 frames `(frames, height, width, 3)` to `size_px` squares."""
    import cv2

    if frames.shape[1:3] == (size_px, size_px):
        return frames
    interpolation = cv2.INTER_AREA if frames.shape[1] > size_px else cv2.INTER_CUBIC
    return np.stack([cv2.resize(frame, (size_px, size_px), interpolation=interpolation) for frame in frames])


def _file_digest(path: Path, labels: tuple) -> str:
    try:
        return json.dumps([sha256_file(path), path.stem, *labels])
    except OSError as error:
        raise DicetalkError(f"{path}: cannot be read: {error}") from None


def _sample_digest(sample: Sample) -> str:
    digest = hashlib.sha256(json.dumps(sample.meta, sort_keys=True, default=str).encode())
    for name in sorted(sample.members):
        digest.update(sample.members[name])
    return digest.hexdigest()


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
