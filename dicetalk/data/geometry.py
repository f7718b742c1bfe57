"""How far two boxes are the same."""

from __future__ import annotations

import numpy as np


def overlap(first_xywh: np.ndarray, second_xywh: np.ndarray) -> float:
    """Return intersection over union of two boxes."""
    a, b = np.asarray(first_xywh, float), np.asarray(second_xywh, float)
    shared = np.clip(np.minimum(a[:2] + a[2:], b[:2] + b[2:]) - np.maximum(a[:2], b[:2]), 0, None).prod()
    union = a[2:].prod() + b[2:].prod() - shared
    return float(shared / union) if union > 0 else 0.0
