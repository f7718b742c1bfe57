"""Starting a stage in several processes with PyTorch's elastic launcher; ending with whoever started this."""

from __future__ import annotations

import argparse
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dicetalk.errors import DicetalkError, Stopped

PARENT = "DICETALK_PARENT_PROCESS"  # of the processes of a distributed training
DVC_STAGE = "DVC_STAGE"  # DVC sets it for what it starts
SAVE_SECONDS = 1800  # what processes that were asked to stop have for a step and a checkpoint
CONNECTION_LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")  # of gloo
STOPPED_CODES = [128 + number for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]


def chosen_dataset(names: list[str], description: str) -> str:
    """Return the corpus to work on: of the instance that DVC runs, `stage@corpus`, or given as `--dataset`.

    The environment rather than the command line, which DVC hands to a shell.
    """
    instance = os.environ.get(DVC_STAGE, "").rpartition("@")[2]
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--dataset", choices=names, required=instance not in names, default=instance)
    return parser.parse_args().dataset


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
        SystemExit: when a signal stopped this process or those it started; the main one of them has said so.
    """
    if "WORLD_SIZE" in os.environ:
        if is_started_process():
            end_with_parent(int(os.environ[PARENT]))
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
        shutdown_timeout=SAVE_SECONDS,
        signals_to_handle="SIGQUIT",  # the others are ours, see `dicetalk.compute.signals`
    )
    os.environ[PARENT] = str(os.getpid())
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # we report what matters
    try:
        elastic_launch(config, sys.executable)("-m", module, *sys.argv[1:])
    except ChildFailedError as error:
        first, failure = error.get_first_failure()
        if failure.exitcode in STOPPED_CODES:
            sys.exit(failure.exitcode)
        raise DicetalkError(f"process {first} of {num_processes} {_ending(failure.exitcode)}") from None
    except Stopped as stopped:
        sys.exit(stopped.code)
    except SignalException as error:
        sys.exit(128 + error.sigval)
    finally:
        del os.environ[PARENT]
    return True


@contextmanager
def explaining_lost_peer() -> Iterator[None]:
    """Turn the error of a process of a training whose other one died into one line.

    Raises:
        DicetalkError: when the connection broke.
    """
    try:
        yield
    except RuntimeError as error:
        if is_started_process() and any(words in str(error) for words in CONNECTION_LOST):
            raise DicetalkError("another process of this training has ended, so this one ends too") from error
        raise


def _ending(exit_code: int) -> str:
    if exit_code >= 0:
        return f"ended with exit code {exit_code}; its message is above."
    name = signal.Signals(-exit_code).name
    return f"was ended by {name} (SIGKILL: perhaps out of memory); run the same command to go on."


def end_with_parent(parent: int) -> None:
    """Let the kernel send SIGTERM to this process when its parent is killed and cannot do so itself.

    On Linux; elsewhere nothing happens.

    Args:
        parent: process id of the one that started this one.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            sys.exit(1)


def end_with_dvc() -> None:
    """Send this process SIGTERM when the `dvc` that runs it is killed, so that no stage goes on unseen.

    DVC starts a stage by a shell. Some shells, dash for one, stay between the two and outlive DVC, so that
    the kernel's signal of a dead parent would not come. On Linux; elsewhere nothing happens.
    """
    if sys.platform != "linux" or DVC_STAGE not in os.environ or is_started_process():
        return
    pid, started_by_dvc = os.getppid(), f"{DVC_STAGE}={os.environ[DVC_STAGE]}".encode()
    try:
        while started_by_dvc in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            pid = _parent(pid)
        descriptor = os.pidfd_open(pid)
    except OSError:  # a kernel before 5.3, or a process of somebody else
        return

    def wait() -> None:
        select.select([descriptor], [], [])  # readable when the process has ended
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True, name="end with dvc").start()


def _parent(pid: int) -> int:
    # The name of the program, in brackets, may hold anything.
    return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
