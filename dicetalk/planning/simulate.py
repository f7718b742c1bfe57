"""One training step on tensors without storage: what it would take in memory and arithmetic."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from dicetalk.config import Params
from dicetalk.models.cost import CostMeter
from dicetalk.planning.networks import Backbone, TrainedNetworks, build_networks, random_batch
from dicetalk.training.diffusion import SHORT_WINDOW_FRAMES, DiffusionObjective, Kept

# `auto` is bf16 on every GPU since 2020
HALF_TYPES = {"bf16": torch.bfloat16, "auto": torch.bfloat16}
FUSED = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@dataclass(frozen=True)
class StepCost:
    """Cost of one forward and backward pass of one device's micro-batch.

    Where a training mixes lengths of windows, memory is that of the larger kind and arithmetic the mean.

    Attributes:
        parameters: of all trained networks.
        trainable: of those, how many get a gradient and optimiser state.
        largest_block: parameters of the denoiser's largest block, what full sharding gathers at once.
        step_bytes: peak of activations and gradients together, without weights, optimiser and average.
        activation_bytes: peak without gradients.
        validation_bytes: peak of a validation pass, which has twice the batch and no gradients.
        forward_flops: 2 per multiply-add, of the forward pass.
        flops: of forward and backward pass, with what gradient checkpointing computes again.
    """

    parameters: int
    trainable: int
    largest_block: int
    step_bytes: int
    activation_bytes: int
    validation_bytes: int
    forward_flops: int
    flops: int


@dataclass(frozen=True)
class BatchShape:
    """One kind of micro-batch and its share of all."""

    share: float
    batch_size: int
    num_frames: int


def batch_shapes(params: Params) -> list[BatchShape]:
    """Return the kinds of micro-batches that training draws: full windows, and short ones of more clips."""
    settings = params.train_diffusion
    frames, batch_size, short = (
        settings.num_frames,
        settings.training.batch_size,
        settings.short_window_fraction,
    )
    shapes = [
        BatchShape(1 - short, batch_size, frames),
        BatchShape(short, batch_size * frames // SHORT_WINDOW_FRAMES, SHORT_WINDOW_FRAMES),
    ]
    return [shape for shape in shapes if shape.share > 0]


def simulate_step(params: Params, backbone: Backbone, fused_attention: bool = True) -> StepCost:
    """Simulate a step of `train_diffusion`.

    With gradient accumulation it is a step that finds gradients of the one before.

    Args:
        params: the profile.
        backbone: what is fine-tuned.
        fused_attention: as GPUs compute it; False stores the attention weights, as training on a CPU does.
    """
    training = params.train_diffusion.training
    with FakeTensorMode(), sdpa_kernel(FUSED if fused_attention else SDPBackend.MATH):
        networks = build_networks(params, backbone)
        objective = networks.objective(params)
        module = networks.parts()
        module.train()
        parameters = list(module.parameters())
        half = HALF_TYPES.get(training.mixed_precision)
        if half:
            _normalise_in_float32(module)
        passes = []
        for shape in batch_shapes(params):
            for parameter in parameters:
                found = training.grad_accumulation_steps > 1 and parameter.requires_grad
                parameter.grad = torch.zeros_like(parameter) if found else None
            passes.append(_simulate_pass(objective, params, networks, shape, half))
        for parameter in parameters:
            parameter.grad = None

        module.eval()
        validation, full = CostMeter(), params.train_diffusion.num_frames
        with torch.no_grad(), validation:
            batch_loss(objective, params, networks, BatchShape(1, 2 * training.batch_size, full))
    return StepCost(
        parameters=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        largest_block=max(sum(p.numel() for p in b.parameters()) for b in networks.denoiser.blocks()),
        step_bytes=max(one.step_bytes for one in passes),
        activation_bytes=max(one.activation_bytes for one in passes),
        validation_bytes=validation.peak_bytes,
        forward_flops=round(sum(one.share * one.forward_flops for one in passes)),
        flops=round(sum(one.share * one.flops for one in passes)),
    )


@dataclass(frozen=True)
class _Pass:
    """Forward and backward pass of one kind of micro-batch; fields as in `StepCost`."""

    share: float
    step_bytes: int
    activation_bytes: int
    forward_flops: int
    flops: int


def _simulate_pass(
    objective: DiffusionObjective,
    params: Params,
    networks: TrainedNetworks,
    shape: BatchShape,
    half: torch.dtype | None,
) -> _Pass:
    meter, module = CostMeter(), networks.parts()
    gradients = sum(p.grad.nbytes for p in module.parameters() if p.grad is not None)
    with meter, meter.watch_gradients(module):
        with torch.autocast("cpu", half) if half else nullcontext():
            loss = batch_loss(objective, params, networks, shape)
        forward_flops = meter.flops
        loss.backward()
    step_bytes = meter.peak_bytes + gradients
    return _Pass(shape.share, step_bytes, meter.peak_other_bytes, forward_flops, meter.flops)


def batch_loss(
    objective: DiffusionObjective, params: Params, networks: TrainedNetworks, shape: BatchShape
) -> Tensor:
    """Return the training's loss on a random batch, all of whose classes are read."""
    size = shape.batch_size
    batch, priors = random_batch(params, networks, size, shape.num_frames)
    noise = torch.randn(batch.latents.shape)
    errors, logits = objective.predict(batch, priors, torch.ones(size), Kept.everything(size), noise)
    discrimination = F.cross_entropy(logits, batch.classes)
    return errors.mean() + objective.settings.discrimination_weight * discrimination


def _normalise_in_float32(module: nn.Module) -> None:
    """Give norms float32 inputs, as autocast does on a GPU; the CPU's, which simulates here, does not."""
    for layer in module.modules():
        if isinstance(layer, (nn.LayerNorm, nn.GroupNorm)):
            layer.register_forward_pre_hook(lambda layer, args: (args[0].float(), *args[1:]))
