"""A plan, printed."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from dicetalk.config import Params
from dicetalk.planning.plan import Plan


def print_plan(
    plan: Plan,
    params: Params,
    gpu_memory_gib: Sequence[float],
    sustained_tflops: float,
    console: Console | None = None,
) -> None:
    """Print what the plan rests on, then a row per way to train."""
    console, training = console or Console(), params.train_diffusion.training
    cost = plan.checkpointed if params.compute.train_diffusion.gradient_checkpointing else plan.plain
    console.print(
        f"Profile {params.profile}: {cost.parameters / 1e6:,.1f} M parameters "
        f"({cost.trainable / 1e6:,.1f} M trained), backbone: {plan.backbone}\n"
        f"{training.num_steps:,} steps of {training.batch_size} x {training.grad_accumulation_steps} clips "
        f"of {params.train_diffusion.num_frames} frames at {params.preprocess.size_px} px, "
        f"mixed precision: {training.mixed_precision}\n"
        f"One clip batch forward and backward: {plan.plain.flops / 1e12:.4g} TFLOP, "
        f"with gradient checkpointing {plan.checkpointed.flops / 1e12:.4g} TFLOP; "
        f"hours assume {sustained_tflops:g} TFLOP/s sustained per GPU",
        highlight=False,
    )
    table = Table(box=None, pad_edge=False)
    for name in ("GPUs", "sharding", "checkpointing", "AdamW"):
        table.add_column(name, no_wrap=True)
    for name in ("weights", "grads", "optim", "average", "activ", "peak GiB", "hours"):
        table.add_column(name, justify="right", no_wrap=True)
    for size in gpu_memory_gib:
        table.add_column(f"{size:g} GiB", justify="center", no_wrap=True)
    for row in plan.rows:
        need, options = row.demand, row.options
        sizes = (need.weights, need.gradients, need.optimizer, need.average, need.activations, need.peak)
        table.add_row(
            str(row.num_gpus),
            options.sharding,
            "yes" if options.gradient_checkpointing else "no",
            "8 bit" if options.optimizer_8bit else "32 bit",
            *(f"{size / 2**30:.2f}" for size in sizes),
            f"{row.duration.hours:,.3g}",
            *("fits" if need.fits(size) else "-" for size in gpu_memory_gib),
        )
    console.print(table)
    _print_cache(plan, params, sustained_tflops, console)


def _print_cache(plan: Plan, params: Params, sustained_tflops: float, console: Console) -> None:
    """Print what caching latents saves, at the row with the least memory."""
    row = min(plan.rows, key=lambda row: row.demand.peak)
    other = plan.without_cache(row, params, sustained_tflops)
    if other is None:
        return
    memory = (other.demand.peak - row.demand.peak) / 2**30
    hours = other.duration.hours / row.duration.hours - 1
    console.print(
        f"All rows use the cached latents of `encode`; without: {memory:+.2f} GiB and {hours:+.1%} hours.",
        highlight=False,
    )
