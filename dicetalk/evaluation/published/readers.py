"""How each published network is fed: crop, resize and range of values, as its publisher does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dicetalk.errors import DicetalkError
from dicetalk.evaluation.faces import (
    ARCFACE_POINTS,
    ARCFACE_TEMPLATE,
    DLIB_POINTS,
    DLIB_TEMPLATE,
    Video,
    aligned_faces,
    face_boxes,
    syncnet_faces,
)
from dicetalk.evaluation.metrics.emotion import video_probabilities
from dicetalk.evaluation.mfcc import mfcc
from dicetalk.evaluation.protocol import ReaderDefinition
from dicetalk.evaluation.published import (
    arcface,
    emo_affectnet,
    emotion_fan,
    face_api,
    i3d,
    inception,
    syncnet_v2,
)
from dicetalk.evaluation.reader import Parts, Reader
from dicetalk.labels import EMOTIONS, emotion_index

BATCH = 16  # fixed, and never across videos: a clip's numbers must not depend on what else is measured
SAMPLES_PER_FRAME, COLUMNS_PER_FRAME, WINDOW_COLUMNS = 640, 4, 20  # 16 kHz, 25 fps, MFCC at 100 Hz
FVD_FRAMES = 16


class PublishedReader(Reader):
    """A published network.

    Args:
        item: what the protocol says about it.
        network: the loaded network.
        sha256: of its weights.
    """

    def __init__(self, item: ReaderDefinition, network: Any, sha256: str) -> None:
        super().__init__(item.network, sha256)
        self.item, self.network = item, network


class InceptionReader(PublishedReader):
    """FID features of whole frames."""

    def see(self, video: Video) -> Parts:
        """Return `image`."""
        resize = clean_resize if self.item.clean_resize else reference_resize
        return {"image": in_batches(lambda x: self.network(resize(x)), video.frames[:: self.item.stride])}


class I3DReader(PublishedReader):
    """FVD logits of consecutive windows of 16 frames that do not overlap; the rest is left out."""

    def see(self, video: Video) -> Parts:
        """Return `video`; refuses videos of less than 16 frames."""
        if (num_windows := len(video.frames) // FVD_FRAMES) == 0:
            raise DicetalkError(f"FVD needs {FVD_FRAMES} frames, found {len(video.frames)}")
        windows = video.frames[: num_windows * FVD_FRAMES]
        windows = windows.reshape(num_windows, FVD_FRAMES, *windows.shape[1:])
        return {"video": np.concatenate([self.network(i3d_input(window)).numpy() for window in windows])}


class SyncNetReader(PublishedReader):
    """Sync-C and Sync-D as SyncNet's own evaluation: one window less than fits, as there."""

    def see(self, video: Video) -> Parts:
        """Return `lips`; refuses videos of less than 6 frames."""
        num_windows = len(video.frames) - syncnet_v2.WINDOW_FRAMES
        if num_windows < 1:
            raise DicetalkError(f"SyncNet needs 6 frames, found {len(video.frames)}")
        bgr = np.ascontiguousarray(syncnet_faces(video, syncnet_v2.INPUT_PX)[..., ::-1])
        windows = np.lib.stride_tricks.sliding_window_view(bgr, syncnet_v2.WINDOW_FRAMES, axis=0)[
            :num_windows
        ]

        def embed(x: Tensor) -> Tensor:
            return self.network.embed_video(x.permute(0, 3, 4, 1, 2).float())

        return {"lips": in_batches(embed, windows)}

    def hear(self, samples: np.ndarray, num_frames: int) -> Parts:
        """Return `heard`; refuses sound of less than 6 frames."""
        num_windows = min(num_frames, len(samples) // SAMPLES_PER_FRAME) - syncnet_v2.WINDOW_FRAMES
        if num_windows < 1:
            raise DicetalkError(f"SyncNet needs the sound of 6 frames, found {len(samples) / 16000:.2f} s")
        columns = mfcc(samples)
        windows = np.lib.stride_tricks.sliding_window_view(columns, WINDOW_COLUMNS, axis=0)
        windows = windows[::COLUMNS_PER_FRAME][:num_windows]
        return {"heard": in_batches(lambda x: self.network.embed_audio(x.float()[:, None]), windows)}


class EmoAffectNetReader(PublishedReader):
    """Seven emotions and the 512 features before them, of the box around the landmarks."""

    emotions = emo_affectnet.CLASSES

    def see(self, video: Video) -> Parts:
        """Return `emotion` and `expression`."""
        faces = face_boxes(video, self.item.stride, emo_affectnet.INPUT_PX, cv2.INTER_NEAREST)
        mean = torch.tensor(emo_affectnet.MEAN_BGR)[:, None, None]

        def features(x: Tensor) -> Tensor:
            return self.network.features(channels_first(x).float().flip(1) - mean)

        expression = in_batches(features, faces)
        logits = self.network.fc2(torch.from_numpy(expression)).numpy()
        return {"emotion": _in_our_order(logits, self.emotions), "expression": expression}


class EmotionFanReader(PublishedReader):
    """Eight emotions of aligned faces, with attention over the frames of the video."""

    emotions = emotion_fan.CLASSES

    def see(self, video: Video) -> Parts:
        """Return `emotion` and `expression`."""
        faces = aligned_faces(video, self.item.stride, emotion_fan.INPUT_PX, DLIB_POINTS, DLIB_TEMPLATE)
        expression = in_batches(lambda x: self.network.features(channels_first(x).float() / 255), faces)
        logits = self.network.judge(torch.from_numpy(expression)).numpy()
        return {"emotion": _in_our_order(logits[None], self.emotions), "expression": expression}


class FaceApiExpressionReader(PublishedReader):
    """Seven expressions and the 256 features before them, of the box around the landmarks."""

    emotions = face_api.CLASSES

    def see(self, video: Video) -> Parts:
        """Return `emotion` and `expression`."""
        faces = face_boxes(video, self.item.stride, face_api.EXPRESSION_PX, cv2.INTER_AREA)
        expression = in_batches(lambda x: self.network.features(_face_api_input(x)), faces)
        fc = self.network.fc
        logits = torch.from_numpy(expression) @ fc["weights"] + fc["bias"]
        return {"emotion": _in_our_order(logits.numpy(), self.emotions), "expression": expression}


class FaceApiIdentityReader(PublishedReader):
    """128 numbers of faces aligned as dlib does."""

    def see(self, video: Video) -> Parts:
        """Return `identity`."""
        faces = aligned_faces(video, self.item.stride, face_api.IDENTITY_PX, DLIB_POINTS, DLIB_TEMPLATE)
        return {"identity": in_batches(lambda x: self.network(_face_api_input(x)), faces)}


class ArcFaceReader(PublishedReader):
    """512 numbers of faces aligned as InsightFace does."""

    def see(self, video: Video) -> Parts:
        """Return `identity`."""
        faces = aligned_faces(video, self.item.stride, arcface.INPUT_PX, ARCFACE_POINTS, ARCFACE_TEMPLATE)
        return {"identity": in_batches(lambda x: self.network(channels_first(x).float() / 127.5 - 1), faces)}


class LpipsReader(PublishedReader):
    """LPIPS of pairs of frames; on its own, a video has none."""

    def see(self, video: Video) -> Parts:
        """Return nothing."""
        return {}

    def compare(self, first: Tensor, second: Tensor) -> float:
        """Return the distance of two pictures `(1, 3, height, width)` in [-1, 1]."""
        return self.network(first, second).item()


def in_batches(network: Callable[[Tensor], Tensor], items: np.ndarray) -> np.ndarray:
    """Return `network` of `items` along the first axis; items equal to the one before them are read once."""
    changed = [True, *((items[i] != items[i - 1]).any() for i in range(1, len(items)))]
    distinct = items[changed]
    outputs = [
        network(torch.from_numpy(np.ascontiguousarray(distinct[start : start + BATCH]))).numpy()
        for start in range(0, len(distinct), BATCH)
    ]
    return np.concatenate(outputs)[np.cumsum(changed) - 1]


def channels_first(frames: Tensor) -> Tensor:
    """Turn `(frames, height, width, 3)` into `(frames, 3, height, width)`."""
    return frames.permute(0, 3, 1, 2)


def reference_resize(frames: Tensor) -> Tensor:
    """Scale as pytorch-fid does: bilinear without antialiasing, then to [-1, 1].

    Args:
        frames: uint8 RGB `(frames, height, width, 3)`.

    Returns:
        float32 `(frames, 3, 299, 299)`.
    """
    size = (inception.INPUT_PX, inception.INPUT_PX)
    pixels = channels_first(frames).float() / 255
    return 2 * F.interpolate(pixels, size=size, mode="bilinear", align_corners=False) - 1


def clean_resize(frames: Tensor) -> Tensor:
    """Scale as clean-fid does: Pillow's antialiased bicubic filter in floating point, then to [-1, 1].

    Args:
        frames: uint8 RGB `(frames, height, width, 3)`.
    """
    from PIL import Image

    size = (inception.INPUT_PX, inception.INPUT_PX)
    planes = [
        np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BICUBIC)).clip(0, 255)
        for plane in channels_first(frames).float().flatten(0, 1).numpy()
    ]
    return torch.from_numpy(np.stack(planes)).unflatten(0, (-1, 3)) / 127.5 - 1


def i3d_input(frames: np.ndarray) -> Tensor:
    """Scale the short side to 224 px, bilinear, and take the middle square, as VideoGPT's FVD does.

    Args:
        frames: uint8 RGB `(frames, height, width, 3)`.

    Returns:
        float32 `(1, 3, frames, 224, 224)` in [-1, 1].
    """
    pixels = channels_first(torch.from_numpy(np.ascontiguousarray(frames))).float() / 255
    height, width = pixels.shape[2:]
    side = i3d.INPUT_PX
    size = (side, -(-width * side // height)) if height <= width else (-(-height * side // width), side)
    pixels = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    return (pixels[:, :, top : top + side, left : left + side] * 2 - 1).transpose(0, 1)[None]


def _face_api_input(faces: Tensor) -> Tensor:
    return (channels_first(faces).float() - torch.tensor(face_api.MEAN_RGB)[:, None, None]) / 255


def _in_our_order(frame_logits: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """Return a video's probabilities `(8,)` in the order of `EMOTIONS`, 0 for unknown classes."""
    probabilities = np.zeros(len(EMOTIONS))
    probabilities[[emotion_index(name) for name in classes]] = video_probabilities(frame_logits)
    return probabilities
