"""A toy world: identity is the colour of a face, emotion a mark on its forehead; sound opens its mouth."""

from __future__ import annotations

import numpy as np

from dicetalk.evaluation.clips import Clip
from dicetalk.labels import EMOTIONS, NEUTRAL, emotion_index

SIZE_PX, SAMPLES_PER_FRAME = 64, 640


def toy_clip(identity: int, emotion: str, take: int = 1, num_frames: int = 36) -> Clip:
    """Return a clip whose loudness opens the mouth."""
    rng = np.random.default_rng([identity, emotion_index(emotion), take])
    loudness = np.repeat(rng.random(num_frames // 2 + 1), 2)[:num_frames]
    frames = np.full((num_frames, SIZE_PX, SIZE_PX, 3), 40, dtype=np.uint8)
    frames[:, 8:60, 12:52] = np.random.default_rng(identity).integers(90, 200, 3)
    column = 14 + 4 * emotion_index(emotion)
    frames[:, 12:20, column : column + 5] = 250
    for frame, value in zip(frames, loudness, strict=True):
        frame[46 - int(10 * value) : 48 + int(10 * value), 22:42] = 5
    noise = rng.standard_normal(num_frames * SAMPLES_PER_FRAME)
    audio = (0.2 * np.repeat(loudness, SAMPLES_PER_FRAME) * noise).astype(np.float32)
    landmarks = np.full((num_frames, 68, 2), 0.5, dtype=np.float32)
    landmarks[:, 36] = [0.3, 0.4]
    landmarks[:, 45] = [0.7, 0.4]
    landmarks[:, 57, 1] = 0.7 + 0.1 * loudness
    level = 1 if emotion == NEUTRAL else 3
    return Clip(f"T{identity}_{emotion}_{take}", f"T{identity}", emotion, level, frames, audio, landmarks)


def toy_clips() -> list[Clip]:
    """Eight identities, eight emotions."""
    return [toy_clip(identity, emotion) for identity in range(8) for emotion in EMOTIONS]
