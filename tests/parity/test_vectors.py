"""The golden vectors of the repository: enough of them, and the full ones' numbers."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from cut_vectors import cut
from golden_vectors import VECTORS


@pytest.mark.slow
def test_a_clone_alone_makes_at_least_80_comparisons(repository, tmp_path):
    collect = [sys.executable, *"-m pytest -q --collect-only -p no:cacheprovider tests/parity".split()]
    environment = os.environ | {"DICETALK_SHARED": str(tmp_path / "nothing"), "PYTEST_ADDOPTS": ""}
    run = subprocess.run(collect, cwd=repository, env=environment, check=True, capture_output=True, text=True)
    assert sum("::" in line for line in run.stdout.splitlines()) >= 80, run.stdout


def test_a_clone_stays_small():
    assert sum(path.stat().st_size for path in VECTORS.rglob("*")) < 6e6  # bytes


def test_vectors_are_cut_from_the_full_ones(shared_dir, tmp_path):
    """Bit for bit, and weights that are computed equal the stored ones, which `cut` compares."""
    cut(shared_dir / "reference", tmp_path)
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 30
    for file in files:
        assert (tmp_path / file).read_bytes() == (VECTORS / file).read_bytes(), file
