"""A real training that measures what it takes in a process of its own: `real_training.py CASE OUT.json`.

The memory of a training is the largest resident memory while networks are built and trained, minus what was
resident before. Imports and the libraries' own state are not part of it: a much smaller training runs first.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import tempfile
from pathlib import Path

from cases import case

from dicetalk.config import Params
from dicetalk.planning.networks import Backbone, build_networks, random_batch
from dicetalk.training.loop import train

REPOSITORY = Path(__file__).resolve().parents[2]


class Batches:
    """Stands for encoded clips."""

    def __init__(self, params, networks):
        self.params, self.networks = params, networks

    def draw(self, step, batch_size, num_frames=None, part=slice(None)):
        frames = num_frames or self.params.train_diffusion.num_frames
        return random_batch(self.params, self.networks, batch_size, frames)[0]


def run(params: Params, backbone: Backbone, folder: str) -> None:
    """Train for the two steps of a case, with validation and checkpoint."""
    networks = build_networks(params, backbone)
    objective = networks.objective(params)
    objective.train_batches = objective.test_batches = Batches(params, networks)
    train(objective, params.train_diffusion.training, params.compute.train_diffusion, Path(folder))


def resident_bytes(field: str) -> int:
    """`VmRSS`: now; `VmHWM`: the most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def main(name: str, out: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run(*case(REPOSITORY, "tiny"), folder)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the largest resident memory counts from here
    with tempfile.TemporaryDirectory() as folder:
        run(*case(REPOSITORY, name), folder)
    numbers = {"before": before, "training": resident_bytes("VmHWM") - before}
    Path(out).write_text(json.dumps(numbers), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
