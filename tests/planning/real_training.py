"""Train a case for a few steps and print the memory it took: `real_training.py NAME REPOSITORY`.

A program of its own, because the high-water mark of memory belongs to a process.
"""

from __future__ import annotations

import ctypes
import json
import sys
import tempfile
from pathlib import Path

import torch
from cases import case

from dicetalk.planning.networks import build_networks, random_batch
from dicetalk.training.loop import train

M_MMAP_THRESHOLD = -3  # malloc.h


class Batches:
    def __init__(self, params, networks):
        self.params, self.networks = params, networks

    def draw(self, step, batch_size):
        return random_batch(self.params, self.networks, batch_size)[0]


def resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def main() -> None:
    params, config = case(Path(sys.argv[2]), sys.argv[1])
    torch.set_num_threads(1)
    # What libraries load at first use is no part of a training's demand
    from accelerate import Accelerator

    Accelerator(cpu=True)
    convolution = torch.nn.Conv2d(4, 4, 3)
    convolution(torch.randn(1, 4, 8, 8)).sum().backward()
    torch.optim.AdamW(convolution.parameters(), fused=True).step()
    del convolution

    # glibc keeps freed blocks in fragments; above this size it maps and unmaps each tensor by itself
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, 64 * 1024)
    libc.malloc_trim(0)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again
    networks = build_networks(params, config)
    objective = networks.objective(params)
    objective.train_batches = objective.test_batches = Batches(params, networks)
    with tempfile.TemporaryDirectory() as folder:
        train(objective, params.train_diffusion.training, Path(folder))
    print(json.dumps({"peak_bytes": resident("VmHWM") - before}))


if __name__ == "__main__":
    main()
