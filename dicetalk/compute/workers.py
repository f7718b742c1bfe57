"""Work in processes of this machine that do not outlive the one that started them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.resource_tracker import ensure_running
from typing import Any

from dicetalk.compute.launch import end_with_parent
from dicetalk.errors import DicetalkError


@contextmanager
def in_processes(
    workers: int,
    function: Callable[..., Any],
    *jobs: Iterable[Any],
    prepare: Callable[..., None] | None = None,
    arguments: tuple[Any, ...] = (),
) -> Iterator[Iterator[Any]]:
    """Yield the results of `map(function, *jobs)`, computed in processes.

    When the block is left by an exception, such as `Stopped`, the processes are ended in the midst of their
    jobs: what they write must be complete or absent at any moment.

    Args:
        workers: number of processes.
        function: called with one job.
        *jobs: its arguments, as of `map`.
        prepare: called once in each process.
        arguments: of `prepare`.

    Yields:
        The results in the order of the jobs.

    Raises:
        DicetalkError: when a process dies, be it that memory is short.
    """
    from pebble import ProcessExpired, ProcessPool

    # Spawned, not forked: the parent may hold threads of numeric libraries in any state.
    context, starting = get_context("spawn"), (os.getpid(), prepare, arguments)
    pool = ProcessPool(workers, initializer=_start, initargs=starting, context=context)
    try:
        with without_ctrl_c():
            futures = [pool.schedule(function, args=job) for job in zip(*jobs, strict=True)]
        yield (future.result() for future in futures)
        pool.close()
    except ProcessExpired as death:
        pool.stop()
        how = signal.Signals(-death.exitcode).name if death.exitcode < 0 else f"exit code {death.exitcode}"
        raise DicetalkError(
            f"one of {workers} processes died ({how}; SIGKILL: perhaps out of memory). Run the same command "
            "again, if need be with fewer `workers` under compute."
        ) from None
    except BaseException:
        pool.stop()
        raise
    finally:
        pool.join()


def _start(parent: int, prepare: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    end_with_parent(parent)
    if prepare is not None:
        prepare(*arguments)


@contextmanager
def without_ctrl_c() -> Iterator[None]:
    """Keep a terminal's Ctrl-C from processes started here: they are ended by the one that started them."""
    ensure_running()  # by itself, with the first process, it would unblock the signal for all that follow
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
