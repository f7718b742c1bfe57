"""A toy pipeline in a git repository of its own whose model and metrics are a few lines of Python."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dicetalk.files import write_json

TOY_STAGE = """\
import json, pathlib, re, sys
seed = int(re.search(r"^  seed: (\\d+)", pathlib.Path("params.yaml").read_text(), re.MULTILINE)[1])
if sys.argv[1] == "train":
    folder = pathlib.Path("models/dicetalk"); folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_text(f"model of seed {seed}")
    print("training with seed", seed)
else:
    accuracy = {"value": seed / 10, "ci95": [seed / 10 - 0.1, seed / 10 + 0.1], "n": 8}
    evaluation = {
        "protocol": {"name": "toy"},
        "networks": {"emotion_accuracy": {"name": "toy", "sha256": "0"}},
        "systems": {"ours": {"emotion_accuracy": accuracy}},
    }
    pathlib.Path("metrics").mkdir(exist_ok=True)
    pathlib.Path("metrics/evaluate.json").write_text(json.dumps(evaluation))
    pathlib.Path("reports").mkdir(exist_ok=True)
    pathlib.Path("reports/report.md").write_text("# toy report")
"""
# `evaluate` is written before `train`, which it depends on.
TOY_DVC = """\
stages:
  evaluate:
    cmd: python toy_stage.py evaluate
    deps: [models/dicetalk]
    outs: [reports]
    metrics: [metrics/evaluate.json: {cache: false}]
  train:
    cmd: python toy_stage.py train
    params: [synthesize.seed]
    outs: [models/dicetalk]
"""


@pytest.fixture
def toy(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy repository, as working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(repository / "profiles/demo.yaml", "params.yaml")
    Path("toy_stage.py").write_text(TOY_STAGE)
    Path("dvc.yaml").write_text(TOY_DVC)
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, check=True)
    return tmp_path


@pytest.fixture
def evaluation(tmp_path: Path) -> dict:
    """A small `metrics/evaluate.json`."""
    content = {
        "protocol": {"name": "toy"},
        "networks": {"emotion_accuracy": {"name": "toy", "sha256": "0"}},
        "systems": {
            "ours": {"emotion_accuracy": {"value": 0.7, "ci95": [0.6, 0.8], "n": 40}},
            "real": {
                "emotion_accuracy": {"value": 0.9, "ci95": [0.8, 1.0], "n": 40},
                "sync_c": {"value": 5.0, "ci95": [4.0, 6.0], "n": 40},
            },
        },
    }
    write_json(tmp_path / "metrics/evaluate.json", content)
    return content
