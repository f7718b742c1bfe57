"""A training of milliseconds, alone and as a stage: `python -m toy_training PROCESSES STEPS STEP_SECONDS`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from changes import changed
from torch import nn

from dicetalk.config import Training, TrainingCompute, load_params
from dicetalk.training import parallel
from dicetalk.training.loop import train
from stages import run

REPOSITORY = Path(__file__).resolve().parents[2]
EVERY = {"log_every_steps": 4, "checkpoint_every_steps": 5, "validate_every_steps": 10}


class Toy:
    """Learns a sum of three numbers with layers, one of which has buffers; `before_loss(step)` may act."""

    def __init__(self, before_loss: Callable[[int], None] = lambda step: None):
        torch.manual_seed(0)
        self.modules = {
            "first": nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh()),
            "last": nn.Linear(8, 1),
        }
        self.before_loss = before_loss

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        return [{"params": list(module.parameters()), "lr": lr} for module in self.modules.values()]

    def loss(self, step: int, batch_size: int) -> tuple[torch.Tensor, dict[str, float]]:
        self.before_loss(step)
        x = torch.randn(batch_size, 3)[parallel.own_slice(batch_size)]
        y = x.sum(dim=1, keepdim=True)
        loss = (self.modules["last"](self.modules["first"](x)) - y).square().mean()
        return loss, {"twice": 2 * loss.item()}

    def validate(self, step: int) -> dict[str, float]:
        with torch.no_grad():
            return {"of_ones": self.modules["last"](self.modules["first"](torch.ones(1, 3))).item()}


def recipe(**changes: object) -> tuple[Training, TrainingCompute]:
    params = load_params(REPOSITORY / "profiles/demo.yaml")
    toy = {
        "num_steps": 22,
        "batch_size": 8,
        "lr": 0.01,
        "ema_decay": 0.9,
        "mixed_precision": "no",
        "threads": 1,
    }
    return changed(params.learn_bank.training, params.compute.learn_bank, **toy | EVERY | changes)


def train_toy(run_dir: Path, toy: Toy | None = None, **changes: object) -> Toy:
    toy = toy or Toy()
    train(toy, *recipe(**changes), run_dir, label="toy")
    return toy


def main() -> None:
    from dicetalk.compute.launch import start_processes

    num_processes, num_steps, step_seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    if start_processes("toy_training", num_processes):
        return
    toy = Toy(before_loss=lambda step: time.sleep(step_seconds))
    train_toy(Path("run"), toy, num_steps=num_steps, num_processes=num_processes)


if __name__ == "__main__":
    run(main)
