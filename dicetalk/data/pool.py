"""Processes of this machine that do one job after another, and may die over any of them or be killed.

Each has a pipe of its own. A pipe that breaks names the process that died and the job that it was given,
whatever moment it was, and the dead leave no lock behind: `docs/decisions/0010-a-process-that-may-die.md`.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from dicetalk.compute.launch import end_with_parent
from dicetalk.compute.workers import without_ctrl_c
from dicetalk.errors import DicetalkError

MAX_FAILED_STARTS = 3  # of each process, none having begun in between: then it is not bad luck
END_SECONDS = 10.0
WATCHDOG_EXIT = 1  # what `faulthandler` ends a process with when its time is over
SIGNAL_NAMES = {-number: number.name for number in signal.Signals}


def work_off(
    work: Callable[[Any], None], jobs: list, workers: int
) -> Generator[tuple[Any, str | None], None, None]:
    """Do all jobs, and yield each as soon as it is over, with how its process ended if it died over it.

    A job whose process died is not tried again. Close the iterator to end the processes early.

    Args:
        work: called with one job in one of the processes; its result is dropped.
        jobs: the arguments.
        workers: number of processes.

    Raises:
        DicetalkError: that `work` raised, or when processes end before they can take a job.
        RuntimeError: for any other error of `work`, with its traceback.
    """
    waiting, unfinished = deque(jobs), len(jobs)
    processes: dict[Connection, BaseProcess] = {}
    in_hand: dict[Connection, Any] = {}
    begun: set[Connection] = set()
    failed_starts = 0
    try:
        while unfinished:
            while len(processes) < min(workers, unfinished):
                connection, process = _start(work)
                processes[connection] = process
            ready = wait(list(processes))
            for connection in [connection for connection in processes if connection in ready]:
                try:
                    error = connection.recv()  # of the job; None: it is done, or there has been none yet
                except (EOFError, OSError):
                    how = _ending(processes.pop(connection))
                    if connection in in_hand:
                        unfinished -= 1
                        yield in_hand.pop(connection), how
                    elif connection not in begun:
                        failed_starts += 1
                        _check_starts(failed_starts, workers, how)
                    continue
                if error is not None:
                    raise error
                begun.add(connection)
                failed_starts = 0
                if connection in in_hand:
                    unfinished -= 1
                    yield in_hand.pop(connection), None
                if waiting:
                    in_hand[connection] = waiting.popleft()
                    with suppress(OSError):  # it has just died, which its end of the pipe will tell
                        connection.send(in_hand[connection])
    finally:
        for connection, process in processes.items():
            connection.close()
            process.kill()  # those at rest lose nothing, and the others' results are not wanted
            process.join()


def _start(work: Callable[[Any], None]) -> tuple[Connection, BaseProcess]:
    # Spawned, not forked: this process may hold threads of numeric libraries.
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(work, there, os.getpid()), daemon=True)
    with without_ctrl_c():
        process.start()
    there.close()  # the process holds the only one now, so that its death closes it
    return here, process


def _serve(work: Callable[[Any], None], connection: Connection, parent: int) -> None:
    """Ask for jobs and do them until the pipe is closed; what a process of the pool runs."""
    end_with_parent(parent)
    answer: Exception | None = None
    with suppress(EOFError, OSError):
        while True:
            connection.send(answer)
            answer = _attempt(work, connection.recv())


def _attempt(work: Callable[[Any], None], job: Any) -> Exception | None:
    try:
        work(job)
    except DicetalkError as error:
        return error
    except Exception:
        return RuntimeError(traceback.format_exc())  # not every error can be sent
    return None


def _ending(process: BaseProcess) -> str:
    """Wait for the end of a process whose pipe is broken, and describe it."""
    process.join(END_SECONDS)
    if process.exitcode is None:
        process.kill()
        process.join()
    code = process.exitcode or 0
    if code == WATCHDOG_EXIT:
        return "took too long"
    if code < 0:
        name = SIGNAL_NAMES.get(code, f"signal {-code}")
        return f"{name} (perhaps out of memory)" if code == -signal.SIGKILL else name
    return f"exit status {code}"


def _check_starts(failed: int, workers: int, how: str) -> None:
    if failed > MAX_FAILED_STARTS * workers:
        raise DicetalkError(
            f"Processes end before they begin ({how}); their messages, if any, are above. Fewer `workers` "
            "need less memory."
        )
