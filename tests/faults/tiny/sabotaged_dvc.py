"""DVC that dies at a chosen moment between the end of a stage and its entry in `dvc.lock`: `DVC_FAULT`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from dvc.cli import main
from dvc.dvcfile import Lockfile
from dvc.stage import Stage

MOMENT = os.environ["DVC_FAULT"]
save_outs, commit, dump = Stage.save_outs, Stage.commit, Lockfile.dump_stages


def die() -> None:
    Path("fault.fired").touch()
    os.kill(os.getpid(), signal.SIGKILL)


def saving(self, *arguments, **options):
    if MOMENT == "stage-ended":
        die()
    save_outs(self, *arguments, **options)
    if MOMENT == "outputs-hashed":
        die()


def committing(self, *arguments, **options):
    commit(self, *arguments, **options)
    if MOMENT == "outputs-cached":
        die()


def dumping(self, *arguments, **options):
    dump(self, *arguments, **options)
    if MOMENT == "lock-half-written":
        lock = Path("dvc.lock")
        os.truncate(lock, lock.stat().st_size - 40)
    die()


Stage.save_outs, Stage.commit, Lockfile.dump_stages = saving, committing, dumping
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
