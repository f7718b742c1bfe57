"""Emotion priors of mode P: the mean embedding of many training clips of one emotion (paper section 4.1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors.numpy import load_file, save_file

from dicetalk.compute.precision import fixed_threads
from dicetalk.data.dataset import EncodedClips
from dicetalk.errors import DicetalkError
from dicetalk.files import atomic_path
from dicetalk.labels import CLASSES, EMOTIONS, class_index, levels_of
from dicetalk.models.embedder import EmotionEmbedder
from dicetalk.training.embeddings import Modalities, embed_clips

PriorSource = Literal["embedding", "label"]
PRIORS_FILE = "priors.safetensors"


@fixed_threads()
def class_priors(embedder: EmotionEmbedder, clips: EncodedClips) -> dict[str, np.ndarray]:
    """Return class means `P/<emotion>/<level>` and emotion means `P/<emotion>`, float32 `(embedding_dim,)`.

    The mean over an emotion weights its levels by their number of clips.

    Raises:
        DicetalkError: when a class has no training clip.
    """
    vectors = embed_clips(embedder, clips)
    emotions, levels = clips.table["emotion"].to_numpy(str), clips.table["level"].to_numpy(int)
    priors = {}
    for emotion in EMOTIONS:
        for level in levels_of(emotion):
            chosen = (emotions == emotion) & (levels == level)
            if not chosen.any():
                raise DicetalkError(
                    f"No training clip of {emotion} level {level}; add a corpus that has some to `index`, or "
                    "choose an emotion set without it (dicetalk/emotion_sets)."
                )
            priors[prior_name(emotion, level)] = vectors[chosen].mean(0).astype(np.float32)
        priors[f"P/{emotion}"] = vectors[emotions == emotion].mean(0).astype(np.float32)
    return priors


def clip_priors(
    source: PriorSource,
    embedder: EmotionEmbedder,
    clips: EncodedClips,
    modalities: Modalities = "both",
) -> np.ndarray:
    """Return the prior of each clip, float32 `(clips, embedding_dim)`.

    Args:
        source: `embedding`, what the embedder reads from the clip; or `label`, its class and nothing else,
            and zeros, the dropped condition, for clips without a label.
        embedder: the trained embedder, of which `label` takes the width only.
        clips: the clips.
        modalities: what the embedder reads.
    """
    if source == "embedding":
        return embed_clips(embedder, clips, modalities)
    codes = label_codes(embedder.config.embedding_dim)
    vectors = np.zeros((len(clips), codes.shape[1]), np.float32)
    for row, (emotion, level) in enumerate(zip(clips.table["emotion"], clips.table["level"], strict=True)):
        if isinstance(emotion, str):
            vectors[row] = codes[class_index(emotion, int(level))]
    return vectors


def label_priors(dim: int) -> dict[str, np.ndarray]:
    """Return priors that say the class and nothing else, by the keys of `class_priors`."""
    codes = dict(zip(CLASSES, label_codes(dim), strict=True))
    priors = {prior_name(*pair): code for pair, code in codes.items()}
    for emotion in EMOTIONS:
        priors[f"P/{emotion}"] = np.mean([codes[emotion, level] for level in levels_of(emotion)], axis=0)
    return priors


def label_codes(dim: int) -> np.ndarray:
    """Return one-hot classes with the zero mean and unit variance of an embedding, float32 `(22, dim)`.

    Raises:
        DicetalkError: when `dim` has no room for the classes.
    """
    if dim < len(CLASSES):
        raise DicetalkError(
            f"priors.source is label, so train_embedder.embedding_dim must be >= {len(CLASSES)}; it is {dim}."
        )
    codes = np.eye(len(CLASSES), dim)
    return ((codes - codes.mean(1, keepdims=True)) / codes.std(1, keepdims=True)).astype(np.float32)


def prior_name(emotion: str, level: int) -> str:
    """Return the key of a class's prior; refuses levels an emotion does not have."""
    class_index(emotion, level)
    return f"P/{emotion}/{level}"


def save_priors(priors: dict[str, np.ndarray], path: Path) -> None:
    """Write priors as safetensors."""
    with atomic_path(path) as temporary:
        save_file(priors, temporary)


def load_priors(path: Path) -> dict[str, np.ndarray]:
    """Read priors; `path` names the stage that writes them when missing."""
    if not Path(path).is_file():
        raise DicetalkError(f"{path} does not exist; run `dvc repro priors`.")
    return load_file(path)


def prior_metrics(priors: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return norms and the cosines between emotions, as they are and after taking out the common mean."""
    matrix = np.stack([priors[f"P/{emotion}"] for emotion in EMOTIONS]).astype(np.float64)
    return {
        "emotions": list(EMOTIONS),
        "norm": np.linalg.norm(matrix, axis=1).round(6).tolist(),
        "cosine": cosine_matrix(matrix).round(6).tolist(),
        "cosine_centred": cosine_matrix(matrix - matrix.mean(0)).round(6).tolist(),
    }


@fixed_threads()
def cosine_matrix(rows: np.ndarray) -> np.ndarray:
    """Return the cosines between all pairs of rows `(n, dim)` as `(n, n)`."""
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit @ unit.T
