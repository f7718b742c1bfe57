"""Do lips take the shapes they take in the real clip? Distance of mouth landmarks (LMD, also M-LMD).

Landmarks are MediaPipe's FaceMesh, reduced to the 68 iBUG points. Both mouths are moved to their own
centre, so that the place of the head does not count, and distances are divided by the real face's distance
of outer eye corners, so that numbers do not depend on resolution. Papers measure LMD in pixels of a stated
crop with another landmark network.
"""

from __future__ import annotations

import numpy as np

from dicetalk.config import Evaluate
from dicetalk.errors import DicetalkError
from dicetalk.evaluation.landmarks import LEFT_EYE_OUTER, MESH_PX, MIN_FOUND, RIGHT_EYE_OUTER
from dicetalk.evaluation.trial import Trial, common

MOUTH, FACE = slice(48, 68), slice(0, 68)


def measure(trial: Trial, settings: Evaluate) -> dict[str, float]:
    """Return `lmd`, `m_lmd` and `f_lmd`; raises `DicetalkError` when too few frames can be compared.

    Where `preprocess` has found the real landmarks in the full-size video, these count.
    """
    seen = trial.real.seen
    known = "known_landmarks" if "known_landmarks" in seen else "landmarks"
    if "landmarks" not in trial.shown or known not in seen:
        return {}
    points, real_points = common(trial.shown["landmarks"], seen[known])
    return {
        "lmd": mouth_distance(points, real_points),
        "m_lmd": pixel_distance(points * MESH_PX, real_points * MESH_PX, MOUTH),
        "f_lmd": pixel_distance(points * MESH_PX, real_points * MESH_PX, FACE),
    }


def pixel_distance(generated: np.ndarray, real: np.ndarray, part: slice) -> float:
    """Return the mean distance of points after moving their centres together, in their own unit.

    The mouth (M-LMD) or all points (F-LMD) of EAT's evaluation, whose unit is the pixel of a crop of 256.

    Args:
        generated: `(frames, 68, 2)`, NaN where no face was found; these frames are left out.
        real: `(frames, 68, 2)` of the same moments.
        part: which of the 68 points.

    Raises:
        DicetalkError: when less than half of the frames can be compared.
    """
    found = _comparable(generated, real)
    difference = _centred(generated[found, part]) - _centred(real[found, part])
    return float(np.linalg.norm(difference, axis=-1).mean(dtype=np.float64))


def mouth_distance(generated: np.ndarray, real: np.ndarray) -> float:
    """Return the mean distance of mouth points in units of the eye distance; 0 is a perfect match.

    Args:
        generated: `(frames, 68, 2)`, NaN where no face was found; these frames are left out.
        real: `(frames, 68, 2)` of the same moments.

    Raises:
        DicetalkError: when less than half of the frames can be compared.
    """
    found = _comparable(generated, real)
    generated, real = generated[found], real[found]
    eye_distance = np.linalg.norm(real[:, RIGHT_EYE_OUTER] - real[:, LEFT_EYE_OUTER], axis=-1)
    difference = _centred(generated[:, MOUTH]) - _centred(real[:, MOUTH])
    distances = np.linalg.norm(difference, axis=-1).mean(axis=1) / eye_distance
    return float(distances.mean(dtype=np.float64))


def _comparable(generated: np.ndarray, real: np.ndarray) -> np.ndarray:
    found = np.isfinite(generated).all(axis=(1, 2)) & np.isfinite(real).all(axis=(1, 2))
    if found.mean() < MIN_FOUND:
        raise DicetalkError(f"a face was found in {found.sum()} of {len(found)} frames")
    return found


def _centred(points: np.ndarray) -> np.ndarray:
    return points - points.mean(axis=1, keepdims=True)
