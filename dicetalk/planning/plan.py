"""`dicetalk plan`: a table of what a profile's diffusion training takes on some GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from dicetalk.config import Params
from dicetalk.planning.encoders import EncoderCost, simulate_encoders
from dicetalk.planning.estimate import Demand, Duration, MemoryOptions, Sharding, demand, duration
from dicetalk.planning.networks import find_backbone
from dicetalk.planning.simulate import StepCost, simulate_step
from dicetalk.progress import log


@dataclass(frozen=True)
class Row:
    """One way to train: options, number of GPUs, and what each of them needs."""

    num_gpus: int
    options: MemoryOptions
    demand: Demand
    duration: Duration


@dataclass(frozen=True)
class Plan:
    """All ways, and what they were computed from.

    Attributes:
        backbone: where the UNet's configuration comes from.
        plain: cost of a step that stores all activations.
        checkpointed: cost of a step with gradient checkpointing.
        encoders: what cached latents save; `None` for a backbone other than Stable Video Diffusion.
        rows: with cached latents, as the pipeline trains.
    """

    backbone: str
    plain: StepCost
    checkpointed: StepCost
    encoders: EncoderCost | None
    rows: list[Row]

    def without_cache(self, row: Row, params: Params, sustained_tflops: float) -> Row | None:
        """Return a row as it would be if training encoded its frames itself."""
        if self.encoders is None:
            return None
        options = MemoryOptions(
            row.options.gradient_checkpointing, row.options.optimizer_8bit, row.options.sharding, False
        )
        cost = self.checkpointed if options.gradient_checkpointing else self.plain
        settings = params.train_diffusion
        need = demand(cost, options, row.num_gpus, self.encoders)
        time = duration(
            cost, settings.training, settings.num_frames, row.num_gpus, sustained_tflops, self.encoders
        )
        return Row(row.num_gpus, options, need, time)


def make_plan(params: Params, gpus: Sequence[int], sustained_tflops: float) -> Plan:
    """Simulate a training step of a profile and work out every combination of memory options.

    Args:
        params: the profile.
        gpus: numbers of GPUs.
        sustained_tflops: what one GPU really computes per second, in 10^12.
    """
    backbone = find_backbone(params)
    costs = {}
    for checkpointing in (True, False):
        log(f"plan: simulating a step {'with' if checkpointing else 'without'} gradient checkpointing")
        costs[checkpointing] = simulate_step(with_checkpointing(params, checkpointing), backbone)
    settings, rows = params.train_diffusion, []
    for num_gpus in gpus:
        shardings: tuple[Sharding, ...] = ("none",) if num_gpus == 1 else ("none", "ZeRO-2", "FSDP")
        for sharding, checkpointing, optimizer_8bit in product(shardings, (False, True), (False, True)):
            options = MemoryOptions(checkpointing, optimizer_8bit, sharding)
            cost = costs[checkpointing]
            time = duration(cost, settings.training, settings.num_frames, num_gpus, sustained_tflops)
            rows.append(Row(num_gpus, options, demand(cost, options, num_gpus), time))
    encoders = None if backbone.config else simulate_encoders(params.preprocess.size_px)
    return Plan(backbone.origin, costs[False], costs[True], encoders, rows)


def with_checkpointing(params: Params, checkpointing: bool) -> Params:
    """Return parameters that train with gradient checkpointing or without."""
    diffusion = params.compute.train_diffusion.model_copy(update={"gradient_checkpointing": checkpointing})
    compute = params.compute.model_copy(update={"train_diffusion": diffusion})
    return params.model_copy(update={"compute": compute})
