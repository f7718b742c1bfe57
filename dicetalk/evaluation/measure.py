"""What the metric networks say about one video and its sound, computed once and reused by all systems."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import cv2
import numpy as np

from dicetalk.errors import DicetalkError
from dicetalk.evaluation.clips import Clip
from dicetalk.evaluation.faces import Video
from dicetalk.evaluation.landmarks import LandmarkReader
from dicetalk.evaluation.metrics.pixels import compare_pixels
from dicetalk.evaluation.protocol import Definition
from dicetalk.evaluation.reader import Parts, Reader, hear, see
from dicetalk.evaluation.roles import Role


class Measurer:
    """The loaded networks; one per thread, because OpenCV's networks are not shared.

    Args:
        definition: the protocol.
        readers: the networks by role, which threads share.
    """

    def __init__(self, definition: Definition, readers: Mapping[Role, Reader]) -> None:
        self.definition, self.readers = definition, readers
        self.finder = LandmarkReader()

    def measure(
        self, clip: Clip, keep: Collection[int] = (), real: Clip | None = None
    ) -> tuple[Parts, dict[Role, str]]:
        """Measure a clip, of which the protocol may take the first frames only.

        Args:
            clip: the clip.
            keep: indices of frames that serve as reference images and are kept as `frame_<index>`.
            real: the real clip that pixels are compared with, where the protocol does that.

        Returns:
            The parts of `dicetalk.evaluation.roles`, and the landmarks that `preprocess` found in the
            full-size video as `known_landmarks`, which are more exact than what can be read from the crop;
            and for each role that could not be measured the reason.

        Raises:
            DicetalkError: when the clip is too short, or no role can be measured.
        """
        kept = {f"frame_{index}": clip.frames[index] for index in keep}
        if len(clip.frames) < self.definition.min_frames:
            raise DicetalkError(
                f"{clip.clip_id} has {len(clip.frames)} frames, "
                f"the protocol needs {self.definition.min_frames}"
            )
        if self.definition.num_frames is not None:
            clip = clip.cut(self.definition.num_frames)
        parts, problems = self.see(clip.frames)
        try:
            if "sync" in self.readers:
                if not len(clip.audio):
                    raise DicetalkError("there is no sound")
                parts |= hear(self.readers["sync"], clip.audio, len(clip.frames))
        except DicetalkError as error:
            problems.setdefault("sync", str(error))
        if real is not None:
            try:
                stride = self.definition.readers["pixels"].stride
                perceptual = self.readers.get("perceptual")
                distance = None if perceptual is None else perceptual.compare
                parts |= compare_pixels(clip.frames, real.frames, stride, distance)
                if "psnr" not in parts:
                    problems["pixels"] = "every frame equals the real one: PSNR is infinite and left out"
            except DicetalkError as error:
                problems["pixels"] = str(error)
        if clip.landmarks is not None and "landmarks" in self.readers:
            parts["known_landmarks"] = clip.landmarks[:: self.definition.readers["landmarks"].stride]
        if not parts:
            raise DicetalkError("; ".join(f"{role}: {reason}" for role, reason in problems.items()))
        return parts | kept, problems

    def see(self, frames: np.ndarray) -> tuple[Parts, dict[Role, str]]:
        """Return the parts of frames `(frames, height, width, 3)` uint8 RGB, and why roles failed."""
        video = Video(frames, self.finder)
        parts: Parts = {}
        problems: dict[Role, str] = {}
        for role, reader in self.readers.items():
            try:
                parts |= see(reader, video)
            except (DicetalkError, cv2.error) as error:
                problems[role] = str(error)
        return parts, problems

    def recognise(self, frame: np.ndarray) -> np.ndarray:
        """Return the identity embedding `(dim,)` of a reference image `(height, width, 3)` on its own."""
        return see(self.readers["identity"], Video(frame[None], self.finder))["identity"][0]
