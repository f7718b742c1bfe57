"""A fixed pool of procedural clips, each of another identity, for pretraining the demo backbone."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from dicetalk.progress import track
from dicetalk.synthetic.clips import training_clip


def render_pool(
    num_clips: int, num_frames: int, fps: float, size: int, crop_margin: float, seed: int, workers: int
) -> np.ndarray:
    """Return uint8 clips `(num_clips, num_frames, size, size, 3)`; clip i depends on `(seed, i)` alone."""
    render = partial(_render, num_frames=num_frames, fps=fps, size=size, crop_margin=crop_margin, seed=seed)
    clips = np.empty((num_clips, num_frames, size, size, 3), np.uint8)
    with ProcessPoolExecutor(workers) as pool:
        results = pool.map(render, range(num_clips), chunksize=16)
        for index, clip in enumerate(track(results, "render clips", total=num_clips)):
            clips[index] = clip
    return clips


def _render(index: int, num_frames: int, fps: float, size: int, crop_margin: float, seed: int) -> np.ndarray:
    return training_clip(np.random.default_rng([seed, index]), num_frames, fps, size, crop_margin)
