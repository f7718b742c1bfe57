"""MLflow behind a null object: callers always log, and `tracking.uri: null` makes logging do nothing.

One parent run per pipeline run, one nested run per stage. A flow opens the parent with `pipeline_run` and
stages find it in the environment. A plain `dvc repro` has no process that outlives its stages, so there the
parent is found by what is being reproduced: git commit + params.yaml. Running the same thing again, after a
crash for instance, continues the same parent, and a stage that did not finish continues its own run and
curves.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from dicetalk.config import PARAMS_FILE, Tracking, config_hash
from dicetalk.errors import Stopped
from dicetalk.files import sha256_file
from dicetalk.tracking.server import connect, explaining_failure
from dicetalk.tracking.tracker import PARENT_RUN_VARIABLE, MlflowTracker, Tracker

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

MAX_PARAMS = 100  # parameters per request, the server's limit
MAX_PARAM_LENGTH = 6000


@contextmanager
def stage_run(
    stage: str,
    tracking: Tracking,
    logged: BaseModel | Mapping[str, Any],
    tags: Mapping[str, str] | None = None,
) -> Iterator[Tracker]:
    """Open the run of one stage, nested in the pipeline's run; it ends FINISHED, KILLED or FAILED.

    KILLED is what a signal stopped, see `dicetalk.compute.signals`; FAILED, any other exception.

    Args:
        stage: name of the stage, also of the run.
        tracking: the `tracking` section; with `uri: null` nothing is logged.
        logged: what the stage's result depends on, logged as flat parameters `<stage>.<key>.<key>`.
        tags: of the stage's run.

    Yields:
        Where to log. Processes other than rank 0 of a distributed run get the null object.

    Raises:
        DicetalkError: when there is no tracker to be had, before any work is done.
    """
    if tracking.uri is None or os.environ.get("RANK", "0") != "0":
        yield Tracker()
        return
    parent_id = os.environ.get(PARENT_RUN_VARIABLE)
    owns_parent = parent_id is None
    with explaining_failure(tracking):
        client, experiment_id = connect(tracking)
        if parent_id is None:
            parent_id = _find_or_create_parent(client, experiment_id)
        run_id = _find_or_create_stage_run(client, experiment_id, parent_id, stage, logged)
    with _ending(MlflowTracker(client, run_id)) as tracker:
        tracker.set_tags(tags or {})
        if not owns_parent:
            yield tracker
            return
        # The parent of a plain `dvc repro` is as good, and lasts as long, as its latest stage.
        with _ending(MlflowTracker(client, parent_id, tracker)):
            yield tracker


@contextmanager
def pipeline_run(tracking: Tracking, name: str, key: str | None = None) -> Iterator[Tracker]:
    """Open a parent run; stages started inside, also in child processes, nest themselves under it.

    Args:
        tracking: the `tracking` section.
        name: of the run.
        key: continue the latest run of this key, if there is one.

    Yields:
        Where to log.
    """
    if tracking.uri is None:
        yield Tracker()
        return
    client, experiment_id = connect(tracking)
    tags = {"dicetalk.pipeline": key or _pipeline_key()}
    found = _find_run(client, experiment_id, tags) if key else None
    if found is not None:
        client.update_run(found.info.run_id, status="RUNNING")
    run_id = found.info.run_id if found is not None else _create_run(client, experiment_id, name, tags)
    os.environ[PARENT_RUN_VARIABLE] = run_id
    try:
        with _ending(MlflowTracker(client, run_id)) as tracker:
            yield tracker
    finally:
        del os.environ[PARENT_RUN_VARIABLE]


@contextmanager
def nested_run(
    tracking: Tracking, parent: Tracker, name: str, tags: Mapping[str, str], logged: Mapping[str, Any]
) -> Iterator[Tracker]:
    """Open a new run beneath `parent` for one of several executions of the pipeline.

    Args:
        tracking: the `tracking` section.
        parent: the run above.
        name: of the run.
        tags: of the run.
        logged: parameters, flat.

    Yields:
        Where to log; its `environment` makes stages nest beneath it.
    """
    if parent.run_id is None:
        yield Tracker()
        return
    client, experiment_id = connect(tracking)
    run_id = _create_run(client, experiment_id, name, {"mlflow.parentRunId": parent.run_id, **tags})
    _log_params(client, run_id, logged)
    with _ending(MlflowTracker(client, run_id)) as tracker:
        yield tracker


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one level: `{"a": {"b": 1}}` becomes `{"a.b": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        flat |= flatten(value, name) if isinstance(value, Mapping) else {name: value}
    return flat


@contextmanager
def _ending(tracker: MlflowTracker) -> Iterator[MlflowTracker]:
    status = "FAILED"
    try:
        yield tracker
        status = "FINISHED"
    except (Stopped, KeyboardInterrupt):
        status = "KILLED"
        raise
    finally:
        tracker.end(status)


def _find_or_create_stage_run(
    client: MlflowClient,
    experiment_id: str,
    parent_id: str,
    stage: str,
    logged: BaseModel | Mapping[str, Any],
) -> str:
    values = logged.model_dump(mode="json") if isinstance(logged, BaseModel) else dict(logged)
    tags = {"mlflow.parentRunId": parent_id, "dicetalk.stage": stage, "dicetalk.section": config_hash(values)}
    run = _find_run(client, experiment_id, tags)
    if run is not None and run.info.status != "FINISHED":
        client.update_run(run.info.run_id, status="RUNNING")
        return run.info.run_id
    run_id = _create_run(client, experiment_id, stage, tags)
    _log_params(client, run_id, flatten(values, stage))
    return run_id


def _find_or_create_parent(client: MlflowClient, experiment_id: str) -> str:
    key = {"dicetalk.pipeline": _pipeline_key()}
    run = _find_run(client, experiment_id, key)
    if run is None:
        return _create_run(client, experiment_id, "dvc repro", key)
    client.update_run(run.info.run_id, status="RUNNING")
    return run.info.run_id


def _find_run(client: MlflowClient, experiment_id: str, tags: Mapping[str, str]) -> Run | None:
    condition = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    runs = client.search_runs(
        [experiment_id], condition, max_results=1, order_by=["attributes.start_time DESC"]
    )
    return runs[0] if runs else None


def _create_run(client: MlflowClient, experiment_id: str, name: str, tags: Mapping[str, str]) -> str:
    provenance = {"dicetalk.git_commit": git_commit()}
    if Path("dvc.lock").exists():
        provenance["dicetalk.dvc_lock"] = sha256_file(Path("dvc.lock"))
    return client.create_run(experiment_id, run_name=name, tags=provenance | dict(tags)).info.run_id


def _log_params(client: MlflowClient, run_id: str, flat: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    params = [Param(key, str(value)[:MAX_PARAM_LENGTH]) for key, value in flat.items()]
    for start in range(0, len(params), MAX_PARAMS):
        client.log_batch(run_id, params=params[start : start + MAX_PARAMS])


def _pipeline_key() -> str:
    params = PARAMS_FILE.read_bytes() if PARAMS_FILE.exists() else b""
    return f"{git_commit()[:12]}-{hashlib.sha256(params).hexdigest()[:12]}"


def git_commit() -> str:
    """Return the checked-out commit, or `unknown` outside a git repository."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"
