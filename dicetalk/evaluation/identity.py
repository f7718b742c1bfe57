"""Does the video keep the face of the reference image? Mean cosine of identity embeddings (F-SIM, CSIM)."""

from __future__ import annotations

import numpy as np


def face_similarity(frames: np.ndarray, reference: np.ndarray) -> float:
    """Return the mean cosine of frame embeddings `(frames, dim)` to a reference embedding `(dim,)`."""
    frames = frames / np.linalg.norm(frames, axis=-1, keepdims=True)
    return float((frames @ (reference / np.linalg.norm(reference))).mean(dtype=np.float64))
