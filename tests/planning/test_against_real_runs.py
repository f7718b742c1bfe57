"""What the plan predicts is what real runs on the CPU take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from math import prod
from pathlib import Path

import pytest
import torch
from cases import CASES, case
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from dicetalk.planning.estimate import MemoryOptions, demand
from dicetalk.planning.networks import build_networks
from dicetalk.planning.simulate import batch_loss, batch_shapes, simulate_step

MATMULS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::conv2d", "aten::conv3d")

# Blocks from 64 KiB on go back to the system when freed. By default glibc keeps blocks of up to 32 MiB in its
# heap, whose gaps then count as resident; a GPU's allocator has its own gaps, for which the plan leaves room.
EXACT_MALLOC = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_MMAP_MAX_": "1000000",
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads resident memory from /proc")
@pytest.mark.parametrize("name", CASES)
def test_peak_memory_of_a_real_training_within_15_percent(repository: Path, tmp_path: Path, name: str):
    """Two steps, a validation and a checkpoint of the real loop in a process of its own: resident memory."""
    params, backbone = case(repository, name)
    cost = simulate_step(params, backbone, fused_attention=False)
    checkpointing = params.compute.train_diffusion.gradient_checkpointing
    predicted = demand(cost, MemoryOptions(checkpointing, optimizer_8bit=False), num_gpus=1).peak

    environment = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"}
    environment["PYTHONPATH"] = os.pathsep.join([str(repository), str(repository / "tests")])
    script, out = Path(__file__).with_name("real_training.py"), tmp_path / "memory.json"
    subprocess.run(
        [sys.executable, script, name, out], env=environment | EXACT_MALLOC, check=True, timeout=1800
    )
    measured = json.loads(out.read_text(encoding="utf-8"))["training"]
    print(f"{name}: predicted {predicted / 2**20:.0f} MiB, measured {measured / 2**20:.0f} MiB")
    assert predicted == pytest.approx(measured, rel=0.15)


@pytest.mark.parametrize("name", CASES)
def test_flops_of_a_real_step_within_2_percent_of_the_profiler(repository: Path, name: str):
    params, backbone = case(repository, name)
    training = params.train_diffusion.training
    # One sample: arithmetic is proportional to the batch, time as well
    training = training.model_copy(update={"batch_size": 1})
    diffusion = params.train_diffusion.model_copy(update={"training": training})
    params = params.model_copy(update={"train_diffusion": diffusion})
    cost = simulate_step(params, backbone)

    networks = build_networks(params, backbone)
    objective = networks.objective(params)
    parts = networks.parts().train()
    first = {tuple(parts[name].conv_in.weight.shape) for name in ("unet", "pose_guider")}
    (shape,) = batch_shapes(params)
    fused = sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH])
    with fused, profile(activities=[ProfilerActivity.CPU], record_shapes=True, with_flops=True) as run:
        batch_loss(objective, params, networks, shape).backward()
    measured = sum(flops(event, first) for event in run.events())
    print(f"{name}: predicted {cost.flops / 1e9:.2f} GFLOP, profiled {measured / 1e9:.2f} GFLOP")
    assert cost.flops == pytest.approx(measured, rel=0.02)


def flops(event: torch.autograd.profiler_util.FunctionEvent, first: set[tuple[int, ...]]) -> int:
    """The profiler's count of an operation; from its recorded shapes where the profiler has no formula.

    `first` are the weights of convolutions whose input needs no gradient.
    """
    if event.name in MATMULS:
        return event.flops or 0
    shapes = event.input_shapes
    if event.name == "aten::convolution_backward":
        output, weight = shapes[0], tuple(shapes[2])
        products = 1 if weight in first else 2
        return products * 2 * prod(output) * prod(weight[1:])
    if event.name == "aten::_scaled_dot_product_flash_attention_for_cpu":
        (batch, heads, queries, dim), keys = shapes[0], shapes[1][2]
        return 2 * 2 * batch * heads * queries * keys * dim
    if event.name == "aten::_scaled_dot_product_flash_attention_for_cpu_backward":
        (batch, heads, queries, dim), keys = shapes[1], shapes[2][2]
        return 5 * 2 * batch * heads * queries * keys * dim
    return 0
