"""Saves or resumes a training of 320 MiB and prints what memory that took: `save` or `resume`, FOLDER.

Written are the bytes of the state (weights, average, two moments) and how far the memory of the process rose
above what it was before.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

from dicetalk.training.checkpoint import load_latest, save_checkpoint
from dicetalk.training.ema import ExponentialMovingAverage

SIZES = [2**20] * 12 + [2**23]  # floats, 4 bytes each
STATE_BYTES = 4 * 4 * sum(SIZES)


def memory(kind: str) -> int:
    """Return `VmRSS`, the memory in use, or `VmHWM`, the most it has been, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{kind}:")[1].split()[0])


def main(what: str, run_dir: Path) -> None:
    nn.Linear(2, 2)(torch.ones(2)).sum().backward()  # what PyTorch needs anyway
    before = memory("VmRSS")
    module = nn.ParameterList([torch.full((size,), 0.5) for size in SIZES])
    modules: dict[str, nn.Module] = {"large": module}
    ema = ExponentialMovingAverage(modules, 0.9)
    optimizer = torch.optim.AdamW(module.parameters(), fused=True)
    if what == "save":
        for parameter in module:
            ones = {"exp_avg": torch.ones_like(parameter), "exp_avg_sq": torch.ones_like(parameter)}
            optimizer.state[parameter] = {"step": torch.tensor(3.0), **ones}
        save_checkpoint(run_dir, 3, ({}, 0), modules, ema, optimizer, 1000)
    else:
        assert load_latest(run_dir, modules, ema, optimizer) == (3, ({}, 0))
        assert all((state["exp_avg"] == 1).all() for state in optimizer.state.values())
    print(STATE_BYTES, memory("VmHWM") - before)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
