"""The pipeline stage by stage under Prefect: `python -m pipelines.reproduce` runs what `dvc repro` runs.

Works without a configured Prefect server by starting a temporary one. Stages that are up to date do not run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from dicetalk.config import load_params
from dicetalk.files import read_json
from dicetalk.report.tables import final_metrics
from dicetalk.tracking.runs import pipeline_run

from . import dvc

METRICS = Path("metrics")
EVALUATION = METRICS / "evaluate.json"
REPORT = Path("reports/report.md")


def is_transient(_task: Any, _task_run: Any, state: Any) -> bool:
    """Tell Prefect to retry only what may pass; too little memory or a wrong parameter fails again."""
    return isinstance(state.result(raise_on_failure=False), dvc.TransientError)


@task(
    task_run_name="{stage}",
    retries=2,
    retry_delay_seconds=[30, 300],
    retry_condition_fn=is_transient,
    cache_policy=NO_CACHE,  # DVC decides what is up to date
    log_prints=True,
)
def run_stage(stage: str) -> None:
    """Bring one stage up to date."""
    dvc.run("repro", "--single-item", stage)


@task(cache_policy=NO_CACHE)
def publish_artifacts() -> None:
    """Show the metric table and the report in Prefect's user interface."""
    create_table_artifact(
        metric_table(read_json(EVALUATION)), key="metrics", description=f"From `{EVALUATION}`."
    )
    page = REPORT.with_suffix(".html").resolve()
    create_markdown_artifact(
        f"Full report with videos: `{page}`\n\n{REPORT.read_text(encoding='utf-8')}", key="report"
    )


@flow(name="reproduce", log_prints=True)
def reproduce() -> str | None:
    """Run every stage of `dvc.yaml` that is not up to date, and log the final metrics.

    Returns:
        The id of the parent MLflow run, or `None` with tracking switched off.
    """
    params = load_params()
    with pipeline_run(params.tracking, f"reproduce {params.profile}") as tracker:
        for stage in dvc.stages_in_order():
            run_stage(stage)
        # From the files, because a stage that was up to date has logged nothing in this run.
        tracker.log_metrics(final_metrics(METRICS))
        tracker.log_artifact(Path("params.yaml"))
        publish_artifacts()
    print("Done; open reports/report.html")
    return tracker.run_id


def metric_table(evaluation: dict[str, Any]) -> list[dict[str, str]]:
    """Return one row per system of `metrics/evaluate.json`, with 95 % intervals."""
    systems = evaluation["systems"]
    names = list(dict.fromkeys(metric for metrics in systems.values() for metric in metrics))
    return [
        {"system": system} | {name: _cell(metrics[name]) if name in metrics else "" for name in names}
        for system, metrics in systems.items()
    ]


def _cell(entry: dict[str, Any]) -> str:
    low, high = entry["ci95"]
    return f"{entry['value']:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    reproduce()
