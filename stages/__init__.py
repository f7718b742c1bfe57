"""Entry points of the pipeline, one file per stage of `dvc.yaml`; the work itself is in `dicetalk`."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

# Has to be set before anything imports torch: idle threads that spin slow every other process down.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def run(main: Callable[[], None]) -> None:
    """Run a stage and print how long it took, or in one line why it ended before.

    The exit code is 1 after a `DicetalkError` and 128 + N after signal N, see `dicetalk.compute.signals`.
    """
    from dicetalk.compute import launch
    from dicetalk.compute.signals import handled
    from dicetalk.errors import DicetalkError, Stopped
    from dicetalk.files import explaining_full_disk
    from dicetalk.progress import log
    from dicetalk.runs.work import sweep

    stage = main.__globals__["__spec__"].name.rpartition(".")[2]
    started = time.monotonic()
    try:
        with handled(), explaining_full_disk(), launch.explaining_lost_peer():
            launch.end_with_dvc()
            sweep()
            main()
            # By the one that started all processes
            if launch.is_main_process() and not launch.is_started_process():
                _report(stage, time.monotonic() - started)
    except DicetalkError as error:
        log(f"{stage}: {error}")
        sys.exit(1)
    except Stopped as stopped:
        if launch.is_main_process():
            log(f"{stage}: {stopped}")
        sys.stdout.flush()
        # Not `sys.exit`, which waits for threads that have work left. Of the processes of a training all but
        # the main one end well: at a failure a launcher ends them all, and the main one may be saving.
        os._exit(stopped.code if launch.is_main_process() else 0)


def _report(stage: str, seconds: float) -> None:
    """Print what a stage, or the instance of one that DVC calls `DVC_STAGE`, took; keep it for the report."""
    from dicetalk.files import write_json
    from dicetalk.progress import format_seconds, log

    usage = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cost = {"seconds": round(seconds, 1), "peak_memory_gib": round(max(usage) / 2**20, 2)}
    write_json(Path("runs/costs", f"{os.environ.get('DVC_STAGE', stage)}.json"), cost)
    log(f"{stage}: done in {format_seconds(seconds)}")
