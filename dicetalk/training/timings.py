"""Speed belongs beside the results, not in them: it differs between runs, and metric files must not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dicetalk.files import write_json
from dicetalk.tracking.tracker import Tracker

TIMINGS = ("seconds_per_step", "data_wait_fraction")


@dataclass
class Speed:
    """What steps took; validation, samples and checkpoints between them do not count.

    Attributes:
        examples: samples of all processes.
        seconds: time of the steps.
        data_seconds: part of it that was spent waiting for batches.
    """

    examples: int = 0
    seconds: float = 0.0
    data_seconds: float = 0.0

    def add(self, examples: int, seconds: float, data_seconds: float) -> None:
        """Count one step."""
        self.examples += examples
        self.seconds += seconds
        self.data_seconds += data_seconds

    @property
    def examples_per_second(self) -> float:
        """Throughput of all processes together."""
        return self.examples / max(self.seconds, 1e-9)

    @property
    def data_wait_fraction(self) -> float:
        """Part of the time, 0 to 1, in which training waited for data."""
        return self.data_seconds / max(self.seconds, 1e-9)


def take_timings(metrics: dict[str, float], run_dir: Path, tracker: Tracker) -> dict[str, float]:
    """Move the timings of a training to `run_dir/timings.json` and the tracker; return the other metrics."""
    timings = {name: metrics[name] for name in TIMINGS}
    write_json(run_dir / "timings.json", timings)
    tracker.log_metrics(timings)
    return {name: value for name, value in metrics.items() if name not in TIMINGS}
