"""One raw clip: to a face crop with sound and landmarks, or to the reason why not (rules: `docs/data.md`)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dicetalk.config import Preprocess
from dicetalk.data.faces import MEDIAPIPE_TO_68, FaceDetector, FaceMesh, FaceTracker, TrackedFace
from dicetalk.data.geometry import mask_rectangle, overlap, square_crop
from dicetalk.data.media import MediaInfo, probe, read_audio, read_video, write_video
from dicetalk.data.shards import AUDIO, LANDMARKS, VIDEO, Sample, encode_audio, encode_landmarks
from dicetalk.errors import DicetalkError

REASONS = {
    "unreadable": "a file is missing, damaged or cut off",
    "no_video": "the video file has no picture",
    "no_audio": "there is no sound",
    "silent": "the sound is quieter than preprocess.min_loudness_db",
    "too_short": "picture and sound together last less than preprocess.min_seconds",
    "no_face": "no face at the start",
    "face_lost": "the face is gone for more than preprocess.max_gap_frames frames",
    "several_faces": "several faces of comparable size",
    "face_too_small": "the face is smaller than preprocess.min_face_px",
    "shot_cut": "the picture jumps",
    "crop_out_of_frame": "the face moves out of the picture",
}

CUT_LEVEL = 30.0  # mean change of brightness between two frames, of 255, that only a cut makes
CUT_OVERLAP = 0.3  # of the face's boxes in two frames; nobody moves faster
THUMBNAIL_PX = 32
SOUND_TAIL_SECONDS = 0.2  # so much silence is added where sound ends before the picture, else frames are cut
OUTSIDE = 0.1  # part of the face's size that may stick out of the crop
COMPLETE = 0.9  # part of the announced duration that must be decodable
SHARD_CRF = 8  # near-lossless: what is trained on should not show the codec
SILENCE_DB = -120.0


@dataclass(frozen=True)
class Rejected:
    """Why a clip is not used: a key of `REASONS`, and what exactly was found."""

    code: str
    detail: str


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


class _RejectionError(Exception):
    """Carries a `Rejected` out of the steps below."""

    def __init__(self, code: str, detail: str):
        super().__init__(code, detail)
        self.rejected = Rejected(code, detail)


def preprocess_clip(row: dict[str, Any], raw_root: Path, settings: Preprocess) -> Sample | Rejected:
    """Turn one row of an index into a sample, or say why it cannot be used. Never changes the input files.

    Args:
        row: plain values by column, see `dicetalk.data.index`.
        raw_root: folder the row's paths are relative to.
        settings: section `preprocess` of the parameters.
    """
    try:
        return _preprocess(row, Path(raw_root), settings)
    except _RejectionError as rejection:
        return rejection.rejected


def _preprocess(row: dict[str, Any], raw_root: Path, settings: Preprocess) -> Sample:
    fps, rate = settings.fps, settings.sample_rate_hz
    video, info = raw_root / row["video_path"], _check_files(row, raw_root)
    start, end = row["start_seconds"] or 0.0, row["end_seconds"]
    limit = start + settings.max_seconds
    end = limit if end is None else min(end, limit)

    with _reading():
        samples = read_audio(raw_root / row["audio_path"], rate, start, end)
    loudness_db = _loudness_db(samples)
    if settings.min_loudness_db is not None and loudness_db < settings.min_loudness_db:
        raise _RejectionError("silent", f"{loudness_db:.1f} dB")

    with _reading():
        track = _track(video, start, end, row, settings)
    seconds = len(track.boxes) / fps
    if seconds < COMPLETE * (min(end, info.duration_seconds) - start):
        raise _RejectionError("unreadable", f"ends after {seconds:.2f} of {info.duration_seconds:.2f} s")
    num_frames = min(len(track.boxes), int((len(samples) / rate + SOUND_TAIL_SECONDS) * fps))
    if num_frames < settings.min_seconds * fps:
        raise _RejectionError("too_short", f"{num_frames} frames")

    crop_x, crop_y, side = _crop(track, settings)
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
        picture = _encode_crop(video, start, num_frames, (crop_x, crop_y, side), settings)
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
        raise _RejectionError("unreadable", str(error)) from error


def _check_files(row: dict[str, Any], raw_root: Path) -> MediaInfo:
    """Reject what lacks picture or sound; describe the video."""
    if row["audio_path"] is None:
        raise _RejectionError("no_audio", "the data set has no sound file for this clip")
    with _reading():
        info = probe(raw_root / row["video_path"])
        sound = info if row["audio_path"] == row["video_path"] else probe(raw_root / row["audio_path"])
    if not info.has_video:
        raise _RejectionError("no_video", row["video_path"])
    if not sound.has_audio:
        raise _RejectionError("no_audio", row["audio_path"])
    return info


def _loudness_db(samples: np.ndarray) -> float:
    """Return the RMS level relative to full scale."""
    rms = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0
    return 20 * np.log10(rms) if rms > 10 ** (SILENCE_DB / 20) else SILENCE_DB


@lru_cache(maxsize=1)
def _networks() -> tuple[FaceDetector, FaceMesh]:
    return FaceDetector(), FaceMesh()


def _track(video: Path, start: float, end: float, row: dict[str, Any], settings: Preprocess) -> Track:
    """Follow the face through the clip; stops reading at the first thing that rules the clip out."""
    tracker = FaceTracker(*_networks(), settings.min_face_score, settings.redetect_every_frames)
    x, y = row["crop_x"] or 0, row["crop_y"] or 0
    faces: dict[int, TrackedFace] = {}
    last: tuple[np.ndarray, np.ndarray] | None = None
    num_frames, gap, frame_size = 0, 0, (0, 0)
    for frame in read_video(video, settings.fps, start, end):
        frame_size = (frame.shape[1], frame.shape[0])
        region = frame if row["crop_w"] is None else frame[y : y + row["crop_h"], x : x + row["crop_w"]]
        face = tracker.update(region)
        gap = 0 if face is not None else gap + 1
        if gap > settings.max_gap_frames:
            code = "face_lost" if faces else "no_face"
            raise _RejectionError(code, f"no face from {(num_frames + 1 - gap) / settings.fps:.2f} s on")
        if face is not None:
            faces[num_frames] = face
            previous, last = last, (face.box, _thumbnail(region))
            if previous is not None and _is_cut(previous, last):
                raise _RejectionError("shot_cut", f"at {num_frames / settings.fps:.2f} s")
        num_frames += 1
    if not faces:
        raise _RejectionError("no_face", f"in none of {num_frames} frames")
    if np.median(tracker.face_counts) >= 2:
        raise _RejectionError("several_faces", f"{tracker.face_counts} faces at the checks")

    found = np.array(list(faces))
    shift = np.array([x, y])
    points = np.stack([face.landmarks[MEDIAPIPE_TO_68, :2] + shift for face in faces.values()])
    boxes = np.stack([face.box + np.append(shift, [0, 0]) for face in faces.values()])
    return Track(
        landmarks=_bridge(points.reshape(len(found), -1), found, num_frames).reshape(-1, 68, 2),
        boxes=_bridge(boxes, found, num_frames),
        frame_size=frame_size,
        min_score=min(face.score for face in faces.values()),
        num_bridged=num_frames - len(found),
    )


def _is_cut(before: tuple[np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray]) -> bool:
    """Compare face box and thumbnail of two frames that show a face."""
    return overlap(before[0], after[0]) < CUT_OVERLAP or np.abs(before[1] - after[1]).mean() > CUT_LEVEL


def _thumbnail(frame: np.ndarray) -> np.ndarray:
    step_y, step_x = (max(1, length // THUMBNAIL_PX) for length in frame.shape[:2])
    return frame[::step_y, ::step_x].mean(axis=-1, dtype=np.float32)


def _bridge(values: np.ndarray, found: np.ndarray, num_frames: int) -> np.ndarray:
    """Interpolate `(len(found), channels)` linearly to all frames; ends repeat the nearest found one."""
    frames = np.arange(num_frames)
    return np.stack([np.interp(frames, found, channel) for channel in values.T], axis=-1)


def _crop(track: Track, settings: Preprocess) -> tuple[int, int, int]:
    """Return one square `(x, y, side)` for the whole clip that holds the face wherever it goes."""
    face = np.median(track.boxes, axis=0)
    if face[2:].min() < settings.min_face_px:
        raise _RejectionError("face_too_small", f"{face[2]:.0f} x {face[3]:.0f} px")
    low = np.percentile(track.boxes[:, :2], 2, axis=0)
    high = np.percentile(track.boxes[:, :2] + track.boxes[:, 2:], 98, axis=0)
    slack = OUTSIDE * face[2:]
    for box in (np.append(face[:2], face[:2] + face[2:]), np.append(low, high)):
        x, y, side = square_crop(box, settings.crop_margin, *track.frame_size)
        if (low >= (x, y) - slack).all() and (high <= (x + side, y + side) + slack).all():
            return x, y, side
    raise _RejectionError("crop_out_of_frame", f"face within {low.round()} to {high.round()}")


def _encode_crop(
    video: Path, start: float, num_frames: int, crop: tuple[int, int, int], settings: Preprocess
) -> bytes:
    """Read the clip again, which costs less than holding it in memory, and encode its crop."""
    x, y, side = crop
    size = settings.size_px
    interpolation = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC

    def crops() -> Iterator[np.ndarray]:
        end = start + num_frames / settings.fps
        for frame in read_video(video, settings.fps, start, end):
            yield cv2.resize(frame[y : y + side, x : x + side], (size, size), interpolation=interpolation)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "crop.mp4"
        write_video(path, crops(), settings.fps, crf=SHARD_CRF, pixel_format="yuv444p")
        return path.read_bytes()
