"""Jobs that end the process they run in; importable, because processes of a pool are spawned."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from fake_face import SETTINGS, row

from dicetalk.data import clip, worker


def write_name(job: tuple[str, Path]) -> None:
    """Do what the job's name says, else leave a file of that name."""
    name, folder = job
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "crash":
        os.abort()
    if name == "bug":
        raise RuntimeError("about the machine, not about a clip")
    if name == "hang":
        clip.preprocess_clip = lambda *_, **__: time.sleep(600)
        worker.finish_clip((row(), folder / "hang"), folder, folder, SETTINGS, timeout_seconds=1.0)
    (folder / name).touch()
