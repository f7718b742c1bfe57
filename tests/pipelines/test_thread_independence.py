"""The whole pipeline gives the same bits however many threads the environment allows."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from projects import repository_files

RESULTS = ("data/encoded", "models", "outputs", "metrics")


@pytest.mark.slow
@pytest.mark.timeout(7200)  # three runs of the smoke profile
def test_the_smoke_profile_gives_the_same_bits_on_1_2_and_4_threads(repository: Path, tmp_path: Path) -> None:
    copies = {threads: tmp_path / f"threads-{threads}" for threads in (1, 2, 4)}
    for copy in copies.values():
        copy_files(repository, copy)
    digests = {}
    for threads, copy in copies.items():
        run_pipeline(copy, threads)
        digests[threads] = digests_of(copy)
        shutil.rmtree(copy)
    alone = digests.pop(1)
    assert {"metrics/evaluate.json", "models/priors.safetensors"} <= alone.keys()
    for threads, found in digests.items():
        differing = {name for name in alone.keys() | found.keys() if alone.get(name) != found.get(name)}
        assert not differing, f"{threads} threads: {sorted(differing)}"


def copy_files(repository: Path, copy: Path) -> None:
    """Copy what belongs to the repository, with changes that are not committed yet."""
    for name in repository_files():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(repository / name, copy / name)
    shutil.copy(copy / "profiles/smoke.yaml", copy / "params.yaml")
    subprocess.run(["git", "init", "-q"], cwd=copy, check=True)


def run_pipeline(copy: Path, threads: int) -> None:
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(copy),
    }
    if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):
        environment["OPENBLAS_CORETYPE"] = "Haswell"  # the kernels of newer processors rarely show the number
    command = [sys.executable, "-m", "dvc", "repro", "evaluate"]
    run = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]


def digests_of(copy: Path) -> dict[str, str]:
    files = (path for part in RESULTS for path in (copy / part).rglob("*") if path.is_file())
    return {
        path.relative_to(copy).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }
