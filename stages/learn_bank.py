"""Learn the vector-quantised emotion bank on the embeddings of the training clips."""

from __future__ import annotations

from pathlib import Path

from dicetalk.config import config_hash, load_params
from dicetalk.files import sha256_file, write_json
from dicetalk.launch import is_main_process, start_processes
from stages import run

EMBEDDER, PRIORS = Path("models/embedder"), Path("models/priors.safetensors")


def main() -> None:
    """Read `learn_bank` and write `models/bank/`."""
    params = load_params()
    settings = params.learn_bank
    if start_processes("stages.learn_bank", settings.training.num_processes):
        return

    from dicetalk.models.embedder import EmotionEmbedder
    from dicetalk.tracking import stage_run
    from dicetalk.training.bank import learn_bank
    from dicetalk.training.priors import load_priors

    run_dir = Path(f"runs/learn_bank-{config_hash(settings, sha256_file(PRIORS))}")
    with stage_run("learn_bank", params.tracking, settings) as tracker:
        metrics = learn_bank(
            encoded_mead=Path("data/encoded/mead"),
            embedder=EmotionEmbedder.from_pretrained(EMBEDDER),
            priors=load_priors(PRIORS),
            prior_source=params.priors.source,
            backbone=Path("models/backbone"),
            settings=settings,
            run_dir=run_dir,
            output=Path("models/bank"),
            tracker=tracker,
        )
        if is_main_process():
            write_json(Path("metrics/learn_bank.json"), metrics)
        tracker.log_artifact(Path("metrics/learn_bank.json"))


if __name__ == "__main__":
    run(main)
