"""Entry points of the pipeline, one file per stage of `dvc.yaml`; the work itself is in `dicetalk`."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

COSTS = Path("runs/costs")
PARENT = "DICETALK_PARENT_PROCESS"  # of the processes of a distributed training

# Has to be set before anything imports torch: idle threads that spin slow every other process down.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def run(main: Callable[[], None]) -> None:
    """Run a stage, print how long it took, and turn a `DicetalkError` into its message and exit code 1."""
    from dicetalk.errors import DicetalkError
    from dicetalk.files import write_json
    from dicetalk.progress import format_seconds, log

    stage = main.__globals__["__spec__"].name.rpartition(".")[2]
    started = time.monotonic()
    try:
        main()
    except DicetalkError as error:
        log(f"{stage}: {error}")
        sys.exit(1)
    if not is_main_process() or PARENT in os.environ:
        return
    seconds = time.monotonic() - started
    # DVC_STAGE tells the instances of one stage apart; the report shows time and memory.
    usage = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    write_json(
        COSTS / f"{os.environ.get('DVC_STAGE', stage)}.json",
        {"seconds": round(seconds, 1), "peak_memory_gib": round(max(usage) / 2**20, 2)},
    )
    log(f"{stage}: done in {format_seconds(seconds)}")


def is_main_process() -> bool:
    """Return whether this process writes the stage's results, as one of a distributed training does."""
    return os.environ.get("RANK", "0") == "0"


def start_processes(stage: str, num_processes: int) -> bool:
    """Run a stage in several processes of this machine and return True when all are done.

    Returns:
        False when there is nothing to start: one process is wanted, or a launcher (this function, torchrun,
        `accelerate launch`) has started this one already.

    Raises:
        DicetalkError: when a process fails, which ends the others.
    """
    if "WORLD_SIZE" in os.environ:
        _end_with_parent()
        return False
    if num_processes == 1:
        return False
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from dicetalk.errors import DicetalkError

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        local_addr="localhost",
        shutdown_timeout=10,
    )
    os.environ[PARENT] = str(os.getpid())
    try:
        elastic_launch(config, sys.executable)("-m", f"stages.{stage}", *sys.argv[1:])
    except ChildFailedError as error:
        first, failure = error.get_first_failure()
        raise DicetalkError(
            f"process {first} of {num_processes} ended with exit code {failure.exitcode}; "
            "its message is above."
        ) from None
    except SignalException as error:
        sys.exit(128 + error.sigval)
    finally:
        del os.environ[PARENT]
    return True


def _end_with_parent() -> None:
    """Let the kernel end this process when the one that started it is killed and cannot do so itself."""
    if PARENT in os.environ and sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        if os.getppid() != int(os.environ[PARENT]):
            sys.exit(1)
