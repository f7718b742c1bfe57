"""Trainings that `test_parallel.py` runs on one and on two processes: arguments REPOSITORY PROJECT OUT.

Each process writes what it saw to `OUT/<process>.json`; the main one's run folders lie beside it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import tiny_models
import torch
from changes import changed
from torch import nn

from dicetalk.config import load_params
from dicetalk.errors import DicetalkError
from dicetalk.tracking.tracker import Tracker
from dicetalk.training import finetune, parallel
from dicetalk.training.checkpoint import read_log
from dicetalk.training.embedder import supervised_contrastive
from dicetalk.training.loop import train


class Line:
    """Learns y = 3 x + 1 from noisy points; sample `nan_at` of a batch becomes infinite at step 3."""

    def __init__(self, nan_at: int | None = None):
        torch.manual_seed(0)
        self.layer, self.nan_at = nn.Linear(1, 1), nan_at
        self.modules = {"line": self.layer}
        self.drawn: list[list[float]] = []

    def parameter_groups(self, lr):
        return [{"params": list(self.layer.parameters()), "lr": lr}]

    def loss(self, step, batch_size):
        own = parallel.own_slice(batch_size)
        x = torch.from_numpy(np.random.default_rng([1, step]).normal(size=(batch_size, 1))).float()
        y = 3 * x + 1 + 0.1 * torch.randn(batch_size, 1)
        if step == 3 and self.nan_at is not None:
            y[self.nan_at] = torch.inf
        self.drawn.append(x[own].flatten().tolist())
        loss = (self.layer(x[own]) - y[own]).square().mean()
        return loss, {"twice": 2 * loss.item()}

    def validate(self, step):
        return {"slope": self.layer.weight.item()}


def train_line(
    repository: Path, run_dir: Path, nan_at: int | None = None, **changes: object
) -> list[list[float]]:
    params = load_params(repository / "profiles/demo.yaml")
    steps = {"num_steps": 12, "batch_size": 8, "log_every_steps": 1, "lr": 0.1, "mixed_precision": "no"}
    objective = Line(nan_at)
    recipe = changed(params.learn_bank.training, params.compute.learn_bank, **steps | changes)
    train(objective, *recipe, run_dir)
    return objective.drawn


def refused(repository: Path, run_dir: Path, **changes: object) -> str:
    try:
        train_line(repository, run_dir, **changes)
    except DicetalkError as error:
        return str(error)
    return "trained"


def resumed_from_damaged(repository: Path, run_dir: Path) -> dict[str, object]:
    """Where training goes on when its newest checkpoint is damaged, and what it says when all are."""

    def damage(step: int) -> None:
        if parallel.process_index() == 0:
            (run_dir / f"step-{step:06d}/ema.safetensors").write_bytes(b"")
        parallel.gather(torch.zeros(1))  # wait for it

    train_line(repository, run_dir, num_steps=8, checkpoint_every_steps=4)
    damage(8)
    resumed = {"steps_again": len(train_line(repository, run_dir, checkpoint_every_steps=4))}
    damage(8)
    damage(12)
    return resumed | {"message": refused(repository, run_dir, checkpoint_every_steps=4)}


def contrastive_gradient() -> tuple[float, list[float]]:
    """Loss and gradient with respect to a shared weight, averaged over processes as training does."""
    rng = torch.Generator().manual_seed(0)
    points, weight = torch.randn(16, 4, generator=rng), torch.eye(4, requires_grad=True)
    classes, identities = torch.arange(16) % 3, torch.arange(16) % 4
    own = parallel.own_slice(16)
    mine = points[own] @ weight, classes[own], identities[own]
    loss = supervised_contrastive(*map(parallel.gather, mine), 0.5)
    loss.backward()
    assert weight.grad is not None
    numbers = {str(i): value for i, value in enumerate(weight.grad.flatten().tolist())}
    return loss.item(), list(parallel.mean(numbers, torch.device("cpu")).values())


class Killed(Exception):
    pass


def train_tiny_diffusion(
    repository: Path, project: Path, run_dir: Path, fully_sharded: bool = False, killed_at: int | None = None
) -> None:
    """Six steps of the real objective; without dropout in the classifier, which is drawn per process."""
    params = tiny_models.tiny_params(
        repository,
        num_steps=6,
        log_every_steps=1,
        mixed_precision="no",
        validate_every_steps=3,
        fully_sharded=fully_sharded,
    )
    diffusion = params.train_diffusion.model_copy(update={"discrimination_max_sigma": 3.0})
    params = params.model_copy(update={"train_diffusion": diffusion})

    def prepared(objective, *arguments):
        objective.emotion_model.classifier.dropout.p = 0.0
        loss = objective.loss

        def killed(step, batch_size):
            if step == killed_at:
                raise Killed
            return loss(step, batch_size)

        objective.loss = killed
        return train(objective, *arguments)

    with mock.patch.object(finetune, "train", prepared):
        finetune.train_diffusion(params, project, run_dir, Tracker())


def train_sharded_diffusion(repository: Path, project: Path, out: Path) -> list[str]:
    """Once unbroken, and three times begun and resumed, sharded or not; return the logs' names."""
    train_tiny_diffusion(repository, project, out / "sharded", fully_sharded=True)
    begun_and_resumed = {"resumed": (True, True), "divided": (False, True), "united": (True, False)}
    for name, (before, after) in begun_and_resumed.items():
        try:
            train_tiny_diffusion(repository, project, out / name, fully_sharded=before, killed_at=5)
        except Killed:
            pass
        train_tiny_diffusion(repository, project, out / name, fully_sharded=after)
    return ["sharded", *begun_and_resumed]


def main(repository: Path, project: Path, out: Path) -> None:
    # The first training forms the group of processes.
    drawn = train_line(repository, out / "line")
    drawn_accumulated = train_line(repository, out / "accumulated", grad_accumulation_steps=2)
    loss, gradient = contrastive_gradient()
    train_tiny_diffusion(repository, project, out / "diffusion")
    logs = ["line", "accumulated", "diffusion"]
    if parallel.num_processes() > 1:
        logs += train_sharded_diffusion(repository, project, out)
    result = {
        "out": str(out),
        "drawn": drawn + drawn_accumulated,
        "contrastive": [loss, *gradient],
        "nan": refused(repository, out / "nan", nan_at=7),
        "odd": refused(repository, out / "odd", batch_size=7),
        "damaged": resumed_from_damaged(repository, out / "damaged"),
        "wrong": refused(repository, out / "wrong", num_processes=3),
        "logs": {name: read_log(out / name) for name in logs},
    }
    (out / f"{parallel.process_index()}.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
