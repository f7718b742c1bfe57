"""DVC as a child process: stages in order, output line by line, failures that may pass told from others."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from graphlib import TopologicalSorter
from pathlib import Path

from dicetalk.compute.launch import SAVE_SECONDS
from dicetalk.errors import DicetalkError

TAIL_LINES = 40
BUSY = "is busy, it is being blocked by"  # another `dvc repro` is running a stage with the same files
TRANSIENT = re.compile(
    r"Temporary failure in name resolution|Connection (?:reset|refused|aborted)|timed out"
    r"|Network is unreachable|HTTP Error (?:429|5\d\d)|Unable to acquire lock|database is locked",
    re.IGNORECASE,
)


_running: set[subprocess.Popen[str]] = set()


class StageError(DicetalkError):
    """A DVC command failed in a way that trying again does not mend."""


class AlreadyRunningError(StageError):
    """Another process is running the same stage."""


class TransientError(DicetalkError):
    """A DVC command failed for a reason that may pass, e.g. the network."""


def stages_in_order() -> list[str]:
    """Return the names of all stages, each after the ones it depends on."""
    dot = run("dag", "--dot", echo=False)
    graph: dict[str, list[str]] = {name: [] for name in re.findall(r'^"([^"]+)";$', dot, re.MULTILINE)}
    for before, after in re.findall(r'^"([^"]+)" -> "([^"]+)";$', dot, re.MULTILINE):
        graph[after].append(before)
    return list(TopologicalSorter(graph).static_order())


def run(
    *arguments: str,
    echo: bool = True,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    log_file: Path | None = None,
) -> str:
    """Run `dvc ARGUMENTS` and return what it printed.

    Args:
        *arguments: command and options.
        echo: print each line as it comes.
        folder: where to run it, the working directory when missing.
        environment: more variables.
        log_file: where to write each line as it comes.

    Returns:
        Standard output and error together.

    Raises:
        AlreadyRunningError: when another `dvc` process holds the files of the stage.
        TransientError: when the output names a cause that may pass.
        StageError: for any other exit code than 0.
    """
    # DVC runs stages as `python -m ...` with the caller's PATH, where this interpreter has to come first.
    variables = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "DVC_NO_ANALYTICS": "1",
        "PYTHONUNBUFFERED": "1",
        **(environment or {}),
    }
    lines: list[str] = []
    with (
        open(log_file or os.devnull, "w", encoding="utf-8") as log,
        subprocess.Popen(
            [sys.executable, "-m", "dvc", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=folder,
            env=variables,
            start_new_session=True,  # so that the stage and its workers can be ended as one group
        ) as process,
    ):
        _running.add(process)
        try:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                log.write(line)
                log.flush()
                if echo and line.strip():
                    print(line.rstrip(), flush=True)
        except BaseException:  # cancelled: leave no orphan training behind
            _end_group(process)
            raise
        finally:
            _running.discard(process)
    output = "".join(lines)
    if process.returncode != 0:
        raise _failure(arguments, process.returncode, deque(lines, TAIL_LINES))
    return output


def end_running() -> None:
    """End what `run` has started in other threads, which then raise `StageError`."""
    for process in list(_running):
        _end_group(process)


def _failure(arguments: tuple[str, ...], returncode: int, tail: deque[str]) -> DicetalkError:
    text = "".join(tail).strip()
    message = f"`dvc {' '.join(arguments)}` ended with exit code {returncode}; its last lines:\n{text}"
    if BUSY in text:
        return AlreadyRunningError(f"Another pipeline run is in progress; wait for it to end. {message}")
    return TransientError(message) if TRANSIENT.search(text) else StageError(message)


def _end_group(process: subprocess.Popen[str]) -> None:
    """End DVC and its stage, which outlives DVC: a training finishes its step and saves."""
    deadline = time.monotonic() + SAVE_SECONDS
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < deadline and (process.poll() is None or _has_members(process.pid)):
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)


def _has_members(group: int) -> bool:
    """Return whether a process of the group still runs; those that only wait to be collected do not count."""
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            state, _, of_group = file.read_text(errors="replace").rpartition(")")[2].split()[:3]
            if int(of_group) == group and state not in "ZX":
                return True
    return False
