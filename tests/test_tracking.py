"""Tests of the tracker against a real sqlite store."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from dicetalk.compute.signals import handled
from dicetalk.config import Tracking
from dicetalk.errors import DicetalkError, Stopped
from dicetalk.tracking import runs
from dicetalk.tracking.server import connect
from dicetalk.tracking.tracker import PARENT_RUN_VARIABLE, Tracker

OFF = Tracking(uri=None, experiment="test", registered_model="test")
SQLITE = Tracking(uri="sqlite", experiment="test", registered_model="test")
LOGGED = {"seed": 3, "training": {"lr": 0.1, "num_steps": 5}}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose MLflow database is made once: creating it takes seconds."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def client(store: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(store)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv(PARENT_RUN_VARIABLE, raising=False)
    (store / "params.yaml").write_text(os.environ["PYTEST_CURRENT_TEST"])  # a pipeline per test
    return connect(SQLITE)[0]


def test_null_uri_logs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with runs.stage_run("train", OFF, LOGGED) as tracker:
        tracker.log_metrics({"loss": float("nan")}, step=1)
        tracker.log_artifact(tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []


def test_stage_run_is_nested_and_complete(client, store: Path) -> None:
    picture = store / "sample.png"
    picture.write_bytes(b"png")
    with runs.stage_run("train", SQLITE, LOGGED) as tracker:
        for step in range(3):
            tracker.log_metrics({"loss": 1.0 / (step + 1), "lr": 0.1}, step)
        tracker.log_image(picture)
        tracker.log_dict({"a": 1}, "facts.json")
        tracker.set_tags({"kind": "toy"})
    run = client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"train.seed": "3", "train.training.lr": "0.1", "train.training.num_steps": "5"}
    assert [point.value for point in client.get_metric_history(tracker.run_id, "loss")] == [1.0, 0.5, 1.0 / 3]
    assert run.data.tags["dicetalk.stage"] == "train" and run.data.tags["kind"] == "toy"
    parent = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert parent.info.status == "FINISHED" and "dicetalk.git_commit" in parent.data.tags
    artifacts = next((store / "mlruns").glob(f"{tracker.run_id}/artifacts"))
    assert (artifacts / "images/sample.png").read_bytes() == b"png"
    assert json.loads((artifacts / "facts.json").read_text()) == {"a": 1}


def test_failed_stage_continues_its_run_under_the_same_parent(client) -> None:
    with pytest.raises(RuntimeError), runs.stage_run("train", SQLITE, LOGGED) as first:
        first.log_metrics({"loss": 2.0}, 0)
        raise RuntimeError("killed")
    parent_id = client.get_run(first.run_id).data.tags["mlflow.parentRunId"]
    assert client.get_run(first.run_id).info.status == client.get_run(parent_id).info.status == "FAILED"
    with runs.stage_run("train", SQLITE, LOGGED) as second:
        second.log_metrics({"loss": 1.0}, 1)
    with runs.stage_run("train", SQLITE, LOGGED | {"seed": 4}) as changed:
        pass
    assert second.run_id == first.run_id != changed.run_id
    assert [point.value for point in client.get_metric_history(first.run_id, "loss")] == [2.0, 1.0]
    assert client.get_run(first.run_id).info.status == client.get_run(parent_id).info.status == "FINISHED"
    assert client.get_run(changed.run_id).data.tags["mlflow.parentRunId"] == parent_id


def test_a_stopped_stage_was_killed_and_continues_its_run(client) -> None:
    with pytest.raises(Stopped), handled(), runs.stage_run("train", SQLITE, LOGGED) as first:
        first.log_metrics({"loss": 2.0}, 0)
        os.kill(os.getpid(), signal.SIGTERM)
    parent_id = client.get_run(first.run_id).data.tags["mlflow.parentRunId"]
    assert client.get_run(first.run_id).info.status == client.get_run(parent_id).info.status == "KILLED"
    assert [point.value for point in client.get_metric_history(first.run_id, "loss")] == [2.0]
    with runs.stage_run("train", SQLITE, LOGGED) as second:
        assert client.get_run(first.run_id).info.status == "RUNNING"
    assert second.run_id == first.run_id
    assert client.get_run(first.run_id).info.status == client.get_run(parent_id).info.status == "FINISHED"


def test_flow_owns_the_parent(client) -> None:
    with runs.pipeline_run(SQLITE, "reproduce") as parent:
        assert os.environ[PARENT_RUN_VARIABLE] == parent.run_id
        with pytest.raises(RuntimeError), runs.stage_run("train", SQLITE, LOGGED) as tracker:
            raise RuntimeError
        assert client.get_run(parent.run_id).info.status == "RUNNING"
    assert PARENT_RUN_VARIABLE not in os.environ
    assert client.get_run(tracker.run_id).data.tags["mlflow.parentRunId"] == parent.run_id
    assert client.get_run(parent.run_id).info.status == "FINISHED"


def test_non_finite_metric_is_refused(client) -> None:
    with (
        pytest.raises(DicetalkError, match="is nan"),
        runs.stage_run("train", SQLITE, LOGGED) as tracker,
    ):
        tracker.log_metrics({"loss": float("nan")}, 7)


def test_only_rank_zero_logs(client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with runs.stage_run("train", SQLITE, LOGGED) as tracker:
        assert type(tracker) is Tracker


def test_flatten() -> None:
    assert runs.flatten({"a": {"b": {"c": 1}}, "d": [1, 2]}, "s") == {"s.a.b.c": 1, "s.d": [1, 2]}


def test_a_run_goes_on_without_a_tracker_that_breaks(client, store: Path, capsys) -> None:
    content = (store / "mlflow.db").read_bytes()
    try:
        with runs.stage_run("train", SQLITE, LOGGED) as tracker:
            client._tracking_client.store.engine.dispose()  # no page of it is in memory
            (store / "mlflow.db").write_bytes(b"not a database" * 1000)
            for step in range(3):
                tracker.log_metrics({"loss": 1.0}, step)
                tracker.flush()
            tracker.set_tags({"kind": "toy"})
    finally:
        (store / "mlflow.db").write_bytes(content)
    said = [line for line in capsys.readouterr().err.splitlines() if "going on without it" in line]
    assert len(said) == 1 and "mlflow.db" in said[0]


def test_a_broken_database_is_named_before_the_work(
    tmp_path: Path, client, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mlflow.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(DicetalkError, match="tracking.uri: sqlite.*mlflow.db away") as caught:
        with runs.stage_run("train", SQLITE, LOGGED):
            raise AssertionError("the work began")
    assert "\n" not in str(caught.value)
