"""Speed belongs beside the results, not in them: it differs between runs, and metric files must not."""

from __future__ import annotations

from pathlib import Path

from dicetalk.files import write_json
from dicetalk.tracking import Tracker

TIMINGS = ("seconds_per_step", "data_wait_fraction")


def take_timings(metrics: dict[str, float], run_dir: Path, tracker: Tracker) -> dict[str, float]:
    """Move the timings of a training to `run_dir/timings.json` and the tracker; return the other metrics."""
    timings = {name: metrics[name] for name in TIMINGS}
    write_json(run_dir / "timings.json", timings)
    tracker.log_metrics(timings)
    return {name: value for name, value in metrics.items() if name not in TIMINGS}
