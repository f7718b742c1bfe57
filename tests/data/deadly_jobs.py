"""Jobs that end the process they run in, or others; importable, because processes of a pool are spawned."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from dicetalk.data.scheduler import run_local

LATE_SECONDS = 5.0  # a Dask worker that dies while it starts is not started again


def write_name(job: tuple[str, Path]) -> None:
    """Do what the job's name says, else leave a file of that name."""
    name, folder = job
    if name.startswith("late-"):
        time.sleep(LATE_SECONDS)
        name = name.removeprefix("late-")
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "crash":
        os.abort()
    if name == "bug":
        raise RuntimeError("about the machine, not about a clip")
    if name == "hang":
        from fake_face import SETTINGS, row

        from dicetalk.data import clip, worker

        clip.preprocess_clip = lambda *_, **__: time.sleep(600)
        worker.finish_clip((row(), folder / "hang"), folder, folder, SETTINGS, timeout_seconds=1.0)
    if name.startswith("unlucky") and is_first_try(name, folder):
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "massacre" and is_first_try(name, folder):
        for process in pool_of(psutil.Process().parent()):
            if process.pid != os.getpid():
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "sleep":
        time.sleep(600)
    (folder / name).write_text(str(len(pool_of(psutil.Process().parent()))))


def is_first_try(name: str, folder: Path) -> bool:
    """Say so once."""
    try:
        (folder / f".{name}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def pool_of(parent: psutil.Process) -> list[psutil.Process]:
    """Return the processes that a process started to work for it."""
    found = []
    for process in parent.children():
        with suppress(psutil.NoSuchProcess):
            if "spawn_main" in " ".join(process.cmdline()):
                found.append(process)
    return found


class DiesOnArrival:
    """Work that ends every process that only reads what it is."""

    def __reduce__(self):
        return os._exit, (3,)


if __name__ == "__main__":
    run_local(write_name, [("sleep", Path(sys.argv[1]))] * 2, 2, "test", print)
