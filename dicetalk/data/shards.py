"""Processed clips in WebDataset tar shards: written once in a fixed order, read back clip by clip.

A clip is four members of one tar: `<clip_id>.json` (what is known about it), `<clip_id>.video.mp4` (the face
crop), `<clip_id>.audio.wav` (16-bit mono) and `<clip_id>.landmarks.npy` (float32 `(num_frames, 68, 2)` in
pixels of the crop).
"""

from __future__ import annotations

import io
import json
import re
import tarfile
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dicetalk.data.media import read_video
from dicetalk.errors import DicetalkError

META, VIDEO, AUDIO, LANDMARKS = "json", "video.mp4", "audio.wav", "landmarks.npy"
# A dot would end the clip's name inside a WebDataset shard; names in a tar file have at most 100 characters.
CLIP_ID = re.compile(r"[A-Za-z0-9_-]{1,86}")


@dataclass(frozen=True)
class Sample:
    """One processed clip, decoded on demand.

    Attributes:
        clip_id: unique within the data set.
        meta: the index row of the clip and what preprocessing measured, see `docs/data.md`.
        members: encoded content by name.
    """

    clip_id: str
    meta: dict[str, Any]
    members: dict[str, bytes]

    def frames(self) -> np.ndarray:
        """Return the face crop, uint8 RGB `(num_frames, size, size, 3)`."""
        frames = np.stack(list(read_video(io.BytesIO(self.members[VIDEO]), self.meta["fps"])))
        if len(frames) != self.meta["num_frames"]:
            announced = self.meta["num_frames"]
            raise DicetalkError(f"{self.clip_id}: {len(frames)} frames stored, {announced} announced.")
        return frames

    def audio(self) -> np.ndarray:
        """Return the sound, float32 mono `(samples,)` in [-1, 1] at `meta["sample_rate_hz"]`."""
        with wave.open(io.BytesIO(self.members[AUDIO])) as stream:
            samples = np.frombuffer(stream.readframes(stream.getnframes()), "<i2")
        return samples.astype(np.float32) / 32768

    def landmarks(self) -> np.ndarray:
        """Return 68 landmarks per frame, float32 `(num_frames, 68, 2)` in pixels of the crop."""
        return np.load(io.BytesIO(self.members[LANDMARKS]), allow_pickle=False)


def encode_audio(samples: np.ndarray, sample_rate_hz: int) -> bytes:
    """Return float32 mono sound in [-1, 1] as a 16-bit WAV file."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(sample_rate_hz)
        stream.writeframes(np.round(np.clip(samples, -1, 32767 / 32768) * 32768).astype("<i2").tobytes())
    return buffer.getvalue()


def encode_landmarks(points: np.ndarray) -> bytes:
    """Return landmarks as an npy file; refuses non-finite values."""
    if not np.isfinite(points).all():
        raise DicetalkError("Landmarks hold non-finite values.")
    buffer = io.BytesIO()
    np.save(buffer, points.astype(np.float32), allow_pickle=False)
    return buffer.getvalue()


def check_clip_id(clip_id: str) -> None:
    """Raise `DicetalkError` for a name that could not be read back from a shard."""
    if not CLIP_ID.fullmatch(clip_id):
        raise DicetalkError(f"Clip id {clip_id!r} may hold up to 86 letters, digits, `_` and `-` only.")


def shard_name(index: int) -> str:
    """Return the file name of the shard with that number."""
    return f"shard-{index:06d}.tar"


def write_shard(path: Path, samples: Iterator[Sample]) -> None:
    """Write samples into one tar whose bytes depend on nothing but them."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for sample in samples:
            check_clip_id(sample.clip_id)
            meta = json.dumps(sample.meta, ensure_ascii=False, allow_nan=False, sort_keys=True).encode()
            for name, content in sorted({META: meta, **sample.members}.items()):
                header = tarfile.TarInfo(f"{sample.clip_id}.{name}")  # time and owner stay zero
                header.size = len(content)
                archive.addfile(header, io.BytesIO(content))


def read_samples(path: Path) -> Iterator[Sample]:
    """Yield the clips of one shard, or of all shards of a processed folder in order.

    Raises:
        DicetalkError: when there is no shard, or a clip in it is incomplete.
    """
    path = Path(path)
    shards = sorted(path.glob("shard-*.tar")) if path.is_dir() else [path]
    if not shards or not shards[0].is_file():
        raise DicetalkError(f"{path} holds no shard-*.tar; run `dvc repro preprocess`.")
    for shard in shards:
        yield from _read_shard(shard)


def _read_shard(shard: Path) -> Iterator[Sample]:
    with tarfile.open(shard, "r:") as archive:
        clip_id = ""
        members: dict[str, bytes] = {}
        for entry in archive:
            name, _, kind = entry.name.partition(".")
            content = archive.extractfile(entry)
            if content is None:
                raise DicetalkError(f"{shard}: {entry.name} is not a file.")
            if name != clip_id and members:
                yield _sample(shard, clip_id, members)
                members = {}
            clip_id = name
            members[kind] = content.read()
        if members:
            yield _sample(shard, clip_id, members)


def _sample(shard: Path, clip_id: str, members: dict[str, bytes]) -> Sample:
    if missing := {META, VIDEO, AUDIO, LANDMARKS} - set(members):
        raise DicetalkError(f"{shard}: clip {clip_id} lacks {sorted(missing)}; preprocess it again.")
    meta = json.loads(members.pop(META))
    return Sample(clip_id, meta, members)
