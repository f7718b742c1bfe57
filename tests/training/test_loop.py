"""The loop's own promises: gradients of accumulated batches, honest speed, and little time of its own."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from changes import changed
from torch import nn

from dicetalk.config import Training, TrainingCompute, load_params
from dicetalk.training.loop import train


class Weighted:
    """Loss `w * x` with known `x` per micro-step, so that the gradient of `w` is their mean."""

    def __init__(self, data_seconds: float = 0.0, other_seconds: float = 0.0):
        self.layer = nn.Linear(1, 1, bias=False)
        self.modules = {"layer": self.layer}
        self.data_seconds, self.other_seconds = data_seconds, other_seconds
        self.gradients: list[float] = []
        self.layer.weight.register_post_accumulate_grad_hook(lambda w: self.gradients.append(w.grad.item()))

    def parameter_groups(self, lr):
        return [{"params": list(self.layer.parameters()), "lr": lr}]

    def loss(self, step, batch_size):
        time.sleep(self.data_seconds + self.other_seconds)
        loss = self.layer(torch.full((batch_size, 1), float(step + 1))).mean()
        return loss, {"data_seconds": self.data_seconds}

    def validate(self, step):
        return {}


@pytest.fixture
def recipe(repository: Path) -> tuple[Training, TrainingCompute]:
    params = load_params(repository / "profiles/demo.yaml")
    quick = {"num_steps": 2, "batch_size": 2, "log_every_steps": 1}
    return changed(params.learn_bank.training, params.compute.learn_bank, **quick)


def test_accumulated_gradients_are_the_mean_over_micro_steps(recipe: tuple, tmp_path: Path) -> None:
    objective = Weighted()
    train(objective, *changed(*recipe, grad_accumulation_steps=4), tmp_path)
    # x is 1, 2, 3, 4 in the first step; the running sum of x / 4 is what the hook sees.
    assert objective.gradients[:4] == pytest.approx([0.25, 0.75, 1.5, 2.5])


def test_status_lines_show_throughput_and_waiting(
    recipe: tuple, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logged = []

    class Tracker:
        def log_metrics(self, metrics, step):
            logged.append(metrics)

        def log_artifact(self, path, folder=""):
            raise AssertionError

    metrics = train(Weighted(data_seconds=0.2, other_seconds=0.2), *recipe, tmp_path, Tracker())
    lines = [line for line in capsys.readouterr().err.splitlines() if "step 1/2" in line]
    assert len(lines) == 1 and " examples/s, data wait " in lines[0]
    wait = float(lines[0].split("data wait ")[1].split("%")[0])
    # A busy machine makes sleeping longer, never shorter.
    assert 10 < wait < 51 and 0.1 < metrics["data_wait_fraction"] < 0.51
    assert 0 < logged[0]["train/examples_per_second"] <= 2 / 0.4


def test_samples_are_written_at_validations_and_logged(recipe: tuple, tmp_path: Path) -> None:
    logged = []

    class Tracker:
        def log_metrics(self, metrics, step):
            pass

        def log_artifact(self, path, folder=""):
            logged.append((sorted(p.name for p in path.iterdir()), folder))

    def write(folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "clip.mp4").write_bytes(b"video")

    train(Weighted(), *changed(*recipe, validate_every_steps=1), tmp_path, Tracker(), write_samples=write)
    assert logged == [(["clip.mp4"], "samples/step-000001"), (["clip.mp4"], "samples/step-000002")]
