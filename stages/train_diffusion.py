"""Fine-tune the video backbone with audio and emotion adapters; the result is the DICE-Talk pipeline."""

from __future__ import annotations

from pathlib import Path

from dicetalk.compute.launch import is_main_process, start_processes
from dicetalk.config import load_params
from dicetalk.files import write_json
from dicetalk.runs.work import stage_work

from . import run


def main() -> None:
    """Read `train_diffusion` and write `models/diffusion/`."""
    params = load_params()
    settings, compute = params.train_diffusion, params.compute.train_diffusion
    with stage_work("train_diffusion", params.compute.resume) as work:
        if start_processes(f"{__package__}.train_diffusion", compute.num_processes):
            return

        from dicetalk.tracking.runs import stage_run
        from dicetalk.training.finetune import train_diffusion

        with stage_run("train_diffusion", params.tracking, settings, work.tags()) as tracker:
            # A relative root: diffusers writes paths into the model, which must not tell where it was made.
            metrics = train_diffusion(params, Path(), work.folder, tracker)
            if is_main_process():
                write_json(Path("metrics/train_diffusion.json"), metrics)
            tracker.log_artifact(Path("metrics/train_diffusion.json"))


if __name__ == "__main__":
    run(main)
