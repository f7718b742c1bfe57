"""A training with the real loop, in one process or several; it fits a line to the encoded clips."""

from __future__ import annotations

from pathlib import Path

from stages.tiny_sabotage import done, install

from dicetalk.compute.launch import is_main_process, start_processes
from dicetalk.config import load_params
from dicetalk.files import atomic_directory, write_json
from dicetalk.runs.work import stage_work
from stages import run


def make_objective(encoded: Path):
    import numpy as np
    import pandas as pd
    import torch
    from safetensors.numpy import load_file
    from torch import nn

    from dicetalk.training import parallel

    table = pd.read_parquet(encoded / "clips.parquet")
    tensors = {}
    for shard in sorted(table["shard"].unique()):
        tensors |= load_file(encoded / shard)
    rows = np.concatenate([tensors[f"{name}/latents"] for name in table["clip_id"]]) / 255

    class Fit:
        def __init__(self):
            torch.manual_seed(0)
            self.layer = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 1))
            self.modules = {"fit": self.layer}

        def parameter_groups(self, lr):
            return [{"params": list(self.layer.parameters()), "lr": lr}]

        def loss(self, step, batch_size):
            if is_main_process():
                done(f"train {step}", 0.04)
            own = parallel.own_slice(batch_size)
            chosen = np.random.default_rng([1, step]).integers(len(rows), size=batch_size)
            x = torch.from_numpy(rows[chosen]).float()
            y = x.sum(dim=1, keepdim=True) + 0.1 * torch.randn(batch_size, 1)
            loss = (self.layer(x[own]) - y[own]).square().mean()
            return loss, {"twice": 2 * loss.item()}

        def validate(self, step):
            return {"of_ones": self.layer(torch.ones(1, 3)).item()}

    return Fit()


def main() -> None:
    params = load_params()
    settings, compute = params.learn_bank.training, params.compute.learn_bank
    with stage_work("train", params.compute.resume) as work:
        if start_processes("stages.tiny_train", compute.num_processes):
            return

        from safetensors.torch import save_file

        from dicetalk.tracking.runs import stage_run
        from dicetalk.training.checkpoint import write_curves
        from dicetalk.training.loop import train

        with stage_run("train", params.tracking, settings, work.tags()) as tracker:
            objective = make_objective(Path("data/encoded/tiny"))
            metrics = train(objective, settings, compute, work.folder, tracker)
            if is_main_process():
                with atomic_directory(Path("models/tiny")) as folder:
                    save_file(objective.layer.state_dict(), folder / "model.safetensors")
                    write_curves(work.folder, folder / "curves.csv")
                write_json(Path("metrics/train.json"), {"of_ones": metrics["of_ones"]})


if __name__ == "__main__":
    install()
    run(main)
