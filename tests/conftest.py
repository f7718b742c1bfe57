"""Shared fixtures: one thread, no telemetry, and tests of real data only where there is some."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")

import pytest
from projects import Project, finished_smoke_run
from shared_data import REPOSITORY, SHARED

SLOW_TIMEOUT_S = 1800  # minutes here may be ten times that on another machine; a hang ends all the same


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say once what lacks, instead of skipping test by test; `-q` would hide a header."""
    if not SHARED.is_dir():
        terminalreporter.write_line(
            f"no folder {SHARED} (DICETALK_SHARED): tests on real clips are deselected"
        )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests of real data where there is none, and give slow tests time.

    Slow tests with no timeout of their own get more than that of pyproject.toml, meant for fast ones.
    """
    if not SHARED.is_dir():
        config.hook.pytest_deselected(items=[item for item in items if "shared_dir" in item.fixturenames])
        items[:] = [item for item in items if "shared_dir" not in item.fixturenames]
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT_S))


@pytest.fixture(autouse=True)
def fresh_accelerator() -> Iterator[None]:
    """Forget accelerate's process-wide precision, which a stage sets once and tests set differently."""
    yield
    if "accelerate.state" in sys.modules:
        sys.modules["accelerate.state"].AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout under test."""
    return REPOSITORY


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished run of the smoke profile, committed; only to be copied."""
    return finished_smoke_run(REPOSITORY, tmp_path_factory.mktemp("smoke") / "dicetalk")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Folder of real clips, portraits and full golden vectors; without it, tests that ask are left out."""
    return SHARED
