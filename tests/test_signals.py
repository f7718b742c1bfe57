"""Signals end a stage with one line and its exit code, and leave no process behind."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from processes import is_alive, start, start_dvc, wait_until

from dicetalk.compute import signals
from dicetalk.errors import Stopped


def workers(folder: Path, count: int) -> list[int]:
    wait_until(lambda: len(list(folder.glob("workers/*"))) == count)
    return [int(path.name) for path in folder.glob("workers/*")]


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_raises_in_the_main_thread(sign: signal.Signals) -> None:
    before = signal.getsignal(sign)
    with pytest.raises(Stopped, match="^stopped; run the same command to go on$") as stopped:
        with signals.handled():
            os.kill(os.getpid(), sign)
            time.sleep(10)
    assert stopped.value.code == 128 + sign
    assert signal.getsignal(sign) is before


def test_ignored_signals_stay_ignored() -> None:
    """As `nohup` wants it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.handled():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.requested() is None and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_deferred_signals_wait_for_the_end_of_the_block(capfd: pytest.CaptureFixture[str]) -> None:
    seen = []
    with pytest.raises(Stopped):
        with signals.handled(), signals.deferred():
            seen.append(signals.requested())
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)  # from the parent, which got the same one
            seen.append(signals.requested())
    assert seen == [None, signal.SIGTERM]
    assert capfd.readouterr().err.count("a second signal ends at once") == 1
    assert signals.requested() is None


@pytest.mark.parametrize("whole_group", [True, False], ids=["group", "process"])
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_stage_ends_its_workers_at_once(
    repository: Path, tmp_path: Path, sign: signal.Signals, whole_group: bool
) -> None:
    stage = start(repository, tmp_path, sys.executable, "-m", "pool_stage", "2")
    pids = workers(tmp_path, 2)
    (os.killpg if whole_group else os.kill)(stage.pid, sign)
    errors = stage.communicate(timeout=30)[1]
    assert errors == "pool_stage: stopped; run the same command to go on\n"
    assert stage.returncode == 128 + sign
    wait_until(lambda: not any(map(is_alive, pids)))


def test_a_stopped_stage_does_not_wait_for_its_threads(repository: Path, tmp_path: Path) -> None:
    stage = start(repository, tmp_path, sys.executable, "-m", "pool_stage", "0")
    workers(tmp_path, 1)
    stage.terminate()
    assert stage.communicate(timeout=30)[1] == "pool_stage: stopped; run the same command to go on\n"
    assert stage.returncode == 143


def test_workers_end_with_a_stage_that_is_killed(repository: Path, tmp_path: Path) -> None:
    stage = start(repository, tmp_path, sys.executable, "-m", "pool_stage", "2")
    pids = workers(tmp_path, 2)
    stage.kill()
    wait_until(lambda: not any(map(is_alive, pids)))
    stage.communicate()


def test_ctrl_c_before_the_workers_are_up_shows_no_traceback(repository: Path, tmp_path: Path) -> None:
    stage = start(repository, tmp_path, sys.executable, "-m", "pool_stage", "2")
    wait_until((tmp_path / "workers").is_dir)
    wait_until(lambda: len(Path(f"/proc/{stage.pid}/task/{stage.pid}/children").read_text().split()) > 1)
    os.killpg(stage.pid, signal.SIGINT)
    errors = stage.communicate(timeout=30)[1]
    assert errors == "pool_stage: stopped; run the same command to go on\n" and stage.returncode == 130


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_a_stage_stops_when_dvc_is_killed(repository: Path, tmp_path: Path, shell: str) -> None:
    dvc = start_dvc(repository, tmp_path, "python -m pool_stage 1", shell)
    [worker] = workers(tmp_path, 1)
    dvc.kill()
    wait_until(lambda: (tmp_path / "errors").read_text() and not is_alive(worker))
    assert (tmp_path / "errors").read_text() == "pool_stage: stopped; run the same command to go on\n"
