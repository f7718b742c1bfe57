"""Shared fixtures: one thread, no telemetry, and where optional real test data lives."""

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

REPOSITORY = Path(__file__).resolve().parents[1]

SLOW_TIMEOUT_S = 1800  # minutes here may be ten times that on another machine; a hang ends all the same


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give slow tests with no timeout of their own more than that of pyproject.toml, meant for fast ones."""
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
def shared_dir() -> Path:
    """Folder of real clips, portraits and golden vectors that are not part of the repository."""
    folder = Path(os.environ.get("DICETALK_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"real test data not found at {folder}; set DICETALK_SHARED")
    return folder
