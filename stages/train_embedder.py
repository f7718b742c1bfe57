"""Train the emotion embedder on the encoded emotional clips."""

from __future__ import annotations

from pathlib import Path

from dicetalk.compute.launch import is_main_process, start_processes
from dicetalk.config import load_params
from dicetalk.files import write_json
from dicetalk.runs.work import stage_work

from . import run


def main() -> None:
    """Read `train_embedder` and write `models/embedder/`."""
    params = load_params()
    settings, compute = params.train_embedder, params.compute.train_embedder
    with stage_work("train_embedder", params.compute.resume) as work:
        if start_processes(f"{__package__}.train_embedder", compute.num_processes):
            return

        from dicetalk.data.in_use import emotional_folders
        from dicetalk.tracking.runs import stage_run
        from dicetalk.training.embedder import train_embedder

        with stage_run("train_embedder", params.tracking, settings, work.tags()) as tracker:
            encoded, output = emotional_folders(Path("data/encoded")), Path("models/embedder")
            metrics = train_embedder(encoded, settings, compute, work.folder, output, tracker)
            if is_main_process():
                write_json(Path("metrics/train_embedder.json"), metrics)
            tracker.log_artifact(Path("metrics/train_embedder.json"))


if __name__ == "__main__":
    run(main)
