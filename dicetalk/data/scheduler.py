"""One function over many clips: in processes of this machine, or on a Dask cluster.

Either way a clip whose process dies is tried once more when all others are done, alone: it need not be the
clip's fault that a process was killed, for want of memory or by somebody. A clip that crashes again costs
that clip and nothing else. Errors that the function raises end the work: they are about the machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

from dicetalk.data.pool import work_off
from dicetalk.errors import DicetalkError
from dicetalk.progress import log, track

if TYPE_CHECKING:
    from distributed import Client, Future

CONNECT_SECONDS = 30
CHECK_SECONDS, MAX_CHECKS_WITHOUT_WORKERS = 60, 3  # restarting one takes seconds

Work = Callable[[Any], None]
GiveUp = Callable[[Any, str], None]


def run_local(work: Work, jobs: list, workers: int, label: str, give_up: GiveUp) -> int:
    """Do all jobs in `workers` processes.

    Args:
        work: called with one job in a process of the pool; its result is dropped.
        jobs: the arguments.
        workers: number of processes.
        label: for the progress line.
        give_up: called here with a job whose process died twice, and how.

    Returns:
        How many jobs were done at the second try.
    """
    with closing(work_off(work, jobs, workers)) as outcomes:
        ended = [(job, how) for job, how in track(outcomes, label, total=len(jobs)) if how is not None]
    with closing(work_off(work, [job for job, _ in ended], workers=1)) as outcomes:
        return _second_try(ended, outcomes, label, give_up)


def run_dask(work: Work, jobs: list, address: str, label: str, give_up: GiveUp) -> int:
    """Do all jobs on the workers of a Dask cluster, which must see the same files under the same paths.

    Args:
        work: called with one job on a worker; its result is dropped.
        jobs: the arguments.
        address: of the scheduler, `tcp://host:port`.
        label: for the progress line.
        give_up: called here with a job that killed its workers twice, and how.

    Returns:
        How many jobs were done at the second try. Dask itself has tried each of them several times before
        (its `distributed.scheduler.allowed-failures`), and what it got done that way is not counted.

    Raises:
        DicetalkError: when the package or the cluster is missing, a worker has several threads, or none is
            left.
    """
    try:
        from distributed import Client
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
        pairs = list(zip(jobs, client.map(work, jobs, pure=False), strict=True))
        outcomes = ((job, _ending(client, future)) for job, future in track(pairs, label))
        ended = [(job, how) for job, how in outcomes if how is not None]
        # Dask blames every job that was near when a worker died.
        alone = ((job, _ending(client, client.submit(work, job, pure=False))) for job, _ in ended)
        return _second_try(ended, alone, label, give_up)


def _ending(client: Client, future: Future) -> str | None:
    """Wait for a job on a cluster; say how it ended if not well."""
    from distributed import TimeoutError, wait
    from distributed.scheduler import KilledWorker

    checks_without_workers = 0
    while not future.done():
        try:
            wait(future, timeout=CHECK_SECONDS)
        except TimeoutError:
            has_workers = bool(client.scheduler_info(n_workers=-1)["workers"])
            checks_without_workers = 0 if has_workers else checks_without_workers + 1
            # Dask restarts those that die, but not those that die while they start, and waits for ever.
            if checks_without_workers == MAX_CHECKS_WITHOUT_WORKERS:
                raise DicetalkError(
                    "No Dask worker is left. Start some, then run the same command again."
                ) from None
    try:
        future.result()
    except KilledWorker:
        return "its workers died"
    return None


def _second_try(
    ended: list[tuple[Any, str]], outcomes: Iterator[tuple[Any, str | None]], label: str, give_up: GiveUp
) -> int:
    """Give up the jobs that ended badly again; return how many did not.

    Args:
        ended: jobs, and how their processes ended.
        outcomes: the same jobs tried again, one by one, and how their processes ended if they died.
        label: for the log.
        give_up: see `run_local`.
    """
    if ended:
        ways = ", ".join(f"{count} x {how}" for how, count in Counter(how for _, how in ended).items())
        log(f"{label}: {len(ended)} crashed ({ways}); trying them again, one at a time")
    recovered = 0
    for (job, first), (_, second) in zip(ended, outcomes, strict=True):
        if second is None:
            recovered += 1
        else:
            give_up(job, f"{first}; again alone: {second}")
    return recovered
