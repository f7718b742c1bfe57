"""From the cost of one step to memory per GPU, hours, and what fits.

Memory counts what the training keeps: float32 weights, gradients, two AdamW moments and the averaged weights,
and the activations of one micro-batch. The plan keeps the effective batch of the profile: on more GPUs each
accumulates fewer micro-batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

from dicetalk.config import Training
from dicetalk.planning.encoders import EncoderCost
from dicetalk.planning.simulate import StepCost

FLOAT32 = 4
ADAM_BYTES = 8  # two float32 moments
ADAM_8BIT_BYTES = 2 + 8 / 256  # two bytes, and a float32 scale per block of 256 values and moment
GATHERED_BLOCKS = 2  # full sharding holds one block and fetches the next
USABLE = 0.92  # rest of a GPU's memory: CUDA context (about 0.5 GiB), workspaces, fragmentation

Sharding = Literal["none", "ZeRO-2", "FSDP"]


@dataclass(frozen=True)
class MemoryOptions:
    """What a training can do to need less memory.

    Args:
        gradient_checkpointing: compute activations again in the backward pass.
        optimizer_8bit: AdamW with moments of one byte.
        sharding: across GPUs: `ZeRO-2` gradients and moments, `FSDP` (ZeRO-3) weights and average as well.
        cached_latents: latents and image embeddings come from `encode`; False loads the encoders.
    """

    gradient_checkpointing: bool
    optimizer_8bit: bool
    sharding: Sharding = "none"
    cached_latents: bool = True


@dataclass(frozen=True)
class Demand:
    """Bytes on each GPU; `peak` is the larger of a training step and a validation pass."""

    weights: float
    gradients: float
    optimizer: float
    average: float
    activations: float
    peak: float

    def fits(self, gpu_memory_gib: float) -> bool:
        """Whether a GPU of this size is enough."""
        return self.peak <= USABLE * gpu_memory_gib * 2**30


@dataclass(frozen=True)
class Duration:
    """Arithmetic and time of a training.

    Attributes:
        micro_batches: what each GPU accumulates per optimiser step.
        step_flops: of all GPUs together per optimiser step.
        hours: at the sustained speed that was assumed.
    """

    micro_batches: int
    step_flops: float
    hours: float


def demand(
    cost: StepCost, options: MemoryOptions, num_gpus: int, encoders: EncoderCost | None = None
) -> Demand:
    """Return the memory that each of `num_gpus` needs.

    Args:
        cost: simulated with or without gradient checkpointing as `options` say.
        options: see there.
        num_gpus: data-parallel GPUs.
        encoders: needed without cached latents.
    """
    state_share = num_gpus if options.sharding != "none" else 1
    weight_share = num_gpus if options.sharding == "FSDP" else 1
    weights = FLOAT32 * cost.parameters / weight_share
    if weight_share > 1:
        weights += GATHERED_BLOCKS * FLOAT32 * cost.largest_block
    average = FLOAT32 * cost.trainable / weight_share
    per_parameter = ADAM_8BIT_BYTES if options.optimizer_8bit else ADAM_BYTES
    optimizer = per_parameter * cost.trainable / state_share
    gradients = FLOAT32 * cost.trainable / state_share
    step = cost.step_bytes if state_share == 1 else gradients + cost.activation_bytes
    if num_gpus > 1 and options.sharding == "none":
        step += FLOAT32 * cost.trainable  # the buckets in which gradients are exchanged
    activations = cost.activation_bytes
    fixed = weights + optimizer + average
    if not options.cached_latents:
        assert encoders is not None
        fixed += encoders.weight_bytes
        activations = max(activations, encoders.activation_bytes)
        step = max(step, encoders.activation_bytes)
    # Validation swaps the averaged weights in and keeps the trained ones aside
    validation = average + cost.validation_bytes
    return Demand(weights, gradients, optimizer, average, activations, fixed + max(step, validation))


def duration(
    cost: StepCost,
    training: Training,
    num_frames: int,
    num_gpus: int,
    sustained_tflops: float,
    encoders: EncoderCost | None = None,
) -> Duration:
    """Return arithmetic and hours of the whole training; validation is not counted.

    Args:
        cost: of one micro-batch.
        training: the profile's settings.
        num_frames: frames per clip, which encoders would encode.
        num_gpus: data-parallel GPUs.
        sustained_tflops: what one GPU really computes per second, in 10^12.
        encoders: given when latents are not cached.
    """
    micro_batches = ceil(training.grad_accumulation_steps / num_gpus)
    flops: float = cost.flops
    if encoders is not None:
        # The reference frame is encoded as well
        flops += training.batch_size * (encoders.frame_flops * (num_frames + 1) + encoders.image_flops)
    seconds = training.num_steps * micro_batches * flops / (sustained_tflops * 1e12)
    return Duration(micro_batches, flops * micro_batches * num_gpus, seconds / 3600)
