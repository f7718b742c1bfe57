"""The stage scripts: what they write, and how they fail."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

from dicetalk.data.in_use import emotional_folders, write_in_use
from dicetalk.errors import DicetalkError
from dicetalk.files import read_json, sha256_file
from dicetalk.runs.declaration import load_yaml
from dicetalk.runs.work import Work
from stages import (
    backbone,
    corpora,
    evaluate,
    evaluators,
    generate,
    learn_bank,
    priors,
    run,
    synthesize,
    train_embedder,
)


@pytest.fixture
def project(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with the smoke parameters."""
    (tmp_path / "params.yaml").write_bytes((repository / "profiles/smoke.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edit(project: Path, change: dict) -> None:
    yaml = YAML(typ="safe", pure=True)
    yaml.sort_base_mapping_type_on_output = False  # keys stay in their order
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


class Seen(Exception):
    """What a stage handed to the library."""


@pytest.mark.parametrize(
    ("stage", "call", "argument"),
    [
        (train_embedder, "dicetalk.training.embedder.train_embedder", "encoded"),
        (priors, "dicetalk.data.dataset.EncodedClips", "encoded"),
        (learn_bank, "dicetalk.training.bank.learn_bank", "encoded"),
        (generate, "dicetalk.generation.split.generate_test_split", "encoded"),
        (generate, "dicetalk.generation.split.generate_test_split", "processed"),
        (evaluate, "dicetalk.evaluation.evaluate.evaluate_generated", "processed"),
    ],
)
def test_stages_read_every_emotional_corpus_in_use_and_no_other(
    project: Path, monkeypatch: pytest.MonkeyPatch, stage: Any, call: str, argument: str
) -> None:
    write_in_use({"talks": False, "actors": True, "acted": True})
    seen = hand_over(project, monkeypatch, stage, call)
    assert [Path(f"data/{argument}/{name}") for name in ("acted", "actors")] in seen


def test_metric_networks_learn_from_all_corpora(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpora.main()
    seen = hand_over(project, monkeypatch, evaluators, "dicetalk.training.evaluators.train_evaluators")
    assert [Path("data/processed/mead"), Path("data/processed/hdtf")] in seen


def test_the_order_of_corpora_is_not_that_of_the_file(project: Path) -> None:
    """DVC does not see an order of keys, so no result may depend on it."""
    index = load_yaml(project / "params.yaml")["index"]
    written = set()
    for names in (["mead", "hdtf"], ["hdtf", "mead"]):
        edit(project, {"index": {name: index[name] for name in names}})
        corpora.main()
        written.add(Path("data/corpora.json").read_bytes())
    assert len(written) == 1


def hand_over(project: Path, monkeypatch: pytest.MonkeyPatch, stage: Any, call: str) -> list[Any]:
    """Run a stage up to a call of the library and return the arguments of it."""

    def see(*args: Any, **named: Any) -> None:
        raise Seen([*args, *named.values()])

    edit(project, {"tracking": {"uri": None, "experiment": "x", "registered_model": "x"}})
    monkeypatch.setattr(call, see)
    monkeypatch.setattr(
        "dicetalk.models.embedder.EmotionEmbedder.from_pretrained", lambda _: torch.nn.Identity()
    )
    monkeypatch.setattr("dicetalk.training.priors.load_priors", lambda _: {})
    monkeypatch.setattr(stage, "stage_work", lambda *_: nullcontext(Work(Path("runs/x"), [])), raising=False)
    with pytest.raises(Seen) as caught:
        stage.main()
    return caught.value.args[0]


def test_stages_say_which_stage_names_the_corpora(project: Path) -> None:
    with pytest.raises(DicetalkError, match="dvc repro corpora"):
        emotional_folders(Path("data/encoded"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "maed"}, r"index.mead.kind: unknown, expected one of mead, hdtf, folder, found 'maed'"),
        ({"view": ["front"]}, "index.mead.view: unknown parameter; did you mean 'views'?"),
        ({"views": 3}, "index.mead.views: should be a valid list or should be 'all', found 3"),
        ({"test_identities": "eta"}, "index.mead.test_identities: .* or one of eat, paper, found 'eta'"),
    ],
)
def test_the_corpora_are_checked_before_they_are_read(
    project: Path, change: dict[str, Any], message: str
) -> None:
    index = load_yaml(project / "params.yaml")["index"]
    edit(project, {"index": {**index, "mead": index["mead"] | change}})
    with pytest.raises(DicetalkError, match=message):
        corpora.main()


def test_training_needs_an_emotional_corpus(project: Path) -> None:
    edit(project, {"index": {"hdtf": load_yaml(project / "params.yaml")["index"]["hdtf"]}})
    with pytest.raises(DicetalkError, match="no corpus has emotion labels.*add one of kind mead"):
        corpora.main()
