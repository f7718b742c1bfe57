"""Saving and resuming take little more memory than the state itself has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def peak(repository: Path, what: str, run_dir: Path) -> float:
    """Return the most memory that a process used for it, as a part of that of the state."""
    script = Path(__file__).with_name("large_state.py")
    done = subprocess.run(
        [sys.executable, str(script), what, str(run_dir)],
        env=os.environ | {"PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=True,
    )
    state_bytes, peak_bytes = map(int, done.stdout.split())
    return peak_bytes / state_bytes


@pytest.mark.slow
def test_saving_and_resuming_take_little_more_memory_than_the_state(repository: Path, tmp_path: Path) -> None:
    assert 1 < peak(repository, "save", tmp_path) < 1.2
    assert 1 < peak(repository, "resume", tmp_path) < 1.3
