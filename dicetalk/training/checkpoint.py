"""Checkpoints of a run and its log.

| in the folder of a run | what |
|---|---|
| `log.jsonl` | one line per logged step |
| `step-000300/` | a checkpoint: the last two stay, and every `keep_every_steps`-th |
| `step-000300/weights.safetensors` | `<module>.<parameter>`, buffers included |
| `step-000300/ema.safetensors` | the same, averaged, without buffers |
| `step-000300/optimizer.safetensors` | `<module>.<parameter>.exp_avg`, `.exp_avg_sq` and `.step` of AdamW |
| `step-000300/loop.json` | sums of the numbers that wait for the next line of the log |
| `step-000300/log.jsonl` | the log so far |
| `step-000300/manifest.json` | size and sha256 of each of these files |

A checkpoint gets its name when every byte of it is on the disk, and only then are older ones removed. It is
believed when it agrees with its manifest; else the one before it is used. Everything else that a training
depends on is in the parameters, or derives from its seed and the step.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dicetalk.errors import DicetalkError
from dicetalk.files import atomic_directory, atomic_path
from dicetalk.progress import log
from dicetalk.training.ema import ExponentialMovingAverage
from dicetalk.training.manifest import find_damage, write_manifest
from dicetalk.training.parallel import chosen_by_main, process_index, total
from dicetalk.training.sharding import fill, gathered, own_part
from dicetalk.training.tensor_files import read_tensors

WEIGHTS, AVERAGE, MOMENTS = "weights.safetensors", "ema.safetensors", "optimizer.safetensors"
LOOP = "loop.json"
LOG = "log.jsonl"
FILES = (WEIGHTS, AVERAGE, MOMENTS, LOOP, LOG)
KEPT = 2  # checkpoints, so that there is one to go back to when the newest is damaged

Sums = tuple[dict[str, float], int]  # of logged numbers since the last line of the log, and over how many


def save_checkpoint(
    run_dir: Path,
    step: int,
    sums: Sums,
    modules: dict[str, nn.Module],
    ema: ExponentialMovingAverage,
    optimizer: Any,
    keep_every_steps: int,
) -> None:
    """Write the state after `step` optimiser steps and drop checkpoints that are no longer wanted.

    Every process must call this, because sharded weights are gathered, a file at a time; the main one writes.

    Args:
        run_dir: the folder of the run.
        step: how many steps are done.
        sums: of the logged numbers.
        modules: what is trained, by name.
        ema: their average.
        optimizer: AdamW over their parameters.
        keep_every_steps: checkpoints of its multiples stay, besides the last two; 0: no others.

    Raises:
        DicetalkError: on all processes, when a weight is not finite; nothing is written then.
    """
    _check_finite(run_dir, step, ema.parameters)
    folder, is_main = run_dir / f"step-{step:06d}", process_index() == 0
    with atomic_directory(folder) if is_main else nullcontext(folder) as temporary:
        for name, tensors in (
            (WEIGHTS, _weights(modules)),
            (AVERAGE, ema.state_dict()),
            (MOMENTS, _moments(optimizer, ema.parameters)),
        ):
            full = gathered(tensors)
            if is_main:
                save_file(full, temporary / name)
            del full
        if is_main:
            (temporary / LOOP).write_text(json.dumps(sums), encoding="utf-8")
            (temporary / LOG).write_text("".join(f"{json.dumps(line)}\n" for line in read_log(run_dir)))
            write_manifest(temporary)
    if is_main:
        _remove_unwanted(run_dir, step, keep_every_steps)


def load_latest(
    run_dir: Path, modules: dict[str, nn.Module], ema: ExponentialMovingAverage, optimizer: Any
) -> tuple[int, Sums]:
    """Restore the newest undamaged checkpoint of `run_dir`, if there is one.

    Tensor by tensor into the memory of modules and average; of the optimiser into new memory.

    Returns:
        Its step and sums of logged numbers; 0 and none for a fresh run.

    Raises:
        DicetalkError: when all checkpoints are damaged, or hold other modules.
    """
    folder = chosen_by_main(lambda: _newest_undamaged(run_dir))
    if folder is None:
        return 0, ({}, 0)
    _load(folder / WEIGHTS, _weights(modules))
    _load(folder / AVERAGE, ema.state_dict())
    state = optimizer.state
    for key, value in read_tensors(folder / MOMENTS):
        name, _, kind = key.rpartition(".")
        parameter = ema.parameters.get(name)
        if parameter is None:
            raise _other_modules(folder)
        target = value.to(parameter.device, copy=True) if kind == "step" else torch.empty_like(parameter)
        if kind != "step":
            fill(target, value)
        state[parameter][kind] = target
    sums, count = json.loads((folder / LOOP).read_text(encoding="utf-8"))
    return _step(folder), (sums, count)


def averaged_weights(run_dir: Path, name: str) -> dict[str, Tensor]:
    """Return the averaged weights of a module, its buffers included, from the newest checkpoint."""
    folder, prefix = _checkpoints(run_dir)[-1], f"{name}."
    return {
        key.removeprefix(prefix): value.clone()
        for file in (WEIGHTS, AVERAGE)
        for key, value in read_tensors(folder / file)
        if key.startswith(prefix)
    }


def append_log(run_dir: Path, step: int, metrics: dict[str, float]) -> None:
    """Add one line to the run's `log.jsonl`."""
    with open(run_dir / LOG, "a", encoding="utf-8") as stream:
        stream.write(json.dumps({"step": step, **metrics}) + "\n")


def read_log(run_dir: Path) -> list[dict[str, float]]:
    """Return the lines of `log.jsonl`; damaged ones are left out, such as a last line cut by a kill."""
    return [line for line in _log_lines(run_dir) if line is not None]


def restore_log(run_dir: Path, step: int) -> None:
    """Put the log back to what it was at the checkpoint that training resumes from; 0: empty it."""
    content = (run_dir / f"step-{step:06d}" / LOG).read_text(encoding="utf-8") if step else ""
    with atomic_path(run_dir / LOG) as temporary:
        temporary.write_text(content, encoding="utf-8")


def write_curves(run_dir: Path, path: Path) -> None:
    """Write the logged metrics of a run as CSV: a row per step, a column per metric, blank if not logged."""
    import pandas as pd

    lines = read_log(run_dir)
    if not lines:
        raise DicetalkError(f"{run_dir} holds no log.jsonl; train first.")
    table = pd.DataFrame(lines).groupby("step", as_index=False).first()
    table = table.drop(
        columns=[name for name in table if name.endswith("_seconds")]
    )  # times differ between runs
    with atomic_path(Path(path)) as temporary:
        table.to_csv(temporary, index=False)


def _log_lines(run_dir: Path) -> Iterator[dict[str, float] | None]:
    """Yield each line that was finished, None for a damaged one."""
    path = run_dir / LOG
    for line in path.read_bytes().split(b"\n")[:-1] if path.is_file() else []:
        try:
            value = json.loads(line)
            numbers = [value["step"], *value.values()]
            yield value if all(isinstance(number, (int, float)) for number in numbers) else None
        except (ValueError, TypeError, KeyError, AttributeError):
            yield None


def _weights(modules: dict[str, nn.Module]) -> dict[str, Tensor]:
    return {f"{name}.{k}": v for name, module in modules.items() for k, v in module.state_dict().items()}


def _moments(optimizer: Any, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state of the optimiser by name; parameters that never had a gradient have none."""
    state = optimizer.state
    named = {
        f"{name}.{kind}": value
        for name, parameter in parameters.items()
        if parameter in state
        for kind, value in state[parameter].items()
    }
    if len(named) != sum(map(len, state.values())):
        raise ValueError("the objective optimises parameters that belong to none of its modules, or to two")
    return named


def _check_finite(run_dir: Path, step: int, parameters: Mapping[str, Tensor]) -> None:
    # A sum is finite only if every term is, and takes no memory.
    bad = [k for k, v in parameters.items() if not own_part(v).sum(dtype=torch.float32).isfinite()]
    device = next(iter(parameters.values())).device
    if total(torch.tensor(len(bad), device=device)):
        raise DicetalkError(
            f"Weights are not finite after step {step}: {', '.join(bad[:3]) or 'those of another process'}. "
            f"Lower `training.lr` or `training.grad_clip_norm`; {run_dir} keeps the last good state."
        )


def _load(path: Path, targets: Mapping[str, Tensor]) -> None:
    left = set(targets)
    for name, value in read_tensors(path):
        if name not in left or value.shape != targets[name].shape:
            raise _other_modules(path.parent)
        fill(targets[name], value)
        left.remove(name)
    if left:
        raise _other_modules(path.parent)


def _other_modules(folder: Path) -> DicetalkError:
    return DicetalkError(
        f"{folder} holds other modules than this version trains; remove {folder.parent} to start over."
    )


def _newest_undamaged(run_dir: Path) -> Path | None:
    damages: list[str] = []
    for folder in reversed(_checkpoints(run_dir)):
        damage = find_damage(folder, FILES)
        if damage is None:
            if damages:
                log(f"{'; '.join(damages)}; going on from {folder.name}")
            return folder
        damages.append(damage)
    if damages:
        raise DicetalkError(f"{'; '.join(damages)}; no checkpoint is left, remove {run_dir} to start over.")
    return None


def _remove_unwanted(run_dir: Path, step: int, keep_every_steps: int) -> None:
    """Remove old checkpoints, and newer ones, which are damaged: else `step` had not been reached again."""
    folders = [folder for folder in _checkpoints(run_dir) if _step(folder) <= step]
    kept = {*folders[-KEPT:]}
    kept |= {f for f in folders if keep_every_steps and _step(f) % keep_every_steps == 0}
    for folder in _checkpoints(run_dir):
        if folder not in kept:
            shutil.rmtree(folder)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _checkpoints(run_dir: Path) -> list[Path]:
    """Return the folders of checkpoints, the newest last."""
    folders = (path for path in run_dir.glob("step-*") if re.fullmatch(r"step-\d+", path.name))
    return sorted(folders, key=_step)
