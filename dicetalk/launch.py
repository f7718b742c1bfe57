"""Starting a stage in several processes with PyTorch's elastic launcher, and knowing which one this is."""

from __future__ import annotations

import os
import signal
import sys

from dicetalk.errors import DicetalkError

PARENT = "DICETALK_PARENT_PROCESS"  # of the processes of a distributed training


def is_main_process() -> bool:
    """Return whether this process writes a stage's results, as one of a distributed training does."""
    return os.environ.get("RANK", "0") == "0"


def is_started_process() -> bool:
    """Return whether `start_processes` of another process started this one."""
    return PARENT in os.environ


def start_processes(module: str, num_processes: int) -> bool:
    """Run `python -m module` in several processes of this machine and return True when all are done.

    Args:
        module: of a stage; it gets the arguments of this process.
        num_processes: how many.

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
        elastic_launch(config, sys.executable)("-m", module, *sys.argv[1:])
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


def end_with(parent: int) -> None:
    """Let the kernel end this process when the one that started it is killed and cannot do so itself.

    Linux only. The kernel goes by the thread that started this process.

    Args:
        parent: process id of the one that started this one.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            sys.exit(1)


def _end_with_parent() -> None:
    if is_started_process():
        end_with(int(os.environ[PARENT]))
