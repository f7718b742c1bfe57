"""Measure the generated videos, the real clips and the floors, and write every number with its interval."""

from __future__ import annotations

from pathlib import Path

from dicetalk.config import load_params
from dicetalk.files import atomic_path, write_json
from dicetalk.runs.work import stage_work
from dicetalk.tracking.runs import stage_run

from . import run


def main() -> None:
    """Read `evaluate` and write `metrics/evaluate.json` and `outputs/evaluation/per_clip.parquet`."""
    params = load_params()

    from dicetalk.data.in_use import emotional_folders
    from dicetalk.evaluation.evaluate import evaluate_generated

    with (
        stage_work("evaluate", params.compute.resume) as work,
        stage_run("evaluate", params.tracking, params.evaluate, work.tags()) as tracker,
    ):
        evaluation = evaluate_generated(
            Path("outputs/generated"),
            emotional_folders(Path("data/processed")),
            Path("models/evaluators"),
            params.evaluate,
            params.compute.evaluate.threads,
            work.folder,
        )
        values = {
            f"{system}/{metric}": estimate["value"]
            for system, metrics in evaluation.report["systems"].items()
            for metric, estimate in metrics.items()
        }
        tracker.log_metrics(values)
        with atomic_path(Path("outputs/evaluation/per_clip.parquet")) as temporary:
            evaluation.per_clip.to_parquet(temporary, index=False)
        write_json(Path("metrics/evaluate.json"), evaluation.report)


if __name__ == "__main__":
    run(main)
