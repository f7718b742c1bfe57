"""Fine-tune the video backbone with audio and emotion adapters; the result is the DICE-Talk pipeline."""

from __future__ import annotations

from pathlib import Path

from dicetalk.config import config_hash, load_params
from dicetalk.files import sha256_file, write_json
from dicetalk.launch import is_main_process, start_processes
from stages import run


def main() -> None:
    """Read `train_diffusion` and write `models/dicetalk/`."""
    params = load_params()
    if start_processes("stages.train_diffusion", params.train_diffusion.training.num_processes):
        return

    from dicetalk.tracking import stage_run
    from dicetalk.training.finetune import train_diffusion

    models = [
        path
        for part in ("backbone", "embedder", "bank")
        for path in Path("models", part).rglob("*.safetensors")
    ]
    inputs = [
        *sorted(models),
        Path("models/priors.safetensors"),
        *sorted(Path("data/encoded").glob("*/clips.parquet")),
    ]
    key = config_hash(
        params.train_diffusion, params.encode, params.preprocess, [sha256_file(path) for path in inputs]
    )
    # A relative root: diffusers writes paths into the model, which must not tell where it was made.
    with stage_run("train_diffusion", params.tracking, params.train_diffusion) as tracker:
        metrics = train_diffusion(params, Path(), Path(f"runs/train_diffusion-{key}"), tracker)
        if is_main_process():
            write_json(Path("metrics/train_diffusion.json"), metrics)
        tracker.log_artifact(Path("metrics/train_diffusion.json"))


if __name__ == "__main__":
    run(main)
