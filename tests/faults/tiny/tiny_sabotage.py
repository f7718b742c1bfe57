"""Dying at a chosen moment, and a list of the work that was done.

`FAULT_AT=<moment>|<pattern>|<signal>|<target>`: once in a project, when a path that matches is about to get
its name by `os.replace` (`before`; `half`: and its largest file is cut, as in the midst of writing), has got
it (`after`), or is half removed by `shutil.rmtree` (`removing`), the process sends `signal` to itself
(`stage`) or to its `group`. With `full`, nothing is sent: the disk is said to be full.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

DONE = Path("work.log")  # one line per piece of work
FIRED = Path("fault.fired")


def done(what: str, seconds: float) -> None:
    """Take some time and note a piece of work that a restart must not do again."""
    time.sleep(seconds)
    descriptor = os.open(DONE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(descriptor, f"{what}\n".encode())
    os.close(descriptor)


def install() -> None:
    """Wrap the functions through which results get their place, if `FAULT_AT` is set."""
    if "FAULT_AT" not in os.environ:
        return
    moment, pattern, number, target = os.environ["FAULT_AT"].split("|")
    replace, rmtree = os.replace, shutil.rmtree

    def fire() -> None:
        try:
            os.close(os.open(FIRED, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        chosen = signal.Signals[number]
        if target == "group":
            os.killpg(os.getpgid(0), chosen)
        else:
            os.kill(os.getpid(), chosen)

    def replacing(source: Any, destination: Any, **options: Any) -> None:
        hit = fnmatch.fnmatch(str(destination), pattern)
        if hit and moment == "half" and not FIRED.exists():
            files = [p for p in (Path(source), *Path(source).rglob("*")) if p.is_file()]
            largest = max(files, key=lambda path: path.stat().st_size)
            os.truncate(largest, largest.stat().st_size // 2)
        if hit and moment == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if hit and moment in ("before", "half"):
            fire()
        replace(source, destination, **options)
        if hit and moment == "after":
            fire()

    def removing(path: Any, *arguments: Any, **options: Any) -> None:
        if moment == "removing" and fnmatch.fnmatch(str(path), pattern) and not FIRED.exists():
            next(p for p in sorted(Path(path).rglob("*")) if p.is_file()).unlink()
            fire()
        rmtree(path, *arguments, **options)

    os.replace, shutil.rmtree = replacing, removing  # type: ignore[assignment]
