"""The one training loop: every trained part of the pipeline is an objective that this loop optimises.

To resume, run the same command again. Batches, noise and dropout of a step derive from `(seed, step)`
alone, and a checkpoint holds weights, EMA, optimiser and loop state, so a run killed anywhere ends in the
same bits as an unbroken one. A signal ends a training after the step, with a checkpoint.

On N processes each evaluates its part of the batch (`dicetalk.training.parallel`) and gradients and logged
numbers are averaged, so all hold the same weights at all times. The main one validates, reports and saves.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dicetalk.compute.precision import resolve_precision, training_attention
from dicetalk.compute.signals import deferred, requested
from dicetalk.config import Training, TrainingCompute
from dicetalk.errors import DicetalkError, Stopped
from dicetalk.progress import format_seconds, log
from dicetalk.tracking.tracker import Tracker
from dicetalk.training import parallel
from dicetalk.training.checkpoint import append_log, load_latest, restore_log, save_checkpoint
from dicetalk.training.ema import ExponentialMovingAverage
from dicetalk.training.sharding import shard
from dicetalk.training.timings import Speed

STOP = "stop"  # among the numbers that processes exchange: the part of them that were asked to stop


class Objective(Protocol):
    """What to optimise: trained modules, their loss on a batch of its own choice, and how to judge them."""

    modules: dict[str, nn.Module]

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Return AdamW parameter groups, each with its own `lr`."""

    def loss(self, step: int, batch_size: int) -> tuple[Tensor, dict[str, float]]:
        """Return the scalar loss of this process's part of the batch of `step`, and numbers to log.

        `batch_size` counts the samples of all processes. The names of the numbers must be the same on all.
        """

    def validate(self, step: int) -> dict[str, float]:
        """Return validation metrics; called with modules in eval mode, EMA weights and no gradients."""


@deferred()
def train(
    objective: Objective,
    settings: Training,
    compute: TrainingCompute,
    run_dir: Path,
    tracker: Tracker | None = None,
    label: str = "train",
    sharded_units: Sequence[nn.Module] = (),
    write_samples: Callable[[Path], None] | None = None,
) -> dict[str, float]:
    """Optimise `objective` for `settings.num_steps` steps; leave its modules in eval mode with EMA weights.

    Args:
        objective: the modules to train and their loss.
        settings: steps, batch size, optimiser, precision.
        compute: threads, processes, and how often to log, validate and save.
        run_dir: folder of checkpoints and `log.jsonl`; an unfinished run found there is continued.
        tracker: receives the logged metrics.
        label: shown in status lines.
        sharded_units: if any, weights, gradients, moments and average are divided among the processes (FSDP),
            and these parts are gathered one at a time. The modules stay divided afterwards; the last
            checkpoint has the full weights.
        write_samples: called at validations with the folder to write into, `samples/step-000100/` of the run.

    Returns:
        The metrics of the last validation, and `seconds_per_step` and `data_wait_fraction`.

    Raises:
        DicetalkError: when the loss, a gradient or a weight is not finite, on all processes alike, when
            processes and parameters do not go together, or when all checkpoints are damaged.
        Stopped: after a signal, on all processes after the same step, when its checkpoint is complete.
    """
    # Initialize.
    from accelerate import Accelerator, DistributedDataParallelKwargs

    accelerator = Accelerator(
        gradient_accumulation_steps=settings.grad_accumulation_steps,
        mixed_precision=resolve_precision(settings.mixed_precision),
        cpu=all(p.device.type == "cpu" for m in objective.modules.values() for p in m.parameters()),
        # A batch without readable noise levels has no gradient for the classifier.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    torch.set_num_threads(compute.threads)  # after the accelerator, which chooses a number of its own
    _check_processes(settings, compute, label, bool(sharded_units), accelerator.distributed_type.value)
    run_dir = Path(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)

    # Setup modules and optimiser.
    trained: Any = parallel.Trained(objective.modules)  # wrapped in place or by another module
    if sharded_units:
        shard(trained, sharded_units)
    parameters = [p for module in objective.modules.values() for p in module.parameters() if p.requires_grad]
    groups = objective.parameter_groups(settings.lr)
    base_lrs = [group["lr"] for group in groups]
    optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay, fused=True)
    if not sharded_units:
        trained = accelerator.prepare(trained)
    optimizer = accelerator.prepare(optimizer)
    ema = ExponentialMovingAverage(objective.modules, settings.ema_decay)

    # Load the latest checkpoint and the log as it was then.
    step, (averages, averaged) = load_latest(run_dir, objective.modules, ema, optimizer)
    if accelerator.is_main_process:
        restore_log(run_dir, step)
    if step and accelerator.is_main_process:
        log(f"{label}: resuming at step {step}/{settings.num_steps} from {run_dir}")

    # Main training loop; reporting and saving come before the step, so the last step needs no special case.
    started, first_step, metrics = time.monotonic(), step, {}
    stopping, speed, recent_speed = False, Speed(), Speed()
    while True:
        # Report status.
        if averaged and (step % compute.log_every_steps == 0 or step == settings.num_steps):
            report = {name: total / averaged for name, total in averages.items()}
            report["lr"] = optimizer.param_groups[0]["lr"]
            seconds = (time.monotonic() - started) / max(step - first_step, 1)
            if accelerator.is_main_process:
                append_log(run_dir, step, report)
                log(_status(label, step, settings.num_steps, report, seconds, recent_speed))
                if tracker is not None:
                    report["examples_per_second"] = recent_speed.examples_per_second
                    tracker.log_metrics({f"train/{name}": value for name, value in report.items()}, step)
            averages, averaged, recent_speed = {}, 0, Speed()

        # Validate with the averaged weights, and show what they generate; if stopping, the next run does.
        due = step == settings.num_steps or (step and step % compute.validate_every_steps == 0)
        if due and not stopping:
            folder = run_dir / "samples" / f"step-{step:06d}"
            if sharded_units or accelerator.is_main_process:  # weights are gathered by all processes
                through = trained if sharded_units else _call
                with ema.applied(), torch.no_grad():
                    _set_mode(objective.modules, training=False)
                    torch.manual_seed(settings.seed)
                    metrics = through(objective.validate, step)
                    if write_samples is not None:
                        through(write_samples, folder)
            if sharded_units:
                trained.reshard()  # what was gathered are averaged weights
            if accelerator.is_main_process:
                append_log(run_dir, step, {f"val_{name}": value for name, value in metrics.items()})
                log(f"{label}: validation at step {step}: " + _format(metrics))
                if tracker is not None:
                    tracker.log_metrics({f"val/{name}": value for name, value in metrics.items()}, step)
                    if write_samples is not None:
                        tracker.log_artifact(folder, f"samples/{folder.name}")

        # Save a checkpoint.
        due = stopping or step == settings.num_steps or step % compute.checkpoint_every_steps == 0
        if due and step > first_step:
            running = averages, averaged
            keep = compute.keep_every_steps
            save_checkpoint(run_dir, step, running, objective.modules, ema, optimizer, keep)

        # Done?
        if stopping:
            raise Stopped(requested() or signal.SIGTERM, step)
        if step == settings.num_steps:
            break

        # Evaluate the loss and accumulate gradients; the last backward pass averages them over processes.
        step_started = time.monotonic()
        _set_mode(objective.modules, training=True)
        sums: dict[str, float] = {}
        for micro_step in range(settings.grad_accumulation_steps):
            sub_step = step * settings.grad_accumulation_steps + micro_step
            torch.manual_seed(settings.seed * 1_000_003 + sub_step)
            last = micro_step + 1 == settings.grad_accumulation_steps
            synchronised = nullcontext() if last or sharded_units else accelerator.no_sync(trained)
            with synchronised, training_attention(accelerator.device):
                with accelerator.autocast():
                    loss, logged = trained(objective.loss, sub_step, settings.batch_size)
                accelerator.backward(loss)  # divides by the number of micro-steps
            for name, value in {"loss": loss.item(), **logged}.items():
                sums[name] = sums.get(name, 0.0) + value
        sums[STOP] = float(requested() is not None)
        sums = parallel.mean(sums, accelerator.device)
        stopping = sums.pop(STOP) > 0
        if not math.isfinite(sums["loss"]):
            raise DicetalkError(
                f"{label}: the loss became {sums['loss']} at step {step} ({_format(sums)}). "
                f"Lower `training.lr` ({settings.lr}) or `training.grad_clip_norm`; "
                f"{run_dir} keeps the last good state."
            )
        for name, value in sums.items():
            averages[name] = averages.get(name, 0.0) + value
        averaged += settings.grad_accumulation_steps

        # Run the optimiser and update the weights.
        norm = accelerator.clip_grad_norm_(parameters, settings.grad_clip_norm)
        if not torch.isfinite(norm):
            raise DicetalkError(
                f"{label}: the gradient norm became {norm.item()} at step {step}; lower `training.lr`."
            )
        for group, base_lr in zip(optimizer.param_groups, base_lrs, strict=True):
            group["lr"] = base_lr * lr_factor(step, settings)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

        # Update the averaged weights and the training state.
        ema.update(step)
        step += 1
        examples = settings.batch_size * settings.grad_accumulation_steps
        for counter in (speed, recent_speed):
            counter.add(examples, time.monotonic() - step_started, sums.get("data_seconds", 0.0))

    # Leave the averaged weights in the modules.
    ema.copy_to_modules()
    _set_mode(objective.modules, training=False)
    return {
        **metrics,
        "seconds_per_step": (time.monotonic() - started) / max(step - first_step, 1),
        "data_wait_fraction": speed.data_wait_fraction,
    }


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def lr_factor(step: int, settings: Training) -> float:
    """Return the factor on the base learning rate: linear warm-up, then constant or half a cosine to zero."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return 1.0
    done = (step - settings.warmup_steps) / max(settings.num_steps - settings.warmup_steps, 1)
    return 0.5 * (1.0 + torch.cos(torch.tensor(torch.pi * done)).item())


def _check_processes(
    settings: Training, compute: TrainingCompute, label: str, fully_sharded: bool, kind: str
) -> None:
    """Refuse a batch, a number of processes or a kind of distribution that does not fit those that run."""
    running = parallel.num_processes()
    if kind in ("DEEPSPEED", "FSDP", "MEGATRON_LM"):
        raise DicetalkError(
            f"{label}: this loop writes whole checkpoints, which {kind} of `accelerate launch` prevents; "
            "launch without it, and set compute.train_diffusion.fully_sharded for FSDP."
        )
    if compute.num_processes not in (1, running):
        raise DicetalkError(
            f"{label}: num_processes of `compute` is {compute.num_processes}, but {running} "
            f"{'runs' if running == 1 else 'run'}. The stages train_embedder, learn_bank and train_diffusion "
            "start that many; for torchrun or accelerate launch, and for other trainings, set it to 1."
        )
    if fully_sharded and running == 1:
        raise DicetalkError(
            f"{label}: fully_sharded divides weights among processes; set num_processes beside it above 1."
        )
    parallel.own_slice(settings.batch_size)


def _set_mode(modules: dict[str, nn.Module], training: bool) -> None:
    for module in modules.values():
        module.train(training)


def _status(
    label: str, step: int, num_steps: int, report: dict[str, float], seconds_per_step: float, speed: Speed
) -> str:
    import resource

    memory = f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB"
    if torch.cuda.is_available():
        memory += f", GPU {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
    eta = format_seconds(seconds_per_step * (num_steps - step))
    return (
        f"{label}: step {step}/{num_steps}, {_format(report)}, {seconds_per_step:.2f} s/step, "
        f"{speed.examples_per_second:.3g} examples/s, data wait {speed.data_wait_fraction:.1%}, "
        f"peak memory {memory}, ETA {eta}"
    )


def _format(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
