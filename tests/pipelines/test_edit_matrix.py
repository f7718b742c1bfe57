"""A finished run that is edited and run again gives what a fresh clone gives, and runs no more than it must.

One smoke run is the start of all tests here. `lived_in` keeps everything a run leaves behind, `runs/`
included; `fresh` has the commit, the results and the cache of the start and nothing else.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from projects import Project

from dicetalk.config import load_params
from dicetalk.runs.declaration import load_yaml

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

# An edit of the code of each stage, right or wrong, that changes what it writes: file, old text, new text.
EDITS = {
    "synthesize": (
        "dicetalk/synthetic/corpus.py",
        "default_rng([params.seed, 0])",
        "default_rng([params.seed, 1])",
    ),
    "corpora": ("stages/corpora.py", "bool(corpus.classes)", "not corpus.classes"),
    "index@mead": ("dicetalk/data/corpora/mead.py", '_{sentence}",', '_{sentence}x",'),
    "preprocess@mead": ("dicetalk/data/shards.py", "* 32768).astype", "* 30000).astype"),
    "backbone": ("stages/backbone.py", '"licence": entry.licence', '"licence": entry.licence.upper()'),
    "encode@mead": (
        "dicetalk/models/backbones/files/svd.py",
        "mode() * self.autoencoder.config.scaling_factor",
        "mode() * 0.5",
    ),
    "train_embedder": (
        "dicetalk/training/embedder.py",
        "contrastive + self.settings.kl_weight * kl",
        "0 * contrastive + 1000 * kl",
    ),
    "priors": ("dicetalk/training/priors.py", "vectors[chosen].mean(0)", "vectors[chosen].max(0)"),
    "learn_bank": ("dicetalk/training/bank.py", "self.settings.vq_weight * ", "-1 * "),
    "train_diffusion": ("dicetalk/training/diffusion.py", "loss = diffusion +", "loss = 3 * diffusion +"),
    "package": (
        "dicetalk/release/package.py",
        "params.preprocess.crop_margin",
        "2 * params.preprocess.crop_margin",
    ),
    "evaluators": ("dicetalk/training/evaluator_objectives.py", "F.cross_entropy(", "2 * F.cross_entropy("),
    "generate": (
        "dicetalk/generation/clip.py",
        "    return np.stack([to_output",
        "    return 255 - np.stack([to_output",
    ),
    "evaluate": ("dicetalk/evaluation/metrics/landmarks.py", '"lmd": mouth_', '"lmd": 2 * mouth_'),
    "report": ("dicetalk/report/templates/report.md.j2", "# ", "# Edited: "),
}


@pytest.fixture(scope="module")
def start(smoke_run: Project) -> Project:
    return smoke_run


def copy_without_runs(start: Project, folder: Path) -> Project:
    subprocess.run(["git", "clone", "--quiet", start.folder, folder], check=True)
    shutil.copytree(start.folder / ".dvc/cache", folder / ".dvc/cache")
    project = Project(folder)
    project.run("dvc", "checkout", "--quiet")
    return project


@pytest.fixture(scope="module")
def places(start: Project, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Project]:
    folder = tmp_path_factory.mktemp("places")
    shutil.copytree(start.folder, folder / "lived_in", symlinks=True)
    return Project(folder / "lived_in"), copy_without_runs(start, folder / "fresh")


@pytest.fixture
def both(places: tuple[Project, Project]) -> Iterator[tuple[Project, Project]]:
    """A lived-in and a fresh working copy, put back to the start afterwards; `runs/` of the former stays."""
    yield places
    for project in places:
        project.run("git", "checkout", "--quiet", "--force", ".")
        project.run("dvc", "checkout", "--quiet", "--force")
    shutil.rmtree(places[1].folder / "runs", ignore_errors=True)


def test_the_start_is_up_to_date_and_left_no_work_behind(start: Project) -> None:
    assert start.changed() == set()
    entries = {path.name for path in (start.folder / "runs").iterdir()}
    unfinished = {name for name in entries if (start.folder / "runs" / name / "made_of.json").is_file()}
    assert not {name for name in unfinished if not (start.folder / "runs" / name / "finished.json").is_file()}


def test_every_stage_is_edited(repository: Path) -> None:
    assert {stage.split("@")[0] for stage in EDITS} == set(load_yaml(repository / "dvc.yaml")["stages"])


@pytest.mark.parametrize("stage", EDITS)
def test_an_edit_of_code_gives_what_a_fresh_clone_gives(
    both: tuple[Project, Project], start: Project, stage: str
) -> None:
    for project in both:
        project.edit(*EDITS[stage])
        assert stage in project.changed()
        project.repro("--single-item", stage)
    lived_in, fresh = (project.outs(stage) for project in both)
    assert lived_in != start.outs(stage), "the edit changed nothing"
    if stage == "report":  # it shows how long stages took on this machine
        assert "# Edited: " in (both[0].folder / "reports/report.md").read_text()
    else:
        assert lived_in == fresh


@pytest.mark.parametrize(
    ("key", "value", "last", "changed"),
    [
        ("train_embedder__temperature", 0.2, "report", "metrics/evaluate.json"),
        ("preprocess__video_preset", "ultrafast", "encode@mead", "data/encoded/mead"),
    ],
)
def test_a_parameter_reaches_everything_behind_it(
    both: tuple[Project, Project], start: Project, key: str, value: object, last: str, changed: str
) -> None:
    for project in both:
        project.set_params(**{key: value})
        project.repro(last)
        assert last not in project.changed()
    lived_in, fresh = (project.outs() for project in both)
    del lived_in["reports"], fresh["reports"]  # which show how long stages took on this machine
    assert lived_in == fresh
    assert lived_in[changed] != start.outs()[changed]


def how_keys(section: dict[str, Any], prefix: str = "compute") -> dict[str, Any]:
    """Every key below `compute` with another value than it has."""
    other: dict[str, Any] = {}
    for name, value in section.items():
        key = f"{prefix}__{name}"
        if isinstance(value, dict):
            other |= how_keys(value, key)
        elif isinstance(value, bool):
            other[key] = not value
        elif isinstance(value, str):
            other[key] = {"local": "tcp://127.0.0.1:1", "stop": "accept-code-change"}[value]
        else:
            other[key] = value + 1
    return other


def test_no_how_key_runs_anything_again(both: tuple[Project, Project]) -> None:
    lived_in = both[0]
    params = load_params(lived_in.folder / "params.yaml")
    keys = how_keys(params.compute.model_dump(mode="json"))
    assert len(keys) > 35
    lived_in.set_params(**keys)
    assert lived_in.changed() == set()


@pytest.mark.parametrize(
    ("num_steps", "how"),  # other numbers of steps, or the second would find the first in DVC's cache
    [
        (7, {"threads": 1, "gradient_checkpointing": True, "sample_clips": 0, "log_every_steps": 1}),
        (8, {"num_processes": 2, "threads": 1}),
        (9, {"num_processes": 2, "threads": 1, "fully_sharded": True, "checkpoint_every_steps": 3}),
    ],
)
def test_an_interrupted_training_goes_on_with_another_how(
    both: tuple[Project, Project], num_steps: int, how: dict[str, Any]
) -> None:
    fresh = both[1]
    fresh.set_params(train_diffusion__training__num_steps=num_steps)
    fresh.set_params(compute__train_diffusion__log_every_steps=1)
    fresh.set_params(compute__train_diffusion__checkpoint_every_steps=2)
    command = ["dvc", "repro", "--single-item", "train_diffusion"]
    process = subprocess.Popen(
        command,
        cwd=fresh.folder,
        env=fresh.environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if f"step 3/{num_steps}," in line:
            os.killpg(process.pid, signal.SIGKILL)
            break
    process.wait()
    fresh.set_params(**{f"compute__train_diffusion__{key}": value for key, value in how.items()})
    output = fresh.repro("--single-item", "train_diffusion")
    assert f"resuming at step 2/{num_steps}" in output
    assert "train_diffusion: done" in output


@pytest.mark.parametrize("change", ["added", "removed"])
def test_one_clip_more_or_less_is_all_that_is_preprocessed(
    both: tuple[Project, Project], start: Project, change: str
) -> None:
    for project in both:
        raw = project.folder / "data/raw"
        shutil.copytree(start.folder / "data/synthetic", raw)  # with times: the same files for both
        project.set_params(
            synthesize=None, index__mead__root="data/raw/mead", index__hdtf__root="data/raw/hdtf"
        )
    lived_in, fresh = both
    clips = sorted((lived_in.folder / "data/raw/mead").glob("*/video/front/happy/level_1/*.mp4"))
    clip = clips[-1].relative_to(lived_in.folder)
    if change == "added":
        (lived_in.folder / clip).unlink()
    lived_in.repro("preprocess@mead")
    if change == "added":
        shutil.copy2(fresh.folder / clip, lived_in.folder / clip)
    else:
        (lived_in.folder / clip).unlink()
        (fresh.folder / clip).unlink()
    assert {"index@mead", "preprocess@mead"} <= lived_in.changed()
    assert not {"index@hdtf", "preprocess@hdtf"} & (lived_in.changed() - both[1].changed())
    output = lived_in.repro("preprocess@mead")
    if change == "added":
        assert "88 of 89 clips are already done" in output and "preprocess mead: 1/1" in output
    else:  # all are done, if DVC's cache has not the whole
        assert "preprocess mead: 1/" not in output
    fresh.repro("preprocess@mead")
    assert lived_in.outs("preprocess@mead") == fresh.outs("preprocess@mead")
    for project in both:
        shutil.rmtree(project.folder / "data/raw")
