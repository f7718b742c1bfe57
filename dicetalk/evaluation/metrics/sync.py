"""Lip-sync distance and confidence (Sync-D, Sync-C; LSE-D, LSE-C), scored as SyncNet's own code does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dicetalk.config import Evaluate
from dicetalk.errors import DicetalkError
from dicetalk.evaluation.trial import Trial, common


def measure(trial: Trial, settings: Evaluate) -> dict[str, float]:
    """Return `sync_c`, `sync_d` and `av_offset_frames` of a video and the sound it is judged with."""
    if "lips" not in trial.shown or "heard" not in trial.heard:
        return {}
    score = sync_score(*common(trial.shown["lips"], trial.heard["heard"]), settings.max_shift_frames)
    return {"sync_c": score.confidence, "sync_d": score.distance, "av_offset_frames": score.offset_frames}


@dataclass(frozen=True)
class SyncScore:
    """How well lips and sound of a clip fit.

    Attributes:
        distance: Sync-D, the smallest mean distance over all shifts; lower is better.
        confidence: Sync-C, median minus minimum of the mean distance over shifts; higher is better.
        offset_frames: shift of the minimum; positive when the sound must be moved to later frames' windows to
            fit.
    """

    distance: float
    confidence: float
    offset_frames: int


def sync_score(video: np.ndarray, audio: np.ndarray, max_shift_frames: int = 15) -> SyncScore:
    """Compare lips and sound at every shift of up to `max_shift_frames`.

    Distances are averaged over the clip for each shift. Sound before the beginning and after the end counts
    as the zero vector, as in the reference code; in short clips that makes large shifts look better than they
    are.

    Args:
        video: embeddings of the video windows `(windows, dim)`.
        audio: embeddings of the audio windows `(windows, dim)`.
        max_shift_frames: 15 in the reference code.

    Raises:
        DicetalkError: when the two do not have the same shape or are empty.
    """
    distances = shift_distances(video, audio, max_shift_frames)
    best = int(np.argmin(distances))
    return SyncScore(
        float(distances[best]), float(np.median(distances) - distances[best]), max_shift_frames - best
    )


def shift_distances(video: np.ndarray, audio: np.ndarray, max_shift_frames: int) -> np.ndarray:
    """Return the mean distance for the shifts -max...max, `(2 * max_shift_frames + 1,)`."""
    if video.shape != audio.shape or len(video) == 0:
        raise DicetalkError(
            f"Sync needs equally many windows of video and sound, found {video.shape} and {audio.shape}."
        )
    video = video.astype(np.float64)
    padded = np.pad(audio.astype(np.float64), ((max_shift_frames, max_shift_frames), (0, 0)))
    shifts = range(2 * max_shift_frames + 1)
    return np.array([np.linalg.norm(video - padded[k : k + len(video)], axis=1).mean() for k in shifts])
