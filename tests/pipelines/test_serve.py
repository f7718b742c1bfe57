"""A scheduled run, seen happening: Prefect server, served flows, cron of every minute, MLflow registry."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dicetalk.config import load_params
from dicetalk.tracking.server import connect


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_schedule_starts_retraining(toy: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("params.yaml").write_text(re.sub("cron: .*", 'cron: "* * * * *"', Path("params.yaml").read_text()))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    environment = os.environ | {
        "PREFECT_HOME": str(toy / "prefect"),
        "PREFECT_API_URL": url,
        "PYTHONPATH": str(repository),
        "PYTHONUNBUFFERED": "1",
    }
    server = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with _process(server, environment, Path("server.log")):
        _wait_for("the server", Path("server.log"), 180, lambda: _answers(f"{url}/health"))
        with _process([sys.executable, "-m", "pipelines.serve"], environment, Path("serve.log")):
            client, _ = connect(load_params().tracking)
            _wait_for("the scheduled run", Path("serve.log"), 300, lambda: _champion(client) is not None)
            _wait_for("its end", Path("serve.log"), 60, lambda: _ended(Path("serve.log")))
    version = client.get_model_version_by_alias("dicetalk", "champion")
    assert version.description.startswith("The first registered model becomes champion")
    assert (Path(version.source.removeprefix("file://")) / "weights.safetensors").is_file()
    run = client.get_run(version.run_id)
    assert run.info.run_name == "reproduce demo" and run.data.metrics["ours.emotion_accuracy"] == 0.7


@contextmanager
def _process(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    with open(log, "w") as stream:
        process = subprocess.Popen(
            command, env=environment, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield
        finally:
            for kind in (signal.SIGINT, signal.SIGKILL):
                try:
                    os.killpg(process.pid, kind)
                    process.wait(30)
                except (ProcessLookupError, subprocess.TimeoutExpired):
                    continue


def _wait_for(what: str, log: Path, seconds: float, condition) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come in {seconds} s:\n{log.read_text()[-4000:]}"
        time.sleep(1)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


def _ended(log: Path) -> bool:
    return re.search("becomes champion.*Finished in state Completed", log.read_text(), re.DOTALL) is not None


def _champion(client):
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias("dicetalk", "champion")
    except MlflowException:
        return None
