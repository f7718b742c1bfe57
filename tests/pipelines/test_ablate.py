"""Ablations: which runs there are, what is recorded, and the whole command on a toy pipeline."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dicetalk.config import Params, load_params
from dicetalk.errors import DicetalkError
from dicetalk.files import read_json, write_json
from dicetalk.report.ablations import read_ablations
from dicetalk.tracking.server import connect
from pipelines import ablate as command
from pipelines import dvc
from pipelines.ablations import copies
from pipelines.ablations.plan import SEEDS, as_hydra, fingerprint, override, plan_runs
from pipelines.ablations.record import RECORD, Record, read_metrics
from pipelines.ablations.variants import BASELINE, VARIANTS

# Each stage notes that it runs; `evaluate` waits until as many have been at it as TOY_TOGETHER says.
TOY_STAGE = """\
import json, os, pathlib, sys, time
from dicetalk.config import load_params
from dicetalk.tracking.runs import stage_run
params, notes = load_params(), pathlib.Path(os.environ["TOY_NOTES"])
stage = sys.argv[1]
with open(notes / "ran.txt", "a") as stream:
    print(stage, file=stream)
if stage == "shared":
    pathlib.Path("data").mkdir(exist_ok=True)
    pathlib.Path("data/encoded").write_text("features")
elif stage == "train_embedder":
    seed, weight = params.train_embedder.training.seed, params.train_embedder.identity_weight
    if weight == 0 and (notes / "break").exists():
        raise SystemExit("out of memory")
    with stage_run("train_embedder", params.tracking, params.train_embedder) as tracker:
        tracker.log_metrics({"seen": seed})
    pathlib.Path("models").mkdir(exist_ok=True)
    pathlib.Path("models/embedder").write_text(f"{seed} {weight}")
    accuracy, strength = {"both": 0.5 + seed / 1e5, "chance": 0.1}, {"both": {"happy": 3.0, "sad": 2.0}}
    identity = {"mu": 0.1 if weight else 0.6}
    metrics = {"emotion_accuracy": accuracy, "identity_accuracy": identity, "clustering_strength": strength}
    pathlib.Path("metrics/train_embedder.json").write_text(json.dumps(metrics))
else:
    seed, steps = params.generate.seed, params.train_diffusion.training.num_steps
    (notes / f"at-it-{seed}-{params.learn_bank.use_bank}").touch()
    deadline = time.monotonic() + 300
    while len(list(notes.glob("at-it-*"))) < int(os.environ["TOY_TOGETHER"]):
        assert time.monotonic() < deadline, "the other run never started"
        time.sleep(0.1)
    value = (0.8 if params.learn_bank.use_bank else 0.5) + seed / 1e5
    report = {"systems": {"ours": {"emotion_accuracy": {"value": value, "ci95": [0, 1], "n": steps}}}}
    pathlib.Path("metrics/evaluate.json").write_text(json.dumps(report))
"""
TOY_DVC = """\
stages:
  shared:
    cmd: python toy_stage.py shared
    outs: [data/encoded]
    deps: [raw]
  train_embedder:
    cmd: python toy_stage.py train_embedder
    deps: [toy_stage.py, data/encoded]
    params: [train_embedder]
    outs: [models/embedder]
    metrics: [metrics/train_embedder.json: {cache: false}]
  evaluate:
    cmd: python toy_stage.py evaluate
    deps: [toy_stage.py, models/embedder]
    params: [learn_bank, generate, train_diffusion.training.num_steps]
    metrics: [metrics/evaluate.json: {cache: false}]
"""
SHORT = {
    "train_diffusion.training.num_steps": 3,
    "generate.modes": ["P"],
    "generate.max_clips_per_mode": {"P": 2},
}


@pytest.fixture
def demo(repository: Path) -> Params:
    return load_params(repository / "profiles/demo.yaml")


@pytest.mark.parametrize("profile", ["smoke", "demo", "paper"])
def test_every_variant_fits_every_profile(repository: Path, profile: str) -> None:
    params = load_params(repository / f"profiles/{profile}.yaml")
    runs = plan_runs(params, list(VARIANTS), params.ablate.seeds, "base")
    assert len(runs) == len(VARIANTS) * len(params.ablate.seeds)
    assert len({run.experiment for run in runs}) == len(runs)
    # The baseline leaves nothing out, and each variant only what it says.
    for run in runs:
        own = {key for key in run.overrides if key not in params.ablate.overrides and key not in SEEDS}
        assert own == set(VARIANTS[run.variant].overrides)
        assert all(load_params_value(run.params, k) == v for k, v in VARIANTS[run.variant].overrides.items())


def load_params_value(params: Params, key: str) -> Any:
    value: Any = params
    for part in key.split("."):
        value = getattr(value, part)
    return value


def test_a_seed_changes_every_seed_of_training_and_generation_and_no_other(demo: Params) -> None:
    own, second = plan_runs(demo, [BASELINE], [0, 2], "base")
    assert own.params == override(demo, demo.ablate.overrides, "here")  # seed 0 is the profile's own
    assert second.params.train_diffusion.training.seed == demo.train_diffusion.training.seed + 2000
    seeds = {key for key in _leaves(demo.model_dump()) if key.rpartition(".")[2] == "seed"}
    assert seeds - set(SEEDS) == {
        "synthesize.seed", "evaluate.seed",
        "evaluators.emotion.seed", "evaluators.emotion_second.seed",
        "evaluators.identity.seed", "evaluators.sync.seed",
    }  # fmt: skip


def _leaves(values: dict, prefix: str = "") -> list[str]:
    found = []
    for key, value in values.items():
        found += _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]
    return found


def test_wrong_overrides_are_refused_by_their_key(demo: Params) -> None:
    with pytest.raises(
        DicetalkError, match="learn_bank.use_bnak: unknown parameter; did you mean 'use_bank'"
    ):
        override(demo, {"learn_bank.use_bnak": False}, "here")
    with pytest.raises(DicetalkError, match="lr is a value, not a section"):
        override(demo, {"train_embedder.training.lr.x": 1}, "here")
    with pytest.raises(DicetalkError, match=r"Unknown variants: no_head; there are full, "):
        plan_runs(demo, ["no_head"], [0], "base")


def test_hydra_reads_back_what_is_written() -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    values = [None, True, 3, -2.5e-05, "it's a, [b]", ["P", "V"], {"P": 44, "V": [1.5]}, ""]
    for value in values:
        (parsed,) = OverridesParser.create().parse_overrides([f"a.b={as_hydra(value)}"])
        assert parsed.value() == value
    for value in (Path("x"), "\\"):
        with pytest.raises(DicetalkError, match="Cannot override"):
            as_hydra(value)


def test_metrics_with_and_without_intervals_are_read() -> None:
    evaluation = {"systems": {"ours": {"sync_c": {"value": 2.0}, "fid": {"value": 9.0}}}}
    embedder = {
        "emotion_accuracy": {"audio": {"value": 0.5, "ci95": [0, 1]}, "features": 0.1},
        "identity_accuracy": {"mu": {"value": 0.2}, "features": 0.9},
        "clustering_strength": {"audio": {"happy": 1.0, "sad": {"value": 2.0}}},
    }
    expected = {"sync_c": 2.0, "emotion_probe": 0.5, "identity_probe": 0.2, "clustering_strength": 1.5}
    assert read_metrics(evaluation, embedder) == expected
    with pytest.raises(DicetalkError, match=r"evaluate.json has none of emotion_accuracy"):
        read_metrics({"systems": {}}, embedder)
    del embedder["identity_accuracy"]
    with pytest.raises(DicetalkError, match="identity_accuracy"):
        read_metrics(evaluation, embedder)


def test_rows_of_other_code_are_neither_used_nor_lost(demo: Params, tmp_path: Path) -> None:
    path = tmp_path / "ablations.json"
    old, new = (plan_runs(demo, [BASELINE], [0], base)[0] for base in ("old", "new"))
    Record(path, "demo", {}, "old").add(old, "c1", 2.0, {"sync_c": 1.0})
    assert Record(path, "demo", {}, "old").row(old)["commit"] == "c1"
    with pytest.raises(DicetalkError, match="1 runs of other code.*--restart"):
        Record(path, "demo", {}, "new")
    restarted = Record(path, "demo", {}, "new", restart=True)
    assert restarted.row(new) is None and read_json(path)["runs"]  # nothing is lost before there is a new row
    restarted.add(new, "c2", None, {"sync_c": 1.0})
    assert [row["commit"] for row in read_json(path)["runs"]] == ["c2"]


@pytest.fixture
def toy(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed and reproduced toy repository, as working directory."""
    from ruamel.yaml import YAML

    root, notes = tmp_path / "toy", tmp_path / "notes"
    notes.mkdir()
    root.mkdir()
    monkeypatch.chdir(root)
    for name, value in {
        "PYTHONPATH": str(repository), "TOY_NOTES": str(notes), "TOY_TOGETHER": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yaml = YAML(typ="safe", pure=True)
    values = yaml.load((repository / "profiles/demo.yaml").read_text())
    values["ablate"] = {"seeds": [0, 1], "overrides": SHORT}
    with open("params.yaml", "w") as stream:
        yaml.dump(values, stream)
    Path("toy_stage.py").write_text(TOY_STAGE)
    Path("dvc.yaml").write_text(TOY_DVC)
    Path(".gitignore").write_text("/runs/\n/mlruns/\n/mlflow.db*\n/raw\n")
    Path("raw").write_text("as large as MEAD, in no version control")
    Path("metrics").mkdir()
    _git("init", "-q")
    _git("config", "user.name", "toy")
    _git("config", "user.email", "toy@example.com")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], check=True)
    dvc.run("repro", echo=False)
    _git("add", "-A")
    _git("commit", "-q", "-m", "toy")
    (notes / "ran.txt").unlink()
    for path in notes.glob("at-it-*"):
        path.unlink()
    return notes


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ablations_run_side_by_side_survive_a_failure_and_do_not_repeat(
    toy: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    chosen = ["--variants", "full", "no_bank", "no_identity_removal", "--jobs", "2"]

    # Two at once: each of the first two waits for the other. The third breaks.
    monkeypatch.setenv("TOY_TOGETHER", "2")
    (toy / "break").touch()
    assert command.main([*chosen, "--seeds", "0"]) == 1
    said = capfd.readouterr()
    assert "FAILED no_identity_removal seed 0" in said.err and "exit code" in said.err
    assert "ETA" in said.err and "| full | 1 | 0.800" in said.out
    log = next(Path("runs/ablate").glob("*no_identity_removal-0*.log")).read_text()
    assert "out of memory" in log
    rows = {row["variant"]: row for row in read_json(RECORD)["runs"]}
    assert set(rows) == {"full", "no_bank"}
    ran = (toy / "ran.txt").read_text().split()
    assert "shared" not in ran, "taken from the cache, although its raw data is in no copy"
    assert ran.count("train_embedder") == 1, "only the variant that changes the embedder"

    # Once more, with a second seed: what is done is not run again.
    (toy / "break").unlink()
    assert command.main(chosen) == 0
    content = read_json(RECORD)
    assert [(row["variant"], row["seed"]) for row in content["runs"]] == [
        (variant, seed) for variant in ("full", "no_bank", "no_identity_removal") for seed in (0, 1)
    ]
    assert {(r["variant"], r["commit"]) for r in rows.values()} <= {
        (r["variant"], r["commit"]) for r in content["runs"]
    }
    table = read_ablations(RECORD)
    assert table is not None
    differences = {row.name: row.differences for row in table.rows}
    assert differences["no_bank"]["emotion_accuracy"].value == pytest.approx(-0.3)
    assert differences["no_identity_removal"]["identity_probe"].value == pytest.approx(0.5)

    # In DVC, under the commit they come from, with their parameters.
    shown = dvc.run("exp", "show", "--json", echo=False)
    assert all(row["experiment"] in shown for row in content["runs"])
    parameters = _git("show", f"{content['runs'][3]['commit']}:params.yaml")
    assert "use_bank: false" in parameters and "num_steps: 3" in parameters
    assert not _git("status", "--porcelain", "--untracked-files=no")

    # In MLflow: one parent, a run for each variant and seed below it, stages below these.
    client, experiment_id = connect(load_params().tracking)
    runs = {run.info.run_id: run for run in client.search_runs([experiment_id])}
    tags = {run_id: run.data.tags for run_id, run in runs.items()}
    (parent,) = (i for i in runs if tags[i]["mlflow.runName"] == "ablate demo")
    nested = [i for i in runs if "variant" in tags[i] and runs[i].info.status == "FINISHED"]
    assert len(nested) == 6 and {tags[i]["mlflow.parentRunId"] for i in nested} == {parent}
    assert {tags[i]["seed"] for i in nested} == {"0", "1"}
    stages = [i for i in runs if "dicetalk.stage" in tags[i] and tags[i]["mlflow.parentRunId"] in nested]
    # All of seed 1, and of seed 0 what the baseline did not have; `no_bank` takes the embedder of `full` from
    # DVC's run cache if that was done before it began.
    assert len(stages) in (3, 4)
    probes = {(r["variant"], r["seed"]): r["metrics"]["emotion_probe"] for r in content["runs"]}
    assert probes["no_bank", 1] == probes["full", 1] == pytest.approx(0.51011)
    one = next(i for i in nested if tags[i]["variant"] == "no_bank" and tags[i]["seed"] == "1")
    assert runs[one].data.params["learn_bank.use_bank"] == "False"
    assert runs[one].data.metrics["emotion_accuracy"] == pytest.approx(0.5 + 1031 / 1e5)

    # A call that was killed before it noted a result takes the experiment it finds, as does a third call.
    before = (toy / "ran.txt").read_text()
    write_json(RECORD, {**content, "runs": content["runs"][1:]})
    assert command.main(chosen) == 0
    assert (toy / "ran.txt").read_text() == before
    again = read_json(RECORD)["runs"][0]
    assert again["commit"] == content["runs"][0]["commit"] and again["seconds"] is None

    # Changed code makes old rows worthless, and uncommitted code is refused.
    Path("toy_stage.py").write_text(TOY_STAGE + "# changed\n")
    assert command.main(chosen) == 1
    assert "--restart" in capfd.readouterr().err
    assert command.main([*chosen, "--restart"]) == 1
    assert "Commit or revert them" in capfd.readouterr().err
    assert len(read_json(RECORD)["runs"]) == 6


def test_a_dry_run_says_what_is_to_do_and_starts_nothing(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(repository)
    monkeypatch.setattr(command, "RECORD", tmp_path / "ablations.json")
    assert command.main(["--dry-run", "--variants", "no_bank", "--seeds", "4"]) == 0
    printed = capsys.readouterr().out
    assert "to do ablate-no_bank-4-" in printed and "learn_bank.use_bank=False" in printed
    assert "generate.seed=4031" in printed and "every run: train_embedder.training.num_steps=" in printed
    assert command.main(["--dry-run", "--jobs", "0"]) == 1


def test_the_fingerprint_follows_code_and_parameters(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a few files, with git and without DVC."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(repository / "profiles/demo.yaml", "params.yaml")
    Path("dvc.yaml").write_text(TOY_DVC)
    Path("toy_stage.py").write_text(TOY_STAGE)
    lock = "stages: {shared: {deps: [{path: raw, md5: %s}]}}"
    Path("dvc.lock").write_text(lock % "a1")
    _git("init", "-q")
    _git("add", "toy_stage.py")
    params = load_params()
    first = fingerprint(params)
    Path("unrelated.py").write_text("x = 1")
    reseeded = params.model_copy(update={"ablate": params.ablate.model_copy(update={"seeds": [5]})})
    assert fingerprint(reseeded) == first
    longer = params.model_copy(update={"ablate": params.ablate.model_copy(update={"overrides": {}})})
    assert fingerprint(longer) != first
    Path("toy_stage.py").write_text(TOY_STAGE + "# edited")
    edited = fingerprint(params)
    Path("dvc.lock").write_text(lock % "b2")
    assert len({first, edited, fingerprint(params)}) == 3


class FakeCopy:
    """Stands in for a working copy: takes no time, and breaks for one variant."""

    results: dict[str, tuple[str, dict[str, float]]] = {}

    def __init__(self, root: Path, folder: Path):
        self.folder = folder

    def prepare(self) -> None:
        pass

    def run(self, run: Any, environment: dict, log_file: Path) -> float:
        if run.variant == "no_bank":
            raise dvc.StageError("`dvc exp run` ended with exit code 1\nmany lines")
        if run.variant == "audio_only":
            raise KeyboardInterrupt
        self.results[run.experiment] = ("commit", {"sync_c": float(run.seed)})
        return 1.0


@pytest.fixture
def faked(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (repository / "profiles/demo.yaml").read_text()
    Path("params.yaml").write_text(text.replace("uri: sqlite", "uri: null"))
    monkeypatch.setattr(FakeCopy, "results", {})
    monkeypatch.setattr(command, "fingerprint", lambda params: "base")
    monkeypatch.setattr(command, "check_clean", lambda root: None)
    monkeypatch.setattr(command, "WorkingCopy", FakeCopy)
    monkeypatch.setattr(command, "results", lambda root, name: FakeCopy.results.get(name))


def test_a_failed_run_does_not_stop_the_others(faked: None, capfd: pytest.CaptureFixture[str]) -> None:
    assert (
        command.main(["--variants", "no_bank", "full", "no_prior", "--seeds", "0", "1", "--jobs", "3"]) == 1
    )
    done = {(row["variant"], row["seed"]) for row in read_json(RECORD)["runs"]}
    assert done == {(name, seed) for name in ("full", "no_prior") for seed in (0, 1)}
    said = capfd.readouterr().err
    assert said.count("FAILED no_bank seed") == 2 and "6/6" in said and "many lines" not in said
    FakeCopy.results.clear()  # what is recorded is not asked for again
    assert command.main(["--variants", "full", "no_prior", "--seeds", "0", "1"]) == 0
    assert "4 of 4 runs are done already" in capfd.readouterr().err


def test_an_interruption_ends_what_runs(faked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []
    monkeypatch.setattr(command.dvc, "end_running", lambda: ended.append(True))
    with pytest.raises(KeyboardInterrupt):
        command.main(["--variants", "audio_only", "--seeds", "0"])
    assert ended


def test_two_calls_at_once_are_refused(faked: None, capfd: pytest.CaptureFixture[str]) -> None:
    from filelock import FileLock

    command.WORK.mkdir(parents=True)
    with FileLock(command.WORK / "lock"):
        assert command.main(["--seeds", "0"]) == 1
    assert "Another ablation is running" in capfd.readouterr().err


def test_uncommitted_changes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _git("init", "-q")
    for name in ("dvc.lock", str(RECORD)):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("1")
    _git("add", "-A")
    _git("-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "t")
    RECORD.write_text("2")
    copies.check_clean(tmp_path)
    Path("dvc.lock").write_text("2")
    with pytest.raises(DicetalkError, match=r"1 files differ from it \(dvc.lock\)"):
        copies.check_clean(tmp_path)
