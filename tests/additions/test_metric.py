"""A new metric takes the files that CONTRIBUTING.md names, and no other, from evaluation to pages."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

BY_HAND = {"dicetalk/evaluation/metrics/motion.py", "dicetalk/evaluation/metrics/table.py"}
WRITTEN = {"docs/metrics.md"}
# Run in the copy: evaluate the miniature videos of the evaluation's own tests, and show the result.
USE = """
import json, sys
from pathlib import Path

import numpy as np
import test_evaluate

from dicetalk import weights
from dicetalk.config import load_params
from dicetalk.evaluation import measure
from dicetalk.evaluation.metrics import table
from dicetalk.evaluation.show import print_report
from dicetalk.report.leaderboard import board_table, make_boards
from dicetalk.report.readings import Evaluation
from dicetalk.report.tables import metric_rows

folder = Path(sys.argv[1])
(folder / "mesh.tflite").write_bytes(b"mesh")
measure.LandmarkReader, weights.resolve = test_evaluate.PassiveReader, lambda name: folder / "mesh.tflite"
test_evaluate.build(folder)
settings = load_params(Path(sys.argv[2]) / "profiles/demo.yaml").evaluate
world = test_evaluate.World(folder, settings.model_copy(update={"bootstrap_samples": 20}))
evaluation = world.evaluate()
report = evaluation.report
print_report(report)
points = np.zeros((3, 68, 2))
points[1:, 57] = [0.3, 0.4]  # one of 20 points moves by 0.5 in one of two steps
found = {
    "report": report,
    "by_hand": table.motion.mouth_motion(points),
    "per_clip": evaluation.per_clip.columns.tolist(),
    "rows": [(row["name"], row["label"], row["arrow"]) for row in metric_rows(report)],
    "columns": [c["label"] for c in board_table(*make_boards({"x": Evaluation(**report)}))["columns"]],
}
del table.METRICS["mouth_motion"]
without = world.evaluate()
found |= {"report_without": without.report, "per_clip_without": without.per_clip.columns.tolist()}
(folder / "found.json").write_text(json.dumps(found))
"""


def section(repository: Path) -> str:
    text = (repository / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return re.search(r"## Add a metric\n(.*?)\n## ", text, re.DOTALL)[1]


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def run(*command: str | Path, package: Path, repository: Path) -> str:
    """Run a command with the package of a folder, in that folder."""
    paths = [package, repository / "tests", repository / "tests/evaluation"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "COLUMNS": "200"}
    done = subprocess.run(
        command, cwd=package, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_metric_is_its_file_and_a_row(repository: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(repository / "dicetalk", copy / "dicetalk", ignore=ignored)
    shutil.copytree(repository / "docs", copy / "docs")
    before = digests(copy)
    (diff,) = re.findall(r"```diff\n(.*?)```", section(repository), re.DOTALL)
    (tmp_path / "metric.diff").write_text(diff)
    run("git", "apply", "--unidiff-zero", tmp_path / "metric.diff", package=copy, repository=repository)
    touched = {path for path, digest in digests(copy).items() if before.get(path) != digest}
    assert touched == BY_HAND == set(re.findall(r"^\+\+\+ b/(.*)$", diff, re.MULTILINE))
    reference = ("-m", "dicetalk.evaluation.reference")
    run(sys.executable, *reference, package=copy, repository=repository)
    after = digests(copy)
    assert {path for path, digest in after.items() if before.get(path) != digest} == BY_HAND | WRITTEN
    assert before.keys() - after.keys() == set()
    said = section(repository).split("```")[0]
    assert said.startswith("Two files by hand") and all(path in said for path in WRITTEN)
    line = next(
        line for line in (copy / "docs/metrics.md").read_text().splitlines() if "`mouth_motion`" in line
    )
    assert "| near `real`'s | sides of the picture | landmarks | `still` | demo, smoke |" in line

    world = tmp_path / "world"
    world.mkdir()
    shown = run(sys.executable, "-c", USE, world, repository, package=copy, repository=repository)
    found = json.loads((world / "found.json").read_text())
    assert found["by_hand"] == pytest.approx(0.5 / 20 / 2)
    report = found["report"]
    values = {system: metrics.pop("mouth_motion") for system, metrics in report["systems"].items()}
    assert values["still"]["value"] == 0.0 < values["real"]["value"]
    assert values["real"]["value"] == pytest.approx(values["ours"]["value"], rel=0.2)  # copies of real clips
    assert all(estimate["n"] == 8 and len(estimate["ci95"]) == 2 for estimate in values.values())
    assert report["networks"].pop("mouth_motion")["name"] == "facemesh"
    assert report == found["report_without"], "other numbers, or the digest of the protocol, have changed"
    assert set(found["per_clip"]) == {*found["per_clip_without"], "mouth_motion"}
    assert ["mouth_motion", "Mouth motion", ""] in found["rows"] and "Mouth motion" in found["columns"]
    assert re.search(r"^mouth_motion +\d", shown, re.MULTILINE)


def test_no_line_of_the_graph_names_a_single_metric(repository: Path) -> None:
    """So that a new one needs none: the stages depend on the folder."""
    stages = yaml.safe_load((repository / "dvc.yaml").read_text())["stages"]
    for stage in ("evaluate", "report"):
        deps = stages[stage]["deps"]
        assert "dicetalk/evaluation/metrics" in deps
        assert not [dep for dep in deps if dep.startswith("dicetalk/evaluation/metrics/")]
