"""What the training loop costs beside a bare forward, backward and optimiser step, and how long data take.

    python -m benchmarks.loop [--root DIR] [--steps 20] [--out FILE]

`DIR` is a repository in which `dvc repro train_diffusion` has run; nothing in it is changed. Before each step
of the loop, plain PyTorch takes the same step (same batch, same random numbers) on a copy of the networks.
Times are processor seconds of one thread, so other programs disturb them little; the ratio is the median over
pairs. The loop's step contains clipping, the averaged weights and all bookkeeping, the bare one none of them.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from dicetalk.compute.precision import autocast
from dicetalk.config import Training, TrainingCompute, load_params
from dicetalk.files import write_json
from dicetalk.tracking.tracker import Tracker
from dicetalk.training import finetune
from dicetalk.training.diffusion import DiffusionObjective
from dicetalk.training.loop import train

MAX_OVERHEAD = MAX_DATA_WAIT = 0.05
WARM_UP_STEPS = 2


class Measured(Exception):
    """Ends the stage before it saves anything."""


class Alternating:
    """The objective for the loop; takes a bare step on a copy before each loss.

    Attributes:
        loop_seconds: of each step of the loop.
        bare_seconds: of the step on the copy that preceded it.
    """

    def __init__(self, objective: DiffusionObjective, settings: Training):
        self.objective, self.settings, self.modules = objective, settings, objective.modules
        self.bare = copy.copy(objective)
        self.bare.modules = copy.deepcopy(objective.modules)
        for name, module in self.bare.modules.items():
            setattr(self.bare, name, module)
        self.optimizer = torch.optim.AdamW(self.bare.parameter_groups(settings.lr), fused=True)
        self.loop_seconds: list[float] = []
        self.bare_seconds: list[float] = []
        self._loop_started: float | None = None

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """See `Objective`."""
        return self.objective.parameter_groups(lr)

    def loss(self, step: int, batch_size: int) -> tuple[torch.Tensor, dict[str, float]]:
        """See `Objective`."""
        self.end_step()
        seed, started = torch.initial_seed(), time.process_time()
        self._bare_step(step, batch_size)
        self.bare_seconds.append(time.process_time() - started)
        torch.manual_seed(seed)
        self._loop_started = time.process_time()
        return self.objective.loss(step, batch_size)

    def validate(self, step: int) -> dict[str, float]:
        """See `Objective`; measures nothing."""
        self.end_step()
        return {}

    def end_step(self) -> None:
        """A step of the loop lasts from its loss to what follows it: the next loss or the validation."""
        if self._loop_started is not None:
            self.loop_seconds.append(time.process_time() - self._loop_started)
        self._loop_started = None

    def _bare_step(self, step: int, batch_size: int) -> None:
        for module in self.bare.modules.values():
            module.train()
        device = next(self.bare.unet.parameters()).device
        # The loop's own autocast is active here; its cache must not keep casts of weights that change.
        with torch.autocast(device.type, enabled=False):
            with autocast(device, self.settings.mixed_precision):
                loss, _ = self.bare.loss(step, batch_size)
            loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def measure(root: Path, steps: int) -> dict[str, float]:
    """Train for `steps` steps on the data and models in `root` and return the measurements."""
    params = load_params(root / "params.yaml")
    num_steps = WARM_UP_STEPS + steps
    settings = params.train_diffusion.training.model_copy(update={"num_steps": num_steps})
    compute = params.compute.train_diffusion.model_copy(
        update={
            "validate_every_steps": num_steps,
            "checkpoint_every_steps": num_steps,
            "num_processes": 1,
            "threads": 1,
            "sample_clips": 0,
        }
    )
    diffusion = params.train_diffusion.model_copy(update={"training": settings})
    compute = params.compute.model_copy(update={"train_diffusion": compute})
    params = params.model_copy(update={"train_diffusion": diffusion, "compute": compute})

    def measured(
        objective: DiffusionObjective, settings: Training, compute: TrainingCompute, run_dir: Path, *_: Any
    ) -> None:
        alternating = Alternating(objective, settings)
        metrics = train(alternating, settings, compute, run_dir)
        pairs = list(zip(alternating.loop_seconds, alternating.bare_seconds, strict=True))[WARM_UP_STEPS:]
        ratios = [loop / bare for loop, bare in pairs]
        raise Measured(
            {
                "steps": len(pairs),
                "bare_seconds": statistics.median(bare for _, bare in pairs),
                "loop_seconds": statistics.median(loop for loop, _ in pairs),
                "overhead": statistics.median(ratios) - 1,
                "overhead_range": [min(ratios) - 1, max(ratios) - 1],
                # Bare steps count as time here, so of the loop alone it is about twice this.
                "data_wait_fraction": 2 * metrics["data_wait_fraction"],
            }
        )

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(finetune, "train", measured):
        try:
            finetune.train_diffusion(params, root, Path(folder), Tracker())
        except Measured as result:
            return result.args[0]
    raise AssertionError("train_diffusion did not train")


def main() -> None:
    """Print the measurements; fail when the loop costs too much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path())
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    result = measure(arguments.root, arguments.steps)
    for name, value in result.items():
        print(f"{name}: {value}")
    if arguments.out:
        write_json(arguments.out, result)
    if result["overhead"] > MAX_OVERHEAD or result["data_wait_fraction"] > MAX_DATA_WAIT:
        raise SystemExit(f"overhead or data wait above {MAX_OVERHEAD:.0%}")


if __name__ == "__main__":
    main()
