"""Starting, watching and waiting for processes of tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

WAIT_SECONDS = 60


def start(
    repository: Path, folder: Path, *arguments: str, variables: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start a program in a group of its own that finds this package and the helpers of its tests."""
    paths = [repository, repository / "tests", repository / "tests/training"]
    return subprocess.Popen(
        arguments,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))} | (variables or {}),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Started in the background, a shell's children ignore SIGINT, and theirs inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def start_dvc(repository: Path, folder: Path, command: str, shell: str = "/bin/sh") -> subprocess.Popen[str]:
    """Start `dvc repro` with one stage, whose errors go to the file `errors`."""
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=folder, check=True)
    (folder / "dvc.yaml").write_text(f"stages: {{one: {{cmd: {command} 2> errors}}}}\n")
    (folder / "params.yaml").write_text("{}\n")  # stages read it for their own declaration
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {"SHELL": shell, "PATH": path}
    return start(repository, folder, sys.executable, "-m", "dvc", "repro", variables=variables)


def wait_until(condition: Callable[[], object], seconds: float = WAIT_SECONDS) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
