"""The stage scripts: what they write, and how they fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from dicetalk.files import read_json, sha256_file
from stages import backbone, run, synthesize


@pytest.fixture
def project(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with the smoke parameters."""
    (tmp_path / "params.yaml").write_bytes((repository / "profiles/smoke.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edit(project: Path, change: dict) -> None:
    yaml = YAML(typ="safe", pure=True)
    values = yaml.load((project / "params.yaml").read_text())
    with open(project / "params.yaml", "w") as stream:
        yaml.dump(values | change, stream)


def start(project: Path, repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(repository)}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


def test_a_mistake_ends_a_stage_with_its_message_and_exit_code_1(project: Path, repository: Path) -> None:
    edit(project, {"backbone": {"weight": "demo-backbone"}})
    done = start(project, repository, "stages.backbone")
    assert done.returncode == 1
    assert "did you mean 'weights'?" in done.stderr and "Traceback" not in done.stderr
    assert not (project / "models").exists()


def test_a_missing_corpus_is_named_with_its_key(project: Path, repository: Path) -> None:
    done = start(project, repository, "stages.index", "--dataset", "mead")
    assert done.returncode == 1 and "index.mead.root" in done.stderr


def test_other_errors_keep_their_traceback() -> None:
    def main() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(main)


def test_synthesize_writes_nothing_but_markers_when_it_is_off(project: Path) -> None:
    edit(project, {"synthesize": None})
    real = project / "data/raw/mead/M003/video.tar"
    real.parent.mkdir(parents=True)
    real.write_bytes(b"real data")
    synthesize.main()
    assert [path.name for path in Path("data/synthetic/mead").iterdir()] == ["SYNTHETIC.txt"]
    assert real.read_bytes() == b"real data"
    assert read_json(Path("metrics/synthesize.json")) == {}


def test_backbone_copies_the_registered_files_and_records_their_hashes(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = backbone.weights.get("demo-backbone")
    source = project / "own/demo-backbone"
    for relative in entry.files:
        (source / relative).parent.mkdir(parents=True, exist_ok=True)
        (source / relative).write_text(relative)
    (source / "unregistered.bin").write_text("stays behind")
    monkeypatch.setattr(backbone.weights, "resolve", lambda name: source)
    backbone.main()
    copied = {path.relative_to("models/backbone").as_posix() for path in Path("models/backbone").rglob("*.*")}
    assert copied == set(entry.files)
    recorded = read_json(Path("metrics/backbone.json"))
    assert recorded["weights"] == "demo-backbone"
    assert recorded["sha256"] == {name: sha256_file(source / name) for name in entry.files}
