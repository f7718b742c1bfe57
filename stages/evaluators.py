"""Train the networks that metrics need, on real clips of the training split."""

from __future__ import annotations

from pathlib import Path

from dicetalk.config import load_params
from dicetalk.files import write_json
from dicetalk.tracking import stage_run
from stages import run

PROCESSED = [Path("data/processed/mead"), Path("data/processed/hdtf")]


def main() -> None:
    """Read `evaluators` and write `models/evaluators/` and `metrics/evaluators.json`."""
    params = load_params()

    from dicetalk.training.evaluators import train_evaluators

    with stage_run("evaluators", params.tracking, params.evaluators) as tracker:
        results = train_evaluators(
            params.evaluators, PROCESSED, Path("models/evaluators"), Path("runs"), tracker
        )
    write_json(Path("metrics/evaluators.json"), results)


if __name__ == "__main__":
    run(main)
