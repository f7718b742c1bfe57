"""Learn the vector-quantised emotion bank on the embeddings of the training clips."""

from __future__ import annotations

from pathlib import Path

from dicetalk.compute.launch import is_main_process, start_processes
from dicetalk.config import load_params
from dicetalk.files import write_json
from dicetalk.runs.work import stage_work

from . import run


def main() -> None:
    """Read `learn_bank` and write `models/bank/`."""
    params = load_params()
    settings, compute = params.learn_bank, params.compute.learn_bank
    with stage_work("learn_bank", params.compute.resume) as work:
        if start_processes(f"{__package__}.learn_bank", compute.num_processes):
            return

        from dicetalk.data.in_use import emotional_folders
        from dicetalk.models.embedder import EmotionEmbedder
        from dicetalk.tracking.runs import stage_run
        from dicetalk.training.bank import learn_bank
        from dicetalk.training.priors import load_priors

        with stage_run("learn_bank", params.tracking, settings, work.tags()) as tracker:
            metrics = learn_bank(
                encoded=emotional_folders(Path("data/encoded")),
                embedder=EmotionEmbedder.from_pretrained("models/embedder"),
                priors=load_priors(Path("models/priors.safetensors")),
                prior_source=params.priors.source,
                backbone=Path("models/backbone"),
                settings=settings,
                compute=compute,
                run_dir=work.folder,
                output=Path("models/bank"),
                tracker=tracker,
            )
            if is_main_process():
                write_json(Path("metrics/learn_bank.json"), metrics)
            tracker.log_artifact(Path("metrics/learn_bank.json"))


if __name__ == "__main__":
    run(main)
