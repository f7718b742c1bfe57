"""An endless supply of training clips of people nobody has seen."""

from __future__ import annotations

import numpy as np

from dicetalk.labels import CLASSES
from dicetalk.synthetic.expression import CONTROLS, FaceState, emotion_targets
from dicetalk.synthetic.geometry import View
from dicetalk.synthetic.identity import Identity, sample_identity
from dicetalk.synthetic.motion import babble, blend, idle_motion
from dicetalk.synthetic.render import render_view, view_box

CROP_MARGIN_JITTER = 0.08
STILL_MOUTH_SHARE = 0.25


def training_takes(
    rng: np.random.Generator,
    num_takes: int,
    num_frames: int,
    fps: float,
    size: int,
    crop_margin: float = 0.35,
) -> np.ndarray:
    """Return face-centred takes of a new person, uint8 RGB of shape (num_takes, num_frames, size, size, 3).

    In each take the expression drifts between one to three random (emotion, level) targets while the head
    idles and mostly babbles. As in a real preprocessing, the crop is fixed for a take: the face box enlarged
    on each side by `crop_margin` (fraction of the box, jittered per take by +-0.08), drawn at `size`.
    """
    identity = sample_identity(rng)
    return np.stack([_take(identity, rng, num_frames, fps, size, crop_margin) for _ in range(num_takes)])


def _take(
    identity: Identity, rng: np.random.Generator, num_frames: int, fps: float, size: int, crop_margin: float
) -> np.ndarray:
    states = _wandering_states(rng, num_frames, fps)
    margin = crop_margin + rng.uniform(-CROP_MARGIN_JITTER, CROP_MARGIN_JITTER)
    view = face_view(identity, states, size, margin, rng.normal(0, 0.02, 2))
    return np.stack([render_view(identity, state, view) for state in states])


def face_view(
    identity: Identity,
    states: list[FaceState],
    size: int,
    margin: float,
    offset: np.ndarray | tuple[float, float] = (0, 0),
) -> View:
    """Return the square view around the mean face box, enlarged by `margin` of the box on each side."""
    origin = View(size, size, 1.0, 0.0, 0.0)
    boxes = np.array([view_box(identity, state, origin) for state in states])
    x, y = (boxes[:, :2] + boxes[:, 2:] / 2).mean(0) + np.asarray(offset)
    unit = size / (boxes[:, 2].mean() * (1 + 2 * margin))
    return View(size, size, unit, size / 2 - x * unit, size / 2 - y * unit)


def _wandering_states(rng: np.random.Generator, num_frames: int, fps: float) -> list[FaceState]:
    count = int(rng.integers(1, 4))
    targets = [emotion_targets(*CLASSES[rng.integers(len(CLASSES))]) for _ in range(count)]
    position = np.linspace(0, count - 1, num_frames) if count > 1 else np.zeros(num_frames)
    eased = np.floor(position) + 0.5 - 0.5 * np.cos(np.pi * (position % 1))
    table = np.array([[getattr(target, name) for name in CONTROLS] for target in targets])
    held = {name: np.interp(eased, np.arange(count), table[:, i]) for i, name in enumerate(CONTROLS)}
    motions = [idle_motion(rng, num_frames, fps)]
    if rng.random() > STILL_MOUTH_SHARE:
        motions.append(babble(rng, num_frames, fps))
    return blend(held, *motions)
