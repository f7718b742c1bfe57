"""One raw clip: to a face crop with sound and landmarks, or to the reason why not (rules: `docs/data.md`)."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dicetalk.config import Preprocess
from dicetalk.data.media import MediaInfo, probe, read_audio, read_video, write_video
from dicetalk.data.reasons import Rejected, RejectionError
from dicetalk.data.shards import AUDIO, LANDMARKS, VIDEO, Sample, encode_audio, encode_landmarks
from dicetalk.data.track import Track, follow_face, networks
from dicetalk.errors import DicetalkError
from dicetalk.files import is_disk_full
from dicetalk.models.boxes import mask_rectangle, square_crop
from dicetalk.progress import log

SHARD_CRF = 8  # near-lossless: what is trained on should not show the codec
SILENCE_DB = -120.0


def preprocess_clip(
    row: dict[str, Any], raw_root: Path, settings: Preprocess, scratch: Path | None = None
) -> Sample | Rejected:
    """Turn one row of an index into a sample, or say why it cannot be used. Never changes the input files.

    Args:
        row: plain values by column, see `dicetalk.data.index`.
        raw_root: folder the row's paths are relative to.
        settings: section `preprocess` of the parameters.
        scratch: folder for a temporary file; the system's when missing.

    Raises:
        DicetalkError: when no clip could be worked on, because weights are missing.
        OSError: when the disk is full.
    """
    networks(settings.landmarks)  # before anything can be taken for the clip's fault
    try:
        return _preprocess(row, Path(raw_root), settings, scratch)
    except RejectionError as rejection:
        return rejection.rejected
    except DicetalkError:
        raise
    except Exception as error:  # one clip of a kind never seen must not stop the work on a million others
        if is_disk_full(error):
            raise
        log(f"{row['clip_id']} failed:\n{traceback.format_exc()}")
        return Rejected("failed", f"{type(error).__name__}: {error}")


def _preprocess(row: dict[str, Any], raw_root: Path, settings: Preprocess, scratch: Path | None) -> Sample:
    fps, rate = settings.fps, settings.sample_rate_hz
    video, info = raw_root / row["video_path"], _check_files(row, raw_root)
    start, end = row["start_seconds"] or 0.0, row["end_seconds"]
    limit = start + settings.max_seconds
    end = limit if end is None else min(end, limit)

    with _reading():
        samples = read_audio(raw_root / row["audio_path"], rate, start, end)
    loudness_db = _loudness_db(samples)
    if settings.min_loudness_db is not None and loudness_db < settings.min_loudness_db:
        raise RejectionError("silent", f"{loudness_db:.1f} dB")

    with _reading():
        track = follow_face(video, start, end, row, settings)
    seconds = len(track.boxes) / fps
    if seconds < settings.min_complete * (min(end, info.duration_seconds) - start):
        raise RejectionError("unreadable", f"ends after {seconds:.2f} of {info.duration_seconds:.2f} s")
    sounding_seconds = len(samples) / rate + settings.max_silent_tail_seconds
    num_frames = min(len(track.boxes), int(sounding_seconds * fps))
    if num_frames < settings.min_seconds * fps:
        raise RejectionError("too_short", f"{num_frames} frames")

    crop_x, crop_y, side = _crop(track, row, settings)
    scale = settings.size_px / side
    origin = np.array([crop_x, crop_y])
    # Between pixel centres, as cv2.resize maps them.
    landmarks = (track.landmarks[:num_frames] - origin + 0.5) * scale - 0.5
    face = np.median(track.boxes, axis=0)
    box = np.concatenate([(face[:2] - origin) * scale, face[2:] * scale])
    left, top, right, bottom = mask_rectangle(box, settings.mask_area, settings.size_px, settings.size_px)
    num_samples = round(num_frames * rate / fps)
    samples = np.pad(samples[:num_samples], (0, max(0, num_samples - len(samples))))
    with _reading():
        picture = _encode_crop(video, start, num_frames, (crop_x, crop_y, side), settings, scratch)
    meta = {
        **row,
        "num_frames": num_frames,
        "fps": fps,
        "sample_rate_hz": rate,
        "size_px": settings.size_px,
        "box": [round(float(value), 2) for value in box],
        "mask_box": [left, top, right - left, bottom - top],
        "source_crop": [crop_x, crop_y, side],
        "face_px": round(float(face[2:].min()), 1),
        "face_score": round(track.min_score, 4),
        "bridged_frames": track.num_bridged,
        "loudness_db": round(loudness_db, 2),
    }
    members = {VIDEO: picture, AUDIO: encode_audio(samples, rate), LANDMARKS: encode_landmarks(landmarks)}
    return Sample(row["clip_id"], meta, members)


@contextmanager
def _reading() -> Iterator[None]:
    """Turn the errors of damaged files into a rejection."""
    try:
        yield
    except DicetalkError as error:
        raise RejectionError("unreadable", str(error)) from error


def _check_files(row: dict[str, Any], raw_root: Path) -> MediaInfo:
    """Reject what lacks picture or sound; describe the video."""
    if row["audio_path"] is None:
        raise RejectionError("no_audio", "the data set has no sound file for this clip")
    for path in dict.fromkeys((row["video_path"], row["audio_path"])):
        if not (raw_root / path).is_file():  # opening a named pipe would wait for ever
            raise RejectionError("unreadable", f"{path} is missing or no file")
    with _reading():
        info = probe(raw_root / row["video_path"])
        sound = info if row["audio_path"] == row["video_path"] else probe(raw_root / row["audio_path"])
    if not info.has_video:
        raise RejectionError("no_video", row["video_path"])
    if not sound.has_audio:
        raise RejectionError("no_audio", row["audio_path"])
    return info


def _loudness_db(samples: np.ndarray) -> float:
    """Return the RMS level relative to full scale."""
    rms = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0
    return 20 * np.log10(rms) if rms > 10 ** (SILENCE_DB / 20) else SILENCE_DB


def _crop(track: Track, row: dict[str, Any], settings: Preprocess) -> tuple[int, int, int]:
    """Return one square `(x, y, side)` for the whole clip that holds the face wherever it goes."""
    face = np.median(track.boxes, axis=0)
    if face[2:].min() < settings.min_face_px:
        raise RejectionError("face_too_small", f"{face[2]:.0f} x {face[3]:.0f} px")
    low = np.percentile(track.boxes[:, :2], 2, axis=0)
    high = np.percentile(track.boxes[:, :2] + track.boxes[:, 2:], 98, axis=0)
    slack = settings.max_outside * face[2:]
    if settings.crop_source == "published" and row["crop_w"] is not None:
        side = min(row["crop_w"], row["crop_h"])  # equal, but where the frame cuts the published square
        squares = [(row["crop_x"], row["crop_y"], side)]
    else:
        boxes = (np.append(face[:2], face[:2] + face[2:]), np.append(low, high))
        squares = [square_crop(box, settings.crop_margin, *track.frame_size) for box in boxes]
    for x, y, side in squares:
        if (low >= (x, y) - slack).all() and (high <= (x + side, y + side) + slack).all():
            return x, y, side
    raise RejectionError("crop_out_of_frame", f"face within {low.round()} to {high.round()}")


def _encode_crop(
    video: Path,
    start: float,
    num_frames: int,
    crop: tuple[int, int, int],
    settings: Preprocess,
    scratch: Path | None,
) -> bytes:
    """Read the clip again, which costs less than holding it in memory, and encode its crop."""
    x, y, side = crop
    size = settings.size_px
    interpolation = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC

    def crops() -> Iterator[np.ndarray]:
        end = start + num_frames / settings.fps
        for frame in read_video(video, settings.fps, start, end):
            yield cv2.resize(frame[y : y + side, x : x + side], (size, size), interpolation=interpolation)

    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        path = Path(folder) / "crop.mp4"
        write_video(
            path, crops(), settings.fps, crf=SHARD_CRF, pixel_format="yuv444p", preset=settings.video_preset
        )
        return path.read_bytes()
