"""Train the emotion embedder on the encoded emotional clips."""

from __future__ import annotations

from pathlib import Path

from dicetalk.config import config_hash, load_params
from dicetalk.files import sha256_file, write_json
from dicetalk.launch import is_main_process, start_processes
from stages import run

ENCODED = Path("data/encoded/mead")


def main() -> None:
    """Read `train_embedder` and write `models/embedder/`."""
    params = load_params()
    settings = params.train_embedder
    if start_processes("stages.train_embedder", settings.training.num_processes):
        return

    from dicetalk.tracking import stage_run
    from dicetalk.training.embedder import train_embedder

    run_dir = Path(f"runs/train_embedder-{config_hash(settings, sha256_file(ENCODED / 'clips.parquet'))}")
    with stage_run("train_embedder", params.tracking, settings) as tracker:
        metrics = train_embedder(ENCODED, settings, run_dir, Path("models/embedder"), tracker)
        if is_main_process():
            write_json(Path("metrics/train_embedder.json"), metrics)
        tracker.log_artifact(Path("metrics/train_embedder.json"))


if __name__ == "__main__":
    run(main)
