"""Does the video keep the face of the reference image? Mean cosine of identity embeddings (F-SIM, CSIM)."""

from __future__ import annotations

import numpy as np

from dicetalk.config import Evaluate
from dicetalk.evaluation.trial import Trial


def measure(trial: Trial, settings: Evaluate) -> dict[str, float]:
    """Return `f_sim` of a video to its reference image."""
    if "identity" not in trial.shown or "reference_identity" not in trial.reference:
        return {}
    return {"f_sim": face_similarity(trial.shown["identity"], trial.reference["reference_identity"])}


def face_similarity(frames: np.ndarray, reference: np.ndarray) -> float:
    """Return the mean cosine of frame embeddings `(frames, dim)` to a reference embedding `(dim,)`."""
    frames = frames / np.linalg.norm(frames, axis=-1, keepdims=True)
    return float((frames @ (reference / np.linalg.norm(reference))).mean(dtype=np.float64))
