"""Checkpoints of a run and its log.

| in `runs/<stage>-<confighash>/` | what |
|---|---|
| `log.jsonl` | one line per logged step |
| `step-000300/` | renamed into place only when complete; older ones are removed afterwards |
| `step-000300/weights.safetensors` | `<module>.<parameter>`, buffers included |
| `step-000300/ema.safetensors` | the same, averaged |
| `step-000300/optimizer.pt` | read with `weights_only=True` |
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from dicetalk.errors import DicetalkError
from dicetalk.files import atomic_directory, atomic_path
from dicetalk.training.ema import ExponentialMovingAverage
from dicetalk.training.parallel import process_index
from dicetalk.training.sharding import gathered, load_optimizer, load_weights


def save_checkpoint(
    run_dir: Path, step: int, modules: dict[str, nn.Module], ema: ExponentialMovingAverage, optimizer: Any
) -> None:
    """Write the state after `step` optimiser steps and drop older checkpoints.

    Every process must call this, because sharded weights are gathered; the main one writes.
    """
    weights, average, state = (
        gathered(values) for values in (_weights(modules), ema.state_dict(), optimizer.state_dict())
    )
    if process_index() > 0:
        return
    folder = run_dir / f"step-{step:06d}"
    with atomic_directory(folder) as temporary:
        save_file(weights, temporary / "weights.safetensors")
        save_file(average, temporary / "ema.safetensors")
        torch.save(state, temporary / "optimizer.pt")
    for old in _checkpoints(run_dir):
        if old != folder:
            shutil.rmtree(old)


def load_latest(
    run_dir: Path, modules: dict[str, nn.Module], ema: ExponentialMovingAverage, optimizer: Any
) -> int:
    """Restore the newest checkpoint of `run_dir`, if any, and return its step (0 for a fresh run)."""
    folders = _checkpoints(run_dir)
    if not folders:
        return 0
    folder = folders[-1]
    weights = load_file(folder / "weights.safetensors")
    expected = _weights(modules)
    if weights.keys() != expected.keys():
        raise DicetalkError(
            f"{folder} holds other modules than this version trains; remove {run_dir} to start over."
        )
    for name, module in modules.items():
        prefix = f"{name}."
        load_weights(module, {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)})
    ema.load_state_dict(load_file(folder / "ema.safetensors"))
    # By way of the CPU: else all processes would put their copy of the whole on the first GPU.
    state = torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True)
    load_optimizer(optimizer, state)
    return int(folder.name.removeprefix("step-"))


def averaged_weights(run_dir: Path, name: str) -> dict[str, torch.Tensor]:
    """Return the averaged weights of a module, its buffers included, from the newest checkpoint."""
    folder, prefix = _checkpoints(run_dir)[-1], f"{name}."
    weights = load_file(folder / "weights.safetensors") | load_file(folder / "ema.safetensors")
    return {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}


def append_log(run_dir: Path, step: int, metrics: dict[str, float]) -> None:
    """Add one line to the run's `log.jsonl`."""
    with open(run_dir / "log.jsonl", "a", encoding="utf-8") as stream:
        stream.write(json.dumps({"step": step, **metrics}) + "\n")


def read_log(run_dir: Path) -> list[dict[str, float]]:
    """Return the lines of `log.jsonl`; a last line cut by a kill is ignored."""
    path = run_dir / "log.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def truncate_log(run_dir: Path, step: int) -> None:
    """Drop lines written after the checkpoint that training resumes from."""
    kept = [line for line in read_log(run_dir) if line["step"] <= step and step]
    with atomic_path(run_dir / "log.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")


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


def _weights(modules: dict[str, nn.Module]) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{k}": v.contiguous()
        for name, module in modules.items()
        for k, v in module.state_dict().items()
    }


def _checkpoints(run_dir: Path) -> list[Path]:
    return sorted(run_dir.glob("step-*"))
