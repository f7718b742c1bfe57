"""A stage that waits in processes, with 0 in a thread: `python -m pool_stage WORKERS`.

Each process leaves its number in `workers/`.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dicetalk.compute.workers import in_processes
from stages import run

JOBS = 20


def work(job: int) -> int:
    (Path("workers") / str(os.getpid())).touch()
    time.sleep(60)
    return job


def main() -> None:
    Path("workers").mkdir(exist_ok=True)
    num_workers = int(sys.argv[1])
    if num_workers == 0:
        list(ThreadPoolExecutor(1).map(work, range(JOBS)))
    with in_processes(num_workers, work, range(JOBS)) as results:
        list(results)


if __name__ == "__main__":
    run(main)
