from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from cases import case
from typer.testing import CliRunner

from dicetalk.cli.app import app
from dicetalk.planning.estimate import MemoryOptions, demand, duration
from dicetalk.planning.networks import Backbone, build_networks, find_backbone
from dicetalk.planning.plan import with_checkpointing
from dicetalk.planning.simulate import StepCost, simulate_step

GIB = 2**30
COST = StepCost(
    parameters=100,
    trainable=80,
    largest_block=10,
    step_bytes=1000,
    activation_bytes=700,
    validation_bytes=50,
    forward_flops=10,
    flops=30,
)


def test_demand_on_one_gpu_is_the_sum_of_its_parts():
    need = demand(COST, MemoryOptions(False, optimizer_8bit=False), 1)
    assert (need.weights, need.gradients, need.optimizer, need.average) == (400, 320, 640, 320)
    assert need.peak == 400 + 640 + 320 + 1000


def test_a_large_validation_pass_counts():
    cost = dataclasses.replace(COST, validation_bytes=5000)
    need = demand(cost, MemoryOptions(False, optimizer_8bit=False), 1)
    assert need.peak == 400 + 640 + 320 + 320 + 5000


@pytest.mark.parametrize("gpus", [2, 8])
def test_each_option_needs_less_memory(gpus: int):
    def peak(**options):
        return demand(COST, MemoryOptions(False, **options), gpus).peak

    plain = peak(optimizer_8bit=False)
    assert peak(optimizer_8bit=True) < plain
    zero, fsdp = (peak(optimizer_8bit=False, sharding=kind) for kind in ("ZeRO-2", "FSDP"))
    assert fsdp < zero < plain
    assert zero == 400 + 640 / gpus + 320 + 320 / gpus + 700
    assert fsdp == 400 / gpus + 2 * 4 * 10 + 640 / gpus + 320 / gpus + 320 / gpus + 700


def test_fits_leaves_room_for_the_context():
    need = dataclasses.replace(demand(COST, MemoryOptions(False, False), 1), peak=23 * GIB)
    assert not need.fits(24) and need.fits(48)


def test_more_gpus_keep_the_effective_batch(repository: Path):
    params, _ = case(repository, "three_levels")
    training = params.train_diffusion.training.model_copy(update={"grad_accumulation_steps": 16})
    times = [duration(COST, training, 8, gpus, sustained_tflops=1e-9) for gpus in (1, 4, 8, 32)]
    assert [time.micro_batches for time in times] == [16, 4, 2, 1]
    assert [time.step_flops for time in times] == [480, 480, 480, 960]
    assert times[0].hours == pytest.approx(2 * 16 * 30 / 1000 / 3600)


def test_checkpointing_trades_memory_for_arithmetic(repository: Path):
    params, backbone = case(repository, "checkpointed")
    plain = with_checkpointing(params, False)
    with_it, without = simulate_step(params, backbone), simulate_step(plain, backbone)
    assert with_it.activation_bytes < 0.6 * without.activation_bytes
    assert without.flops < with_it.flops < without.flops + with_it.forward_flops
    assert with_it.parameters == without.parameters


def test_mixed_windows_take_the_memory_of_the_larger_and_the_mean_arithmetic(repository: Path):
    def cost(fraction: float) -> StepCost:
        params, backbone = case(repository, "tiny")
        changes = {"num_frames": 4, "short_window_fraction": fraction}
        diffusion = params.train_diffusion.model_copy(update=changes)
        return simulate_step(params.model_copy(update={"train_diffusion": diffusion}), backbone)

    full, short, mixed = cost(0.0), cost(1.0), cost(0.25)
    assert short.step_bytes > full.step_bytes  # two references and face masks instead of one
    assert mixed.step_bytes == short.step_bytes
    assert mixed.flops == round(0.75 * full.flops + 0.25 * short.flops)


def test_stored_attention_weights_count(repository: Path):
    params, backbone = case(repository, "tiny")
    stored, fused = (simulate_step(params, backbone, fused_attention=fused) for fused in (False, True))
    # One layer's weights (two frames, one head, 8 x 8 latents, float32); fused kernels keep a sum per query
    attention = 2 * 64 * (64 - 2) * 4
    assert stored.activation_bytes >= fused.activation_bytes + attention


def test_half_precision_halves_most_activations_also_when_checkpointed(repository: Path):
    params, backbone = case(repository, "checkpointed")
    diffusion = params.train_diffusion
    training = diffusion.training.model_copy(update={"mixed_precision": "bf16"})
    half = params.model_copy(update={"train_diffusion": diffusion.model_copy(update={"training": training})})
    single_cost, half_cost = simulate_step(params, backbone), simulate_step(half, backbone)
    assert half_cost.flops == single_cost.flops
    assert (
        0.45 * single_cost.activation_bytes < half_cost.activation_bytes < 0.85 * single_cost.activation_bytes
    )


def test_the_paper_profile_builds_the_released_sizes(repository: Path):
    import torch

    from dicetalk.config import load_params

    params = load_params(repository / "profiles/paper.yaml")
    with torch.device("meta"):
        networks = build_networks(params, Backbone({}, None))
    parts = networks.parts()
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    # Counted from the released checkpoints' names and shapes
    assert counts["unet"] == 1_626_859_242
    assert parts["audio_projection"].proj1.in_features == 10 * 5 * 384
    assert parts["emotion_model"].codebook.codebook.weight.shape == (64, 1024)


def test_the_demo_backbone_is_found(repository: Path, monkeypatch: pytest.MonkeyPatch):
    from dicetalk.config import load_params

    monkeypatch.chdir(repository)
    backbone = find_backbone(load_params(repository / "profiles/demo.yaml"))
    assert backbone.config["block_out_channels"] == [64, 96] and "demo-backbone" in backbone.origin


def test_the_command_prints_a_row_per_way_to_train(repository: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(repository)
    monkeypatch.setenv("COLUMNS", "160")
    arguments = ["plan", "--profile", "profiles/smoke.yaml", "--gpus", "1", "--gpus", "2"]
    result = CliRunner().invoke(app, [*arguments, "--gpu-memory-gib", "1", "--gpu-memory-gib", "24"])
    assert result.exit_code == 0, result.output
    rows = [line for line in result.output.splitlines() if line.startswith(("1 ", "2 "))]
    assert len(rows) == 4 + 12
    assert all(row.rstrip().endswith("fits") for row in rows)
