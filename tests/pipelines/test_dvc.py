"""Tests of the DVC child process: order, failures, and no orphan after cancellation."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines import dvc


def test_stages_come_after_what_they_depend_on(toy: Path) -> None:
    assert dvc.stages_in_order() == ["train", "evaluate"]


def test_run_prints_and_uses_this_environment(toy: Path, monkeypatch, capfd) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # as from cron: `python` must still be this interpreter
    Path("toy_stage.py").write_text("import sys; print('interpreter', sys.executable); open('out', 'w')")
    Path("dvc.yaml").write_text("stages: {a: {cmd: python toy_stage.py, outs: [out]}}")
    dvc.run("repro", "--single-item", "a")
    printed = capfd.readouterr().out
    assert f"interpreter {Path(sys.executable).parent}" in printed


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("urlopen error [Errno -3] Temporary failure in name resolution", dvc.TransientError),
        ("HTTP Error 503: Service Unavailable", dvc.TransientError),
        ("HTTP Error 404: Not Found", dvc.StageError),
        ("RuntimeError: CUDA out of memory", dvc.StageError),
        ("params.yaml has 1 wrong parameter(s)", dvc.StageError),
    ],
)
def test_only_passing_troubles_are_transient(toy: Path, message: str, error: type[Exception]) -> None:
    Path("toy_stage.py").write_text(f"raise SystemExit({message!r})")
    with pytest.raises(error, match="exit code") as caught:
        dvc.run("repro", "--single-item", "train", echo=False)
    assert message in str(caught.value)


def test_busy_stage_is_already_running(toy: Path) -> None:
    Path("toy_stage.py").write_text("import time; print('started', flush=True); time.sleep(60)")
    other = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "train"],
        stdout=subprocess.PIPE,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        text=True,
        start_new_session=True,
    )
    try:
        assert other.stdout is not None
        assert any("started" in line for line in other.stdout)
        with pytest.raises(dvc.AlreadyRunningError, match="in progress"):
            dvc.run("repro", "--single-item", "train", echo=False)
    finally:
        os.killpg(other.pid, signal.SIGKILL)
        other.wait()


def test_cancellation_ends_the_stage(toy: Path) -> None:
    # The stage itself has the test interrupted, so that the moment does not depend on the machine.
    Path("toy_stage.py").write_text(
        "import os, pathlib, signal, time\n"
        "pathlib.Path('pid').write_text(str(os.getpid()))\n"
        f"os.kill({os.getpid()}, signal.SIGUSR1)\n"
        "time.sleep(60)\n"
    )

    def cancel(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, cancel)
    try:
        with pytest.raises(KeyboardInterrupt):
            dvc.run("repro", "--single-item", "train", echo=False)
    finally:
        signal.signal(signal.SIGUSR1, before)
    pid = int(Path("pid").read_text())
    deadline = time.monotonic() + 20
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _alive(pid)


def test_a_cancelled_stage_has_time_to_save(toy: Path) -> None:
    Path("toy_stage.py").write_text(
        "import os, pathlib, signal, sys, time\n"
        "def save(*_):\n"
        "    time.sleep(3)\n"
        "    pathlib.Path('saved').touch()\n"
        "    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        f"os.kill({os.getpid()}, signal.SIGUSR1)\n"
        "time.sleep(60)\n"
    )

    def cancel(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, cancel)
    try:
        with pytest.raises(KeyboardInterrupt):
            dvc.run("repro", "--single-item", "train", echo=False)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert Path("saved").exists()  # DVC itself is gone at once


def _alive(pid: int) -> bool:
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
