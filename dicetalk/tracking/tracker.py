"""What a stage logs to: one MLflow run, or nothing.

Only `MlflowClient` is imported, and only inside functions, because importing all of mlflow takes seconds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dicetalk.errors import DicetalkError
from dicetalk.progress import log
from dicetalk.tracking.server import reason

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

PARENT_RUN_VARIABLE = "DICETALK_PARENT_RUN"
FLUSH_SECONDS = 10.0
MAX_BATCH = 1000  # metrics per request, the server's limit


class Tracker:
    """The interface of a tracker, and the null object: every method does nothing."""

    run_id: str | None = None

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log finite numbers at an optimiser step."""

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """Log a file or a whole directory, under `folder` of the run's artifacts."""

    def log_image(self, path: Path) -> None:
        """Log a picture or a video; the user interface shows it inline."""

    def log_dict(self, value: Mapping[str, Any], name: str) -> None:
        """Log a mapping as the JSON or YAML artifact `name`."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""

    def environment(self) -> dict[str, str]:
        """Return the variables that make stages of another process, in any folder, log beneath this run."""
        return {}


class MlflowTracker(Tracker):
    """Logs to one MLflow run; metrics are sent in batches because each request costs about 20 ms.

    When the database or the server fails in the midst of a run, that is said once and the run goes on without
    it: a training of days is worth more than its curves.

    Args:
        client: talks to the database or server.
        run_id: of the run.
        beside: a tracker of another run by the same client; if one breaks, both have.
    """

    def __init__(self, client: MlflowClient, run_id: str, beside: MlflowTracker | None = None) -> None:
        self.client = client
        self.run_id: str = run_id
        self._broken: list[str] = [] if beside is None else beside._broken  # reasons
        self._metrics: list[Any] = []
        self._flushed = time.monotonic()

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """See `Tracker.log_metrics`.

        Raises:
            DicetalkError: for NaN or infinity, which MLflow would store silently.
        """
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise DicetalkError(
                    f"Metric {name!r} is {value} at step {step}; only finite numbers are logged."
                )
            self._metrics.append(Metric(name, float(value), now_ms, step))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """See `Tracker.log_artifact`."""
        send = self.client.log_artifacts if Path(path).is_dir() else self.client.log_artifact
        self._try(send, str(path), folder or None)

    def log_image(self, path: Path) -> None:
        """See `Tracker.log_image`."""
        self.log_artifact(path, "images")

    def log_dict(self, value: Mapping[str, Any], name: str) -> None:
        """See `Tracker.log_dict`."""
        self._try(self.client.log_dict, dict(value), name)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """See `Tracker.set_tags`."""
        for key, value in tags.items():
            self._try(self.client.set_tag, key, value)

    def environment(self) -> dict[str, str]:
        """See `Tracker.environment`."""
        return {PARENT_RUN_VARIABLE: self.run_id, "MLFLOW_TRACKING_URI": self.client.tracking_uri}

    def flush(self) -> None:
        """Send the metrics logged so far."""
        for start in range(0, len(self._metrics), MAX_BATCH):
            self._try(self.client.log_batch, self._metrics[start : start + MAX_BATCH])
        self._metrics.clear()
        self._flushed = time.monotonic()

    def end(self, status: str) -> None:
        """Send what is left and give the run its status."""
        self.flush()
        self._try(self.client.set_terminated, status)

    def _try(self, send: Callable[..., Any], *arguments: Any) -> None:
        if self._broken:
            return
        try:
            send(self.run_id, *arguments)
        except Exception as error:  # of SQLAlchemy, requests, MLflow and others
            self._broken.append(reason(error))
            log(f"tracking: {self.client.tracking_uri} failed ({reason(error)}); going on without it")
