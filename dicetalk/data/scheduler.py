"""One function over many clips: in processes of this machine, or on a Dask cluster.

Either way a clip that kills its process costs that clip and nothing else. Errors that the function raises end
the work: they are about the machine, not about a clip.
"""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import get_context
from typing import Any

from dicetalk.errors import DicetalkError
from dicetalk.progress import log, track

CONNECT_SECONDS = 30
WATCHDOG_EXIT = 1  # what `faulthandler` ends a process with when its time is over

Work = Callable[[Any], None]
GiveUp = Callable[[Any, str], None]


def run_local(work: Work, jobs: list, workers: int, label: str, give_up: GiveUp) -> None:
    """Do all jobs in `workers` processes.

    Args:
        work: called with one job in a process of the pool; its result is dropped.
        jobs: the arguments.
        workers: number of processes.
        label: for the progress line.
        give_up: called here with a job whose process died, and how.
    """
    from pebble import ProcessExpired, ProcessPool

    # Spawned, not forked: the parent may hold threads of numeric libraries.
    pool = ProcessPool(max_workers=min(workers, max(1, len(jobs))), context=get_context("spawn"))
    try:
        futures = [pool.schedule(work, args=(job,)) for job in jobs]
        for job, future in track(list(zip(jobs, futures, strict=True)), label):
            try:
                future.result()
            except ProcessExpired as death:
                timed_out = death.exitcode == WATCHDOG_EXIT
                give_up(job, "took too long" if timed_out else f"exit status {death.exitcode}")
        pool.close()
    except BaseException:
        pool.stop()
        raise
    finally:
        pool.join()


def run_dask(work: Work, jobs: list, address: str, label: str, give_up: GiveUp) -> None:
    """Do all jobs on the workers of a Dask cluster, which must see the same files under the same paths.

    Args:
        work: called with one job on a worker; its result is dropped.
        jobs: the arguments.
        address: of the scheduler, `tcp://host:port`.
        label: for the progress line.
        give_up: called here with a job that killed its workers, and how.

    Raises:
        DicetalkError: when the package or the cluster is missing, or a worker has several threads.
    """
    try:
        from distributed import Client, as_completed
        from distributed.scheduler import KilledWorker
    except ImportError as error:
        raise DicetalkError(
            f"compute.preprocess.scheduler = {address} needs Dask ({error}): pip install 'dicetalk[cluster]'"
        ) from None
    try:
        client = Client(address, timeout=CONNECT_SECONDS)
    except (OSError, TimeoutError) as error:
        raise DicetalkError(
            f"compute.preprocess.scheduler: no Dask scheduler answers at {address} ({error}). Start one with "
            "`dask scheduler`, and workers with `dask worker ADDRESS --nworkers N --nthreads 1`."
        ) from error
    with client:
        workers = client.scheduler_info(n_workers=-1)["workers"]
        if any(info["nthreads"] != 1 for info in workers.values()):
            raise DicetalkError(
                "The Dask workers must have one thread each, because a clip that hangs ends its process: "
                "start them with `dask worker ADDRESS --nworkers N --nthreads 1`."
            )
        log(f"{label}: {len(workers)} Dask workers at {address}")
        of_future = dict(zip(client.map(work, jobs, pure=False), jobs, strict=True))
        suspects = []
        for future in track(as_completed(of_future), label, total=len(jobs)):
            try:
                future.result()
            except KilledWorker:
                suspects.append(of_future[future])
        # Dask blames every job that was near when a worker died; alone, only the guilty ones do it again.
        for job in suspects:
            try:
                client.submit(work, job, pure=False).result()
            except KilledWorker:
                give_up(job, "its workers died")
