"""An encoded corpus of a few kilobytes in which class and identity are known to be readable."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from dicetalk.data.expression import EXPRESSION_DIM
from dicetalk.labels import CLASSES

NUM_FRAMES = 20
LATENT_SHAPE = (4, 8, 8)
IMAGE_DIM = 32
SPEECH_SHAPE = (1, 6)
STRIDE = 5
SIZE_PX = 64


def write_encoded_mead(
    folder: Path, num_identities: int = 6, num_test: int = 2, num_frames: int = NUM_FRAMES
) -> Path:
    """Write one clip per identity and class; the last `num_test` identities are the test split."""
    rng = np.random.default_rng(0)
    class_speech = rng.normal(size=(len(CLASSES), SPEECH_SHAPE[1]))
    class_expression = rng.normal(size=(len(CLASSES), EXPRESSION_DIM))
    rows, tensors = [], {}
    for identity in range(num_identities):
        face = rng.normal(size=EXPRESSION_DIM)
        for index, (emotion, level) in enumerate(CLASSES):
            clip_id = f"M{identity:03d}-{emotion}-{level}"
            rows.append(_row(clip_id, f"M{identity:03d}", identity >= num_identities - num_test, num_frames))
            rows[-1] |= {"emotion": emotion, "level": level}
            tensors |= _features(
                rng, clip_id, num_frames, class_speech[index], class_expression[index] + face
            )
    return _write(folder, rows, tensors)


def write_encoded_hdtf(folder: Path, num_clips: int = 4, num_frames: int = NUM_FRAMES) -> Path:
    """Write clips without emotion labels; the last one is the test split."""
    rng = np.random.default_rng(1)
    rows, tensors = [], {}
    for clip in range(num_clips):
        rows.append(_row(f"RD_{clip}", f"RD{clip}", clip == num_clips - 1, num_frames))
        rows[-1] |= {"emotion": None, "level": 0}
        tensors |= _features(rng, f"RD_{clip}", num_frames, 0.0, 0.0)
    return _write(folder, rows, tensors)


def write_encoded(folder: Path, index: pd.DataFrame, num_frames: int = NUM_FRAMES) -> Path:
    """Write the clips of an index as if they had been encoded; their class can be read from them."""
    rng = np.random.default_rng(2)
    rows, tensors = [], {}
    for clip in index.to_dict("records"):
        rows.append(_row(clip["clip_id"], clip["identity"], clip["split"] == "test", num_frames))
        emotion = None if pd.isna(clip["emotion"]) else clip["emotion"]
        rows[-1] |= {"emotion": emotion, "level": clip["level"]}
        of_class = np.random.default_rng(zlib.crc32(f"{emotion} {clip['level']}".encode()))
        means = of_class.normal(size=SPEECH_SHAPE[1]), of_class.normal(size=EXPRESSION_DIM)
        tensors |= _features(rng, clip["clip_id"], num_frames, *means)
    return _write(folder, rows, tensors)


def _row(clip_id: str, identity: str, test: bool, num_frames: int) -> dict:
    box = [8, 8, 48, 48]
    return {
        "clip_id": clip_id, "identity": identity, "split": "test" if test else "train", "num_frames":
        num_frames, "fps": 25.0, "box": box, "mask_box": box, "shard": "shard-000000.safetensors",
    }  # fmt: skip


def _features(
    rng: np.random.Generator, clip_id: str, num_frames: int, speech, expression
) -> dict[str, np.ndarray]:
    def noisy(shape: tuple[int, ...], mean=0.0) -> np.ndarray:
        return rng.normal(mean, 0.3, shape)

    features = {
        "latents": noisy((num_frames, *LATENT_SHAPE)).astype(np.float16),
        "image_embeddings": noisy((-(-num_frames // STRIDE), IMAGE_DIM)).astype(np.float16),
        "speech": noisy((2 * num_frames, *SPEECH_SHAPE), speech).astype(np.float16),
        "expression": noisy((num_frames, EXPRESSION_DIM), expression).astype(np.float32),
    }
    return {f"{clip_id}/{name}": values for name, values in features.items()}


def _write(folder: Path, rows: list[dict], tensors: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    save_file(tensors, folder / "shard-000000.safetensors")
    pd.DataFrame(rows).to_parquet(folder / "clips.parquet", index=False)
    return folder
