"""One training step on tensors without storage: what it would take in memory and arithmetic."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from dicetalk.config import Params
from dicetalk.models.cost import CostMeter
from dicetalk.planning.networks import TrainedNetworks, build_networks, random_batch
from dicetalk.training.diffusion import DiffusionObjective, Kept

HALF_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class StepCost:
    """Cost of one forward and backward pass of one device's micro-batch.

    Attributes:
        parameters: of all trained networks.
        trainable: of those, how many get a gradient and optimiser state.
        largest_block: parameters of the UNet's largest block, what full sharding gathers at once.
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


def simulate_step(params: Params, config: dict[str, Any]) -> StepCost:
    """Simulate a step of `train_diffusion`.

    With gradient accumulation it is a step that finds gradients of the one before.

    Args:
        params: the profile.
        config: the UNet's configuration; empty: Stable Video Diffusion's.
    """
    training = params.train_diffusion.training
    with FakeTensorMode():
        networks = build_networks(params, config)
        objective = networks.objective(params)
        module = networks.parts()
        module.train()
        if training.grad_accumulation_steps > 1:
            for parameter in module.parameters():
                if parameter.requires_grad:
                    parameter.grad = torch.zeros_like(parameter)
        gradients = sum(p.grad.nbytes for p in module.parameters() if p.grad is not None)

        meter = CostMeter()
        half = HALF_TYPES.get(training.mixed_precision)
        if half:
            _normalise_in_float32(module)
        with meter, meter.watch_gradients(module):
            with torch.autocast("cpu", half) if half else nullcontext():
                loss = batch_loss(objective, params, networks, training.batch_size)
            forward_flops = meter.flops
            loss.backward()
        parameters = list(module.parameters())
        for parameter in parameters:
            parameter.grad = None

        module.eval()
        validation = CostMeter()
        with torch.no_grad(), validation:
            batch_loss(objective, params, networks, 2 * training.batch_size)
    blocks = [*networks.unet.down_blocks, networks.unet.mid_block, *networks.unet.up_blocks]
    return StepCost(
        parameters=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        largest_block=max(sum(p.numel() for p in block.parameters()) for block in blocks),
        step_bytes=meter.peak_bytes + gradients,
        activation_bytes=meter.peak_other_bytes,
        validation_bytes=validation.peak_bytes,
        forward_flops=forward_flops,
        flops=meter.flops,
    )


def batch_loss(
    objective: DiffusionObjective, params: Params, networks: TrainedNetworks, batch_size: int
) -> Tensor:
    """Return the training's loss on a random batch, all of whose classes are read."""
    batch, priors = random_batch(params, networks, batch_size)
    errors, logits = objective.predict(batch, priors, torch.ones(batch_size), Kept.everything(batch_size))
    discrimination = F.cross_entropy(logits, batch.classes)
    return errors.mean() + objective.settings.discrimination_weight * discrimination


def _normalise_in_float32(module: nn.Module) -> None:
    """Give norms float32 inputs, as autocast does on a GPU; the CPU's, which simulates here, does not."""
    for layer in module.modules():
        if isinstance(layer, (nn.LayerNorm, nn.GroupNorm)):
            layer.register_forward_pre_hook(lambda layer, args: (args[0].float(), *args[1:]))
