"""A fixed pool of procedural clips of many people, for pretraining the demo backbone."""

from __future__ import annotations

from functools import partial

import numpy as np

from dicetalk.compute.workers import in_processes
from dicetalk.config.recipe import PretrainClips
from dicetalk.progress import track
from dicetalk.synthetic.clips import training_takes


def render_pool(clips: PretrainClips, workers: int) -> np.ndarray:
    """Return uint8 clips `(num_people * num_takes, num_frames, size, size, 3)`.

    The takes of a person stand in a row; person i depends on `(clips.seed, i)` alone.
    """
    size = (clips.size_px, clips.size_px, 3)
    frames = np.empty((clips.num_people, clips.num_takes, clips.num_frames, *size), np.uint8)
    people, render = range(clips.num_people), partial(_render, clips)
    with in_processes(workers, render, people) as results:
        for index, takes in enumerate(track(results, "render people", total=clips.num_people)):
            frames[index] = takes
    return frames.reshape(-1, *frames.shape[2:])


def _render(clips: PretrainClips, index: int) -> np.ndarray:
    rng = np.random.default_rng([clips.seed, index])
    return training_takes(rng, clips.num_takes, clips.num_frames, clips.fps, clips.size_px, clips.crop_margin)
