"""The MLflow database or server: where it is, and one line when it cannot be used."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dicetalk.config import Tracking
from dicetalk.errors import DicetalkError

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


def connect(tracking: Tracking) -> tuple[MlflowClient, str]:
    """Return a client and the id of the experiment, created when missing.

    `uri: sqlite` stands for `mlflow.db` and `mlruns/` of the working directory, as absolute paths because
    DVC may run a stage in another directory. The environment variable MLFLOW_TRACKING_URI goes before
    `uri`.

    Raises:
        DicetalkError: when mlflow is not installed.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault(
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3"
    )  # half a minute; 7, the default, take several
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # else tracebacks
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise DicetalkError(
            f"mlflow is not installed ({error}); install it or set tracking.uri: null."
        ) from None
    local, uri = _local(), _uri(tracking)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(tracking.experiment)
    if experiment is not None:
        return client, experiment.experiment_id
    artifacts = (Path.cwd() / "mlruns").as_uri() if uri == local else None  # a server decides for itself
    return client, client.create_experiment(tracking.experiment, artifact_location=artifacts)


def _local() -> str:
    return f"sqlite:///{Path.cwd() / 'mlflow.db'}"


def _uri(tracking: Tracking) -> str | None:
    return os.environ.get("MLFLOW_TRACKING_URI") or (_local() if tracking.uri == "sqlite" else tracking.uri)


@contextmanager
def explaining_failure(tracking: Tracking) -> Iterator[None]:
    """Turn what goes wrong inside into one line that names the address and the ways out."""
    try:
        yield
    except DicetalkError:
        raise
    except Exception as error:  # of SQLAlchemy, requests, MLflow and others
        is_local = _uri(tracking) == _local()
        mend = "move mlflow.db away to begin another" if is_local else "start the server"
        raise DicetalkError(
            f"tracking.uri: {_uri(tracking)} cannot be used ({reason(error)}); {mend}, or set tracking.uri: "
            "null in params.yaml, and run the same command again."
        ) from error


def reason(error: Exception) -> str:
    """Return the first line of an error, which may hold a whole SQL statement."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
