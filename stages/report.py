"""Write the report about this run: `reports/report.html` and `reports/report.md`."""

from __future__ import annotations

from pathlib import Path

from dicetalk.config import load_params
from dicetalk.progress import log

from . import run

OUT = Path("reports")


def main() -> None:
    """Read `report`, write both pages, log them with the final numbers, and say where to look."""
    params = load_params()

    from dicetalk.report.build import build_report
    from dicetalk.report.tables import final_metrics
    from dicetalk.tracking.runs import stage_run

    build_report(params, OUT)
    with stage_run("report", params.tracking, params.report) as tracker:
        tracker.log_metrics(final_metrics(Path("metrics")))
        tracker.log_artifact(OUT)
    log(f"Report:  {(OUT / 'report.html').resolve()}")
    log("Videos:  outputs/generated/    Numbers: metrics/evaluate.json")
    if params.tracking.uri == "sqlite":
        log("Curves:  mlflow ui --backend-store-uri sqlite:///mlflow.db")


if __name__ == "__main__":
    run(main)
