"""A command that a fault is injected into, and its processes."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
from projects import Project

PATIENCE_SECONDS = 600  # for one command on a busy machine


class NotInjected(Exception):
    """The moment of a fault did not come."""


class Running:
    """A command under way in a project, in a process group of its own.

    Args:
        project: where.
        command: with its arguments.
        output: file for what it prints.
        variables: of its environment, besides the project's.
    """

    def __init__(
        self, project: Project, command: Sequence[str], output: Path, variables: dict[str, str]
    ) -> None:
        self.project, self.output = project, output
        with open(output, "w") as stream:
            self.process = subprocess.Popen(
                command,
                cwd=project.folder,
                env=project.environment() | variables,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_for(self, condition: Callable[[], object]) -> bool:
        """Return whether it came true while the command was running."""
        ends = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            if self.process.poll() is not None or time.monotonic() > ends:
                return False
            time.sleep(0.005)
        return True

    def text(self) -> str:
        """Return what it printed so far."""
        return self.output.read_text(errors="replace")

    def stage(self) -> psutil.Process | None:
        """Return the process of the stage."""
        for process in self._children():
            if "-m stages." in " ".join(process.cmdline()):
                return process
        return None

    def workers(self) -> list[psutil.Process]:
        """Return the processes that the stage works in."""
        stage = self.stage()
        found = stage.children(recursive=True) if stage is not None else []
        return [p for p in found if re.search("spawn_main|-m stages", " ".join(p.cmdline()))]

    def _children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def wait(self) -> int:
        """Wait for the end and return the exit code; a command that hangs is ended."""
        try:
            return self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            for process in self._children():
                process.send_signal(signal.SIGKILL)
            self.process.kill()
            self.process.wait()
            raise
