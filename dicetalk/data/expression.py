"""Expression features: facial landmarks with place, size and roll of the head taken out."""

from __future__ import annotations

import numpy as np

from dicetalk.errors import DicetalkError

NUM_LANDMARKS = 68
RIGHT_EYE_CORNERS, LEFT_EYE_CORNERS = (36, 39), (42, 45)  # corners do not move with the lids
NOSE_BRIDGE = (27, 28)
# Where the two eye centres and the nose bridge are moved to: x + iy in units of half the distance between
# the eyes.
ANCHORS = np.array([-1.0 + 0.0j, 1.0 + 0.0j, 0.0 + 0.2j])
EXPRESSION_DIM = 2 * NUM_LANDMARKS


def expression_features(landmarks: np.ndarray) -> np.ndarray:
    """Align landmarks by the similarity transform that best fits eyes and nose bridge to fixed anchors.

    Args:
        landmarks: 68 points in the iBUG order `(frames, 68, 2)`, any unit.

    Returns:
        float32 `(frames, 136)`: x and y of each point, about in [-3, 5].

    Raises:
        DicetalkError: for another shape, or points that coincide or are not finite.
    """
    if landmarks.ndim != 3 or landmarks.shape[1:] != (NUM_LANDMARKS, 2):
        raise DicetalkError(
            f"Landmarks must have shape (frames, {NUM_LANDMARKS}, 2); found {landmarks.shape}."
        )
    # As complex numbers a similarity is `scale_roll * point + shift`, and its least-squares fit has a
    # closed form.
    points = landmarks[..., 0].astype(np.float64) + 1j * landmarks[..., 1]
    groups = (RIGHT_EYE_CORNERS, LEFT_EYE_CORNERS, NOSE_BRIDGE)
    anchors = np.stack([points[:, list(group)].mean(-1) for group in groups], axis=-1)
    centre = anchors.mean(-1, keepdims=True)
    spread = (np.abs(anchors - centre) ** 2).sum(-1, keepdims=True)
    if not np.isfinite(points).all() or (spread < 1e-12).any():
        raise DicetalkError("Landmarks coincide or are not finite; this clip should have been rejected.")
    target = ANCHORS - ANCHORS.mean()
    scale_roll = ((anchors - centre).conj() * target).sum(-1, keepdims=True) / spread
    aligned = scale_roll * (points - centre) + ANCHORS.mean()
    return np.stack([aligned.real, aligned.imag], axis=-1).reshape(len(points), -1).astype(np.float32)
