"""Schedule, clipping, AdamW, averages and what is logged, against the same arithmetic on plain floats."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from changes import COMPUTE, changed
from torch import nn

from dicetalk.config import Training, load_params
from dicetalk.errors import DicetalkError
from dicetalk.training.checkpoint import read_log
from dicetalk.training.ema import ExponentialMovingAverage
from dicetalk.training.loop import lr_factor, train
from dicetalk.training.timings import Speed, take_timings

# What the loss multiplies the weights `a` and `b` with: their gradients, step by step.
FACTORS = [(30.0, 40.0), (0.3, 0.4), (-6.0, 8.0), (0.0, 0.5), (2.0, -1.0), (0.1, 0.1)]
START = (2.0, -1.0)
A_LR_SCALE, B_LR_SCALE = 1.0, 3.0


@pytest.fixture
def settings(repository: Path) -> Training:
    return load_params(repository / "profiles/demo.yaml").learn_bank.training.model_copy(
        update={
            "seed": 5,
            "num_steps": 6,
            "batch_size": 1,
            "lr": 0.1,
            "weight_decay": 0.2,
            "warmup_steps": 2,
            "schedule": "cosine",
            "grad_clip_norm": 1.0,
            "grad_accumulation_steps": 1,
            "ema_decay": 0.15,
        }
    )


def run(objective: Any, settings: Training, run_dir: Path, **changes: Any) -> dict[str, float]:
    cadence = {"log_every_steps": 1, "validate_every_steps": 4, "checkpoint_every_steps": 100}
    return train(objective, *changed(settings, COMPUTE, **cadence | changes), run_dir)


class Product:
    """Loss `a x + b y` with known `x` and `y` in every step."""

    def __init__(self) -> None:
        self.a, self.b = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        self.modules = {"a": self.a, "b": self.b}
        nn.init.constant_(self.a.weight, START[0])
        nn.init.constant_(self.b.weight, START[1])
        self.modes: list[bool] = []
        self.drawn: list[float] = []
        self.validations: list[tuple[int, float, float, bool, bool, float]] = []

    def weights(self) -> tuple[float, float]:
        return self.a.weight.item(), self.b.weight.item()

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        return [
            {"params": [self.a.weight], "lr": A_LR_SCALE * lr},
            {"params": [self.b.weight], "lr": B_LR_SCALE * lr},
        ]

    def loss(self, step: int, batch_size: int) -> tuple[torch.Tensor, dict[str, float]]:
        self.modes.append(self.a.training and self.b.training)
        self.drawn.append(torch.rand(()).item())
        x, y = FACTORS[step % len(FACTORS)]
        return (self.a.weight * x + self.b.weight * y).sum(), {"micro": step, "batch": batch_size}

    def validate(self, step: int) -> dict[str, float]:
        modes = self.a.training or self.b.training
        self.validations.append(
            (step, *self.weights(), modes, torch.is_grad_enabled(), torch.rand(()).item())
        )
        return {"a": self.a.weight.item()}


def by_hand(settings: Training) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """Weights and averaged weights after each step: AdamW of Loshchilov & Hutter, on floats."""
    weights, average = list(START), list(START)
    first, second = [0.0, 0.0], [0.0, 0.0]
    trained, averaged = [], []
    for step, gradient in enumerate(FACTORS):
        norm = math.hypot(*gradient)
        gradient = [g * min(1.0, settings.grad_clip_norm / norm) for g in gradient]
        if step < settings.warmup_steps:
            factor = (step + 1) / settings.warmup_steps
        else:
            part = (step - settings.warmup_steps) / (settings.num_steps - settings.warmup_steps)
            factor = (1 + math.cos(math.pi * part)) / 2
        decay = min(settings.ema_decay, (1 + step) / (10 + step))
        for i, scale in enumerate((A_LR_SCALE, B_LR_SCALE)):
            lr = settings.lr * scale * factor
            first[i] = 0.9 * first[i] + 0.1 * gradient[i]
            second[i] = 0.999 * second[i] + 0.001 * gradient[i] ** 2
            unbiased = first[i] / (1 - 0.9 ** (step + 1)), second[i] / (1 - 0.999 ** (step + 1))
            weights[i] -= lr * settings.weight_decay * weights[i]
            weights[i] -= lr * unbiased[0] / (math.sqrt(unbiased[1]) + 1e-8)
            average[i] = decay * average[i] + (1 - decay) * weights[i]
        trained.append(tuple(weights))
        averaged.append(tuple(average))
    return trained, averaged


def test_warm_up_then_half_a_cosine(settings: Training) -> None:
    cosine = settings.model_copy(update={"num_steps": 12, "warmup_steps": 4})
    expected = {0: 0.25, 1: 0.5, 3: 1.0, 4: 1.0, 6: 0.8535534, 8: 0.5, 10: 0.1464466, 12: 0.0}
    for step, factor in expected.items():
        assert lr_factor(step, cosine) == pytest.approx(factor, abs=1e-6), step
    constant = cosine.model_copy(update={"schedule": "constant"})
    assert [lr_factor(step, constant) for step in (0, 2, 4, 11)] == [0.25, 0.75, 1.0, 1.0]
    assert lr_factor(0, cosine.model_copy(update={"warmup_steps": 0})) == 1.0


@pytest.mark.parametrize("changes", [{}, {"ema_decay": 0.0, "weight_decay": 0.0}, {"grad_clip_norm": 100.0}])
def test_training_is_clipped_adamw_with_schedule_and_averages(
    settings: Training, tmp_path: Path, changes: dict[str, float]
) -> None:
    objective = Product()
    metrics = run(objective, settings, tmp_path, **changes)
    trained, averaged = by_hand(settings.model_copy(update=changes))
    lines = [line for line in read_log(tmp_path) if "loss" in line]
    for step, line in enumerate(lines):
        before = START if step == 0 else trained[step - 1]
        expected = sum(weight * factor for weight, factor in zip(before, FACTORS[step], strict=True))
        assert line["loss"] == pytest.approx(expected, rel=1e-4, abs=1e-5)
        assert line["step"] == step + 1
    assert len(lines) == 6 and all(objective.modes)
    # The averages are validated, in eval mode and without gradients, and they stay in the modules.
    seen = [(step, a, b) for step, a, b, *_ in objective.validations]
    assert [step for step, *_ in seen] == [4, 6]
    assert [seen[0][1:], seen[1][1:]] == [pytest.approx(averaged[step], rel=1e-5) for step in (3, 5)]
    assert not any(mode or gradient for *_, mode, gradient, _ in objective.validations)
    assert objective.weights() == pytest.approx(averaged[5], rel=1e-5)
    assert metrics["a"] == pytest.approx(averaged[5][0], rel=1e-5)
    assert not objective.a.training and not objective.b.training


def test_what_is_logged_is_the_mean_since_the_last_line(settings: Training, tmp_path: Path) -> None:
    run(Product(), settings, tmp_path, log_every_steps=4, grad_accumulation_steps=2, batch_size=3)
    lines = [line for line in read_log(tmp_path) if "loss" in line]
    assert [(line["step"], line["batch"]) for line in lines] == [(4, 3), (6, 3)]
    # Micro-steps 0 to 7, then 8 to 11; the rate is that of steps 3 and 5: cos(pi / 4), cos(3 pi / 4).
    assert [line["micro"] for line in lines] == [3.5, 9.5]
    assert [line["lr"] for line in lines] == pytest.approx([0.08535534, 0.01464466], rel=1e-5)
    assert [line["step"] for line in read_log(tmp_path) if "val_a" in line] == [4, 6]


def test_random_numbers_depend_on_seed_and_micro_step_alone(settings: Training, tmp_path: Path) -> None:
    whole, again, other = Product(), Product(), Product()
    run(whole, settings, tmp_path / "runs" / "whole", grad_accumulation_steps=2)
    assert len(set(whole.drawn)) == 12
    torch.manual_seed(5 * 1_000_003 + 7)
    assert whole.drawn[7] == torch.rand(()).item()
    # Validations see the same numbers each time, those of the seed.
    torch.manual_seed(5)
    assert {drawn for *_, drawn in whole.validations} == {torch.rand(()).item()}
    run(again, settings, tmp_path / "again", grad_accumulation_steps=2)
    run(other, settings, tmp_path / "other", grad_accumulation_steps=2, seed=6)
    assert again.drawn == whole.drawn and not set(other.drawn) & set(whole.drawn)


def test_a_run_cut_after_a_checkpoint_ends_as_the_whole_one(settings: Training, tmp_path: Path) -> None:
    class Cut(Product):
        def loss(self, step: int, batch_size: int) -> tuple[torch.Tensor, dict[str, float]]:
            if step == 5:
                raise KeyboardInterrupt
            return super().loss(step, batch_size)

    whole, cut, resumed = Product(), Cut(), Product()
    run(whole, settings, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(cut, settings, tmp_path / "cut", checkpoint_every_steps=3)
    run(resumed, settings, tmp_path / "cut")  # again into the same folder
    assert resumed.drawn == whole.drawn[3:]  # steps 0 to 2 are not done again
    assert resumed.weights() == whole.weights()
    assert read_log(tmp_path / "cut") == read_log(tmp_path / "whole")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_training(settings: Training, tmp_path: Path, bad: float) -> None:
    class Bad(Product):
        def loss(self, step: int, batch_size: int) -> tuple[torch.Tensor, dict[str, float]]:
            return super().loss(step, batch_size)[0] * (bad if step == 2 else 1.0), {}

    with pytest.raises(DicetalkError, match="the loss became .*(nan|inf) at step 2"):
        run(Bad(), settings, tmp_path)


def test_a_gradient_that_is_not_finite_ends_the_training(settings: Training, tmp_path: Path) -> None:
    class Bad(Product):
        def loss(self, step: int, batch_size: int) -> tuple[torch.Tensor, dict[str, float]]:
            return (self.a.weight - START[0]).abs().sqrt().sum(), {}  # 0, with an infinite slope

    with pytest.raises(DicetalkError, match="gradient norm became"):
        run(Bad(), settings, tmp_path)


def test_averages_start_slowly_and_reach_their_decay() -> None:
    layer = nn.Linear(1, 1, bias=False)
    frozen = nn.Linear(1, 1)
    frozen.requires_grad_(False)
    nn.init.constant_(layer.weight, 0.0)
    ema = ExponentialMovingAverage({"layer": layer, "frozen": frozen}, 0.3)
    assert ema.state_dict().keys() == {"layer.weight"}
    nn.init.constant_(layer.weight, 10.0)
    expected = 0.0
    for step, decay in enumerate([1 / 10, 2 / 11, 3 / 12, 0.3, 0.3]):  # 4 / 13 is more than 0.3
        ema.update(step)
        expected = decay * expected + (1 - decay) * 10.0
        assert ema.state_dict()["layer.weight"].item() == pytest.approx(expected, rel=1e-6), step


def test_averages_are_lent_to_the_modules_and_taken_back() -> None:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 1.0)
    ema = ExponentialMovingAverage({"layer": layer}, 0.5)
    nn.init.constant_(layer.weight, 4.0)
    with pytest.raises(RuntimeError), ema.applied():
        assert layer.weight.item() == 1.0
        raise RuntimeError  # a validation that fails must not leave the averages behind
    assert layer.weight.item() == 4.0
    for value in ema.state_dict().values():  # the averages themselves, which a checkpoint is read into
        value += 6.0
    assert layer.weight.item() == 4.0
    ema.copy_to_modules()
    assert layer.weight.item() == 7.0


def test_a_decay_of_zero_follows_the_weights() -> None:
    layer = nn.Linear(1, 1, bias=False)
    ema = ExponentialMovingAverage({"layer": layer}, 0.0)
    nn.init.constant_(layer.weight, 3.0)
    ema.update(0)
    assert ema.state_dict()["layer.weight"].item() == 3.0


def test_speed_counts_examples_and_waiting(tmp_path: Path) -> None:
    speed = Speed()
    assert speed.examples_per_second == 0 and speed.data_wait_fraction == 0
    speed.add(8, 2.0, 0.5)
    speed.add(4, 1.0, 0.25)
    assert speed.examples_per_second == pytest.approx(4.0)
    assert speed.data_wait_fraction == pytest.approx(0.25)
    assert Speed(0, 0.5, 0.25).data_wait_fraction == 0.5

    class Tracker:
        def log_metrics(self, metrics: dict[str, float]) -> None:
            self.metrics = metrics

    tracker = Tracker()
    metrics = {"loss": 1.0, "seconds_per_step": 2.0, "data_wait_fraction": 0.1}
    assert take_timings(metrics, tmp_path, tracker) == {"loss": 1.0}
    assert tracker.metrics == {"seconds_per_step": 2.0, "data_wait_fraction": 0.1}
    assert '"seconds_per_step": 2.0' in (tmp_path / "timings.json").read_text()
