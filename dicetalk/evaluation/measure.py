"""What the metric networks say about one video and one sound, computed once and reused by all systems."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dicetalk.evaluation.clips import Clip
from dicetalk.evaluation.emotion import video_probabilities
from dicetalk.evaluation.frechet import Moments
from dicetalk.evaluation.landmarks import LandmarkReader
from dicetalk.evaluation.networks import to_input
from dicetalk.evaluation.store import MetricNetwork, load_network
from dicetalk.evaluation.syncnet import audio_windows, mouth_region, video_windows


@dataclass(frozen=True)
class Shown:
    """What is seen in a video.

    Attributes:
        emotion: class probabilities `(8,)`.
        identity: embeddings of the frames `(frames, dim)`.
        image: moments of the frames' features.
        video: moments of the features of 5-frame windows.
        lips: embeddings of the 5-frame windows `(frames - 4, dim)`.
        landmarks: 68 points of every n-th frame as fractions of the crop's sides, NaN where no face was
            found.
    """

    emotion: np.ndarray
    identity: np.ndarray
    image: Moments
    video: Moments
    lips: np.ndarray
    landmarks: np.ndarray


@dataclass(frozen=True)
class Measured:
    """A measured clip.

    Attributes:
        clip_id: name of the clip.
        identity: who is seen.
        emotion: its label, or None.
        level: 1 to 3; 0 without label.
        shown: what its frames show.
        heard: embeddings of its sound `(frames - 4, dim)`.
        landmarks: the reference for `lmd`, like `Shown.landmarks`: of a processed clip those that
            `preprocess` found in the full-size video, which are more exact than what can be read from the
            crop.
        frames: frames that were asked to be kept, by index.
    """

    clip_id: str
    identity: str
    emotion: str | None
    level: int
    shown: Shown
    heard: np.ndarray
    landmarks: np.ndarray
    frames: dict[int, np.ndarray]


class Measurer:
    """The loaded networks; one per thread, because OpenCV's networks are not shared."""

    def __init__(self, networks: dict[str, MetricNetwork], landmark_stride: int) -> None:
        self.networks = {kind: network.module for kind, network in networks.items()}
        self.landmark_stride = landmark_stride
        self.landmarks = LandmarkReader()

    def measure(self, clip: Clip, num_frames: int, keep: Collection[int] = ()) -> Measured:
        """Measure the first `num_frames` frames of a clip.

        Args:
            clip: the clip, at least that long.
            num_frames: how much of it is compared.
            keep: indices of frames that serve as reference images.

        Raises:
            DicetalkError: when video or sound is too short.
        """
        kept = {index: clip.frames[index] for index in keep}
        clip = clip.cut(num_frames)
        shown = self.see(clip.frames)
        stored = clip.landmarks
        return Measured(
            clip_id=clip.clip_id,
            identity=clip.identity,
            emotion=clip.emotion,
            level=clip.level,
            shown=shown,
            heard=self.hear(clip.audio, num_frames),
            landmarks=shown.landmarks if stored is None else stored[:: self.landmark_stride],
            frames=kept,
        )

    @torch.inference_mode()
    def see(self, frames: np.ndarray) -> Shown:
        """Measure frames `(frames, height, width, 3)` uint8 RGB."""
        pixels = to_input(frames)
        identity = self.networks["identity"].embed(pixels).numpy()
        lips = self.networks["sync"].embed_video(video_windows(mouth_region(pixels))).numpy()
        return Shown(
            emotion=video_probabilities(self.networks["emotion"](pixels).numpy()),
            identity=identity,
            image=Moments.of(identity),
            video=Moments.of(lips),
            lips=lips,
            landmarks=self.landmarks.read(frames[:: self.landmark_stride]),
        )

    @torch.inference_mode()
    def hear(self, samples: np.ndarray, num_frames: int) -> np.ndarray:
        """Return embeddings `(num_frames - 4, dim)` of the sound during the first `num_frames` frames."""
        return self.networks["sync"].embed_audio(audio_windows(samples, num_frames)).numpy()

    @torch.inference_mode()
    def recognise(self, frame: np.ndarray) -> np.ndarray:
        """Return the identity embedding `(dim,)` of a reference image `(height, width, 3)`."""
        return self.networks["identity"].embed(to_input(frame[None])).numpy()[0]


def load_networks(folder: Path) -> dict[str, MetricNetwork]:
    """Load the emotion, identity and sync networks of a folder."""
    return {kind: load_network(folder, kind) for kind in ("emotion", "identity", "sync")}
