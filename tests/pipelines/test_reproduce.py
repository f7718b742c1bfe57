"""`python -m pipelines.reproduce` as a person runs it: no server configured, nothing in Prefect's home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dicetalk.config import load_params
from dicetalk.tracking.server import connect


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_flow_runs_without_a_server(toy: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    environment = os.environ | {"PREFECT_HOME": str(toy / "prefect"), "PYTHONPATH": str(repository)}
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.reproduce"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-4000:]
    assert "training with seed 7" in output and "open reports/report.html" in output
    client, experiment_id = connect(load_params().tracking)
    (run,) = client.search_runs([experiment_id])
    assert run.info.run_name == "reproduce demo" and run.info.status == "FINISHED"
    assert run.data.metrics["ours.emotion_accuracy"] == 0.7

    Path("toy_stage.py").write_text("raise SystemExit('out of memory')")
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("seed: 7", "seed: 6"))
    failed = subprocess.run(
        [sys.executable, "-m", "pipelines.reproduce"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert failed.returncode != 0
    assert "StageError" in failed.stderr and "Retry 1/2" not in failed.stdout + failed.stderr
    assert client.search_runs([experiment_id], max_results=1)[0].info.status == "FAILED"
