"""The stage under DVC: what was computed once comes from the cache, and new clips are the only work."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from drawn_clip import drawn_head, write_av

STAGE = "preprocess@extra"
CACHED = f"Stage '{STAGE}' is cached - skipping run"


@pytest.fixture
def checkout(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git and DVC repository with this pipeline and a corpus of three clips; the working directory."""
    for name in ("dicetalk", "stages"):
        shutil.copytree(repository / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(repository / name, tmp_path)
    params = yaml.safe_load((repository / "profiles/smoke.yaml").read_text())
    params["index"]["extra"] = {
        "kind": "folder",
        "root": "data/raw",
        "identity_folder": 1,
        "test_identities": 1,
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for number in range(3):
        draw_clip(number)
    call("git", "init", "-q")
    call("dvc", "init", "-q")
    return tmp_path


def draw_clip(number: int) -> None:
    frames, samples = drawn_head(1.2)
    folder = Path(f"data/raw/person-{number}")
    folder.mkdir(parents=True)
    write_av(folder / "a.mp4", np.roll(frames, number, axis=2), np.arange(len(frames)) / 25, samples)


def call(*command: str) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout


def edit_params(change: Callable[[dict], None]) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    change(params)
    Path("params.yaml").write_text(yaml.safe_dump(params))


def num_worked_on(said: str) -> int:
    """Return how many clips went through the pool; the last of its status lines says so."""
    return sum(int(count) for count in re.findall(r"^preprocess extra: (\d+)/\1 in ", said, re.MULTILINE))


def result() -> dict[str, bytes]:
    files = [*Path("data/processed/extra").iterdir(), Path("metrics/preprocess-extra.json")]
    return {str(path): path.read_bytes() for path in sorted(files)}


def fresh_result() -> dict[str, bytes]:
    """Return what the stage makes of the same without anything to start from."""
    shutil.rmtree("runs")
    call("dvc", "repro", "--force", "--no-run-cache", "--single-item", STAGE)
    return result()


@pytest.mark.slow
def test_changed_parameters_and_back(checkout: Path) -> None:
    assert num_worked_on(call("dvc", "repro", STAGE)) == 3
    before = result()
    call("git", "add", "params.yaml", "dvc.lock", "metrics")
    call("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a")
    edit_params(lambda params: params["preprocess"].update(crop_margin=0.4))
    assert num_worked_on(call("dvc", "repro", STAGE)) == 3
    assert result() != before
    call("git", "checkout", "-q", "params.yaml", "dvc.lock")
    said = call("dvc", "repro", STAGE)
    assert CACHED in said and num_worked_on(said) == 0
    assert result() == before
    edit_params(lambda params: params["compute"]["preprocess"].update(workers=1))
    assert call("dvc", "status", STAGE).strip().endswith("Data and pipelines are up to date.")


@pytest.mark.slow
def test_clips_that_come_and_go(checkout: Path) -> None:
    assert num_worked_on(call("dvc", "repro", STAGE)) == 3
    draw_clip(3)
    said = call("dvc", "repro", STAGE)
    assert num_worked_on(said) == 1 and "preprocess extra: 3 of 4 clips are already done" in said
    grown = result()
    shutil.rmtree("data/raw/person-0")
    said = call("dvc", "repro", STAGE)
    assert num_worked_on(said) == 0 and CACHED not in said
    assert result() == fresh_result()
    draw_clip(0)
    assert CACHED in call("dvc", "repro", STAGE)
    assert result() == grown == fresh_result()
