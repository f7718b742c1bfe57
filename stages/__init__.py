"""Entry points of the pipeline, one file per stage of `dvc.yaml`; the work itself is in `dicetalk`."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

COSTS = Path("runs/costs")
WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)

# Has to be set before anything imports torch: idle threads that spin slow every other process down.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def run(main: Callable[[], None]) -> None:
    """Run a stage and print how long it took, or in one line why it ended before.

    The exit code is 1 after a `DicetalkError` and 128 + N after signal N, see `dicetalk.signals`.
    """
    from dicetalk.errors import DicetalkError, Stopped
    from dicetalk.files import explaining_full_disk, write_json
    from dicetalk.launch import end_with_dvc, explaining_lost_peer, is_main_process, is_started_process
    from dicetalk.progress import format_seconds, log
    from dicetalk.runs.work import remove_leftovers, remove_recorded
    from dicetalk.signals import handled

    stage = main.__globals__["__spec__"].name.rpartition(".")[2]
    started = time.monotonic()
    try:
        with handled(), explaining_full_disk(), explaining_lost_peer():
            end_with_dvc()
            if "DVC_STAGE" in os.environ and is_main_process() and not is_started_process():
                remove_recorded()
                remove_leftovers(os.environ["DVC_STAGE"])
            main()
            if not is_main_process() or is_started_process():
                return  # the one that started all processes reports
            seconds = time.monotonic() - started
            # DVC_STAGE tells the instances of one stage apart; the report shows time and memory.
            usage = [resource.getrusage(who).ru_maxrss for who in WHO]
            write_json(
                COSTS / f"{os.environ.get('DVC_STAGE', stage)}.json",
                {"seconds": round(seconds, 1), "peak_memory_gib": round(max(usage) / 2**20, 2)},
            )
            log(f"{stage}: done in {format_seconds(seconds)}")
    except DicetalkError as error:
        log(f"{stage}: {error}")
        sys.exit(1)
    except Stopped as stopped:
        if is_main_process():
            log(f"{stage}: {stopped}")
        sys.stdout.flush()
        # Not `sys.exit`, which waits for threads that have work left. Of the processes of a training all but
        # the main one end well: at a failure a launcher ends them all, and the main one may be saving.
        os._exit(stopped.code if is_main_process() else 0)
