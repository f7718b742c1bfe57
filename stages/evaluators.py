"""Train the networks that metrics need, on real clips of the training split."""

from __future__ import annotations

from pathlib import Path

from dicetalk.config import load_params
from dicetalk.files import write_json
from dicetalk.runs.work import stage_work
from dicetalk.tracking.runs import stage_run

from . import run


def main() -> None:
    """Read `evaluators` and write `models/evaluators/` and `metrics/evaluators.json`."""
    params = load_params()
    settings, compute = params.evaluators, params.compute.evaluators

    from dicetalk.data.in_use import all_folders
    from dicetalk.training.evaluators import train_evaluators

    with (
        stage_work("evaluators", params.compute.resume) as work,
        stage_run("evaluators", params.tracking, settings, work.tags()) as tracker,
    ):
        clips = all_folders(Path("data/processed"))
        results = train_evaluators(settings, compute, clips, Path("models/evaluators"), work.folder, tracker)
        write_json(Path("metrics/evaluators.json"), results)


if __name__ == "__main__":
    run(main)
