"""A training that is told to stop, alone or in two processes, saves, says so and goes on to the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import is_alive, start, start_dvc, wait_until

pytestmark = pytest.mark.slow

SECONDS = 300
STEPS, STEP_SECONDS = "100", "0.3"


def begin(
    repository: Path, folder: Path, processes: int, steps: str = STEPS, step_seconds: str = STEP_SECONDS
) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    command = ("-m", "toy_training", str(processes), steps, step_seconds)
    return start(repository, folder, sys.executable, *command)


def last_step(folder: Path) -> int:
    return max([int(path.name[5:]) for path in folder.glob("run/step-*")], default=0)


def workers(folder: Path) -> list[int]:
    """Processes of a training in several, those that train."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            inside = (process / "cwd").resolve() == folder.resolve()
            if inside and b"\0RANK=" in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            pass
    return found


def final_state(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "run/step-000100").iterdir()}


@pytest.mark.parametrize(
    ("processes", "whom", "sign"),
    [
        (1, "parent", signal.SIGTERM),
        (1, "group", signal.SIGINT),
        (2, "parent", signal.SIGTERM),
        (2, "group", signal.SIGINT),
        (2, "worker", signal.SIGTERM),
    ],
)
def test_a_stopped_training_saves_says_so_and_goes_on_to_the_same_bits(
    repository: Path,
    tmp_path: Path,
    unbroken: dict[int, dict[str, bytes]],
    processes: int,
    whom: str,
    sign: signal.Signals,
) -> None:
    training = begin(repository, tmp_path, processes)
    wait_until(lambda: last_step(tmp_path), SECONDS)
    pid = workers(tmp_path)[-1] if whom == "worker" else training.pid
    (os.killpg if whom == "group" else os.kill)(pid, sign)
    errors = training.communicate(timeout=SECONDS)[1]
    assert training.returncode == 128 + sign
    stopped_at = last_step(tmp_path)
    last = f"toy_training: stopped at step {stopped_at}; run the same command to go on"
    assert errors.splitlines()[-1] == last and errors.count("stopped") == 1
    assert "Traceback" not in errors
    assert workers(tmp_path) == []

    resumed = begin(repository, tmp_path, processes, step_seconds="0")
    errors = resumed.communicate(timeout=SECONDS)[1]
    assert resumed.returncode == 0, errors
    assert f"toy: resuming at step {stopped_at}/100" in errors
    assert final_state(tmp_path) == unbroken[processes]


@pytest.fixture(scope="module")
def unbroken(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, bytes]]:
    states = {}
    for processes in (1, 2):
        folder = tmp_path_factory.mktemp("unbroken")
        training = begin(repository, folder, processes, step_seconds="0")
        assert training.wait(SECONDS) == 0
        states[processes] = final_state(folder)
    return states


@pytest.mark.parametrize("processes", [1, 2])
def test_a_second_signal_ends_a_training_at_once(repository: Path, tmp_path: Path, processes: int) -> None:
    training = begin(repository, tmp_path, processes, step_seconds="600")
    assert training.stderr is not None
    wait_until((tmp_path / "run/log.jsonl").exists, SECONDS)
    time.sleep(3)  # now it is in the first step, of ten minutes
    training.terminate()
    for line in training.stderr:
        if "a second signal ends at once" in line:
            break
    time.sleep(2.5)
    assert training.poll() is None
    training.terminate()
    training.communicate(timeout=30)
    assert training.returncode == -signal.SIGTERM
    wait_until(lambda: workers(tmp_path) == [])
    assert last_step(tmp_path) == 0


def test_processes_save_and_stop_when_the_one_that_started_them_is_killed(
    repository: Path, tmp_path: Path
) -> None:
    training = begin(repository, tmp_path, 2)
    wait_until(lambda: last_step(tmp_path), SECONDS)
    pids = workers(tmp_path)
    assert len(pids) == 2
    training.kill()
    errors = training.communicate(timeout=SECONDS)[1]
    wait_until(lambda: not any(map(is_alive, pids)))
    assert f"toy_training: stopped at step {last_step(tmp_path)}; run the same" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("processes", [1, 2])
def test_a_training_that_is_told_twice_what_was_meant_once_saves(
    repository: Path, tmp_path: Path, processes: int
) -> None:
    """A batch system signals `dvc` and the stage, and the stage misses `dvc` when that has ended."""
    command = f"python -m toy_training {processes} {STEPS} {STEP_SECONDS}"
    dvc = start_dvc(repository, tmp_path, command)
    wait_until(lambda: last_step(tmp_path), SECONDS)
    os.killpg(dvc.pid, signal.SIGTERM)
    dvc.communicate(timeout=SECONDS)
    errors = tmp_path / "errors"
    wait_until(lambda: "; run the same command" in errors.read_text(), SECONDS)
    stopped = f"toy_training: stopped at step {last_step(tmp_path)}; run the same command to go on"
    assert errors.read_text().splitlines()[-1] == stopped
